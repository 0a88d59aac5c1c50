"""Every search leaves a durable row before its answer; where none can be made, nothing is shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import requests
from region import get, row, strict, tree, uids
from support.peer import Peer
from support.serving import Serving, serving, settings_for

from consent import Decision, Exam, Policy, Requester
from registry import migrate
from registry.embedded import Lease

A, B = "csrom41200", "cschb41000"


def traces(url: str) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(url)
        try:
            return [
                dict(record)
                for record in await connection.fetch("SELECT * FROM trace ORDER BY recorded_at, writer, sequence")
            ]
        finally:
            await connection.close()

    return asyncio.run(read())


@pytest.fixture
def traced(peers, postgres: Callable[[], str], serve) -> tuple[Serving, str]:
    members = peers(**{A: tree([row("1.2.1", "4547")]), B: tree([row("1.2.2", "9")])})
    database = postgres()
    server = serve(
        {site: member.dicomweb_url for site, member in members.items()},
        database=database,
        folders={"MIRC historique": [A]},
    )
    return server, database


def test_each_search_leaves_one_row_before_its_answer(traced: tuple[Serving, str]) -> None:
    server, database = traced
    asked = [
        ("", "/studies?", "all"),
        ("", "/studies?PatientName=DUPONT%5EMARIE&limit=5", "all"),
        (f"/sites/{A.upper()}", "/series?PatientID=4547", f"site:{A}"),
        ("/folders/mirc-historique", "/instances?", "folder:mirc-historique"),
        ("", "/studies/1.2.1/series?", "all"),
        ("", "/studies/9.9.9/instances?", "all"),
    ]
    for number, (scope, query, name) in enumerate(asked, 1):
        answer = get(f"{server.dicomweb(scope)}{query}")
        found = traces(database)
        assert len(found) == number, query
        last = found[-1]
        assert (last["kind"], last["outcome"], last["scope"]) == ("query", "success", name)
        assert (last["query"], last["requester_id"]) == (query, "local")
        assert last["request_id"] == answer.headers["X-Request-Id"]


class NothingOf4547:
    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return Decision(permitted=exam.main_id[0] != "4547")


@pytest.mark.parametrize("policy", [None, NothingOf4547()], ids=["shown", "withheld"])
def test_a_search_that_names_one_study_is_traced_as_of_it(
    policy: Policy | None, peers, postgres: Callable[[], str], serve
) -> None:
    """And within it as of its exam, also where that is withheld: its origin's correspondent reads who looked for it."""
    members = peers(**{A: tree([row("1.2.1", "4547")]), B: tree([row("1.2.2", "9"), row("1.2.3", "9")])})
    database = postgres()
    server = serve({s: m.dicomweb_url for s, m in members.items()}, database=database, policy=policy)
    exam, none = ("1.2.1", "4547@csrom41200", A, [A]), ("", "", "", [])
    for query, expected in {
        "/studies/1.2.1/series": exam,
        "/studies/1.2.1/instances": exam,
        "/studies/1.2.1/series/1.2.1.1/instances": exam,
        "/studies/9.9.9/series": ("9.9.9", "", "", []),
        "/studies?StudyInstanceUID=1.2.1": ("1.2.1", "", "", []),
        "/series?0020000D=1.2.1": ("1.2.1", "", "", []),
        "/studies?StudyInstanceUID=1.2.1,1.2.2": none,
        "/studies?StudyInstanceUID=1.2.1%5C1.2.2": none,
        "/studies?PatientID=4547": none,
    }.items():
        get(f"{server.dicomweb()}{query}")
        last = traces(database)[-1]
        assert (last["study_uid"], last["patient_id"], last["origin"], last["holders"]) == expected, query


def test_search_that_is_sent_to_nobody_is_traced_too(peers, postgres: Callable[[], str], serve) -> None:
    database = postgres()
    members = peers(**{A: strict([])})
    server = serve(
        {A: members[A].dicomweb_url, B: "http://127.0.0.1:1/x"},
        database=database,
        search={"require_patient_criterion": True},
    )
    assert get(f"{server.dicomweb()}/studies").json() == []
    assert get(f"{server.dicomweb(f'/sites/{B}')}/studies").status_code == 503
    assert [t["scope"] for t in traces(database)] == ["all", f"site:{B}"]


@pytest.mark.parametrize("name", ["\0", "'; DROP TABLE trace; --", "🦷", "\\", "é" * 2000, "a\r\nb", "%", '"'])
def test_whatever_is_asked_can_be_traced(name: str, traced: tuple[Serving, str]) -> None:
    server, database = traced
    answer = get(f"{server.dicomweb()}/studies", params={"PatientName": name})
    assert answer.status_code in (200, 204)
    assert len(traces(database)) == 1


def test_refused_request_reaches_no_member_and_leaves_no_query(traced: tuple[Serving, str]) -> None:
    server, database = traced
    assert get(f"{server.dicomweb()}/studies?limit=x").status_code == 400
    assert get(f"{server.dicomweb('/sites/nowhere')}/studies").status_code == 404
    assert get(f"{server.dicomweb()}/studies", Accept="text/html").status_code == 406
    assert traces(database) == []


# Without a database ---------------------------------------------------------------------------------------------


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[str, psutil.Process, Lease]]:
    """A PostgreSQL of the test's own: its URL, its postmaster, and what it ends with."""
    state = tmp_path / "state"
    lease = Lease(state)
    try:
        url = lease.acquire()
        asyncio.run(migrate.migrate(url))
        postmaster = psutil.Process(int((state / "postgres" / "postmaster.pid").read_text().split()[0]))
        assert postmaster.cwd() == str(state / "postgres")
        yield url, postmaster, lease
    finally:
        lease.release()


def shows_nothing(answer: requests.Response) -> bool:
    return "DUPONT" not in answer.text and answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0


PATHS = ["studies", "series", "studies/1.2.1/series", "studies/1.2.1/instances"]


def test_without_a_database_nothing_is_shown(
    own_postgres: tuple[str, psutil.Process, Lease], peers, tmp_path: Path
) -> None:
    url, postmaster, lease = own_postgres
    members: dict[str, Peer] = peers(**{A: tree([row("1.2.1", "4547", "DUPONT^MARIE")])})
    with (
        serving(settings_for({A: members[A].dicomweb_url}, tmp_path), url) as server,
        ThreadPoolExecutor(len(PATHS)) as pool,
    ):

        def all_refused() -> None:
            started = time.monotonic()
            answers = list(pool.map(lambda path: get(f"{server.dicomweb()}/{path}"), PATHS))
            assert time.monotonic() - started < 9.0
            assert [shows_nothing(answer) for answer in answers] == [True] * len(PATHS)

        assert uids(get(f"{server.dicomweb()}/studies")) == ["1.2.1"]
        assert get(f"{server.url}/readyz").status_code == 200
        # It hangs: neither answers nor refuses.
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            all_refused()
        finally:
            for process in processes:
                process.resume()
        # It comes back.
        deadline = time.monotonic() + 15
        while get(f"{server.dicomweb()}/studies").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # It is gone.
        lease.release()
        postmaster.wait(20)
        all_refused()
        assert get(f"{server.url}/readyz").status_code == 503
        assert get(f"{server.url}/healthz").status_code == 200
