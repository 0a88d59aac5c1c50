"""Walking a merged list page by page: every row once, in one order, whatever the members' habits of paging."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import requests
from imagora_demo import exams
from region import STUDY, Row, capping, get, light_rows, remaining, row, sources, uids, value, walk, warnings_of
from support import peer
from support.serving import Serving

EACH = 401
SITES = ("csrom41200", "cschb41000", "csorl45100")
EVERY = EACH * len(SITES)


def newest_first(found: Row) -> tuple[Any, ...]:
    date, time = value(found, "00080020") or "", value(found, "00080030") or ""
    return (-int(date or 0), -float(time or -1), value(found, STUDY), value(found, "00080054"))


def assert_whole(found: Sequence[Row]) -> None:
    assert len(found) == EVERY
    assert len({value(r, STUDY) for r in found}) == EVERY
    assert list(found) == sorted(found, key=newest_first)
    held = [value(r, "00080054") for r in found]
    assert {site: held.count(site) for site in SITES} == dict.fromkeys(SITES, EACH)


def counted(answer: requests.Response, so_far: int) -> None:
    assert remaining(answer) == (EVERY - so_far, False)
    assert sources(answer) == dict.fromkeys(SITES, ("ok", EACH))
    assert [w for w in warnings_of(answer) if "additional results" not in w] == []


@pytest.fixture(scope="module")
def three_orthancs(orthancs, serve_module) -> Serving:
    members = orthancs({site: list(exams.light_studies(EACH, seed=site)) for site in SITES})
    server: Serving = serve_module({site: member.dicomweb_url for site, member in members.items()})
    return server


def test_pages_over_orthancs_give_each_study_once_and_again_the_same(three_orthancs: Serving) -> None:
    url = f"{three_orthancs.dicomweb()}/studies"
    found = walk(url, 151, counted)
    assert_whole(found)
    again = walk(url, 401, counted)
    assert [value(r, STUDY) for r in again] == [value(r, STUDY) for r in found]
    # Of the 49 pages that a viewer would show: the first, the last two, and some that begin within a page of the above.
    for offset in (0, 125, 150, 400, 600, 1175, 1200):
        page = get(url, params={"limit": 25, "offset": offset})
        assert uids(page) == [value(r, STUDY) for r in found[offset : offset + 25]]
        counted(page, min(offset + 25, EVERY))


def test_whole_list_without_a_limit_is_the_same_and_leaves_nothing(three_orthancs: Serving) -> None:
    answer = get(f"{three_orthancs.dicomweb()}/studies")
    counted(answer, EVERY)
    assert_whole(answer.json())


@pytest.mark.parametrize("offset", [EVERY, EVERY + 1, 999_999_999])
def test_page_behind_the_end_is_empty_and_leaves_nothing(three_orthancs: Serving, offset: int) -> None:
    answer = get(f"{three_orthancs.dicomweb()}/studies", params={"limit": 25, "offset": offset})
    assert answer.status_code == 204
    assert remaining(answer) == (0, False)


def test_limit_of_nothing_tells_how_many_there_are(three_orthancs: Serving) -> None:
    answer = get(f"{three_orthancs.dicomweb()}/studies", params={"limit": 0})
    assert uids(answer) == []
    assert remaining(answer) == (EVERY, False)


Maker = Callable[[list[Row]], peer.Behaviour]
HABITS: dict[str, Maker] = {
    "ignores limit and offset": lambda found: peer.rows(found, honours_paging=False),
    "answers in random order": lambda found: peer.rows(found, shuffle=random.Random(5).shuffle),
    "answers all in random order": lambda found: peer.rows(
        found, honours_paging=False, shuffle=random.Random(5).shuffle
    ),
    "gives a hundred an answer": capping,
}


@pytest.mark.parametrize("habit", HABITS)
def test_pages_give_each_study_once_with_a_member_that(habit: str, peers, serve) -> None:
    rows = {site: light_rows(EACH, site) for site in SITES}
    members = peers(
        csrom41200=HABITS[habit](rows["csrom41200"]),
        cschb41000=peer.rows(rows["cschb41000"]),
        csorl45100=peer.rows(rows["csorl45100"]),
    )
    server = serve({site: member.dicomweb_url for site, member in members.items()})
    url = f"{server.dicomweb()}/studies"
    found = walk(url, 201, counted)
    assert_whole(found)
    assert walk(url, 401, counted) == found


def test_member_that_gives_a_hundred_and_never_the_next_is_capped(peers, serve) -> None:
    members = peers(
        csrom41200=capping(light_rows(EACH, "a"), honours_offset=False), cschb41000=peer.rows(light_rows(20, "b"))
    )
    server = serve({site: member.dicomweb_url for site, member in members.items()})
    answer = get(f"{server.dicomweb()}/studies", params={"limit": 25})
    assert sources(answer) == {"csrom41200": ("capped", 100), "cschb41000": ("ok", 20)}
    assert remaining(answer) == (95, True)
    assert any("csrom41200 was cut" in w for w in warnings_of(answer))
    searches = [r for r in members["csrom41200"].requests if not r.values("0020000D")]
    assert len(searches) == 2  # asked for the rest once, not for ever


@pytest.mark.parametrize(("holds", "expected"), [(30, ("ok", 30)), (31, ("capped", 30)), (200, ("capped", 30))])
def test_member_with_more_than_the_cap_is_named(holds: int, expected: tuple[str, int], peers, serve) -> None:
    for habit in (peer.rows, HABITS["ignores limit and offset"]):
        members = peers(csrom41200=habit(light_rows(holds, "a")), cschb41000=peer.rows([row("1.2.3", date="20250101")]))
        server = serve({s: m.dicomweb_url for s, m in members.items()}, search={"member_cap": 30})
        answer = get(f"{server.dicomweb()}/studies", params={"limit": 10})
        assert len(answer.json()) == 10
        assert sources(answer) == {"csrom41200": expected, "cschb41000": ("ok", 1)}
        assert remaining(answer) == (21, expected[0] == "capped")
        cut = "Source csrom41200 was cut at 30 rows: it has more, narrow the search"
        assert (cut in warnings_of(answer)) == (expected[0] == "capped")
        # A cut member has more even where the page shows all that was taken.
        whole = get(f"{server.dicomweb()}/studies")
        assert len(whole.json()) == 31
        assert (cut in warnings_of(whole)) == (expected[0] == "capped")
