"""How each serving process finds each member."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run(__file__)
