"""Two workers of one server, and a second server, over one PostgreSQL: whichever answers, the answer is the same."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from retrieve.retrieve_member import DICOM, read
from retrieve.retrieve_wire import parts_of
from support.people import GOOD, register
from support.workers import WorkersProcess

pytestmark = pytest.mark.slow

HOME, ELSEWHERE = "csrom41200", "cschb41000"
MARIE = {"name": "DUPONT^Marie", "birth_date": "19600512", "sex": "F"}
LONG_IPP = "L" * 55
MULTIPART = f'multipart/related; type="{DICOM}"'
Get = Callable[..., requests.Response]


@dataclass(frozen=True, slots=True)
class Region:
    """`one` has two workers; `two` is a server of its own. `cookie` is a session that began at one of `one`'s."""

    one: WorkersProcess
    two: WorkersProcess
    cookie: dict[str, str]

    @contextmanager
    def pair(self, other: str) -> Iterator[tuple[Get, Get]]:
        """Two ways to ask, that two processes answer: paths below the root, the session's cookie sent."""
        first, second = self.one.pids()
        with ExitStack() as stack:
            here = stack.enter_context(self.one.asking(first))
            if other == "worker":
                there, base = stack.enter_context(self.one.asking(second)), self.one.url
            else:
                there, base = requests.get, self.two.url
            options: dict[str, Any] = {"cookies": self.cookie, "timeout": 20}
            yield (
                lambda path, **more: here(self.one.url + path, **options, **more),
                lambda path, **more: there(base + path, **options, **more),
            )

    def neutral(self, text: str) -> str:
        return text.replace(self.two.url, self.one.url)


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, str]]:
    """Marie's exams at home, and copies of them elsewhere, filed there under an IPP of that site."""
    servers = OrthancServer(name="home"), OrthancServer(name="elsewhere")
    start_all(servers)
    try:
        for seed, ipp in (("equal", "4547"), ("worker", "7301"), ("server", "7301")):
            servers[0].upload(exams.light_study(seed=seed, patient_id=ipp, **MARIE))
            servers[1].upload(exams.light_study(seed=seed, patient_id="B99", **MARIE))
            servers[0].upload(
                exams.light_study(seed=f"long-{seed}", patient_id=LONG_IPP + seed, name=f"LONG^{seed}", sex="M")
            )
        yield {HOME: servers[0].dicomweb_url, ELSEWHERE: servers[1].dicomweb_url}
    finally:
        stop_all(servers)


@pytest.fixture(scope="module")
def region(
    members: dict[str, str], postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Region]:
    url, folder = postgres(), tmp_path_factory.mktemp("region")
    # own_site: the practitioner's home is one of the two members.
    options: dict[str, Any] = {"database": url, "auth": {"mode": "demo"}, "search": {"own_site": "include"}}
    with (
        WorkersProcess(folder / "one", members, **options) as one,
        WorkersProcess(folder / "two", members, workers=1, **options) as two,
    ):
        register(url, HOME)
        yield Region(one, two, sign_in(one))


def sign_in(server: WorkersProcess) -> dict[str, str]:
    """Through the page, on connections of their own: the form may come from one worker and go to the other."""
    page = f"{server.url}/portal/sign-in"
    form = requests.get(page, headers={"accept": "text/html"}, timeout=20)
    csrf = re.search(r'name="csrf" value="([^"]*)"', form.text)
    assert csrf is not None
    answer = requests.post(
        page,
        data={"csrf": csrf[1], "next": "/", "rpps": GOOD},
        cookies=form.cookies.get_dict(),
        headers={"accept": "text/html", "sec-fetch-site": "same-origin"},
        allow_redirects=False,
        timeout=20,
    )
    assert answer.status_code == 303
    return {"imagora_session": answer.cookies["imagora_session"]}


def shown(answer: requests.Response) -> list[str]:
    """The PatientIDs of rows or metadata."""
    assert answer.status_code == 200, answer.text
    return [row["00100020"]["Value"][0] for row in answer.json()]


OTHERS = ["worker", "server"]


@pytest.mark.parametrize("other", OTHERS)
def test_session_and_answers_are_the_same(other: str, region: Region) -> None:
    uid = exams.uid("equal", "study")
    with region.pair(other) as (here, there):
        for path in (
            f"/dicom-web/studies?StudyInstanceUID={uid}",
            "/dicom-web/studies?PatientID=4547&includefield=all",
            f"/dicom-web/studies/{uid}/instances",
            f"/dicom-web/studies/{uid}/metadata",
        ):
            answers = [get(path) for get in (here, there)]
            assert [a.status_code for a in answers] == [200, 200]
            assert region.neutral(answers[0].text) == region.neutral(answers[1].text)
        retrieved = [get(f"/dicom-web/studies/{uid}", headers={"Accept": MULTIPART}) for get in (here, there)]
        bodies = []
        for answer in retrieved:
            boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode()
            bodies.append([part.body for part in parts_of(answer.content, boundary)])
        assert bodies[0] == bodies[1]
        assert [str(read(body).PatientID) for body in bodies[0]] == [f"4547@{HOME}"]


@pytest.mark.parametrize("other", OTHERS)
def test_bulk_data_uri_of_one_works_at_the_other(other: str, region: Region) -> None:
    uid = exams.uid("equal", "study")
    with region.pair(other) as (here, there):
        (instance,) = here(f"/dicom-web/studies/{uid}/metadata").json()
        path = instance["7FE00010"]["BulkDataURI"].removeprefix(region.one.url)
        assert path.startswith(f"/dicom-web/studies/{uid}/series/")
        answers = [get(path) for get in (here, there)]
        assert [a.status_code for a in answers] == [200, 200]
        pixels = []
        for answer in answers:
            boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode()
            pixels += [part.body for part in parts_of(answer.content, boundary)]
        assert len(pixels) == 2
        assert pixels[0] == pixels[1] != b""


@pytest.mark.parametrize("other", OTHERS)
def test_hashed_patient_id_shown_by_one_is_understood_by_the_other_at_once(other: str, region: Region) -> None:
    uid = exams.uid(f"long-{other}", "study")
    with region.pair(other) as (here, there):
        (patient_id,) = shown(here(f"/dicom-web/studies?StudyInstanceUID={uid}"))
        assert patient_id.startswith("~")
        (row,) = there("/dicom-web/studies", params={"PatientID": patient_id}).json()
        assert row["0020000D"]["Value"] == [uid]


@pytest.mark.parametrize("other", OTHERS)
def test_copy_that_one_saw_is_known_to_the_other_at_once(other: str, region: Region) -> None:
    """A site that is asked by itself gives its own IPP; the exam is shown under its patient's id all the same."""
    uid = exams.uid(other, "study")
    with region.pair(other) as (here, there):
        asked = f"/sites/{ELSEWHERE}/dicom-web/studies?StudyInstanceUID={uid}"
        assert shown(there(asked)) == [f"B99@{ELSEWHERE}"]  # so far nobody has seen that it is a copy
        assert set(shown(here(f"/dicom-web/studies/{uid}/metadata"))) == {f"7301@{HOME}"}
        assert shown(there(asked)) == [f"7301@{HOME}"]
        assert shown(there(f"/sites/{ELSEWHERE}/dicom-web/studies/{uid}/metadata")) == [f"7301@{HOME}"]


def test_suspended_practitioner_is_refused_by_all_within_a_second(region: Region) -> None:
    def administer(command: str) -> None:
        program = [region.two.command[0], "practitioners", command, "--rpps", GOOD, "--config", str(region.two.config)]
        subprocess.run(program, env=region.two._environment, check=True, capture_output=True, timeout=60)

    def statuses() -> set[int]:
        with region.pair("worker") as (here, there), region.pair("server") as (_, elsewhere):
            return {get("/dicom-web/studies?PatientID=4547").status_code for get in (here, there, elsewhere)}

    assert statuses() == {200}
    administer("suspend")
    time.sleep(1)
    assert statuses() == {403}
    administer("resume")
    time.sleep(1)
    assert statuses() == {200}
