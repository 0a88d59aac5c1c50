"""Which studies an IPP or an accession number names at a site: asked of the site itself, on nobody's behalf.

An opposition binds these by UID too, so that copies elsewhere, filed under another patient's number, are bound with
them. Nothing of what is found is shown to anybody, so neither `decide` nor `trace` stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from consent.traits import strict
from federation.errors import MemberError, MemberGarbage, SourceStatus
from federation.identity import Naming, Record, record_of, text_of
from federation.locate import IDENTITY_TAGS
from federation.matching import PATIENT_ID, filters_for
from federation.members import Members
from federation.model import Attributes, Deadline, Level, Member, Query, Scope, ScopeKind
from registry import Site

ACCESSION = "00080050"
#: More studies than any patient has at one site.
ROWS_MAX = 2000

Matches = Callable[[Attributes, Record], bool]


class Incomplete(MemberError):
    """The member has more rows than it gives, or than are taken."""

    status = SourceStatus.CAPPED
    counts_against_member = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """StudyInstanceUIDs, sorted. `error` = why there may be more: the site could not be asked, or gave a part only."""

    study_uids: tuple[str, ...] = ()
    whose: Mapping[str, str] = field(default_factory=dict, compare=False)  # UID → strict traits there, as text
    error: MemberError | None = None


async def studies_of_patient(
    members: Members, naming: Naming, site: Site, ipp: str, *, within_s: float | None = None
) -> Bound:
    """Studies that `site` holds as its own patient's, or files under this number itself. `within_s` in seconds, if
    that is sooner than the site's own deadline."""

    def matches(row: Attributes, record: Record) -> bool:
        return record.id == (ipp, site.emetteur) or record.raw_patient_id == ipp

    return await _find(members, naming, site, {PATIENT_ID: f"{ipp}@{site.emetteur}"}, matches, within_s)


async def studies_of_accession(
    members: Members, naming: Naming, site: Site, accession: str, *, within_s: float | None = None
) -> Bound:
    """Studies that `site` holds under this accession number, to the letter. `within_s` as above."""

    def matches(row: Attributes, record: Record) -> bool:
        return text_of(row, ACCESSION) == accession

    return await _find(members, naming, site, {ACCESSION: accession}, matches, within_s)


async def _find(
    members: Members, naming: Naming, site: Site, filters: Mapping[str, str], matches: Matches, within_s: float | None
) -> Bound:
    directory = members.directory()
    query = Query(
        level=Level.STUDY, scope=Scope(ScopeKind.SITE, site.emetteur), include=IDENTITY_TAGS | {ACCESSION, *filters}
    )

    async def call(member: Member, deadline: Deadline) -> Bound:
        if within_s is not None:
            deadline = deadline.within(within_s)
        found: dict[str, str] = {}
        whole = True
        for variant in filters_for(filters, member.site, naming, directory):  # one by one: there is no hurry
            answer = await member.search(replace(query, filters=variant), limit=ROWS_MAX, deadline=deadline)
            whole = whole and not answer.more
            for row in answer.rows:
                uid = text_of(row, "0020000D")
                if not uid or not all(tag in row for tag in filters):
                    # Whose it is can't be told: it must not be taken for somebody else's, nor left out in silence.
                    raise MemberGarbage(f"{site.emetteur}: rows without the number that was asked for")
                record = record_of(row, site, directory, long_ids=naming.long_ids)
                if matches(row, record):
                    found[uid] = str(strict(record.name, record.birth_date, record.sex))
        error = None if whole else Incomplete(f"{site.emetteur}: has more studies than it gives")
        return Bound(study_uids=tuple(sorted(found)), whose=found, error=error)

    (outcome,) = await members.ask([site], "bind", call)
    return Bound(error=outcome.result) if isinstance(outcome.result, MemberError) else outcome.result
