"""What is opposed is refused like what nobody has: in the same bytes, after the same time."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from enforced import EVERYWHERE, KEEPS, OUTSIDER, Ask, Exam, Region, of, retrieves, seen
from imagora_demo import exams
from support.people import SOON_S

EXAM = Exam(seed="refused", name="REFUSED^MARIE")
UNKNOWN = str(exams.uid("nobody", "study"))
PAIRS = 200
#: Triples under way at a time.
AT_ONCE = 8


@pytest.fixture(scope="module", autouse=True)
def opposed(region: Region) -> None:
    region.upload(EXAM)
    region.tie_copies(EXAM)
    assert region.get(Ask("", f"/studies/{EXAM.uid}/metadata")).status_code == 200
    region.ledger.oppose(patient=EXAM.patient)
    time.sleep(SOON_S)


@pytest.fixture(params=["all members up", "one member down"])
def members(request: pytest.FixtureRequest, region: Region) -> Iterator[str]:
    down = request.param == "one member down"
    if down:
        region.orthancs[KEEPS].kill()
    yield request.param
    if down:
        region.orthancs[KEEPS].start()


def all_of(study_uid: str, region: Region) -> list[Ask]:
    """Every form at every level in every scope, and each search by UID."""
    series, instance = of(study_uid)
    asked = retrieves(study_uid, region.key)
    for scope in EVERYWHERE:
        asked += [Ask(scope, path) for path in (f"/studies/{study_uid}/series", f"/studies/{study_uid}/instances")]
        asked += [Ask(scope, f"{series}/instances"), Ask(scope, f"{instance}/bulkdata/AAAA")]
        for level in ("studies", "series", "instances"):
            asked.append(Ask(scope, f"/{level}?StudyInstanceUID={study_uid}"))
        asked.append(Ask(scope, f"/series?SeriesInstanceUID={series.rpartition('/')[2]}"))
        asked.append(Ask(scope, f"/instances?SOPInstanceUID={instance.rpartition('/')[2]}"))
    return asked


def test_refusal_is_that_of_an_unknown_study_byte_for_byte(members: str, region: Region) -> None:
    everything, as_unknown = all_of(EXAM.uid, region), all_of(UNKNOWN, region)
    for server, share in ((0, 7), (1, 1 if members == "all members up" else 3)):
        opposed, unknown = everything[::share], as_unknown[::share]
        answers = region.get_all(opposed, server=server)
        theirs = region.get_all(unknown, server=server)
        for mine, other in zip(opposed, unknown, strict=True):
            answer, reference = answers[str(mine)], theirs[str(other)]
            assert seen(answer, EXAM.uid) == seen(reference, UNKNOWN), mine
            search = "?" in mine.path or mine.path.endswith(("/series", "/instances"))
            by_uid = search and mine.service == "/dicom-web"
            if members == "all members up":
                assert answer.status_code == (204 if by_uid else 404), mine
            # What a member took to answer is told in steps, which hide whether it had something to say.
            if "bulkdata/AAAA" not in mine.path:
                took = [int(i.rpartition(";")[2]) for i in answer.headers["Imagora-Sources"].split(", ")]
                assert all(ms % 100 == 0 and ms > 0 for ms in took), (mine, took)


def auc(one: list[float], other: list[float]) -> float:
    """How often a time of the one is longer than one of the other: 0.5 tells nothing, 0 and 1 everything."""
    wins = sum((a > b) + (a == b) / 2 for a, b in itertools.product(one, other))
    return wins / (len(one) * len(other))


FORMS = ("", "/metadata", "/series", "/frames", "?studies", "/rendered", "?instances", "/thumbnail")


def timed(session: requests.Session, region: Region, study_uid: str, form: str) -> float:
    path = f"/studies/{study_uid}{form}"
    if form.startswith("?"):
        path = f"/{form[1:]}?StudyInstanceUID={study_uid}"
    elif form == "/frames":
        path = f"{of(study_uid)[1]}/frames/1"
    url = region.servers[1].dicomweb() + path
    started = time.perf_counter()
    status = session.get(url, timeout=30).status_code
    took = time.perf_counter() - started
    assert status in (200, 204, 404, 503)
    return took


def test_refusal_takes_as_long_as_that_of_an_unknown_study(members: str, region: Region) -> None:
    """Interleaved: each worker asks for the opposed study, for an unknown one that is always the same, and for one that
    nobody ever asked for, in an order of chance."""
    names = ("opposed", "unknown", "never asked for")
    dice = random.Random("interleaved")
    orders = [dice.sample(names, 3) for _ in range(PAIRS)]

    def triple(number: int) -> dict[str, float]:
        uids = dict(zip(names, (EXAM.uid, UNKNOWN, exams.uid(members, number)), strict=True))
        with requests.Session() as session:
            session.headers.update(region.people.bearer(OUTSIDER))
            timed(session, region, UNKNOWN, "/series")  # the connection is made
            return {name: timed(session, region, uids[name], FORMS[number % len(FORMS)]) for name in orders[number]}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        times = list(pool.map(triple, range(PAIRS)))
    opposed, unknown, fresh = ([t[name] for t in times] for name in names)
    told = {"unknown": auc(opposed, unknown), "never asked for": auc(opposed, fresh)}
    assert all(0.4 <= a <= 0.6 for a in told.values()), told
