"""An exam that the policy withholds looks unknown: to searches, counts, headers, conflicts and retrieves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import pytest
import requests
from imagora_demo import exams
from region import (
    INSTANCE,
    SERIES,
    STUDY,
    get,
    remaining,
    row,
    rows_of,
    sources,
    strict,
    tree,
    uids,
    value,
    warnings_of,
)
from support.serving import Serving

from consent import Decision, Exam, Requester

A, B = "csrom41200", "cschb41000"
HIDDEN, SHOWN, TWICE, CLASH = (str(exams.uid("permitted", n)) for n in ("hidden", "shown", "twice", "clash"))
UNKNOWN = str(exams.uid("permitted", "unknown"))


class Withholding:
    """Withholds studies by UID and all of some patients' by an id of theirs."""

    def __init__(self, *studies: str, patients: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.studies = set(studies)
        self.patients = patients

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return Decision(permitted=exam.study_uid not in self.studies and not self.patients & exam.ids)


OPPOSED = frozenset({("666", A)})


@pytest.fixture(scope="module")
def server(orthancs, serve_module) -> Serving:
    hidden = {"study_uid": HIDDEN, "name": "MARTIN^PAUL", "birth_date": "19710203", "sex": "M", "accession": "X1"}
    members = orthancs(
        {
            A: [
                *exams.light_study(**hidden, patient_id="1", n_series=2),
                *exams.light_study(study_uid=SHOWN, patient_id="2", name="MARTIN^ANNE", sex="F"),
                *exams.light_study(study_uid=TWICE, patient_id="666", name="MARTIN^LUC", sex="M"),
                *exams.light_study(study_uid=CLASH, patient_id="666", name="MARTIN^LUC", sex="M"),
            ],
            B: [
                *exams.light_study(**hidden, patient_id="9", n_series=2, first_series=2),
                *exams.light_study(study_uid=TWICE, patient_id="8", name="MARTIN^LUC", sex="M", modality="MR"),
                *exams.light_study(study_uid=CLASH, patient_id="7", name="DURAND^ANNE", sex="F"),
            ],
        }
    )
    running: Serving = serve_module(
        {site: m.dicomweb_url for site, m in members.items()}, policy=Withholding(HIDDEN, patients=OPPOSED)
    )
    return running


QUERIES = ["", "PatientName=MARTIN", f"StudyInstanceUID={HIDDEN},{SHOWN},{TWICE},{CLASH}", "StudyDate=20240110"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("level", "count"), [("studies", 2), ("series", 2), ("instances", 2)])
def test_withheld_exam_is_in_no_row_and_no_count(level: str, count: int, query: str, server: Serving) -> None:
    expected = {SHOWN, CLASH} if "MARTIN" not in query else {SHOWN}
    answer = get(f"{server.dicomweb()}/{level}?{query}")
    assert set(uids(answer, STUDY)) == expected
    assert sources(answer) == {A: ("ok", 1), B: ("ok", len(expected) - 1)}
    assert warnings_of(answer) == []
    assert HIDDEN not in answer.text
    first = get(f"{server.dicomweb()}/{level}?{query}&limit=1")
    assert remaining(first) == (len(expected) - 1, False)


@pytest.mark.parametrize(
    "query",
    ["PatientID=1", "PatientID=9", f"PatientID=1@{A}", "AccessionNumber=X1", "PatientID=666", f"PatientID=8@{B}"],
)
def test_withheld_exam_is_found_by_nothing(query: str, server: Serving) -> None:
    for scope in ("", f"/sites/{A}", f"/sites/{B}"):
        for level in ("studies", "series", "instances"):
            answer = get(f"{server.dicomweb(scope)}/{level}?{query}")
            assert answer.status_code == 204, (scope, level)
            assert {rows for _, rows in sources(answer).values()} == {0}


@pytest.mark.parametrize("query", ["PatientID=1", "PatientID=nobody", "AccessionNumber=X1", "AccessionNumber=X9"])
def test_time_does_not_tell_withheld_from_absent(query: str, server: Serving) -> None:
    """Nothing found is answered on the next tenth of a second, and sources are said to have taken as long."""
    answer = get(f"{server.dicomweb()}/studies?{query}")
    assert answer.status_code == 204
    times = [int(item.split(";")[3]) for item in answer.headers["Imagora-Sources"].split(",")]
    assert len(times) == 2
    assert all(ms >= 100 and ms % 100 == 0 for ms in times)


def test_patient_opposed_at_the_origin_is_withheld_at_every_holder(server: Serving) -> None:
    """The other holder files the study under an IPP of its own; asked by itself it must not show it."""
    assert TWICE not in get(f"{server.dicomweb()}/studies").text
    for path in ("series?Modality=MR", f"studies?StudyInstanceUID={TWICE}", f"studies/{TWICE}/series"):
        for scope in ("", f"/sites/{B}", f"/sites/{A}"):
            answer = get(f"{server.dicomweb(scope)}/{path}")
            assert answer.status_code == 204, (scope, path)
    assert get(f"{server.dicomweb(f'/sites/{B}')}/studies/{TWICE}").status_code == 404


def seen(answer: requests.Response, uid: str) -> tuple[int, Mapping[str, str], str]:
    """All that a client can tell an answer by, but for times and random numbers."""
    headers = {k.lower(): v for k, v in answer.headers.items() if k.lower() not in ("date", "x-request-id")}
    if "imagora-sources" in headers:
        headers["imagora-sources"] = re.sub(r";\d+(,|$)", r";ms\1", headers["imagora-sources"])
    return answer.status_code, headers, answer.text.replace(uid, "UID")


PATHS = ["", "/metadata", "/series", "/instances", "/rendered", "/thumbnail", "/series/1.2", "/series/1.2/instances"]
PATHS += ["/series/1.2/instances/1.3", "/series/1.2/metadata", "/series/1.2/instances/1.3/frames/1"]
PATHS += ["/series/1.2/instances/1.3/rendered", "/series/1.2/instances/1.3/bulkdata/AAAA"]


@pytest.mark.parametrize("path", PATHS)
def test_withheld_exam_answers_like_an_unknown_one(path: str, server: Serving) -> None:
    for scope in ("", f"/sites/{A}", f"/sites/{B}"):
        unknown = seen(get(f"{server.dicomweb(scope)}/studies/{UNKNOWN}{path}"), UNKNOWN)
        assert unknown[0] == (204 if path.endswith(("/series", "/instances")) else 404)
        for uid in (HIDDEN, TWICE):
            real = path.replace("1.2", str(exams.uid(uid, "series", 1)), 1)
            assert seen(get(f"{server.dicomweb(scope)}/studies/{uid}{path}"), uid) == unknown, (scope, uid)
            assert get(f"{server.dicomweb(scope)}/studies/{uid}{real}").status_code == unknown[0]


def test_withheld_person_makes_no_conflict(server: Serving) -> None:
    """Two people under one UID, one of them withheld: the other's exam is the only one that there is."""
    answer = get(f"{server.dicomweb()}/studies?StudyInstanceUID={CLASH}")
    assert [value(r, "00100020") for r in rows_of(answer)] == [f"7@{B}"]
    assert warnings_of(answer) == []
    for path in ("/series", "/metadata"):
        below = rows_of(get(f"{server.dicomweb()}/studies/{CLASH}{path}"))
        assert [value(r, "00100020") for r in below] == [f"7@{B}"]
    whole = get(f"{server.dicomweb()}/studies/{CLASH}")
    assert whole.status_code == 200
    assert b"LUC" not in whole.content


def test_two_people_under_one_uid_at_one_site_are_kept_apart(orthancs, serve) -> None:
    """An Orthanc files by PatientID and UID: it may hold both, and gives the series of both below the study."""
    uid = str(exams.uid("one-site-clash"))
    mine = exams.light_study(study_uid=uid, patient_id="1", name="MARTIN^PAUL", sex="M", seed="a")
    theirs = exams.light_study(study_uid=uid, patient_id="2", name="DURAND^ANNE", sex="F", first_series=5)
    member = orthancs({A: [*mine, *theirs]})[A]
    server = serve({A: member.dicomweb_url}, policy=Withholding(patients=frozenset({("1", A)})))
    base = server.dicomweb()
    assert [value(r, "00100020") for r in rows_of(get(f"{base}/studies"))] == [f"2@{A}"]
    for level in ("series", "instances"):
        for path in (f"studies/{uid}/{level}", f"{level}?StudyInstanceUID={uid}", level):
            answer = get(f"{base}/{path}")
            assert [value(r, "00100020") for r in rows_of(answer)] == [f"2@{A}"], path
            assert b"PAUL" not in answer.content
            assert sources(answer) == {A: ("ok", 1)}
    metadata = get(f"{base}/studies/{uid}/metadata")
    assert b"PAUL" not in metadata.content
    both = serve({A: member.dicomweb_url})
    assert sorted(value(r, "00100020") for r in rows_of(get(f"{both.dicomweb()}/studies"))) == [f"1@{A}", f"2@{A}"]


def test_page_does_not_shrink_by_what_is_withheld(peers, serve) -> None:
    rows = [row(f"1.2.{n}", str(n), date=f"2024010{n}") for n in range(1, 10)]
    members = peers(csrom41200=strict(rows))
    policy = Withholding("1.2.9", "1.2.7", "1.2.6", "1.2.1")
    server = serve({A: members[A].dicomweb_url}, policy=policy)
    base = f"{server.dicomweb()}/studies"
    pages = [get(base, params={"limit": 2, "offset": o}) for o in (0, 2, 4)]
    assert [uids(p) for p in pages] == [["1.2.8", "1.2.5"], ["1.2.4", "1.2.3"], ["1.2.2"]]
    assert [remaining(p) for p in pages] == [(3, False), (1, False), (0, False)]
    assert all(sources(p) == {A: ("ok", 5)} for p in pages)


def test_holder_of_withheld_exams_alone_looks_like_one_that_has_none(peers, serve) -> None:
    hidden = [row("1.2.1", "1"), row("1.2.2", "2")]
    members = peers(csrom41200=tree(hidden), cschb41000=strict([]))
    server = serve({s: m.dicomweb_url for s, m in members.items()}, policy=Withholding("1.2.1", "1.2.2"))
    for level, tag in (("studies", STUDY), ("series", SERIES), ("instances", INSTANCE)):
        answer = get(f"{server.dicomweb()}/{level}")
        assert (answer.status_code, uids(answer, tag)) == (204, [])
        assert sources(answer) == {A: ("ok", 0), B: ("ok", 0)}
        assert get(f"{server.dicomweb(f'/sites/{A}')}/{level}").status_code == 204
