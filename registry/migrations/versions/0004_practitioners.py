"""Practitioners, their signatures of the charter, and the portal's sessions."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run(__file__)
