from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from registry.database import Database
from registry.errors import DatabaseError, DatabaseUnavailable


async def test_json_values_are_objects_both_ways(database_url: str) -> None:
    async with Database(database_url) as database:
        value = {"a": [1, 2.5, None, True], "é": "ü"}
        assert await database.fetchval("SELECT $1::jsonb", value) == value


async def test_a_failed_transaction_leaves_nothing_behind(database: Database) -> None:
    async def interrupted() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO folder (name) VALUES ('x')")
            raise KeyError

    with pytest.raises(KeyError):
        await interrupted()
    assert await database.fetch("SELECT * FROM folder") == []


async def test_a_command_that_takes_too_long_ends_its_transaction(database: Database) -> None:
    async def slow() -> None:
        async with database.transaction() as outer, outer.transaction():
            await outer.execute("INSERT INTO folder (name) VALUES ('x')")
            await outer.execute("SELECT pg_sleep(30)", timeout=0.05)

    with pytest.raises(DatabaseUnavailable, match="does not answer in time"):
        await slow()
    assert await database.fetch("SELECT * FROM folder") == []


async def test_an_error_never_repeats_a_value(database: Database) -> None:
    await database.execute("INSERT INTO long_patient_id VALUES ('SECRET1', 'x', 'y')")
    with pytest.raises(DatabaseError) as duplicate:
        await database.execute("INSERT INTO long_patient_id VALUES ($1, 'x', 'y')", "SECRET1")
    assert "long_patient_id_pkey" in str(duplicate.value)
    with pytest.raises(DatabaseError) as malformed:
        await database.execute("SELECT $1::text::integer", "SECRET2")
    with pytest.raises(DatabaseError) as mistyped:
        await database.execute("SELECT $1::integer", "SECRET3")
    for caught in (duplicate, malformed, mistyped):
        assert "SECRET" not in str(caught.value)
        assert caught.value.__suppress_context__
        assert not isinstance(caught.value, DatabaseUnavailable)


async def test_a_wrong_password_is_told_without_it(server_url: str) -> None:
    user, _, rest = server_url.partition("://")[2].partition(":")
    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught:
        await Database(f"postgresql://{user}:WRONG@{rest.partition('@')[2]}").open()
    assert "WRONG" not in str(caught.value)


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    await database.aclose()
    await database.aclose()
    with pytest.raises(DatabaseUnavailable):
        await database.fetch("SELECT 1")
    assert not await database.ready()


async def test_a_cancelled_command_leaves_the_pool_usable(database_url: str) -> None:
    async with Database(database_url, connections_max=1) as database:
        task = asyncio.create_task(database.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        assert await database.fetchval("SELECT 1") == 1


async def test_a_stopped_server_is_noticed_and_used_again_when_it_goes_on(
    own_server: tuple[str, Path], server_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    url, state = own_server
    async with Database(url) as database:
        assert await database.ready()
        stopped = server_processes(state)
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            begin = time.monotonic()
            assert not await database.ready()
            assert time.monotonic() - begin < 3
        finally:
            for process in reversed(stopped):
                process.send_signal(signal.SIGCONT)
        assert await database.ready()
