"""Runs the SQL file that stands beside a migration."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run(migration: str) -> None:
    """Run the `.sql` file of the same name as the migration module. It may hold any number of statements."""
    sql = Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    # Past SQLAlchemy's prepared statements, which take one statement each; inside the same transaction.
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None
    adapted.run_async(lambda connection: connection.execute(sql))
