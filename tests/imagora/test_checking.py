"""A serving process checks members again: one process each, gently, and what is found is kept and shown."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import requests
from support import peer
from support.checking import anything
from support.peer import Peer
from support.picky import Picky, instance

from dicomweb.client import DicomWebMember
from federation.members import Members
from imagora.checking import Checker
from registry import Directory, Site, SiteStatus
from registry.database import Database
from registry.profiles import Feature, ProfileStore
from registry.store import RegistryStore

ROWS = [instance(f"1.2.{n}", f"1.2.{n}.1", f"1.2.{n}.1.1", name=f"DUPONT^M{n}") for n in range(4)]


class Region:
    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.database = database
        self.profiles = ProfileStore(database)
        self.directory = Directory(())
        self._stack = stack

    async def seed(self, **members: str) -> None:
        store = RegistryStore(self.database)
        first = len(self.directory.sites)
        sites = [Site(emetteur=e, number=n, name=e, dicomweb=url) for n, (e, url) in enumerate(members.items(), first)]
        await store.seed(sites)
        self.directory = await store.load()

    async def run(self, *, every_s: float = 3600.0, again_s: float = 3600.0) -> Members:
        members = Members(lambda: self.directory, DicomWebMember, deadline_s=2.0, breaker_failures=1)
        self._stack.push_async_callback(members.aclose)
        checker = Checker(
            self.database, members, lambda _: anything, every_s=every_s, start_s=0.0, pause_s=0.05, again_s=again_s
        )
        await self._stack.enter_async_context(checker)
        return members

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.05)

    async def known(self) -> set[str]:
        return {profile.emetteur for profile in await self.profiles.all()}


@pytest.fixture
async def region(postgres: Callable[[], str]) -> AsyncIterator[Region]:
    url = await asyncio.to_thread(postgres)
    async with Database(url) as database, AsyncExitStack() as stack:
        yield Region(database, stack)


async def test_members_are_checked_by_one_of_the_processes(region: Region) -> None:
    with Peer(Picky(ROWS)) as alone:
        await region.seed(one=alone.dicomweb_url)
        await region.run()
        await region.until(lambda: _is(region, {"one"}))
        once = len(alone.requests)
    with Peer(Picky(ROWS, lists=())) as first, Peer(Picky(ROWS)) as second:
        await region.seed(two=first.dicomweb_url, three=second.dicomweb_url)
        for _ in range(3):
            await region.run()
        await region.until(lambda: _is(region, {"one", "two", "three"}))
        await asyncio.sleep(0.5)  # some looks more
        assert len(second.requests) == once  # asked once only, though four processes look
    found = {profile.emetteur: profile for profile in await region.profiles.all()}
    assert found["two"].features[Feature.UID_LIST_COMMA] is False
    assert found["three"].features[Feature.UID_LIST_COMMA] is True
    (site,) = [s for s in (await RegistryStore(region.database).load()).sites if s.emetteur == "two"]
    assert site.quirks.takes_uid_lists is False  # searches know


async def _is(region: Region, expected: set[str]) -> bool:
    return await region.known() == expected


async def test_an_old_profile_is_made_anew(region: Region) -> None:
    with Peer(Picky(ROWS)) as member:
        await region.seed(one=member.dicomweb_url)
        await region.run(every_s=7200.0)
        await region.until(lambda: _is(region, {"one"}))
        before = (await region.profiles.all())[0].checked_at
        old = "now() - interval '3 hours'"
        await region.database.execute(f"UPDATE site_profile SET checked_at = {old}, tried_at = {old}")

        async def anew() -> bool:
            checked_at = (await region.profiles.all())[0].checked_at
            return checked_at is not None and before is not None and checked_at > before

        await region.until(anew)


async def test_zero_is_never(region: Region) -> None:
    with Peer(Picky(ROWS)) as member:
        await region.seed(one=member.dicomweb_url)
        await region.run(every_s=0.0)
        await asyncio.sleep(0.3)
        assert member.requests == []


async def test_a_member_that_does_not_answer_keeps_its_profile_and_is_left_alone_for_a_while(
    region: Region, caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(Picky(ROWS)) as member:
        await region.seed(one=member.dicomweb_url)
        await region.run()
        await region.until(lambda: _is(region, {"one"}))
        known = (await region.profiles.all())[0]
        member.behave = peer.garbage
        old = "now() - interval '3 hours'"
        before = len(member.requests)
        await region.database.execute(f"UPDATE site_profile SET checked_at = {old}, tried_at = {old}")

        async def tried() -> bool:
            return "one did not answer its check" in caplog.text

        with caplog.at_level(logging.WARNING):
            await region.until(tried)
        await asyncio.sleep(0.3)
        assert len(member.requests) == before + 1
        assert replace((await region.profiles.all())[0], checked_at=None) == replace(known, checked_at=None)


async def test_who_is_not_asked_is_not_checked(region: Region) -> None:
    with Peer(Picky(ROWS)) as suspended, Peer(Picky(ROWS)) as left_alone, Peer(Picky(ROWS)) as well:
        await region.seed(suspended=suspended.dicomweb_url, ill=left_alone.dicomweb_url, well=well.dicomweb_url)
        store = RegistryStore(region.database)
        await store.set_status("suspended", SiteStatus.SUSPENDED)
        region.directory = await store.load()
        members = Members(lambda: region.directory, DicomWebMember, deadline_s=2.0, breaker_failures=1)
        ill = region.directory.site("ill")
        assert ill is not None
        members.breaker(ill).failed("MemberTimeout")
        async with Checker(region.database, members, lambda _: anything, every_s=3600.0, start_s=0.0, pause_s=0.05):
            await region.until(lambda: _is(region, {"well"}))
            await asyncio.sleep(0.2)
        await members.aclose()
        assert (suspended.requests, left_alone.requests) == ([], [])


async def test_a_lost_database_stops_nothing(region: Region, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(Picky(ROWS)) as member:
        await region.seed(one=member.dicomweb_url)
        await region.database.aclose()
        await region.run()

        async def told() -> bool:
            return "members cannot be checked" in caplog.text

        await region.until(told)
        await region.database.open()
        await region.until(lambda: _is(region, {"one"}))

        async def told_again() -> bool:  # after the profile is kept, so maybe after it is seen
            return "members are checked again" in caplog.text

        await region.until(told_again)
        assert caplog.text.count("cannot be checked") == 1


def test_metrics_show_what_was_found(serve, postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGORA_METRICS_TOKEN", "word")
    url = postgres()
    with Peer(Picky(ROWS, lists=())) as member:
        server = serve({"one": member.dicomweb_url}, database=url)

        def metrics() -> str:
            answer = requests.get(f"{server.url}/metrics", headers={"Authorization": "Bearer word"}, timeout=10)
            assert answer.status_code == 200
            return answer.text

        assert "imagora_member_feature{" not in metrics()

        async def check() -> None:
            async with Database(url) as database, AsyncExitStack() as stack:
                region = Region(database, stack)
                region.directory = await RegistryStore(database).load()
                await region.run()
                await region.until(lambda: _is(region, {"one"}))

        asyncio.run(check())
        text = metrics()
    assert 'imagora_member_feature{emetteur="one",feature="uid-list-comma"} 0.0' in text
    assert 'imagora_member_feature{emetteur="one",feature="limit"} 1.0' in text
    age = re.search(r'imagora_member_profile_age_seconds\{emetteur="one"\} ([0-9.e+-]+)', text)
    assert age is not None
    assert 0 <= float(age[1]) < 600
    assert "imagora_requests_total" in text
