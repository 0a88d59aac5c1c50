"""An opposition that is recorded while servers run, or an exam that is withheld: within a second it is gone from
everything that both of them answer, as if it had never been. Lifted, it is back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from enforced import (
    AT_HOLDER,
    CODES,
    FILES,
    ORIGIN,
    OUTSIDER,
    Ask,
    Exam,
    Region,
    Seen,
    retrieves,
    searches,
)
from support.people import SOON_S

KINDS = ("patient", "study", "accession", "person", "ins", "near", "hold")
ALONE_UNTOLD = ("accession", "ins")
INS = {"ins": "255084958815738"}


def oppose(region: Region, kind: str, exam: Exam) -> int:
    match kind:
        case "study":
            return region.ledger.oppose(studies=[exam.uid])
        case "accession":
            return region.ledger.oppose(accession=(exam.accession, ORIGIN))
        case "patient":
            return region.ledger.oppose(patient=exam.patient)
        case "person":
            return region.ledger.oppose(person=exam.person)
        case "near":
            return region.ledger.oppose(person=(f"{exam.name}E", exam.birth_date, exam.sex))
        case _:
            return region.ledger.oppose(ins=exam.ins)


def asked_of(exam: Exam, region: Region, kind: str) -> list[Ask]:
    """Everything for one kind; for each of the others a share, so that they have everything together."""
    everything = [*searches(exam), *retrieves(exam.uid, region.key)]
    place = KINDS.index(kind)
    return everything if place == 0 else everything[place - 1 :: len(KINDS) - 1]


class Looks:
    """What is asked by one professional at the second server, and shares of it by others and at the first."""

    def __init__(self, region: Region, asks: Sequence[Ask]) -> None:
        self._region = region
        self._looks = [
            (OUTSIDER, 1, asks),
            (OUTSIDER, 0, asks[::9]),
            (AT_HOLDER, 1, [a for a in asks if a.scope == f"/sites/{FILES}"][::3]),
        ]

    def look(self) -> dict[tuple[str, int, str], Seen]:
        return {
            (requester, server, name): answer
            for requester, server, asks in self._looks
            for name, answer in self._region.see_all(asks, requester=requester, server=server).items()
        }


def assert_shown(region: Region, exam: Exam, asks: Sequence[Ask]) -> None:
    """Each search in the widest scope finds it, each form of it can be had in every scope."""
    answers = region.get_all(asks)
    retrieved = {str(ask) for ask in retrieves(exam.uid, region.key)}
    for ask in asks:
        answer = answers[str(ask)]
        if str(ask) not in retrieved:
            if not ask.scope and "limit" not in ask.path:
                assert exam.uid in answer.text, ask
        elif "thumbnail" not in ask.path or ask.scope in ("", f"/sites/{CODES}"):  # Orthanc has none
            assert answer.status_code == (206 if "Range" in ask.headers else 200), ask


def assert_same(
    now: dict[tuple[str, int, str], Seen], then: dict[tuple[str, int, str], Seen], scope: str = "/"
) -> None:
    """Within scopes whose path starts so."""
    differing = [k for k in then if k[2].startswith(scope) and now[k] != then[k]]
    assert not differing, f"{differing}: {str(then[differing[0]])[:1500]} became {str(now[differing[0]])[:1500]}"


def test_opposed_exam_leaves_no_trace_in_any_answer(region: Region) -> None:
    """One exam for each kind of refusal, all at once: a second passes as fast for seven as for one."""
    mine = {k: Exam(seed=f"every{k}", name=f"{k}ENFORCE^MARIE".upper(), ins=INS.get(k, "")) for k in KINDS}
    for kind in KINDS:
        other = Exam(seed=f"other{kind}", name=f"{kind}ENFORCE^PAUL".upper(), birth_date="19710203", sex="M")
        region.upload(other, ORIGIN, FILES)
        region.tie_copies(other)
    asks = {kind: asked_of(exam, region, kind) for kind, exam in mine.items()}
    looks = {kind: Looks(region, asks[kind]) for kind in KINDS}
    before = {kind: look.look() for kind, look in looks.items()}
    for kind, exam in mine.items():
        region.upload(exam)
        region.tie_copies(exam)
        assert_shown(region, exam, asks[kind])

    numbers = {kind: oppose(region, kind, exam) for kind, exam in mine.items() if kind != "hold"}
    region.ledger.hold(mine["hold"].uid, ORIGIN)
    time.sleep(SOON_S)
    at_once = [Ask("", f"/studies?StudyInstanceUID={exam.uid}") for exam in mine.values()]
    for server in (0, 1):
        assert {a.status_code for a in region.get_all(at_once, server=server).values()} == {204}
    for kind, look in looks.items():
        # A copy under another accession number, or without the INS, is told by its UID alone where it is asked for
        # by itself.
        assert_same(look.look(), before[kind], scope="/…" if kind in ALONE_UNTOLD else "/")
    for kind in ALONE_UNTOLD:
        region.ledger.bind(numbers[kind], mine[kind].uid)
    time.sleep(SOON_S)
    for kind in ALONE_UNTOLD:
        assert_same(looks[kind].look(), before[kind])

    for number in numbers.values():
        region.ledger.lift(number)
    region.ledger.hold(mine["hold"].uid, ORIGIN, "released")
    time.sleep(SOON_S)
    for kind, exam in mine.items():
        assert_shown(region, exam, asks[kind][::4])
