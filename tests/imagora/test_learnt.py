"""What one process learns of copies and long ids is soon in the memory of all, whatever becomes of connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import asyncpg
import pytest
from support.values import BLOIS, DIRECTORY, ROMORANTIN, record

from federation.copies import Copies
from federation.identity import group
from federation.long_ids import LongPatientIDs
from imagora.learnt import Learnt
from registry.database import Database
from registry.errors import DatabaseError
from registry.store import RegistryStore

MARIE = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
INS = ("255084958815780",)
AT_HOME = replace(record("4547", ROMORANTIN, **MARIE), accession="X1", ins=INS)
AT_BLOIS = record("B99", BLOIS, **MARIE)
HASHED, WHOLE = f"~{'0' * 32}@csrom41200", ("L" * 60, "csrom41200")


@dataclass(frozen=True, slots=True)
class Process:
    learnt: Learnt
    copies: Copies
    long_ids: LongPatientIDs

    def sees(self, study_uid: str) -> None:
        (identity,) = group([AT_HOME, AT_BLOIS], DIRECTORY)
        self.copies.learn(study_uid, identity, {"csrom41200": frozenset({"1.1", "1.2"})})

    def knows(self, study_uid: str) -> bool:
        absent = self.copies.absent(study_uid, [AT_BLOIS], {"csblo41000"}, DIRECTORY)
        return [(r.id, r.accession, r.ins) for r in absent] == [(("4547", "csrom41200"), "X1", INS)]


Begin = Callable[[str], Awaitable[Process]]


@pytest.fixture
async def url(postgres: Callable[[], str]) -> str:
    return await asyncio.to_thread(postgres)


@pytest.fixture
async def begin(url: str) -> AsyncIterator[Begin]:
    """`await begin("a")`: what a serving process has, its connections under this name."""
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Process:
            database = await stack.enter_async_context(Database(url, application=name))
            copies, long_ids = Copies(), LongPatientIDs()
            learnt = Learnt(RegistryStore(database), copies, long_ids, lambda: DIRECTORY)
            await stack.enter_async_context(learnt)
            return Process(learnt, copies, long_ids)

        yield start


async def execute(url: str, command: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


async def comes(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not look():
            await asyncio.sleep(0.02)


async def test_what_is_told_is_known_to_the_others_and_to_later_ones(begin: Begin) -> None:
    one, two = await begin("one"), await begin("two")
    assert not two.knows("1.2.3")
    one.sees("1.2.3")
    one.long_ids.note(HASHED, WHOLE)
    assert one.learnt.untold
    await one.copies.told()
    assert not one.learnt.untold
    await comes(lambda: two.knows("1.2.3") and two.long_ids.get(HASHED) == WHOLE)
    assert two.copies.series_at("1.2.3", "csrom41200") == {"1.1", "1.2"}
    assert not two.learnt.untold  # what is heard is not told again
    two.sees("1.2.3")
    assert not two.learnt.untold
    late = await begin("late")
    assert late.knows("1.2.3")
    assert late.long_ids.get(HASHED) == WHOLE


async def test_lost_connections_lose_nothing(begin: Begin, url: str, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await begin("one"), await begin("two")
    await execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'two'")
    one.sees("1.2.3")
    await one.learnt.tell()
    await comes(lambda: two.knows("1.2.3"))
    assert "what others learn of copies is not heard" in caplog.text
    two.sees("1.2.4")
    await two.learnt.tell()
    await comes(lambda: one.knows("1.2.4"))


async def test_what_cannot_be_kept_is_kept_later_and_holds_nobody_up(
    begin: Begin, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await begin("one"), await begin("two")
    await execute(url, "ALTER TABLE study_copy RENAME TO away")
    one.sees("1.2.3")
    one.long_ids.note(HASHED, WHOLE)
    await comes(lambda: not one.learnt.untold)  # answers go out
    assert "what was learnt of copies could not be kept" in caplog.text
    assert not two.knows("1.2.3")
    await execute(url, "ALTER TABLE away RENAME TO study_copy")
    await comes(lambda: two.knows("1.2.3") and two.long_ids.get(HASHED) == WHOLE)


async def test_hashed_id_in_a_request_is_looked_up(begin: Begin, url: str) -> None:
    one = await begin("one")
    # Kept by another process, word of which has not come.
    await execute(url, f"INSERT INTO long_patient_id VALUES ('{HASHED}', '{WHOLE[0]}', '{WHOLE[1]}')")
    await one.learnt.look_up("PatientID=4547&PatientName=A~")
    assert one.long_ids.get(HASHED) is None
    await one.learnt.look_up(f"PatientID={HASHED.upper()}&limit=5".replace("CSROM", "csROM"))
    assert one.long_ids.get(HASHED) == WHOLE


async def test_who_cannot_read_does_not_start(begin: Begin, url: str) -> None:
    await execute(url, "ALTER TABLE study_copy RENAME TO away")
    with pytest.raises(DatabaseError):
        await begin("one")
