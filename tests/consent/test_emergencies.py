"""Emergency accesses in a real PostgreSQL: what is kept of them, and that each one's end is traced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from support.commands import SITES
from support.tracing import traced

from consent.access import utc_now
from consent.emergencies import RUNNING_MAX, Emergency, EmergencyEnds, EmergencyStore, TooManyRunning
from consent.journal import Journal
from consent.model import Event, Requester, Unavailable
from registry.database import Database, DatabaseError, DatabaseUnavailable
from registry.store import LongPatientID, RegistryStore

DOCTOR = Requester(id="10001234567", name="MARTIN^CLAIRE", credential="token-1")
RUNNING = Emergency(
    id="e-0",
    requester=DOCTOR,
    ipp="4547",
    emetteur="csrom41200",
    reason="unconscious, no relatives",
    expires_at=utc_now() + timedelta(hours=2),
)


def shown(ipp: str, emetteur: str) -> str:
    return f"{ipp}@{emetteur}"


@pytest.fixture
async def store(database: Database) -> EmergencyStore:
    await RegistryStore(database).seed(SITES)
    return EmergencyStore(database)


async def add_expired(store: EmergencyStore, number: int) -> list[str]:
    past = utc_now() - timedelta(seconds=1)
    ids = [f"over-{n:03}" for n in range(number)]
    for id_ in ids:
        await store.add(replace(RUNNING, id=id_, expires_at=past), traced=traced)
    return ids


async def stopped(database: Database) -> list[str]:
    """Ids of the emergencies whose end was traced, in the order of the traces."""
    rows = await database.fetch(
        "SELECT detail ->> 'emergency' AS id FROM trace WHERE kind = 'emergency-stopped' "
        "ORDER BY recorded_at, writer, sequence"
    )
    return [row["id"] for row in rows]


async def unmarked(database: Database) -> int:
    return int(await database.fetchval("SELECT count(*) FROM emergency WHERE stopped_at IS NULL"))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_what_was_declared_is_kept_and_raises_the_epoch_of_consent(
    store: EmergencyStore, database: Database
) -> None:
    before = await database.fetchval("SELECT value FROM epoch")
    await store.add(RUNNING, traced=traced)
    row = await database.fetchrow("SELECT * FROM emergency")
    assert row is not None
    assert {name: row[name] for name in ("id", "requester_id", "requester_name", "ipp", "emetteur", "reason")} == {
        "id": "e-0",
        "requester_id": DOCTOR.id,
        "requester_name": DOCTOR.name,
        "ipp": "4547",
        "emetteur": "csrom41200",
        "reason": "unconscious, no relatives",
    }
    assert (row["expires_at"], row["stopped_at"]) == (RUNNING.expires_at, None)
    assert row["changed"] == await database.fetchval("SELECT consent FROM epoch") == before + 1
    with pytest.raises(DatabaseError, match="append-only"):
        await database.execute("DELETE FROM emergency")


async def test_so_many_of_one_requester_run_at_once(store: EmergencyStore, database: Database) -> None:
    await add_expired(store, 3)  # these don't count
    first_end = RUNNING.expires_at - timedelta(hours=1)
    declared = [
        replace(RUNNING, id=f"e-{n}", expires_at=first_end + timedelta(minutes=n)) for n in range(RUNNING_MAX + 5)
    ]
    results = await asyncio.gather(*(store.add(e, traced=traced) for e in declared), return_exceptions=True)
    refused = [r for r in results if r is not None]
    assert len(refused) == 5
    ends = [row["expires_at"] for row in await database.fetch("SELECT * FROM emergency WHERE expires_at > now()")]
    assert len(ends) == RUNNING_MAX
    for error in refused:
        assert isinstance(error, TooManyRunning)
        assert error.first_end in ends
    with pytest.raises(TooManyRunning) as told:
        await store.add(RUNNING, traced=traced)
    assert told.value.first_end == min(ends)
    # Another one may.
    await store.add(replace(RUNNING, id="e-other", requester=replace(DOCTOR, id="10001234568")), traced=traced)


async def test_without_a_trace_there_is_none(store: EmergencyStore, database: Database) -> None:
    async def lost() -> None:
        assert await database.fetchval("SELECT count(*) FROM emergency") == 0
        raise Unavailable("no database")

    with pytest.raises(Unavailable):
        await store.add(RUNNING, traced=lost)
    assert await database.fetchval("SELECT count(*) FROM emergency") == 0


async def test_a_hashed_patient_id_is_read(store: EmergencyStore, database: Database) -> None:
    long = LongPatientID(hashed="~0f@csrom41200", ipp="4" * 70, emetteur="csrom41200")
    await RegistryStore(database).remember_long_patient_id(long)
    assert await store.long_id("~0f@csrom41200") == ("4" * 70, "csrom41200")
    assert await store.long_id("~0e@csrom41200") is None


async def test_a_database_that_hangs_is_given_up(database: Database, trace_url: str) -> None:
    store = EmergencyStore(database, answer_s=0.2)
    lock = await asyncpg.connect(trace_url)
    try:
        async with lock.transaction():
            await lock.execute("LOCK TABLE emergency, long_patient_id IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(DatabaseUnavailable):
                await asyncio.wait_for(store.add(RUNNING, traced=traced), 5)
            with pytest.raises(DatabaseUnavailable):
                await asyncio.wait_for(store.long_id("~0f@csrom41200"), 5)
    finally:
        await lock.close()


async def test_ends_are_traced_and_marked_and_what_runs_goes_on(store: EmergencyStore, database: Database) -> None:
    await store.add(RUNNING, traced=traced)
    ids = await add_expired(store, 3)
    async with Journal(database) as journal:
        ends = EmergencyEnds(database, journal.write, shown)
        assert await ends.end_expired() == 3
        assert await ends.end_expired() == 0
    rows = await database.fetch("SELECT requester_id, requester_name, patient_id, origin, detail FROM trace")
    assert {tuple(row[n] for n in ("requester_id", "requester_name", "patient_id", "origin")) for row in rows} == {
        (DOCTOR.id, DOCTOR.name, "4547@csrom41200", "csrom41200")
    }
    assert [row["detail"] for row in rows] == [{"emergency": id_} for id_ in ids]
    assert await unmarked(database) == 1


async def test_two_processes_trace_each_end_once(store: EmergencyStore, trace_url: str, database: Database) -> None:
    ids = await add_expired(store, 230)  # more than one takes at a time
    async with (
        Database(trace_url) as one,
        Database(trace_url) as two,
        Journal(one) as first,
        Journal(two) as second,
        EmergencyEnds(one, first.write, shown, every_s=0.01),
        EmergencyEnds(two, second.write, shown, every_s=0.01),
    ):

        async def all_marked() -> bool:
            return not await unmarked(database)

        await until(all_marked)
        writers = await database.fetchval("SELECT count(DISTINCT writer) FROM trace")
    assert sorted(await stopped(database)) == ids
    assert writers == 2


async def test_what_expired_while_nothing_ran_is_ended_at_the_start(store: EmergencyStore, database: Database) -> None:
    ids = await add_expired(store, 2)
    async with Journal(database) as journal, EmergencyEnds(database, journal.write, shown, every_s=3600):

        async def all_marked() -> bool:
            return not await unmarked(database)

        await until(all_marked)
    assert await stopped(database) == ids


async def test_without_a_trace_there_is_no_mark_and_a_later_round_makes_up_for_it(
    store: EmergencyStore, database: Database
) -> None:
    await add_expired(store, 5)
    allowed = 2
    async with Journal(database) as journal:

        async def write(event: Event) -> None:
            nonlocal allowed
            if not allowed:
                raise Unavailable("no trace can be made")
            allowed -= 1
            await journal.write(event)

        ends = EmergencyEnds(database, write, shown)
        with pytest.raises(Unavailable):
            await ends.end_expired()
        assert (len(await stopped(database)), await unmarked(database)) == (2, 3)
        allowed = 99
        assert await ends.end_expired() == 3
    assert len(set(await stopped(database))) == 5


async def test_a_process_that_dies_between_trace_and_mark_leaves_two_never_none(
    store: EmergencyStore, trace_url: str, database: Database
) -> None:
    await add_expired(store, 1)
    traced = asyncio.Event()
    async with Database(trace_url) as dying, Journal(database) as journal:

        async def write_and_hang(event: Event) -> None:
            await journal.write(event)
            traced.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(EmergencyEnds(dying, write_and_hang, shown).end_expired())
        await traced.wait()
        alive = EmergencyEnds(database, journal.write, shown)
        assert await alive.end_expired() == 0  # the other one is about to
        task.cancel()
        await asyncio.wait({task})
        assert await alive.end_expired() == 1
    assert await stopped(database) == ["over-000"] * 2


async def test_a_loss_of_the_database_is_told_once_and_outlived(
    store: EmergencyStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await add_expired(store, 1)
    await database.execute("ALTER TABLE emergency RENAME TO elsewhere")
    async with Journal(database) as journal, EmergencyEnds(database, journal.write, shown, every_s=0.01):
        await until(lambda: _has_logged(caplog))
        await asyncio.sleep(0.1)
        await database.execute("ALTER TABLE elsewhere RENAME TO emergency")

        async def all_marked() -> bool:
            return not await unmarked(database)

        await until(all_marked)
    said = [r.getMessage() for r in caplog.records if r.name == "consent.emergencies" and r.levelno >= logging.WARNING]
    assert [text.partition(":")[0] for text in said] == [
        "ends of emergency accesses cannot be traced",
        "ends of emergency accesses can be traced again",
    ]


async def _has_logged(caplog: pytest.LogCaptureFixture) -> bool:
    return any(record.name == "consent.emergencies" for record in caplog.records)


async def test_closing_lets_an_end_that_is_being_traced_be_marked(store: EmergencyStore, database: Database) -> None:
    await add_expired(store, 3)
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with Journal(database) as journal:

        async def slowly(event: Event) -> None:
            begun.set()
            await go_on.wait()
            await journal.write(event)

        ends = EmergencyEnds(database, slowly, shown)
        await ends.__aenter__()
        await begun.wait()
        closing = asyncio.create_task(ends.__aexit__())
        await asyncio.sleep(0.02)
        go_on.set()
        await closing
    assert await stopped(database) == ["over-000"]
    assert await unmarked(database) == 2
