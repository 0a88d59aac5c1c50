"""Traces chained, in a table of months; their signed heads."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run(__file__)
