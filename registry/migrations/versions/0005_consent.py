"""Oppositions, near matches, exams withheld, emergency accesses; epochs of their own."""

from __future__ import annotations

from registry.migrations.sql import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run(__file__)
