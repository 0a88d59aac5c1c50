"""Asking members for the rows of a search: all at once, each in its own variants, up to a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from consent import Requester
from federation.errors import MemberGarbage
from federation.gate import Gate
from federation.habits import CaseProofs
from federation.identity import Identity, Naming, record_of, text_of
from federation.locate import IDENTITY_TAGS
from federation.matching import OURS, PATIENT_NAME, filters_for
from federation.members import Members
from federation.merge import UID_OF
from federation.model import UID_PATTERN, Attributes, Deadline, Level, Member, MemberRows, Outcome, Query
from registry import Directory, Site

#: What rows below the study return of their parents (PS3.18 §10.6.3.3): members leave it out where a UID names them.
_OF_STUDY = frozenset(
    {"00080020", "00080030", "00080050", "00080090", "00100010", "00100020", "00100030", "00100040", "0020000D"}
    | {"00200010"}
)
_OF_SERIES = frozenset({"00080060", "0008103E", "0020000E", "00200011"})
_PARENTS = {Level.STUDY: frozenset[str](), Level.SERIES: _OF_STUDY, Level.INSTANCE: _OF_STUDY | _OF_SERIES}
#: What people mean by "all", for members that know no such thing.
_DESCRIPTIONS = frozenset({"00080070", "00080080", "00081030", "0008103E", "00081090", "00180015"})


@dataclass(slots=True, kw_only=True)
class Found:
    """What one member gave for one query."""

    rows: list[Attributes]
    capped: bool


class Asker:
    def __init__(self, members: Members, gate: Gate, naming: Naming, *, member_cap: int) -> None:
        self._members = members
        self._gate = gate
        self._naming = naming
        self._member_cap = member_cap
        self._cases = CaseProofs()

    async def ask(
        self, requester: Requester, query: Query, sites: Sequence[Site], directory: Directory
    ) -> list[Outcome[Found]]:
        """Rows that may match, of each site; also those that the requester may not see, which tell whose others are."""
        include = query.include | IDENTITY_TAGS | {p.partition(".")[0] for p in query.filters} - OURS
        include |= _PARENTS[query.level]
        if query.include_all:
            include |= _DESCRIPTIONS
        asked = replace(query, include=frozenset(include), limit=None, offset=0)
        cap = self._member_cap

        async def call(member: Member, deadline: Deadline) -> Found:
            def may(row: Attributes) -> bool:
                return self._permits_alone(requester, row, member.site, directory)

            def variants(*, ignores_case: bool, narrow: bool = False) -> list[dict[str, str]]:
                return filters_for(
                    query.filters,
                    member.site,
                    self._naming,
                    directory,
                    narrow=narrow,
                    fuzzy=query.fuzzy,
                    ignores_case=ignores_case,
                )

            named = PATIENT_NAME in query.filters
            hoped = named and member.site.quirks.names_ignore_case is True
            found = await self._upto(member, asked, variants(ignores_case=hoped), cap, deadline, may)
            if hoped and not await self._cases.hold(member, found.rows, deadline):
                hoped = False  # its profile may be old: then as if there were none
                wide = await self._upto(member, asked, variants(ignores_case=False), cap, deadline, may)
                both = _distinct(query.level, [*found.rows, *wide.rows])
                found = Found(rows=both, capped=found.capped or wide.capped)
            if found.capped and named:
                # The wide patterns brought more than the cap: make sure that the likely spellings are there.
                likely = await self._upto(member, asked, variants(ignores_case=hoped, narrow=True), cap, deadline, may)
                found = Found(rows=_distinct(query.level, [*likely.rows, *found.rows]), capped=True)
            return found

        return await self._members.ask(sites, "search", call)

    async def _upto(
        self,
        member: Member,
        query: Query,
        variants: Sequence[Mapping[str, str]],
        cap: int,
        deadline: Deadline,
        may: Callable[[Attributes], bool],
    ) -> Found:
        """Up to `cap` rows that the requester may see, and those that he may not. Whether there are more must not
        depend on these: for each of them, one more is asked for."""
        limit = cap + 1
        while True:
            rows, more = await self._rows(member, query, variants, limit, deadline)
            if len(rows) <= cap and not more:
                return Found(rows=rows, capped=False)
            kept: list[Attributes] = []
            seen = 0
            for row in rows:
                if may(row):
                    seen += 1
                    if seen > cap:
                        continue
                kept.append(row)
            hidden = len(rows) - seen
            if seen > cap or cap + 1 + hidden <= limit or len(rows) < limit:
                return Found(rows=kept, capped=more or seen > cap)
            limit = cap + 1 + 2 * hidden

    async def _rows(
        self, member: Member, query: Query, variants: Sequence[Mapping[str, str]], limit: int, deadline: Deadline
    ) -> tuple[list[Attributes], bool]:
        """→ (rows, each once; whether the member has more of them)."""
        searches = [member.search(replace(query, filters=v), limit=limit, deadline=deadline) for v in variants]
        answers: list[MemberRows] = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
        rows = answers[0].rows if len(answers) == 1 else [row for a in answers for row in a.rows]
        distinct = _by_key(query.level, rows)
        if distinct and not any(is_named(row, query.level) for row in distinct.values()):
            raise MemberGarbage(f"{member.site.emetteur}: rows without their UIDs")
        return [*distinct.values()], any(a.more for a in answers)

    def _permits_alone(self, requester: Requester, row: Attributes, site: Site, directory: Directory) -> bool:
        """By what one member's row says alone. What it does not say is found out later."""
        record = record_of(row, site, directory, long_ids=self._naming.long_ids)
        return self._gate.permits(requester, text_of(row, "0020000D"), Identity(records=(record,)))


def is_named(row: Attributes, level: Level) -> bool:
    """Can it be asked for: has it UIDs (PS3.5 §9.1) of its study and of itself, and of its series, if it names that?
    Leading zeros are let pass."""
    for tag in ("0020000D", "0020000E", "00080018"):
        value = (row.get(tag, {}).get("Value") or [None])[0]
        wanted = tag in ("0020000D", UID_OF[level]) or (value is not None and level is not Level.STUDY)
        if wanted and not (isinstance(value, str) and UID_PATTERN.fullmatch(value)):
            return False
    return True


def _distinct(level: Level, rows: Sequence[Attributes]) -> list[Attributes]:
    """One row per UID and PatientID: several searches may have found the same."""
    return [*_by_key(level, rows).values()]


def _by_key(level: Level, rows: Sequence[Attributes]) -> dict[tuple[str, str, str], Attributes]:
    """UID, PatientID and StudyInstanceUID → row."""
    uid = UID_OF[level]
    return {(text_of(r, uid), text_of(r, "00100020"), text_of(r, "0020000D")): r for r in rows}
