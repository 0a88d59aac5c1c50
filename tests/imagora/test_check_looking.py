"""What a check reads of a member: one instance, of an exam that may be shown, and never untraced."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Iterator

import asyncpg
import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from support.checking import IPPS, Checks, spoiling
from support.consenting import Ledger
from support.peer import Peer, Request

from registry import Role
from registry.database import Database
from registry.practitioners import PractitionerStore

CORRESPONDENT = "10001234567"
STUDIES = [str(exams.uid(f"check-{number}", "study")) for number in range(len(IPPS))]
#: So many exams a check asks for.
LISTED = 3


@pytest.fixture
def member(orthanc: OrthancServer) -> Iterator[Peer]:
    with Peer(spoiling(orthanc)) as passing:
        yield passing


@pytest.fixture
def ledger(check: Checks, member: Peer) -> Ledger:
    """Of the database that a check fills with its site."""
    check.one(member.dicomweb_url)
    member.requests.clear()

    async def register() -> None:
        async with Database(check.url) as database:
            await PractitionerStore(database).add(
                rpps=CORRESPONDENT, name="MARTIN^CLAIRE", site="one", role=Role.CORRESPONDENT
            )

    asyncio.run(register())
    return Ledger(check.url, CORRESPONDENT)


def opened(requests: list[Request]) -> set[str]:
    """Studies below which something was asked for."""
    return {r.path.split("/")[2] for r in requests if r.path.startswith("/studies/")}


def accesses(check: Checks) -> list[dict[str, object]]:
    async def rows() -> list[dict[str, object]]:
        connection = await asyncpg.connect(check.url)
        try:
            found = await connection.fetch("SELECT * FROM trace WHERE kind = 'accessed' ORDER BY at DESC")
            return [dict(row) for row in found]
        finally:
            await connection.close()

    return asyncio.run(rows())


def test_what_is_read_is_traced_as_read_by_who_checks(check: Checks, member: Peer) -> None:
    before = len(accesses(check))
    findings, _ = check.one(member.dicomweb_url)
    assert findings["retrieve"]["result"] == "ok"
    (study,) = opened(member.requests)
    trace, *more = accesses(check)
    assert len(more) == before
    assert (trace["study_uid"], trace["origin"], trace["scope"]) == (study, "one", "site:one")
    assert trace["patient_id"] == f"{IPPS[STUDIES.index(study)]}@one"
    assert trace["requester_id"] == f"operator:{getpass.getuser()}"


@pytest.mark.parametrize("way", ["study", "ipp", "withheld"])
def test_exams_that_may_not_be_shown_are_passed_by(way: str, check: Checks, member: Peer, ledger: Ledger) -> None:
    refused: set[str] = set()
    for _ in range(LISTED):
        member.requests.clear()
        before = len(accesses(check))
        findings, _result = check.one(member.dicomweb_url)
        assert findings["retrieve"]["result"] == "ok"
        (read,) = opened(member.requests)
        assert read not in refused
        assert len(accesses(check)) == before + 1
        if way == "study":
            ledger.oppose(studies=[read])
        elif way == "ipp":
            ledger.oppose(patient=(IPPS[STUDIES.index(read)], "one"))
        else:
            ledger.hold(read, "one")
        refused.add(read)
    member.requests.clear()
    before = len(accesses(check))
    findings, result = check.one(member.dicomweb_url)
    assert opened(member.requests) == set()
    assert len(accesses(check)) == before
    assert findings["retrieve"]["result"] == "unknown"
    assert "metadata" not in findings
    assert result.exit_code == 0
    assert all(study not in json.dumps(findings) for study in STUDIES)


def test_nothing_is_read_that_can_not_be_traced(check: Checks, member: Peer, ledger: Ledger) -> None:
    ledger.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full'; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON trace FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        findings, _ = check.one(member.dicomweb_url)
    finally:
        ledger.execute("DROP TRIGGER refuse ON trace; DROP FUNCTION refuse()")
    assert findings["retrieve"]["result"] == "unknown"
    assert opened(member.requests) == set()
