"""Accession number and INS of copies."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run(__file__)
