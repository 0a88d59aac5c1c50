"""A client that has something already is told so only if it would be given it: after the same consent, by the same
traces. Nothing of an opposed exam can be told from a tag."""

from __future__ import annotations

import time

import pytest
from enforced import AT_HOLDER, OUTSIDER, Ask, Exam, Region, of, seen
from support.people import SOON_S

EXAM = Exam(seed="conditional", name="CONDITIONAL^MARIE")
UNKNOWN = Exam(seed="nobody", name="NOBODY^X").uid
XML = 'multipart/related; type="application/dicom+xml"'


@pytest.fixture(scope="module")
def exam(region: Region) -> Region:
    region.upload(EXAM)
    region.tie_copies(EXAM)
    return region


def asks(study_uid: str, **headers: str) -> list[Ask]:
    return [
        Ask("", path, {**headers, **more})
        for path in (
            f"/studies/{study_uid}/metadata",
            f"{of(study_uid)[1]}/metadata",
            f"/studies?StudyInstanceUID={study_uid}",
            f"/studies/{study_uid}/series",
        )
        for more in ({}, {"Accept": XML}, {"Accept-Encoding": "identity"})
    ]


def conditional(ask: Ask, tag: str) -> Ask:
    return Ask(ask.scope, ask.path, {**ask.headers, "If-None-Match": tag})


def test_what_is_known_is_told_after_the_same_consent_and_traces(exam: Region) -> None:
    tags = []
    for ask in asks(EXAM.uid):
        first = exam.get(ask)
        assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-store")
        tags.append(first.headers["ETag"])
        again = exam.get(conditional(ask, tags[-1]))
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == tags[-1]
        assert "Imagora-Sources" in again.headers
        if "/metadata" not in ask.path:
            (trace,) = exam.ledger.traces(again.headers["X-Request-Id"])
            assert (trace["kind"], trace["outcome"]) == ("query", "success")

    # Whoever has not asked yet is traced for the 304 as for the body.
    before = len(accesses(exam, AT_HOLDER))
    assert exam.get(conditional(asks(EXAM.uid)[0], tags[0]), requester=AT_HOLDER).status_code == 304
    assert len(accesses(exam, AT_HOLDER)) == before + 1

    number = exam.ledger.oppose(studies=[EXAM.uid])
    time.sleep(SOON_S)
    unknown = asks(UNKNOWN)
    for ask, tag, other in zip(asks(EXAM.uid), tags, unknown, strict=True):
        for known in (tag, "*"):
            refused, reference = exam.get(conditional(ask, known)), exam.get(conditional(other, known))
            assert refused.status_code in (204, 404)
            assert "ETag" not in refused.headers
            assert refused.headers["Cache-Control"] == "no-store"
            assert seen(refused, EXAM.uid) == seen(reference, UNKNOWN)
    exam.ledger.lift(number)
    time.sleep(SOON_S)
    for ask, tag in zip(asks(EXAM.uid), tags, strict=True):
        assert exam.get(conditional(ask, tag)).status_code == 304


def accesses(region: Region, requester: str) -> list[object]:
    return [t for t in region.ledger.traces() if (t["kind"], t["requester_id"]) == ("accessed", requester)]


def test_what_changed_is_given(exam: Region) -> None:
    other = Exam(seed="changing", name="CHANGING^MARIE", more={"n_instances": 1})
    more = Exam(seed="changing", name="CHANGING^MARIE", more={"n_instances": 2})
    ask = Ask("", f"/studies/{other.uid}/metadata", {"Cache-Control": "no-cache"})  # they are kept for half a minute
    exam.upload(other, "csrom41200")
    tag = exam.get(ask, requester=OUTSIDER).headers["ETag"]
    exam.upload(more, "csrom41200")
    answer = exam.get(conditional(ask, tag))
    assert (answer.status_code, len(answer.json())) == (200, 2)
    assert answer.headers["ETag"] != tag
