"""Practitioners in a real PostgreSQL: what is kept, and how processes learn of it."""

from __future__ import annotations

import asyncio

import pytest

from registry import Role, Site
from registry.database import Database, DatabaseError
from registry.practitioners import Addition, PractitionerStore, UnknownPractitioner
from registry.store import RegistryStore, UnknownSite
from registry.watch import RegistryCache

SITE = Site(emetteur="csrom41200", number=423, name="Romorantin (CH)")
RPPS = "10001234567"


@pytest.fixture
async def people(store: RegistryStore) -> PractitionerStore:
    await store.seed([SITE])
    return PractitionerStore(store.database)


async def test_one_is_added_changed_signed_suspended_and_resumed(people: PractitionerStore) -> None:
    said, person = await people.add(rpps=RPPS, name="MARTIN^CLAIRE", site="CSROM41200", role=Role.PRACTITIONER)
    assert (said, person.site, person.active, person.signatures) == (Addition.ADDED, "csrom41200", True, {})
    new, first = await people.sign(RPPS, "1")
    assert new
    assert await people.sign(RPPS, "1") == (False, first)
    assert await people.set_active(RPPS, active=False)
    assert not await people.set_active(RPPS, active=False)
    said, person = await people.add(rpps=RPPS, name="MARTIN^CLAIRE", site="csrom41200", role=Role.REFERENT)
    assert (said, person.role, person.active, dict(person.signatures)) == (
        Addition.CHANGED,
        Role.REFERENT,
        False,
        {"1": first},
    )
    said, _ = await people.add(rpps=RPPS, name="MARTIN^CLAIRE", site="csrom41200", role=Role.REFERENT)
    assert said is Addition.UNCHANGED
    assert await people.set_active(RPPS, active=True)
    await people.sign(RPPS, "2")
    (person,) = await people.all()
    assert person.has_signed("1")
    assert person.last_signature is not None
    assert person.last_signature[0] == "2"


async def test_who_and_where_must_be_known(people: PractitionerStore, database: Database) -> None:
    with pytest.raises(UnknownSite):
        await people.add(rpps=RPPS, name="A", site="nowhere", role=Role.PRACTITIONER)
    for work in (people.sign(RPPS, "1"), people.set_active(RPPS, active=False)):
        with pytest.raises(UnknownPractitioner, match=RPPS):
            await work
    with pytest.raises(DatabaseError):
        await people.add(rpps="123", name="A", site="csrom41200", role=Role.PRACTITIONER)
    assert await people.all() == ()


async def test_each_change_is_in_the_picture_of_another_process_within_a_second(
    people: PractitionerStore, store: RegistryStore, fresh_url: str
) -> None:
    async with Database(fresh_url) as other, RegistryCache(RegistryStore(other)) as cache:

        async def until(condition) -> None:
            async with asyncio.timeout(1):
                while not condition():
                    await asyncio.sleep(0.01)

        await people.add(rpps=RPPS, name="MARTIN^CLAIRE", site="csrom41200", role=Role.PRACTITIONER)
        await until(lambda: RPPS in cache.directory.practitioners)
        await people.sign(RPPS, "1")
        await until(lambda: cache.directory.practitioners[RPPS].has_signed("1"))
        await people.set_active(RPPS, active=False)
        await until(lambda: not cache.directory.practitioners[RPPS].active)
        assert await cache.fresh()
        assert cache.directory.epoch == await store.epoch()
        await store.database.execute("UPDATE practitioner SET active = false")
        assert cache.directory.epoch == await store.epoch()  # nothing changed: nobody reads anew
