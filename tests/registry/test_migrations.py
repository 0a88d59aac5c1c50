from __future__ import annotations

import asyncio
import re
import sys

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from registry import migrate
from registry.database import Database
from registry.errors import DatabaseError, DatabaseUnavailable

TABLES = {
    "alembic_version",
    "charter_signature",
    "emergency",
    "epoch",
    "exam_hold",
    "folder",
    "hold_default",
    "long_patient_id",
    "near_match",
    "opposition",
    "opposition_study",
    "practitioner",
    "secret",
    "session",
    "site",
    "site_health",
    "site_profile",
    "study_copy",
    "trace",
    "trace_head",
}


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {r[0] for r in names if not re.fullmatch(r"trace_\d{4}_\d{2}", r[0])}  # without the months of a table
    finally:
        await connection.close()


async def test_a_fresh_database_gets_all_tables(empty_url: str) -> None:
    assert await migrate.pending(empty_url)
    assert await migrate.migrate(empty_url)
    assert await tables(empty_url) == TABLES
    assert not await migrate.pending(empty_url)


async def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    await migrate.migrate(empty_url)
    assert not await migrate.migrate(empty_url)
    assert await tables(empty_url) == TABLES


async def test_processes_may_migrate_at_once(empty_url: str) -> None:
    program = "import asyncio, sys; from registry import migrate; asyncio.run(migrate.migrate(sys.argv[1]))"
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_url) for _ in range(3)]
    results = await asyncio.gather(
        *(process.wait() for process in processes), *(migrate.migrate(empty_url) for _ in range(2))
    )
    assert results[:3] == [0, 0, 0]
    assert await tables(empty_url) == TABLES


async def test_a_failed_migration_leaves_nothing_behind(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    await connection.execute("CREATE TABLE trace (x integer)")  # in the way, after other tables were made
    await connection.close()
    with pytest.raises(DatabaseError, match="trace"):
        await migrate.migrate(empty_url)
    assert await tables(empty_url) == {"trace"}


def test_the_numbers_of_files_are_those_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [migrate.newest()]
    assert all(len(script.revision) == 4 for script in scripts.walk_revisions())


async def test_a_database_that_a_newer_program_migrated_is_ready(fresh_url: str) -> None:
    async with Database(fresh_url) as database:
        assert await database.ready()
        await database.execute("UPDATE alembic_version SET version_num = '9999'")
        assert await database.ready()
        await database.execute("UPDATE alembic_version SET version_num = '0000'")
        assert not await database.ready()


async def test_a_database_without_tables_is_not_ready(empty_url: str) -> None:
    async with Database(empty_url) as database:
        assert not await database.ready()


async def test_an_unreachable_database_is_told() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        await migrate.migrate("postgresql://x@127.0.0.1:1/x")


async def test_traces_can_only_be_added(database: Database) -> None:
    for command in ("UPDATE trace SET kind = ''", "DELETE FROM trace", "TRUNCATE trace"):
        with pytest.raises(DatabaseError, match="append-only"):
            await database.execute(command)
