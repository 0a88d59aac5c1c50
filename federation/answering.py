"""From what members gave to an answer: decided, ordered, counted, cut to the page, tagged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from consent import Requester, Unavailable
from federation import fuzzy
from federation.filling import Filler
from federation.gate import Gate
from federation.identity import Identity, Naming
from federation.locate import Locator, Told
from federation.matching import OURS, PATIENT_NAME, matches_tagged, name_value
from federation.merge import Merged, ordered, page
from federation.model import Attributes, Level, Query
from federation.report import Report, SourceReport
from federation.tagging import Links, element, no_bulk, scrub, tag_patient, tag_source

_COUNTED_AT_ONCE = 16
#: How often an answer is decided again because the rules changed meanwhile.
_TRIES = 8


@dataclass(slots=True, kw_only=True)
class Answer:
    """`rows` is the page; `remaining` rows follow it, or at least that many."""

    rows: list[Attributes]
    report: Report
    exams: list[tuple[str, Identity]] = field(default_factory=list)  # (StudyInstanceUID, identity) of these rows
    remaining: int = 0
    at_least: bool = False
    asked: bool = True  # False: the search was not sent to anybody


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What members gave, merged, before anything is decided."""

    report: Report
    merged: list[Merged] = field(default_factory=list)
    aside: list[Told] = field(default_factory=list)  # told only if one of these studies is shown
    asked: bool = True
    tagged: set[int] = field(default_factory=set)
    version: int = -1  # at which was decided what may be seen
    seen: list[Merged] | None = None  # that, ordered; None if it changes with time


class Answering:
    def __init__(self, locator: Locator, gate: Gate, naming: Naming, filler: Filler, *, member_cap: int) -> None:
        self._locator = locator
        self._filler = filler
        self._gate = gate
        self._naming = naming
        self._member_cap = member_cap

    async def answer(self, requester: Requester, query: Query, links: Links, gathered: Gathered) -> Answer:
        """Decide, count, cut the page: all on rules that are confirmed when the answer leaves. Raises
        `consent.Unavailable` if they can't be."""
        report = gathered.report.begun_anew()
        for _ in range(_TRIES):
            await self._gate.confirm()
            version = self._gate.version
            seen = self._seen(requester, query, links, gathered, version)
            rows, remaining = page(seen, query.offset, query.limit)
            counted = await self._count_unions(query.level, rows)
            incomplete = await self._filler.fill(requester, query, rows)
            if await self._gate.holds(version):
                break
        else:
            raise Unavailable("the rules change faster than an answer can be made")
        # A member that fails when it is asked about a study must not tell that there is one.
        shown = {m.study_uid for m in seen}
        report.add(told.outcome for told in gathered.aside if not shown.isdisjoint(told.study_uids))
        for source in counted:
            report.note(source.emetteur, source.status, source.elapsed_s)
        self._count_rows(seen, report)
        for m in rows:
            self._tag(m, query.level, links, gathered.tagged)
        self._say_conflicts(seen, report)
        capped = report.capped
        for source in capped:
            report.notices.append(
                f"Source {source.emetteur} was cut at {self._member_cap} rows: it has more, narrow the search"
            )
        report.notices += incomplete
        return Answer(
            rows=[m.row for m in rows],
            report=report,
            exams=_exams(rows),
            remaining=remaining,
            at_least=bool(capped),
            asked=gathered.asked,
        )

    def _seen(self, requester: Requester, query: Query, links: Links, gathered: Gathered, version: int) -> list[Merged]:
        """What may be seen, ordered. Decided once for all pages, as long as nothing can change it."""
        if gathered.seen is not None and gathered.version == version:
            return gathered.seen
        seen = ordered(query.level, self._permitted(requester, query, links, gathered.merged, gathered.tagged))
        name = query.filters.get(PATIENT_NAME)
        if query.fuzzy and name is not None:
            seen.sort(key=lambda m: _distance(name, m))
        gathered.version = version
        gathered.seen = None if self._gate.changes_with_time(requester) else seen
        return seen

    def _permitted(
        self, requester: Requester, query: Query, links: Links, merged: Sequence[Merged], tagged: set[int]
    ) -> list[Merged]:
        permitted: dict[tuple[str, int], bool] = {}
        seen: list[Merged] = []
        for m in merged:
            key = (m.study_uid, id(m.identity))
            may = permitted.get(key)
            if may is None:
                may = permitted[key] = self._gate.permits(requester, m.study_uid, m.identity)
            if may:
                seen.append(m)
        if any(p.partition(".")[0] in OURS for p in query.filters):
            for m in seen:
                self._tag(m, query.level, links, tagged)
            seen = [m for m in seen if matches_tagged(m.row, query.filters, m.identity)]
        return seen

    def _tag(self, m: Merged, level: Level, links: Links, tagged: set[int]) -> None:
        if id(m) in tagged:
            return
        tagged.add(id(m))
        scrub(m.row, no_bulk)
        tag_patient(m.row, m.identity, self._naming)
        tag_source(m.row, level, m.holders, links, m.study_uid)

    def _count_rows(self, seen: Sequence[Merged], report: Report) -> None:
        for m in seen:
            for emetteur in {h.holder.emetteur for h in m.hits}:
                source = report.sources.get(emetteur)
                if source is not None:
                    source.rows += 1

    def _say_conflicts(self, seen: Sequence[Merged], report: Report) -> None:
        people: dict[str, set[int]] = {}
        for m in seen:
            people.setdefault(m.study_uid, set()).add(id(m.identity))
        conflicts = sum(1 for identities in people.values() if len(identities) > 1)
        if conflicts:
            report.notices.append(
                f"{conflicts} StudyInstanceUID stand for different patients at different sites: "
                "open each through its own RetrieveURL"
            )

    async def _count_unions(self, level: Level, rows: Sequence[Merged]) -> list[SourceReport]:
        """Counts of what several holders have together can't be added up: take the union of their instances.

        → the holders that could not be asked.
        """
        several = [m for m in rows if len(m.holders) > 1]
        failed: list[SourceReport] = []
        if not several or level is Level.INSTANCE:
            return failed
        limit = asyncio.Semaphore(_COUNTED_AT_ONCE)

        async def count(m: Merged) -> None:
            async with limit:
                inventory = await self._locator.inventory(m.study_uid, m.holders)
            failed.extend(inventory.report.failed)
            union = inventory.union()
            if not union or inventory.report.failed:
                return  # the largest count stands, and the source that could not be asked is named
            if level is Level.STUDY:
                m.row["00201206"] = element("IS", len(set(union.values())))
                m.row["00201208"] = element("IS", len(union))
            else:
                m.row["00201209"] = element("IS", sum(1 for series in union.values() if series == m.uid))

        await asyncio.gather(*(count(m) for m in several))
        return failed


def _exams(rows: Sequence[Merged]) -> list[tuple[str, Identity]]:
    """Each once."""
    return [*{(m.study_uid, id(m.identity)): (m.study_uid, m.identity) for m in rows}.values()]


def _distance(name: str, m: Merged) -> int:
    """How far the nearest of its holders' names is from the one that was asked for."""
    near = (fuzzy.distance(name, name_value(h.row, h.record)) for h in m.hits)
    return min((d for d in near if d is not None), default=fuzzy.FARTHEST)
