"""The next page of a search comes from what was merged for the one before, as long as nothing changed."""

from __future__ import annotations

import asyncio

import pytest
from imagora_demo import exams
from region import STUDY, get, light_rows, remaining, rows_of, sources, strict, uids, warnings_of
from support.consenting import Ledger, People
from support.peer import Peer

from registry.database import Database
from registry.model import SiteStatus
from registry.store import RegistryStore

A, B = "csrom41200", "cpsax18000"
DOCTOR, OTHER = "10001234567", "10001234568"


@pytest.fixture
def region(peers, serve, postgres, tmp_path):
    """→ (root of the searches, members by EMETTEUR, ledger, headers by RPPS, URL of the database)."""
    members: dict[str, Peer] = peers(**{site: strict(light_rows(30, f"next-page-{site}")) for site in (A, B)})
    people, url = People(tmp_path / "issuer"), postgres()
    serving = serve(
        {site: m.dicomweb_url for site, m in members.items()} | {"chbrg18000": None}, database=url, auth=people.auth
    )
    people.register(url, {DOCTOR: "chbrg18000", OTHER: "chbrg18000"})
    root = f"{serving.dicomweb()}/studies"
    headers = {rpps: people.bearer(rpps) for rpps in (DOCTOR, OTHER)}
    asyncio.run(_let_in(root, headers[DOCTOR]))
    for member in members.values():
        member.requests.clear()
    return root, members, Ledger(url, DOCTOR), headers, url


async def _let_in(root: str, headers: dict[str, str]) -> None:
    async with asyncio.timeout(5):
        while get(f"{root}?limit=1&PatientID=none", **headers).status_code == 403:
            await asyncio.sleep(0.05)


def asked(members: dict[str, Peer]) -> int:
    return sum(len(m.requests) for m in members.values())


def test_further_pages_ask_nobody_and_are_the_same(region) -> None:
    root, members, _, headers, _ = region
    whole = uids(get(root, **headers[DOCTOR]))
    assert len(whole) == 60
    before = asked(members)
    first = get(f"{root}?limit=25", **headers[DOCTOR])
    assert asked(members) > before
    before = asked(members)
    pages = [get(f"{root}?limit=25&offset={offset}", **headers[DOCTOR]) for offset in (25, 50)]
    assert asked(members) == before
    assert [*uids(first), *uids(pages[0]), *uids(pages[1])] == whole
    assert remaining(pages[0]) == (10, False)
    assert sources(pages[0]) == sources(first)
    assert sources(first)[A] == ("ok", 30)
    # Rows are tagged once, each with its own holder.
    for page in (first, *pages):
        for row in rows_of(page):
            (holder,) = row["00080054"]["Value"]
            assert f"/sites/{holder}/" in row["00081190"]["Value"][0]
            assert row["00100020"]["Value"][0].count("@") == 1


def test_a_first_page_asks_anew(region) -> None:
    root, members, _, headers, _ = region
    get(f"{root}?limit=25", **headers[DOCTOR])
    before = asked(members)
    get(f"{root}?limit=25", **headers[DOCTOR])
    assert asked(members) > before


def test_nobody_else_and_no_other_search_uses_it(region) -> None:
    root, members, _, headers, _ = region
    get(f"{root}?limit=25", **headers[DOCTOR])
    for query, who in (
        ("limit=25&offset=25", OTHER),
        ("limit=25&offset=25&StudyDate=20200101-20300101", DOCTOR),
        ("limit=25&offset=25&includefield=00081030", DOCTOR),
        ("limit=25&offset=25&own_site=include", DOCTOR),
    ):
        before = asked(members)
        get(f"{root}?{query}", **headers[who])
        assert asked(members) > before, query


def test_a_page_is_under_the_rules_of_now(region) -> None:
    root, _, ledger, headers, _ = region
    whole = uids(get(root, **headers[DOCTOR]))
    assert uids(get(f"{root}?limit=25", **headers[DOCTOR])) == whole[:25]
    ledger.oppose(studies=[whole[30]])
    asyncio.run(_gone(root, headers[DOCTOR], whole[30]))
    left = [uid for uid in whole if uid != whole[30]]
    page = get(f"{root}?limit=25&offset=25", **headers[DOCTOR])
    assert uids(page) == left[25:50]
    assert remaining(page) == (9, False)
    assert sum(rows for _, rows in sources(page).values()) == 59


async def _gone(root: str, headers: dict[str, str], uid: str) -> None:
    async with asyncio.timeout(1.5):
        while uids(get(f"{root}?{STUDY}={uid}", **headers)):
            await asyncio.sleep(0.02)


def test_a_site_that_is_suspended_is_gone_from_the_next_page(region) -> None:
    root, _, _, headers, url = region
    get(f"{root}?limit=25", **headers[DOCTOR])

    async def suspend() -> None:
        async with Database(url) as database:
            await RegistryStore(database).set_status(B, SiteStatus.SUSPENDED)
        async with asyncio.timeout(2):
            while B in sources(get(f"{root}?limit=1&PatientID={exams.uid('none')}", **headers[DOCTOR])):
                await asyncio.sleep(0.05)

    asyncio.run(suspend())
    page = get(f"{root}?limit=25&offset=25", **headers[DOCTOR])
    assert B not in sources(page)
    assert len(uids(page)) == 5


def test_a_member_that_failed_is_named_on_each_page(region) -> None:
    root, members, _, headers, _ = region

    async def fail(_request, connection) -> None:
        await connection.answer(500, b"", "text/plain")

    members[B].behave = fail
    first = get(f"{root}?limit=10", **headers[DOCTOR])
    second = get(f"{root}?limit=10&offset=10", **headers[DOCTOR])
    assert warnings_of(first)[0] == warnings_of(second)[0] == f"1 of 2 sources did not answer: {B} (error)"
