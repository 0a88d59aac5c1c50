"""The registry, its epoch, traces and what processes share."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    run(__file__)
