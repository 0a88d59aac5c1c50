from __future__ import annotations

from dataclasses import replace

from registry.database import Database
from registry.model import Quirks, Site
from registry.profiles import Feature, Profile, ProfileStore, quirks_of
from registry.store import RegistryStore

URL = "http://127.0.0.1:1/dicom-web"
ONE = Site(emetteur="csrom41200", number=423, name="Romorantin (CH)", dicomweb=URL)
FOUND = Profile(
    emetteur="csrom41200",
    usable=True,
    features={Feature.LIMIT: True, Feature.NAMES_IN_ANY_CASE: False, Feature.THUMBNAIL: False},
    latency_s=0.02,
    bytes_per_s=1e6,
)


async def test_a_profile_is_kept_with_what_searches_make_use_of(database: Database, store: RegistryStore) -> None:
    await store.seed([ONE])
    profiles = ProfileStore(database)
    assert await profiles.all() == []
    assert await profiles.keep(FOUND, URL)
    (kept,) = await profiles.all()
    assert kept.checked_at is not None
    assert replace(kept, checked_at=None) == replace(FOUND, name="Romorantin (CH)")
    (site,) = (await store.load()).sites
    assert site.quirks == Quirks(honours_limit=True, names_ignore_case=False, gives_thumbnail=False)
    assert await profiles.keep(replace(FOUND, features={}), URL)
    assert (await store.load()).sites[0].quirks == Quirks()  # what is not told any more is not known any more


async def test_the_same_finding_again_changes_no_epoch(database: Database, store: RegistryStore) -> None:
    await store.seed([ONE])
    profiles = ProfileStore(database)
    await profiles.keep(FOUND, URL)
    before = await store.epoch()
    await profiles.keep(replace(FOUND, latency_s=0.5), URL)
    assert await store.epoch() == before


async def test_a_profile_is_of_one_address(database: Database, store: RegistryStore) -> None:
    await store.seed([ONE])
    profiles = ProfileStore(database)
    assert not await profiles.keep(FOUND, "http://127.0.0.1:1/other")
    assert (await profiles.all(), (await store.load()).sites[0].quirks) == ([], Quirks())
    await profiles.keep(FOUND, URL)
    await database.execute("UPDATE site SET dicomweb = 'http://127.0.0.1:1/moved'")
    assert await profiles.all() == []
    assert await profiles.due({"csrom41200": "http://127.0.0.1:1/moved"}, 3600.0, 60.0) == ["csrom41200"]


async def test_what_a_newer_program_knows_is_left_out(database: Database, store: RegistryStore) -> None:
    await store.seed([ONE])
    profiles = ProfileStore(database)
    await profiles.keep(FOUND, URL)
    await database.execute("""UPDATE site_profile SET features = features || '{"levitation": true}'""")
    assert (await profiles.all())[0].features == FOUND.features


async def test_what_is_old_or_was_never_checked_is_due(database: Database, store: RegistryStore) -> None:
    names = [f"site{n}" for n in range(4)]
    await store.seed([replace(ONE, emetteur=name, number=n) for n, name in enumerate(names)])
    profiles = ProfileStore(database)
    at = dict.fromkeys(names, URL)
    assert await profiles.due(at, 3600.0, 60.0) == names
    for name in names[1:]:
        await profiles.keep(replace(FOUND, emetteur=name), URL)
    assert await profiles.due(at, 3600.0, 60.0) == ["site0"]
    await profiles.tried("site0", URL)
    assert await profiles.due(at, 3600.0, 60.0) == []
    assert [profile.emetteur for profile in await profiles.all()] == names[1:]  # tried only: nothing is known
    old = "now() - interval '2 hours'"
    await database.execute(f"UPDATE site_profile SET checked_at = {old}, tried_at = {old} WHERE emetteur <> 'site3'")
    assert await profiles.due(at, 3600.0, 60.0) == ["site0", "site1", "site2"]
    await profiles.tried("site0", URL)
    await profiles.keep(replace(FOUND, emetteur="site2"), URL)
    assert await profiles.due(at, 3600.0, 60.0) == ["site1"]
    assert await profiles.due({}, 3600.0, 60.0) == []


def test_every_quirk_is_that_of_a_feature() -> None:
    every = quirks_of(dict.fromkeys(Feature, True))
    assert len(every.known()) == len(Quirks.__slots__)
    assert quirks_of({}).known() == {}
