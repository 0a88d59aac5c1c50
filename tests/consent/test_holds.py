"""What a site said of its exams, in a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from support.commands import SITES

from consent.holds import HoldState, HoldStore
from consent.model import Unavailable
from registry import Role
from registry.database import Database, DatabaseError
from registry.practitioners import PractitionerStore
from registry.store import RegistryStore

WITHHELD, RELEASED = HoldState.WITHHELD, HoldState.RELEASED
RPPS = "10001234567"


@pytest.fixture
async def holds(database: Database) -> HoldStore:
    await RegistryStore(database).seed(SITES)
    people = PractitionerStore(database)
    await people.add(rpps=RPPS, name="MARTIN^CLAIRE", site="csrom41200", role=Role.CORRESPONDENT)
    return HoldStore(database)


class Traced:
    """Counts how often it was asked to trace; refuses while `down`."""

    def __init__(self) -> None:
        self.times = 0
        self.down = False

    async def __call__(self) -> None:
        if self.down:
            raise Unavailable("no trace can be made")
        self.times += 1


async def say(holds: HoldStore, state: HoldState, traced: Traced, uid: str = "1.2", site: str = "csrom41200") -> bool:
    return await holds.say(uid, site, state, reason="", set_by=RPPS, traced=traced)


async def test_the_last_word_on_each_study_of_each_site_counts(holds: HoldStore) -> None:
    traced = Traced()
    assert await say(holds, WITHHELD, traced)
    assert not await say(holds, WITHHELD, traced)
    assert await say(holds, WITHHELD, traced, "1.3")
    assert await say(holds, RELEASED, traced, site="csorl45000")  # binds nobody else's exam
    assert [(w.study_uid, w.emetteur, w.state) for w in (await holds.all()).words] == [
        ("1.2", "csrom41200", WITHHELD),
        ("1.3", "csrom41200", WITHHELD),
    ]
    assert (await holds.all("csorl45000")).words == ()
    assert await say(holds, RELEASED, traced)
    assert await say(holds, WITHHELD, traced)
    assert [w.study_uid for w in (await holds.all()).words] == ["1.3", "1.2"]
    assert traced.times == 5


async def test_by_default_exams_are_released(holds: HoldStore) -> None:
    traced = Traced()
    assert not await holds.say_default("csrom41200", RELEASED, set_by=RPPS, traced=traced)
    assert (await holds.all()).defaults == ()
    assert await holds.say_default("csrom41200", WITHHELD, set_by=RPPS, traced=traced)
    assert not await holds.say_default("csrom41200", WITHHELD, set_by=RPPS, traced=traced)
    assert [(d.emetteur, d.state, d.set_by) for d in (await holds.all()).defaults] == [("csrom41200", WITHHELD, RPPS)]
    assert await holds.say_default("csrom41200", RELEASED, set_by=RPPS, traced=traced)
    assert [(d.emetteur, d.state) for d in (await holds.all()).defaults] == [("csrom41200", RELEASED)]
    assert traced.times == 2


async def test_what_is_not_traced_is_not_said(holds: HoldStore, database: Database) -> None:
    traced = Traced()
    traced.down = True
    before = await database.fetchval("SELECT value FROM epoch")
    with pytest.raises(Unavailable):
        await say(holds, WITHHELD, traced)
    with pytest.raises(Unavailable):
        await holds.say_default("csrom41200", WITHHELD, set_by=RPPS, traced=traced)
    assert await holds.all() == await holds.all("csrom41200")
    assert (await holds.all()).words == (await holds.all()).defaults == ()
    assert await database.fetchval("SELECT value FROM epoch") == before


async def test_of_many_at_once_one_is_written(holds: HoldStore, database: Database) -> None:
    traced = Traced()
    said = await asyncio.gather(*(say(holds, WITHHELD, traced) for _ in range(6)))
    assert (said.count(True), traced.times) == (1, 1)
    assert await database.fetchval("SELECT count(*) FROM exam_hold") == 1


async def test_what_was_said_can_be_neither_changed_nor_removed(holds: HoldStore, database: Database) -> None:
    await say(holds, WITHHELD, Traced())
    await holds.say_default("csrom41200", WITHHELD, set_by=RPPS, traced=Traced())
    for table in ("exam_hold", "hold_default"):
        for command in (f"UPDATE {table} SET state = 'released'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(DatabaseError, match="append-only"):
                await database.execute(command)


async def test_each_word_raises_the_epoch_of_consent_and_bears_it(holds: HoldStore, database: Database) -> None:
    await say(holds, WITHHELD, Traced())
    await say(holds, RELEASED, Traced())
    await holds.say_default("csrom41200", WITHHELD, set_by=RPPS, traced=Traced())
    epochs = [row["changed"] for row in await database.fetch("SELECT changed FROM exam_hold ORDER BY id")]
    epochs.append(await database.fetchval("SELECT changed FROM hold_default"))
    assert epochs == sorted(set(epochs))
    assert await database.fetchval("SELECT consent = value AND value = $1 FROM epoch", epochs[-1])
