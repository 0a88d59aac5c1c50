"""Run by alembic. The connection comes from `registry.migrate`, within a transaction that it also ends."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
