"""What checks found of each member's PACS."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run(__file__)
