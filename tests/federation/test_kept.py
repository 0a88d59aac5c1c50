"""What is kept for a minute: pages of searches and members' metadata. Bounded, and gone with the rules it rested on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from federation.errors import MemberError, MemberTimeout
from federation.metadata_cache import MetadataCache
from federation.model import MemberRows, Outcome, Target
from federation.pages import Pages
from registry import Site

SITE = Site(emetteur="csrom41200", number=423, name="Romorantin (CH)")
STUDY = Target(study_uid="1.2.3")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 2), st.floats(0, 40), st.booleans()),
        max_size=40,
    )
)
def test_pages_are_bounded_and_never_old_nor_of_other_rules(steps: list[tuple[int, int, int, float, bool]]) -> None:
    clock = Clock()
    pages: Pages[tuple[int, float, int]] = Pages(rows_max=100, kept_s=60, clock=clock)
    last: dict[int, tuple[int, float, int]] = {}
    for key, rows, version, later, puts in steps:
        clock.now += later
        if puts:
            last[key] = (version, clock.now, rows)
            pages.put(key, last[key], rows=rows, version=version)
        else:
            found = pages.get(key, version=version)
            if found is not None:
                assert found == last[key]
                assert found[0] == version
                assert clock.now - found[1] < 60
        assert 0 <= pages.rows <= 100


def test_the_last_page_is_kept_and_the_oldest_given_up() -> None:
    pages: Pages[str] = Pages(rows_max=10, clock=Clock())
    pages.put("a", "a", rows=6, version=1)
    pages.put("b", "b", rows=4, version=1)
    assert (pages.get("a", version=1), pages.get("b", version=1)) == ("a", "b")
    pages.put("c", "c", rows=5, version=1)
    assert [pages.get(k, version=1) for k in "abc"] == [None, "b", "c"]
    pages.put("d", "d", rows=11, version=1)
    assert pages.get("d", version=1) is None
    pages.clear()
    assert pages.rows == 0


class Member:
    """Counts how often it is asked; answers once `gate` is set."""

    def __init__(self, result: Any) -> None:
        self.asked = 0
        self.cancelled = 0
        self.result = result
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Outcome[MemberRows]:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Outcome(site=SITE, result=self.result, elapsed_s=0.5)


def rows(count: int = 3) -> MemberRows:
    return MemberRows(rows=[{"00080018": {"vr": "UI", "Value": [f"1.2.3.{n}"]}} for n in range(count)])


async def test_metadata_are_asked_once_and_each_answer_is_its_own() -> None:
    cache, member = MetadataCache(), Member(rows())
    first = await cache.get(SITE, STUDY, member)
    assert isinstance(first.result, MemberRows)
    first.result.rows[0]["00100020"] = {"vr": "LO", "Value": ["tagged"]}
    second = await cache.get(SITE, STUDY, member)
    assert second.result == rows()
    assert member.asked == 1
    await cache.get(SITE, Target(study_uid="1.2.3", series_uid="1.2.3.4"), member)
    assert member.asked == 2
    cache.forget(SITE, "1.2.3")
    assert cache.size == 0


async def test_those_who_ask_at_once_share_one_question() -> None:
    cache, member = MetadataCache(), Member(rows())
    member.gate.clear()
    asking = [asyncio.ensure_future(cache.get(SITE, STUDY, member)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who asked first leaves
    await asyncio.sleep(0)
    member.gate.set()
    answers = await asyncio.gather(*asking[1:])
    assert [a.result for a in answers] == [rows()] * 4
    assert len({id(a.result.rows) for a in answers if isinstance(a.result, MemberRows)}) == 4
    assert (member.asked, member.cancelled) == (1, 0)


async def test_a_question_that_nobody_waits_for_ends() -> None:
    cache, member = MetadataCache(), Member(rows())
    member.gate.clear()
    asking = [asyncio.ensure_future(cache.get(SITE, STUDY, member)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert member.cancelled == 1
    member.gate.set()
    assert (await cache.get(SITE, STUDY, member)).result == rows()


@pytest.mark.parametrize("result", [MemberTimeout("csrom41200: silent"), MemberRows(rows=rows().rows, more=True)])
async def test_failures_and_parts_are_not_kept(result: MemberError | MemberRows) -> None:
    cache, member = MetadataCache(), Member(result)
    member.gate.clear()
    asking = [asyncio.ensure_future(cache.get(SITE, STUDY, member)) for _ in range(2)]
    await asyncio.sleep(0)
    member.gate.set()
    one, two = await asyncio.gather(*asking)
    assert one.result == two.result == result
    assert cache.size == 0
    await cache.get(SITE, STUDY, member)
    assert member.asked == 2


async def test_a_change_of_rules_drops_all_also_what_is_under_way() -> None:
    cache, member = MetadataCache(), Member(rows())
    await cache.get(SITE, STUDY, member)
    cache.clear()
    assert cache.size == 0
    member.gate.clear()
    asking = asyncio.ensure_future(cache.get(SITE, STUDY, member))
    await asyncio.sleep(0)
    cache.clear()
    member.gate.set()
    assert (await asking).result == rows()
    assert cache.size == 0


async def test_metadata_are_bounded_in_bytes_and_in_time() -> None:
    clock = Clock()
    cache, member = MetadataCache(bytes_max=400, kept_s=60, clock=clock), Member(rows(40))
    for number in range(6):
        await cache.get(SITE, Target(study_uid=f"1.2.{number}"), member)
        assert 0 < cache.size <= 400
    asked = member.asked
    await cache.get(SITE, Target(study_uid="1.2.5"), member)
    assert member.asked == asked
    clock.now = 61
    await cache.get(SITE, Target(study_uid="1.2.5"), member)
    assert member.asked == asked + 1
