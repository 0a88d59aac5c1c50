"""StudyDate and StudyTime together are one range, whatever members make of them (PS3.18 §8.3.4.1.1)."""

from __future__ import annotations

import pytest
from dicomweb_client.api import DICOMwebClient
from imagora_demo import exams
from region import get, remaining, row, strict, uids, walk
from support.serving import Serving

MOMENTS = {
    "too early": ("20240105", "095959"),
    "first day": ("20240105", "100000"),
    "by night": ("20240106", "030000"),
    "last day": ("20240107", "180000"),
    "too late": ("20240107", "180100"),
    "years ago": ("20190601", "120000"),
}
WITHIN = ["last day", "by night", "first day"]  # newest first
BETWEEN = {"StudyDate": "20240105-20240107", "StudyTime": "1000-1800"}
CASES = [
    (BETWEEN, WITHIN),
    ({"StudyDate": "20240105-", "StudyTime": "1000-"}, ["too late", *WITHIN]),
    ({"StudyDate": "-20240105", "StudyTime": "-095959"}, ["too early", "years ago"]),
    ({"StudyDate": "20240101-20240131", "StudyTime": "03"}, ["by night"]),  # a time of day: every day
    ({"StudyDate": "20240107", "StudyTime": "1000-1800"}, ["last day"]),
]


def uid(site: str, name: str) -> str:
    return str(exams.uid("moments", site, name))


@pytest.fixture(scope="module")
def server(orthancs, serve_module) -> Serving:
    content = [
        instance
        for n, (name, (day, time)) in enumerate(MOMENTS.items())
        for instance in exams.light_study(
            study_uid=uid("real", name), patient_id=str(n), study_date=day, study_time=time
        )
    ]
    members = orthancs({"csrom41200": content})
    serving: Serving = serve_module({"csrom41200": members["csrom41200"].dicomweb_url})
    return serving


@pytest.mark.parametrize(("params", "expected"), CASES)
def test_at_a_real_pacs(server: Serving, params: dict[str, str], expected: list[str]) -> None:
    answer = get(f"{server.dicomweb()}/studies", params=params)
    assert uids(answer) == [uid("real", name) for name in expected]


@pytest.mark.parametrize(("params", "expected"), CASES[:3])
def test_a_member_that_matches_them_apart_is_asked_for_the_dates_only(
    peers, serve, params: dict[str, str], expected: list[str]
) -> None:
    studies = [row(uid("strict", name), name, date=day, time=time) for name, (day, time) in MOMENTS.items()]
    member = peers(csrom41200=strict(studies))["csrom41200"]
    answer = get(f"{serve({'csrom41200': member.dicomweb_url}).dicomweb()}/studies", params=params)
    assert uids(answer) == [uid("strict", name) for name in expected]
    asked = [request for request in member.requests if request.values("00080020")]
    assert asked
    assert all(request.values("00080030") == [] for request in asked)


def test_pages_count_what_lies_within(server: Serving) -> None:
    first = get(f"{server.dicomweb()}/studies", params={**BETWEEN, "limit": 1})
    assert remaining(first) == (2, False)
    query = "&".join(f"{name}={value}" for name, value in BETWEEN.items())
    assert [r["0020000D"]["Value"][0] for r in walk(f"{server.dicomweb()}/studies?{query}", 1)] == [
        uid("real", name) for name in WITHIN
    ]


def test_series_are_found_by_the_moment_of_their_study(server: Serving) -> None:
    rows = DICOMwebClient(server.dicomweb()).search_for_series(search_filters=BETWEEN)
    assert {r["0020000D"]["Value"][0] for r in rows} == {uid("real", name) for name in WITHIN}
