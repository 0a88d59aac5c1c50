"""A person's opposition holds everywhere, however sites spell him; who may be he is withheld until it is decided; who
is not he is shown."""

from __future__ import annotations

import time

from enforced import CODES, DICOM, FILES, KEEPS, ORIGIN, Ask, Exam, Region, of, uids, until
from support.people import SOON_S

NAME, BORN, SEX = "LEFÈVRE-DUPONT^Anne-Sophie", "19600512", "F"
SPELLINGS = {
    ORIGIN: "LEFEVRE DUPONT^ANNE SOPHIE",
    FILES: "Lefèvre-Dupont^Anne-Sophie",
    KEEPS: "lefevre'dupont^ANNE-SOPHIE^^Dr",
    CODES: "Lefêvre Dupont^Anne sophie",
}


def shown(region: Region, exam: Exam, emetteur: str) -> set[bool]:
    """Whether it is shown, by any of what could tell: in its site's scope and the widest, by both servers."""
    series, instance = of(exam.uid)
    by_name, site = f"/studies?PatientName={exam.name}&PatientBirthDate={exam.birth_date}", f"/sites/{emetteur}"
    asks = [Ask("", by_name), Ask("", f"/series?StudyInstanceUID={exam.uid}"), Ask("", instance, DICOM)]
    asks += [Ask(site, by_name), Ask(site, f"{series}/metadata"), Ask(site, f"{instance}/frames/1")]
    told = set()
    for server in (0, 1):
        for ask, answer in region.get_all(asks, server=server).items():
            assert answer.status_code in (200, 204, 404), ask
            if "?" in ask:
                told.add(exam.uid in uids(answer))
            else:
                told.add(answer.status_code == 200)
    return told


def test_person_is_hidden_at_every_site_however_he_is_spelled(region: Region) -> None:
    his = {
        e: Exam(seed=f"person{n}", name=name, birth_date=BORN, sex=SEX) for n, (e, name) in enumerate(SPELLINGS.items())
    }
    homonym = Exam(seed="homonym", name=NAME, birth_date="19620713", sex=SEX)
    undated = Exam(seed="undated", name=NAME, birth_date="", sex=SEX)
    namesake = Exam(seed="namesake", name="LEFÈVRE-DUPONT^Jeanne", birth_date=BORN, sex=SEX)
    for emetteur, exam in his.items():
        region.upload(exam, emetteur)
    for exam in (homonym, undated, namesake):
        region.upload(exam, ORIGIN)
    for emetteur, exam in his.items():
        assert shown(region, exam, emetteur) == {True}, exam.name
    number = region.ledger.oppose(person=(NAME, BORN, SEX))
    time.sleep(SOON_S)
    for emetteur, exam in his.items():
        assert shown(region, exam, emetteur) == {False}, exam.name
    for exam in (homonym, namesake):
        assert shown(region, exam, ORIGIN) == {True}, exam.seed
    # A birth date that is missing hides nobody.
    assert uids(region.get(f"/studies?PatientID={undated.ipp}")) == [undated.uid]
    assert region.get(Ask("", f"/studies/{undated.uid}", DICOM)).status_code == 200
    region.ledger.lift(number)
    time.sleep(SOON_S)
    for emetteur, exam in his.items():
        assert shown(region, exam, emetteur) == {True}, exam.name


#: Each of a family of his own, so that they are nobody's near match but their own person's.
NEAR = {
    "one letter of the name differs": {"name": "AUBERTAIN^MARIE"},
    "one given name is a part of the other": {"name": "BELLANGER^MARIELOUISE"},
    "two digits of the birth date are exchanged": {"name": "CORBINEAU^MARIE", "birth_date": "19600521"},
    "day and month of the birth date are exchanged": {"name": "DELAUNOY^MARIE", "birth_date": "19601205"},
    "the sex is not known": {"name": "ESTIENNE^MARIE", "sex": ""},
    "the sex differs": {"name": "FROMENTIN^MARIE", "sex": "M"},
}
PERSONS = ("AUBERTIN", "BELLANGER", "CORBINEAU", "DELAUNOY", "ESTIENNE", "FROMENTIN")


def test_near_match_is_withheld_until_it_is_decided(region: Region) -> None:
    exams = {
        what: Exam(seed=f"near{n}", **{"birth_date": BORN, "sex": SEX, **traits})
        for n, (what, traits) in enumerate(NEAR.items())
    }
    holders = {what: (ORIGIN, FILES)[n % 2] for n, what in enumerate(NEAR)}
    for what, exam in exams.items():
        region.upload(exam, holders[what])

    def all_shown() -> dict[str, set[bool]]:
        return {what: shown(region, exam, holders[what]) for what, exam in exams.items()}

    everyone, nobody = {what: {True} for what in NEAR}, {what: {False} for what in NEAR}
    assert all_shown() == everyone
    numbers = {
        what: region.ledger.oppose(person=(f"{family}^MARIE", BORN, SEX))
        for what, family in zip(NEAR, PERSONS, strict=True)
    }
    time.sleep(SOON_S)
    assert all_shown() == nobody

    def queue() -> set[tuple[int, str, str, str, str]]:
        rows = region.ledger.run(lambda c: c.fetch("SELECT * FROM near_match"))
        return {(r["opposition"], r["emetteur"], r["study_uid"], r["difference"], r["status"]) for r in rows}

    until(lambda: len(queue()) >= len(NEAR))
    assert queue() == {(numbers[w], holders[w], exams[w].uid, w, "pending") for w in NEAR}

    def decide(status: str) -> None:
        for what, exam in exams.items():
            patient = exam.patient if holders[what] == ORIGIN else (f"{FILES[:3]}{exam.seed}", FILES)
            region.ledger.decide_near_match(
                numbers[what], patient=patient, person=exam.person, study_uid=exam.uid, status=status
            )
        time.sleep(SOON_S)

    decide("dismissed")
    assert all_shown() == everyone
    decide("confirmed")
    assert all_shown() == nobody
    # Decided is decided: nobody is asked again.
    assert queue() == {(numbers[w], holders[w], exams[w].uid, w, "confirmed") for w in NEAR}

    for number in numbers.values():
        region.ledger.lift(number)
    time.sleep(SOON_S)
    assert all_shown() == everyone
