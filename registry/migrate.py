"""Brings a database to the tables this program expects. Forward only; safe for any number of processes at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from registry.errors import DatabaseError, in_words, translated

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

FOLDER = Path(__file__).parent / "migrations"

#: Key of the advisory lock that lets one process migrate at a time: "imagora" in ASCII.
_LOCK = int.from_bytes(b"imagora")

#: version — number of the newest migration that was run, or null. An error (42P01) if none ever was.
VERSION = "SELECT max(version_num) FROM alembic_version"


@cache
def newest() -> str:
    """Number of the newest migration that this program has."""
    return max(file.name.partition("_")[0] for file in FOLDER.joinpath("versions").glob("[0-9]*.sql"))


def is_current(version: str | None) -> bool:
    """True if the database is as new as the program, or newer: then a newer program has migrated it already, while
    this one is still being replaced. Numbers have a fixed width, so they sort as text.
    """
    return version is not None and version >= newest()


async def pending(url: str) -> bool:
    """True if `migrate` has something to do."""
    with translated():
        return await _pending(url)


async def _pending(url: str) -> bool:
    connection = await _connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return True
        return not is_current(await connection.fetchval(VERSION))
    finally:
        await _close(connection)


async def migrate(url: str) -> bool:
    """Run what is pending, in one transaction. True if there was something to run."""
    with translated():
        if not await _pending(url):
            return False
        # Loading these takes half a second, which most starts can do without.
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # noqa: PLC0415
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
        from sqlalchemy.pool import NullPool  # noqa: PLC0415

        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=lambda: _connect(url, command_timeout_s=None), poolclass=NullPool
        )
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except SQLAlchemyError as error:
            cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else None
            what = in_words(cause) if isinstance(cause, asyncpg.PostgresError) else type(error).__name__
            raise DatabaseError(f"the migration failed: {what}") from None
        finally:
            await engine.dispose()
        return True


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import text  # noqa: PLC0415

    # Held until the transaction ends. Who waited here finds nothing left to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _connect(url: str, command_timeout_s: float | None = 10.0) -> Any:
    return await asyncpg.connect(
        url, timeout=10.0, command_timeout=command_timeout_s, server_settings={"application_name": "imagora migrate"}
    )


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=2.0)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        connection.terminate()
