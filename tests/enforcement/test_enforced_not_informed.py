"""Exams whose patient could not be informed: hidden, unless this requester declared this patient's vital emergency."""

from __future__ import annotations

import time
from typing import Any

from enforced import (
    AT_HOLDER,
    AT_ORIGIN,
    DICOM,
    FILES,
    KEEPS,
    ORIGIN,
    OUTSIDER,
    Ask,
    Exam,
    Region,
    of,
    region,
    uids,
    until,
)
from support.people import SOON_S


def asks_for(exam: Exam) -> list[Ask]:
    """What shows it, by each kind of answer and of trace, in the widest scope and where only a copy is."""
    _, instance = of(exam.uid)
    asks = []
    for scope in ("", f"/sites/{KEEPS}"):
        asks += [
            Ask(scope, f"/studies?PatientID={exam.ipp}&own_site=include"),
            Ask(scope, f"/instances?StudyInstanceUID={exam.uid}"),
        ]
        asks += [Ask(scope, f"/studies/{exam.uid}/series"), Ask(scope, f"/studies/{exam.uid}", DICOM)]
        asks += [
            Ask(scope, f"{instance}/metadata"),
            Ask(scope, f"{instance}/frames/1"),
            Ask(scope, f"{instance}/rendered"),
        ]
    return asks


def shown(region: Region, exam: Exam, requester: str = OUTSIDER) -> set[bool]:
    told = set()
    for server in (0, 1):
        asks = asks_for(exam)[:: (3, 1)[server]]
        for ask, answer in region.get_all(asks, requester=requester, server=server).items():
            assert answer.status_code in (200, 204, 404), ask
            told.add(exam.uid in answer.text if "/studies?" in ask else answer.status_code == 200)
    return told


def test_emergency_shows_the_exams_of_one_patient_to_one_requester(region: Region) -> None:
    exam = Exam(seed="urgent", name="URGENT^MARIE")
    other = Exam(seed="urgentother", name="URGENT^PAUL", birth_date="19710203", sex="M")
    for one in (exam, other):
        region.upload(one)
        region.tie_copies(one)
        region.ledger.hold(one.uid, ORIGIN)
    time.sleep(SOON_S)
    assert shown(region, exam) == {False}
    assert shown(region, exam, AT_HOLDER) == {False}
    assert shown(region, exam, AT_ORIGIN) == {True}

    region.ledger.declare_emergency(OUTSIDER, exam.patient)
    time.sleep(SOON_S)
    assert shown(region, exam) == {True}
    assert shown(region, other) == {False}
    assert shown(region, exam, AT_HOLDER) == {False}

    # Never against an opposition.
    number = region.ledger.oppose(studies=[exam.uid])
    time.sleep(SOON_S)
    assert shown(region, exam) == {False}
    region.ledger.lift(number)
    region.ledger.hold(exam.uid, ORIGIN, "released")
    time.sleep(SOON_S)
    assert shown(region, exam) == {True}
    assert shown(region, exam, AT_HOLDER) == {True}


def test_emergency_ends_when_it_expires(region: Region) -> None:
    exam = Exam(seed="expires", name="EXPIRES^MARIE")
    region.upload(exam)
    region.tie_copies(exam)
    region.ledger.hold(exam.uid, ORIGIN)
    lasting_s = 4.0
    region.ledger.declare_emergency(OUTSIDER, exam.patient, lasting_s=lasting_s)
    declared_at = time.monotonic()
    time.sleep(SOON_S)
    assert shown(region, exam) == {True}
    time.sleep(max(0.0, declared_at + lasting_s - time.monotonic()))
    assert shown(region, exam) == {False}


def test_traces_say_under_which_emergency_something_was_seen(region: Region) -> None:
    exam, free = Exam(seed="traced", name="TRACED^MARIE"), Exam(seed="tracedfree", name="TRACED^ANNE")
    for one in (exam, free):
        region.upload(one)
        region.tie_copies(one)
    region.ledger.hold(exam.uid, ORIGIN)
    emergency = region.ledger.declare_emergency(OUTSIDER, exam.patient)
    time.sleep(SOON_S)

    def traced(answer: Any, count: int) -> list[tuple[str, str, str]]:
        identifier = answer.headers["X-Request-Id"]
        until(lambda: len(region.ledger.traces(identifier)) >= count)
        found = region.ledger.traces(identifier)
        assert all(t["requester_id"] == OUTSIDER for t in found)
        return [(t["kind"], t["outcome"], t["detail"].get("emergency", "")) for t in found]

    _, instance = of(exam.uid)
    search = region.get(f"/studies?StudyInstanceUID={exam.uid}")
    assert uids(search) == [exam.uid]
    ((kind, outcome, emergencies),) = traced(search, 1)
    assert (kind, outcome) == ("query", "success")
    assert emergency in emergencies.split()  # all that he has running: what a search shows is not traced one by one
    for path in (f"{instance}/frames/1", f"/studies/{exam.uid}/metadata"):
        answer = region.get(Ask("", path), server=0 if "metadata" in path else 1)
        assert answer.status_code == 200
        assert traced(answer, 1) == [("accessed", "success", emergency)]
    whole = region.get(Ask("", f"/studies/{exam.uid}", DICOM))
    assert whole.status_code == 200
    assert traced(whole, 2) == [("transfer-begun", "success", emergency), ("transferred", "success", emergency)]
    # What is shown anyway was not seen under it; a refusal to somebody else neither.
    other = region.get(Ask("", f"/studies/{free.uid}", DICOM))
    assert traced(other, 2) == [("transfer-begun", "success", ""), ("transferred", "success", "")]
    refused = region.get(Ask("", f"/studies/{exam.uid}", DICOM), requester=AT_HOLDER)
    assert refused.status_code == 404
    until(lambda: region.ledger.traces(refused.headers["X-Request-Id"]))
    (trace,) = region.ledger.traces(refused.headers["X-Request-Id"])
    assert (trace["kind"], trace["requester_id"]) == ("refused", AT_HOLDER)
    assert "emergency" not in trace["detail"]


def test_sites_word_on_its_exams_holds_until_it_says_otherwise_of_one(postgres, tmp_path) -> None:
    """Withheld by default: all that the site made, its copies too; nothing that others made."""
    withheld, released = Exam(seed="held", name="HELD^MARIE"), Exam(seed="freed", name="FREED^MARIE")
    with region(postgres(), tmp_path) as own:
        for exam in (withheld, released):
            own.upload(exam, ORIGIN, KEEPS)
            own.tie_copies(exam)
        others = Exam(seed="others", name="OTHERS^MARIE")
        own.upload(others, FILES)
        own.ledger.hold_by_default(ORIGIN)
        own.ledger.hold(released.uid, ORIGIN, "released")
        time.sleep(SOON_S)
        assert shown(own, withheld) == {False}
        assert shown(own, withheld, AT_ORIGIN) == {True}
        assert shown(own, released) == {True}
        assert uids(own.get(f"/studies?PatientName={others.name}")) == [others.uid]
        # A holder's word on one exam counts too.
        own.ledger.hold(released.uid, KEEPS)
        own.ledger.hold_by_default(ORIGIN, "released")
        time.sleep(SOON_S)
        assert shown(own, withheld) == {True}
        assert shown(own, released) == {False}
