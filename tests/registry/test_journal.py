"""Traces are durable before anybody goes on. Against a real PostgreSQL, also one that stops answering."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from consent.journal import QUEUE_MAX, Journal
from consent.model import Event, EventKind, EventOutcome, Requester, Unavailable
from registry.database import Connection, Database
from registry.model import Site

EVENT = Event(
    kind=EventKind.TRANSFER_BEGUN,
    requester=Requester(id="10001234567", name="MARTIN^CLAIRE", home=Site(emetteur="csa", number=1, name="A")),
    at=datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
    outcome=EventOutcome.FAILURE,
    request_id="r-1",
    scope="folder:mirc-historique",
    query="PatientName=DUPONT-LÉVY*",
    study_uid="1.2.3",
    patient_id="4547@csrom41200",
    origin="csrom41200",
    holders=("csrom41200", "cstrs37000"),
    detail={"bytes": 12, "ratio": 0.5, "why": "gone"},
)


async def count(database: Database) -> int:
    return int(await database.fetchval("SELECT count(*) FROM trace"))


async def test_an_event_is_in_the_table_when_write_returns(database: Database) -> None:
    async with Journal(database) as journal:
        await journal.write(EVENT)
        row = await database.fetchrow("SELECT * FROM trace")
    assert row is not None
    assert dict(row) == {
        "writer": row["writer"],
        "sequence": 1,
        "recorded_at": row["recorded_at"],
        "previous": bytes(32),
        "hash": row["hash"],
        "at": EVENT.at,
        "kind": "transfer-begun",
        "outcome": "failure",
        "requester_id": "10001234567",
        "requester_name": "MARTIN^CLAIRE",
        "request_id": "r-1",
        "scope": "folder:mirc-historique",
        "query": "PatientName=DUPONT-LÉVY*",
        "study_uid": "1.2.3",
        "patient_id": "4547@csrom41200",
        "origin": "csrom41200",
        "holders": ["csrom41200", "cstrs37000"],
        "detail": {"bytes": 12, "ratio": 0.5, "why": "gone"},
    }


async def test_no_holder_is_an_empty_list(database: Database) -> None:
    async with Journal(database) as journal:
        await journal.write(replace(EVENT, holders=(), detail={}))
    assert await database.fetchval("SELECT holders FROM trace") == []


async def test_what_waits_is_committed_together_in_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[int] = []
    execute = Connection.execute

    async def counted(self: Connection, sql: str, *values: object, timeout: float | None = None) -> str:
        commands.append(len(values[0]) if values and isinstance(values[0], list) else 0)
        return await execute(self, sql, *values, timeout=timeout)

    monkeypatch.setattr(Connection, "execute", counted)
    events = [replace(EVENT, request_id=str(number)) for number in range(1000)]
    async with Journal(database) as journal:
        await asyncio.gather(*(journal.write(event) for event in events))
    assert sum(commands) == 1000
    assert len(commands) < 20
    rows = await database.fetch("SELECT request_id FROM trace ORDER BY sequence")
    assert [row["request_id"] for row in rows] == [event.request_id for event in events]


async def test_more_than_the_queue_holds_is_written_all_the_same(database: Database) -> None:
    async with Journal(database) as journal:
        await asyncio.gather(*(journal.write(EVENT) for _ in range(QUEUE_MAX + 500)))
    assert await count(database) == QUEUE_MAX + 500


async def test_text_that_postgresql_cannot_hold_does_not_lose_the_trace(database: Database) -> None:
    async with Journal(database) as journal:
        await journal.write(replace(EVENT, query="a\0b\ud800", detail={"k\0": "v\0\udfff"}))
    assert await database.fetchval("SELECT query FROM trace") == "a\ufffdb?"


async def test_an_event_that_is_refused_takes_no_other_with_it(database: Database) -> None:
    await database.execute("ALTER TABLE trace ADD CHECK (scope <> 'bad')")
    events = [replace(EVENT, scope="bad" if number == 2 else "all") for number in range(5)]
    async with Journal(database) as journal:
        results = await asyncio.gather(*(journal.write(event) for event in events), return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 2 + [Unavailable] + [type(None)] * 2
        await journal.write(EVENT)
    assert await count(database) == 5


async def test_a_cancelled_caller_disturbs_nobody(database: Database) -> None:
    async with Journal(database) as journal:
        tasks = [asyncio.create_task(journal.write(EVENT)) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await journal.write(EVENT)
    assert all(result is None for result in results[1::2])
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert await count(database) >= 26


async def test_closing_writes_what_waits(database: Database) -> None:
    journal = Journal(database)
    await journal.start()
    tasks = [asyncio.create_task(journal.write(EVENT)) for _ in range(300)]
    await asyncio.sleep(0)
    await journal.aclose()
    await asyncio.gather(*tasks)
    assert await count(database) == 300
    with pytest.raises(Unavailable, match="closed"):
        await journal.write(EVENT)
    await journal.aclose()


async def test_a_lost_connection_is_replaced_within_the_callers_patience(database: Database) -> None:
    async with Journal(database) as journal:
        await journal.write(EVENT)
        await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await journal.write(EVENT)
    assert await count(database) == 2


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_database_that_takes_nothing_is_unavailable_and_used_again_later(
    own_server: tuple[str, Path], server_processes: Callable[[Path], list[psutil.Process]], number: signal.Signals
) -> None:
    url, state = own_server
    async with Database(url) as database, Journal(database, patience_s=1.0) as journal:
        await journal.write(EVENT)
        victims = server_processes(state)
        if number is signal.SIGKILL:
            (supervisor,) = victims[0].parents()[:1]
            supervisor.suspend()  # or it would start the server again at once
        for process in victims:
            process.send_signal(number)
        try:
            begin = time.monotonic()
            results = await asyncio.gather(*(journal.write(EVENT) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(result, Unavailable) for result in results)
            assert time.monotonic() - begin < 3
        finally:
            if number is signal.SIGKILL:
                supervisor.resume()
            else:
                for process in reversed(victims):
                    process.send_signal(signal.SIGCONT)
        limit = time.monotonic() + 15
        while True:
            try:
                await journal.write(EVENT)
                break
            except Unavailable:
                assert time.monotonic() < limit
        assert await count(database) >= 2


async def test_closing_does_not_wait_for_a_dead_database(
    own_server: tuple[str, Path], server_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    url, state = own_server
    async with Database(url) as database:
        journal = Journal(database, patience_s=0.5)
        await journal.start()
        await journal.write(EVENT)
        stopped = server_processes(state)
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            task = asyncio.create_task(journal.write(EVENT))
            await asyncio.sleep(0.05)
            begin = time.monotonic()
            await journal.aclose()
            assert time.monotonic() - begin < 2
            with pytest.raises(Unavailable):
                await task
        finally:
            for process in reversed(stopped):
                process.send_signal(signal.SIGCONT)
