"""Traces in months: made ahead, dropped by retention, closed to the application's role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from consent import trace_queries as queries
from consent.chain import Fault
from consent.heads import HeadFile, Keys, read_heads
from consent.journal import Journal
from consent.keeper import Keeper
from consent.model import Event, EventKind, Requester
from consent.traces import verify
from registry.database import Database, DatabaseError

ROLES = Path(__file__).parents[2] / "conf" / "postgresql-roles.sql"
MONTHS = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'trace'::regclass ORDER BY relname
"""
NOW = datetime.now(UTC)
OLD = [datetime(NOW.year - 3, month, 28, tzinfo=UTC) for month in (3, 4, 5)]


def event(number: int) -> Event:
    return Event(kind=EventKind.QUERY, requester=Requester(id="r"), at=NOW, request_id=f"r-{number}")


async def months(database: Database) -> list[str]:
    return [row["relname"] for row in await database.fetch(MONTHS)]


class Clock:
    def __init__(self) -> None:
        self.now = OLD[0]

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def kept(database: Database, keys: Keys, head_file: HeadFile) -> Keeper:
    """One chain of rows in three months of three years ago and in this one, three rows each."""
    clock = Clock()
    journal = Journal(database, clock=clock)
    keeper = Keeper(database, journal, keys, head_file, retention_months=12)
    async with journal:
        for moment in (*OLD, NOW):
            for number in range(3):
                clock.now = moment
                await journal.write(event(number))
    await keeper.seal()
    return keeper


async def test_months_are_made_ahead_and_on_demand(database: Database, kept: Keeper) -> None:
    names = await months(database)
    assert [f"trace_{moment:%Y_%m}" for moment in OLD] == names[:3]
    assert len(names) == 6  # and this one with the next two
    assert f"trace_{NOW:%Y_%m}" in names
    assert await database.fetchval("SELECT count(*) FROM trace") == 12
    for moment in (OLD[0], NOW):
        assert not await database.fetchval(queries.MAKE_MONTH, moment)
    await database.execute(queries.MAKE_MONTHS_AHEAD, 4)
    assert len(await months(database)) == 8
    first = datetime(NOW.year - 2, 1, 1, tzinfo=UTC)
    for moment in (first, first - timedelta(microseconds=1)):
        assert await database.fetchval(queries.MAKE_MONTH, moment)
    assert {f"trace_{NOW.year - 2}_01", f"trace_{NOW.year - 3}_12"} <= set(await months(database))


async def test_retention_drops_whole_months_and_leaves_signed_heads(
    database: Database, keys: Keys, head_file: HeadFile, kept: Keeper
) -> None:
    assert await kept.drop_old_months() == 3
    assert await kept.drop_old_months() == 0
    assert len(await months(database)) == 3
    result = await verify(database, keys, read_heads(head_file.path).heads)
    assert (result.rows, result.unsealed, result.findings) == (3, 0, [])
    heads = await database.fetch("SELECT sequence FROM trace_head WHERE kind = 'dropped' ORDER BY sequence")
    assert [row["sequence"] for row in heads] == [3, 6, 9]


async def test_a_month_dropped_by_hand_shows(database: Database, keys: Keys, head_file: HeadFile, kept: Keeper) -> None:
    name = f"trace_{OLD[1]:%Y_%m}"
    await database.execute(f"DROP TABLE {name}")
    result = await verify(database, keys, read_heads(head_file.path).heads)
    assert [(f.fault, f.first, f.last) for f in result.findings] == [(Fault.REMOVED, 4, 6)]


async def test_no_month_is_dropped_without_its_heads_or_while_it_is_young(database: Database, kept: Keeper) -> None:
    with pytest.raises(DatabaseError, match="no signed head"):
        await database.fetchval(queries.DROP_MONTH, OLD[0])
    with pytest.raises(DatabaseError, match="too young"):
        await database.fetchval(queries.DROP_MONTH, NOW - timedelta(days=20))
    assert len(await months(database)) == 6


async def test_what_cannot_be_kept_outside_is_not_dropped(
    database: Database, head_file: HeadFile, kept: Keeper
) -> None:
    head_file.path.rename(head_file.path.with_name("moved"))
    head_file.path.mkdir()
    assert await kept.drop_old_months() == 0
    assert len(await months(database)) == 6
    head_file.path.rmdir()
    assert await kept.drop_old_months() == 3


async def test_each_month_can_only_be_added_to(database: Database, kept: Keeper) -> None:
    name = f"trace_{OLD[0]:%Y_%m}"
    for table in ("trace", name, "trace_head"):
        for command in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"UPDATE {table} SET writer = ''"):
            with pytest.raises(DatabaseError, match="append-only"):
                await database.execute(command)


async def test_a_reader_who_takes_long_holds_up_no_new_month(database: Database, kept: Keeper) -> None:
    async with database.transaction("repeatable_read") as reader:
        await reader.fetchval("SELECT count(*) FROM trace")
        assert await database.fetchval(queries.MAKE_MONTH, NOW + timedelta(days=400))
        async with Journal(database) as journal:
            await journal.write(event(1))


@pytest.fixture
async def application(database: Database, trace_url: str) -> AsyncIterator[Database]:
    """The database as the application's role of conf/postgresql-roles.sql sees it."""
    admin = await asyncpg.connect(trace_url)
    try:
        for role in ("imagora_owner", "imagora_app"):
            if not await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        await admin.execute("GRANT USAGE, CREATE ON SCHEMA public TO imagora_owner")
        for row in await admin.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') UNION ALL SELECT 'x' WHERE false"
        ):
            await admin.execute(f"ALTER TABLE {row['name']} OWNER TO imagora_owner")
        for function in ("make_trace_month", "drop_trace_month", "refuse_change"):
            await admin.execute(f"ALTER FUNCTION {function} OWNER TO imagora_owner")
        # The embedded server's superuser is called imagora, like the application in the file.
        script = (
            ROLES.read_text(encoding="utf-8").replace("imagora;", "imagora_app;").replace("imagora'", "imagora_app'")
        )
        for _ in range(2):
            await admin.execute(script)
    finally:
        await admin.close()
    head, _, host = trace_url.partition("@")
    assert head.startswith("postgresql://")
    async with Database(f"postgresql://imagora_app:secret@{host}") as opened:
        yield opened


async def test_the_application_s_role_writes_traces_and_cannot_change_them(
    application: Database, database: Database, keys: Keys, head_file: HeadFile, kept: Keeper
) -> None:
    journal = Journal(application, clock=lambda: NOW + timedelta(days=200))  # a month that is not there yet
    keeper = Keeper(application, journal, keys, head_file, retention_months=12)
    async with keeper, journal:
        await journal.write(replace(event(1), detail={"x": 1}))
        await application.execute(queries.MAKE_MONTHS_AHEAD, 3)
    await keeper.drop_old_months()  # what it has not dropped already
    assert len([name for name in await months(database) if name < f"trace_{NOW:%Y}"]) == 0
    month = f"trace_{NOW:%Y_%m}"
    for table in ("trace", month, "trace_head"):
        for command in (
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"UPDATE {table} SET writer = ''",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"DROP TABLE {table}",
        ):
            with pytest.raises(DatabaseError, match=r"permission denied|must be owner"):
                await application.execute(command)
    with pytest.raises(DatabaseError, match="permission denied"):
        await application.execute(f"INSERT INTO {month} SELECT * FROM trace")
    result = await verify(application, keys, read_heads(head_file.path).heads)
    assert (result.rows, result.findings) == (4, [])
