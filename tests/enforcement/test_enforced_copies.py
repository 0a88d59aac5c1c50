"""Whose exam a copy is decides, also where it is filed as somebody else's; and what is withheld leaves no conflict and
no cap behind."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from enforced import (
    AT_HOLDER,
    AT_ORIGIN,
    CODES,
    DICOM,
    FILES,
    KEEPS,
    ORIGIN,
    Ask,
    Exam,
    Region,
    finding,
    of,
    region,
    retrieves,
    rows,
    searches,
    uids,
)
from imagora_demo import exams
from retrieve.retrieve_member import Held, delivering, read
from support.peer import Connection, Request
from support.people import SOON_S

REFUSED = {"error": "There is no such study, or it can't be shown."}


def at(emetteur: str) -> str:
    return f"/sites/{emetteur}"


def test_origins_own_professionals_go_on_seeing_it(region: Region) -> None:
    exam = Exam(seed="origin", name="ORIGINES^ANNE")
    region.upload(exam)
    region.tie_copies(exam)
    region.ledger.oppose(patient=exam.patient, studies=[exam.uid])
    time.sleep(SOON_S)
    asks = [a for a in (*searches(exam), *retrieves(exam.uid, region.key)) if a.scope == at(ORIGIN)]
    for server in (0, 1):
        answers = region.get_all(asks, requester=AT_ORIGIN, server=server)
        assert {k for k, a in answers.items() if a.status_code not in (200, 206) and "thumbnail" not in k} == set()
        assert uids(region.get(f"/studies?StudyInstanceUID={exam.uid}", requester=AT_ORIGIN, server=server))
    # Who works where only a copy is does not, not even there.
    for ask in (Ask(at(FILES), f"/studies?StudyInstanceUID={exam.uid}"), Ask(at(FILES), f"/studies/{exam.uid}/series")):
        assert region.get(ask, requester=AT_HOLDER).status_code == 204
    assert region.get(Ask(at(FILES), f"/studies/{exam.uid}"), requester=AT_HOLDER).status_code == 404


def assert_hidden_at(region: Region, exam: Exam, emetteur: str) -> None:
    asks = [a for a in (*searches(exam), *retrieves(exam.uid, region.key)) if a.scope == at(emetteur)]
    for server in (0, 1):
        shown = {k for k, a in region.get_all(asks, server=server).items() if a.status_code not in (204, 404)}
        assert shown == set(), server


@pytest.mark.parametrize("emetteur", [KEEPS, CODES])
def test_copy_that_names_its_origin_is_hidden_when_asked_for_alone(emetteur: str, region: Region) -> None:
    """Nothing was learnt of it by any wide search: it says itself whose it is."""
    exam = Exam(seed=f"alone{emetteur[:4]}", name=f"ALONE{emetteur[:4]}^EVE".upper())
    region.upload(exam)
    found = Ask(at(emetteur), f"/studies?PatientName={exam.name}")
    assert uids(region.get(found)) == [exam.uid]
    region.ledger.oppose(patient=exam.patient)
    time.sleep(SOON_S)
    assert_hidden_at(region, exam, emetteur)


@pytest.mark.parametrize("by", ["wide search", "bound study"])
def test_copy_filed_as_its_holders_own_patient_is_hidden(by: str, region: Region) -> None:
    """Only the other holders tell that it is the opposed patient's: a wide search ties it to them, or its UID does."""
    exam = Exam(seed=f"filed{by[:4]}", name=f"FILED{by[:4]}^EVE".upper())
    region.upload(exam, ORIGIN, FILES)
    number = region.ledger.oppose(patient=exam.patient)
    time.sleep(SOON_S)
    if by == "wide search":
        for server in (0, 1):
            assert region.get(f"/studies?PatientName={exam.name}", server=server).status_code == 204
    else:
        region.ledger.bind(number, exam.uid)
        time.sleep(SOON_S)
    assert_hidden_at(region, exam, FILES)
    assert_hidden_at(region, exam, ORIGIN)


def test_copy_is_hidden_while_the_holder_that_tells_whose_it_is_is_down(region: Region) -> None:
    exam = Exam(seed="down", name="ISDOWN^EVE")
    region.upload(exam, ORIGIN, FILES)
    region.tie_copies(exam)
    region.ledger.oppose(patient=exam.patient)
    time.sleep(SOON_S)
    region.orthancs[ORIGIN].kill()
    try:
        assert_hidden_at(region, exam, FILES)
        for ask in finding(exam):
            answer = region.get(f"/studies?{ask}")
            assert answer.status_code == 200, ask  # with the source named that did not answer
            assert exam.uid not in answer.text.replace(ask, ""), ask
        assert region.get(Ask("", f"/studies/{exam.uid}", DICOM)).status_code == 404
    finally:
        region.orthancs[ORIGIN].start()


def refuses_instances(region: Region, exam: Exam, scopes: Sequence[str]) -> None:
    series, instance = of(exam.uid)
    for path in (f"/studies/{exam.uid}", series, instance):
        for scope in scopes:
            for ask in (Ask(scope, path, DICOM), Ask(scope, f"{path}/metadata")):
                answer = region.get(ask)
                assert (answer.status_code, answer.json()) == (404, REFUSED), ask


def test_reconciled_copy_whose_rows_name_no_origin_is_known_by_its_instances(region: Region) -> None:
    """As an Orthanc keeps it: its own patient's number, and only in the instances who made it."""
    exam = Exam(seed="reconciled", name="RECONCILED^EVE")
    region.orthancs[KEEPS].upload(exam.at(CODES))
    assert region.get(Ask(at(KEEPS), f"/studies/{exam.uid}", DICOM)).status_code == 200
    region.ledger.oppose(patient=exam.patient)
    time.sleep(SOON_S)
    refuses_instances(region, exam, ["", at(KEEPS)])
    # From then on its rows and pictures are withheld too.
    time.sleep(SOON_S)
    assert_hidden_at(region, exam, KEEPS)


def test_stranger_among_instances_does_not_bind_their_study(region: Region) -> None:
    """One instance of a study is filed under an opposed patient's number: it is refused, the study is not his."""
    exam = Exam(seed="strays", name="STRAYS^EVE")
    region.upload(exam, CODES)
    stray = exam.at(FILES)[0]

    async def confused(request: Request, connection: Connection, held: list[Held]) -> None:
        await delivering()(request, connection, [Held(stray, read(stray)), *held[1:]])

    whole = Ask("", f"/studies/{exam.uid}", DICOM)
    region.holder.deliver = confused
    try:
        assert region.get(whole).status_code == 200
        region.ledger.oppose(patient=(read(stray).PatientID, CODES))
        time.sleep(SOON_S)
        assert region.get(whole).status_code == 404
    finally:
        region.holder.deliver = delivering()
    time.sleep(SOON_S)
    assert uids(region.get(f"/studies?PatientName={exam.name}")) == [exam.uid]
    assert region.get(whole).status_code == 200


def test_ins_in_instances_alone_is_known_by_them(region: Region) -> None:
    exam = Exam(seed="insonly", name="INSONLY^EVE", ins="184127645108946")
    region.upload(exam, ORIGIN, FILES)
    region.ledger.oppose(ins=exam.ins)
    time.sleep(SOON_S)
    refuses_instances(region, exam, [at(ORIGIN)])
    time.sleep(SOON_S)
    for emetteur in (ORIGIN, FILES):
        assert_hidden_at(region, exam, emetteur)


@pytest.mark.parametrize("by", ["number", "traits"])
def test_opposed_person_leaves_the_other_one_of_a_shared_uid_alone(by: str, region: Region) -> None:
    """Two people under one StudyInstanceUID: a conflict that is told, until one of them opposes."""
    exam = Exam(seed=f"clash{by}", name="CLASHES^EVE")
    other = Exam(seed=f"clash{by}", name="OTHER^PAUL", birth_date="19800101", sex="M")
    region.upload(exam, ORIGIN)
    region.upload(other, FILES)
    wide = f"/studies?StudyInstanceUID={exam.uid}"
    before = region.get(wide)
    assert len(rows(before)) == 2
    assert "different patients" in before.headers["Warning"]
    assert region.get(Ask("", f"/studies/{exam.uid}", DICOM)).status_code == 409
    region.ledger.oppose(**({"patient": exam.patient} if by == "number" else {"person": exam.person}))
    time.sleep(SOON_S)
    after = region.get(wide)
    assert [row["00080054"]["Value"] for row in rows(after)] == [[FILES]]
    assert "Warning" not in after.headers
    for path in (f"/studies/{exam.uid}", f"/studies/{exam.uid}/metadata"):
        whole = region.get(Ask("", path, DICOM if "metadata" not in path else {}))
        assert whole.status_code == 200
        assert b"CLASHES" not in whole.content
        assert b"OTHER" in whole.content
    assert region.get(Ask(at(ORIGIN), f"/studies/{exam.uid}", DICOM)).status_code == 404


def test_opposed_exam_does_not_fill_a_members_cap(postgres, tmp_path) -> None:
    """A member is cut at its cap: what is opposed is not among the rows that count, nor a reason to say so."""
    several = [Exam(seed=f"cap{n}", name=f"CAPPED^N{n}", birth_date=f"1960010{n}") for n in range(1, 6)]
    with region(postgres(), tmp_path, search={"member_cap": 3}) as small:
        for exam in several[:4]:
            small.upload(exam, ORIGIN)
        wide = "/studies?PatientName=CAPPED"
        capped = small.get(wide)
        assert len(rows(capped)) == 3
        assert f"{ORIGIN};capped;3;" in capped.headers["Imagora-Sources"]
        small.ledger.oppose(patient=several[0].patient)
        time.sleep(SOON_S)
        whole = small.get(wide)
        assert sorted(uids(whole)) == sorted(e.uid for e in several[1:4])
        assert f"{ORIGIN};ok;3;" in whole.headers["Imagora-Sources"]
        assert "cut at" not in whole.headers["Warning"]
        small.upload(several[4], ORIGIN)
        again = small.get(wide)
        assert len(rows(again)) == 3
        assert f"{ORIGIN};capped;3;" in again.headers["Imagora-Sources"]
        assert exams.uid("cap1", "study") not in again.text
