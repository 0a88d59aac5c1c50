"""Whose rows are that do not say it all themselves: their member is asked at the study level, where it should."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from federation.identity import Naming, Record, first_of, record_of, same_person, text_of
from federation.locate import IDENTITY_TAGS, Locator
from federation.matching import BIRTH_DATE, PATIENT_ID, PATIENT_NAME, SEX
from federation.merge import Hit
from federation.model import Attributes, Level
from federation.report import Report
from registry import Directory, Site


def is_told(row: Attributes, level: Level = Level.SERIES) -> bool:
    """Does a row itself say whose it is, by all that an opposition knows a person by? Present and empty is an answer;
    absent is none. Of a study it says all that its member has when it says who it is: what was asked for and is empty,
    some leave out."""
    if PATIENT_ID not in row or PATIENT_NAME not in row:
        return False
    return level is Level.STUDY or (BIRTH_DATE in row and SEX in row)


#: So many studies are asked about one by one.
_SINGLY_MAX = 128


class Whose:
    """What one member says of its studies, at the study level."""

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        self._by_study: dict[str, dict[str, Hit]] = {}
        for hit in hits:
            self._by_study.setdefault(hit.study_uid, {})[hit.record.raw_patient_id] = hit

    def hit(self, row: Attributes) -> Hit | None:
        """The study of a row. None: the member names no such study, or two people's for a row without PatientID."""
        hits = self._by_study.get(text_of(row, "0020000D"), {})
        if PATIENT_ID in row:
            return hits.get(text_of(row, PATIENT_ID))
        first = next(iter(hits.values()), None)
        one = first is not None and all(same_person(first.record, h.record) for h in hits.values() if h is not first)
        return first if one else None

    def record(
        self, row: Attributes, site: Site, directory: Directory, naming: Naming, level: Level = Level.SERIES
    ) -> Record | None:
        """What a row says, with what its study says where it says nothing. None: it can't be told whose it is."""
        if is_told(row, level):
            return record_of(row, site, directory, long_ids=naming.long_ids)
        hit = self.hit(row)
        if hit is None:
            return None
        said = {tag: hit.row[tag] for tag in IDENTITY_TAGS if tag in hit.row}
        own = {tag: content for tag, content in row.items() if tag not in said or first_of(row, tag) is not None}
        return record_of({**said, **own}, site, directory, long_ids=naming.long_ids)


async def ask_whose(locator: Locator, site: Site, rows: Sequence[Attributes], report: Report, level: Level) -> Whose:
    """Ask a member about the studies of those rows that don't say whose they are."""
    uids = sorted({text_of(row, "0020000D") for row in rows if not is_told(row, level)})
    if not uids:
        return Whose()
    hits, told = await locator.complete({site.emetteur: (site, uids)})
    report.add(t.outcome for t in told)
    missing = sorted({*uids} - {hit.study_uid for hit in hits})
    if missing and len(uids) > 1 and not any(s.emetteur == site.emetteur for s in report.failed):
        # Some members don't understand lists.
        more, told = await locator.complete({site.emetteur: (site, missing[:_SINGLY_MAX])}, at_once=1)
        report.add(t.outcome for t in told)
        hits += more
    return Whose(hits)
