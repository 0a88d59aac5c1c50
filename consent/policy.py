"""The rules: who may see which exam. Pure, answered from the book in memory."""

from __future__ import annotations

from datetime import datetime

from consent.access import PERMITTED
from consent.book import Book
from consent.model import Decision, Exam, Requester

NOT_INFORMED = Decision(permitted=False, reason="the patient could not be informed yet")


class Rules:
    """Sharing rests on implicit consent. In this order:

    1. Who works at the exam's origin sees it: that is no sharing. Where the origin is a guess, an opposition that names
       an IPP or accession number of a site knows better: then it is this site, if it has the exam and no other
       opposition names another; else nobody's.
    2. An opposition removes it, also in an emergency; so does what may be one, until a correspondent has decided.
    3. Whose patient could not be informed is withheld, but for a declared vital emergency of this patient.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        home = requester.home.emetteur if requester.home is not None else None
        if home == exam.origin.emetteur and (exam.origin_named or not self._book.sites_named(exam)):
            return PERMITTED
        number, near = self._book.opposed(exam)
        if number is not None:
            if home is not None and not exam.origin_named and self._made_at(home, exam):
                return PERMITTED
            by_ins = self._book.by_ins(number, exam)
            return Decision(permitted=False, reason=f"opposition {number}", opposition=number, by_ins=by_ins)
        if near:
            numbers = ", ".join(str(n) for n in sorted({match.opposition for match in near}))
            return Decision(permitted=False, reason=f"near match of opposition {numbers}", near=near)
        if self._book.withheld(exam):
            emergency = self._book.emergency(requester.id, exam, at)
            return Decision(permitted=True, emergency=emergency) if emergency else NOT_INFORMED
        return PERMITTED

    def _made_at(self, emetteur: str, exam: Exam) -> bool:
        """Do oppositions tell that this site made an exam of which nothing else tells it?"""
        return self._book.sites_named(exam) == {emetteur} and any(s.emetteur == emetteur for s in exam.holders)

    def emergencies(self, requester: Requester, at: datetime) -> list[str]:
        return self._book.emergencies(requester.id, at)
