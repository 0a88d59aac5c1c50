"""Questions about who may see what: sign-in, oppositions, near matches, withheld exams, emergencies.

Each holds however often it was asked before, and whatever somebody decided meanwhile on a near match or signed.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable
from typing import Any

from imagora_demo import cast
from imagora_demo.asking import Answer, Client, expect, study_uids
from imagora_demo.enrolment import ANNE, CLAIRE, JULIE
from imagora_demo.exams import uid

QUEUE_S = 5.0  # near matches are queued once they are met with, while nobody waits
_OF_THE_MOMENT = ("date", "x-request-id", "imagora-sources")  # the last holds milliseconds
_TRIED = re.compile(r" \((?:error|skipped|timeout)\)")
REASON = "Détresse respiratoire, patiente inconsciente (démonstration)"


def _nobody(claire: Client) -> str:
    nobody = claire.signed_out()
    answer = nobody.get("/dicom-web/studies", PatientName="lefevre*")
    expect(answer.status == 401, f"a search without a token is answered {answer.status}")
    expect("Bearer" in answer.headers.get("WWW-Authenticate", ""), "the 401 has no WWW-Authenticate")
    page = nobody.get("/", "text/html")
    expect(b"MARTIN CLAIRE" in page.body, "a browser is not led to the sign-in page")
    return "401 without a token; a browser is led to the sign-in page"


def _unsigned(claire: Client) -> str:
    answer = claire.signed_in(JULIE).get("/dicom-web/studies", PatientName="lefevre*")
    listed = claire.imagora("practitioners", "list")
    if next(person["may_ask"] for person in listed if person["rpps"] == JULIE.rpps):
        answer.rows()
        return f"{JULIE.name} has signed it meanwhile and is let in"
    expect(answer.status == 403, f"who has not signed the charter is answered {answer.status}")
    expect("imagora practitioners sign" in answer.error(), f"the 403 does not say how to sign: {answer.error()!r}")
    return f"403: {answer.error()}"


def _opposed_exam(claire: Client) -> str:
    exam = cast.exam_of(cast.OPPOSED_EXAM)
    both = {str(e.study_uid) for e in cast.exams_of(cast.ODILE)}
    shared = both - {str(exam.study_uid)}
    patient = f"{exam.ipp}@{exam.site.emetteur}"
    found = study_uids(claire.get("/dicom-web/studies", PatientID=patient).rows())
    expect(found == shared, f"she finds {len(found)} of the patient's exams instead of {len(shared)}")
    found = study_uids(claire.get("/dicom-web/studies", StudyInstanceUID=str(exam.study_uid)).rows())
    expect(not found, "she finds it by its UID")
    unknown = str(uid("demo", "no such exam"))
    for path in ("/dicom-web/studies/{}", "/dicom-web/studies/{}/metadata", "/dicom-web/studies/{}/rendered"):
        opposed, missing = (claire.get(path.format(study), "*/*") for study in (str(exam.study_uid), unknown))
        expect(opposed.status == 404, f"{path} is answered {opposed.status}")
        expect(_same(opposed, missing), f"{path} is answered otherwise than for an unknown UID: {opposed.body!r}")
    own = claire.signed_in(ANNE)
    scope = f"/sites/{exam.site.emetteur}/dicom-web/studies"
    found = study_uids(own.get(scope, PatientID=patient).rows())
    expect(found == both, f"{exam.site.name}'s own professional finds {len(found)} of {len(both)} exams there")
    expect(bool(own.get(f"{scope}/{exam.study_uid}/metadata").rows()), "and gets none of its metadata")
    return f"hidden from {CLAIRE.name}, 404 as of an unknown UID; {exam.site.name}'s own {ANNE.name} sees it there"


def _same(one: Answer, other: Answer) -> bool:
    """Are these the same but for the moment, and for whether the member that is down was tried just now?"""
    said = [
        (
            answer.status,
            answer.body,
            {n.lower(): _TRIED.sub("", v) for n, v in answer.headers.items() if n.lower() not in _OF_THE_MOMENT},
        )
        for answer in (one, other)
    ]
    return said[0] == said[1]


def _person(claire: Client) -> str:
    found = claire.get("/dicom-web/studies", PatientName="vasseur*").rows()
    expect(not found, f"{len(found)} exams are found of who refuses to share any")
    nearly = str(cast.exams_of(cast.NEARLY_MARTIN)[0].study_uid)
    shown = nearly in study_uids(claire.get("/dicom-web/studies", PatientName="vaseur*").rows())
    match = _queued(claire, nearly)
    expect(shown is (match["status"] == "dismissed"), f"the near match is {match['status']}, and shown: {shown}")
    return (
        f"no exam of {cast.MARTIN.name} is found; near match {match['id']}, {match['found']['name']} at "
        f"{match['emetteur']} ({match['difference']}), is {match['status']}"
    )


def _queued(client: Client, study: str) -> dict[str, Any]:
    """The entry of the queue of near matches that this study stands in."""
    limit = time.monotonic() + QUEUE_S
    while True:
        for match in client.imagora("oppositions", "review", "--all"):
            if match["found"]["study_uid"] == study and not match["opposition_lifted"]:
                return dict(match)
        expect(time.monotonic() < limit, "the near match is not in `imagora oppositions review`")
        time.sleep(0.1)


def _emergency(claire: Client) -> str:
    exam = cast.exam_of(cast.WITHHELD_EXAM)
    patient = f"{exam.ipp}@{exam.site.emetteur}"
    other = claire.signed_in(ANNE)
    before = _shown(claire, patient)
    running = _running(claire, patient)
    expect(before is bool(running), f"with {len(running)} emergencies of hers running, it is shown: {before}")
    answer = claire.post("/emergency", {"patient_id": patient, "reason": REASON})
    expect(answer.status == 201, f"the emergency is answered {answer.status}: {answer.body[:200]!r}")
    expect(_shown(claire, patient), "the exam does not appear after an emergency is declared")
    series = claire.get(f"/dicom-web/studies/{exam.study_uid}/metadata").rows()
    expect(bool(series), "its metadata do not come")
    expect(not _shown(other, patient), f"{ANNE.name}, who declared none, sees it too")
    now_running = _running(claire, patient)
    expect(len(now_running) == len(running) + 1, "`imagora traces list --emergencies` does not show it")
    seen = [t for t in _emergency_traces(claire) if t["kind"] == "accessed" and t["study_uid"] == exam.study_uid]
    expect(any(t["detail"]["emergency"] in now_running for t in seen), "what was seen by it is not traced")
    earlier = "shown by an earlier one of hers" if before else "withheld before"
    return f"{earlier}; declared, shown to her alone, and both traced"


def _shown(client: Client, patient: str) -> bool:
    return bool(client.get("/dicom-web/studies", PatientID=patient).rows())


def _running(client: Client, patient: str) -> set[str]:
    """Ids of the emergencies that Claire has running for this patient, as the traces tell."""
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        trace["detail"]["emergency"]
        for trace in _emergency_traces(client)
        if (trace["kind"], trace["patient_id"]) == ("emergency-started", patient)
        and trace["detail"]["expires_at"] > now
    }


def _emergency_traces(client: Client) -> list[dict[str, Any]]:
    since = f"{dt.datetime.now() - dt.timedelta(hours=3):%Y-%m-%dT%H:%M:%S}"
    found: list[dict[str, Any]] = client.imagora(
        *("traces", "list", "--emergencies", "--practitioner", CLAIRE.rpps, "--since", since)
    )
    return found


QUESTIONS: dict[str, Callable[[Client], str]] = {
    "who asks": _nobody,
    "the charter": _unsigned,
    "an exam that its patient refuses to share": _opposed_exam,
    "a person who refuses to share any": _person,
    "an emergency": _emergency,
}
