"""Federated search: ask all members at once, keep what matches and may be seen, merge, order, cut the page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from consent import Requester
from federation.copies import Copies
from federation.errors import MemberError, MemberGarbage, SourceStatus, SourcesUnavailable
from federation.gate import Gate
from federation.identity import Naming, Record, record_of, text_of
from federation.locate import IDENTITY_TAGS, Locator
from federation.matching import OURS, PATIENT_NAME, SAME_EVERYWHERE, filters_for, matches_row, matches_tagged
from federation.members import Members
from federation.merge import UID_OF, Hit, Merged, merge, ordered, page
from federation.model import Attributes, Deadline, Level, Member, MemberRows, Outcome, Query
from federation.report import Report
from federation.scoping import CRITERION_NOTICE, SearchOptions, has_patient_criterion, own_site_left_out, sites_in
from federation.tagging import Links, element, no_bulk, scrub, tag_patient, tag_source
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
_COUNTED_AT_ONCE = 16


@dataclass(slots=True, kw_only=True)
class Answer:
    """`rows` is the page; `remaining` rows follow it, or at least that many."""

    rows: list[Attributes]
    report: Report
    remaining: int = 0
    at_least: bool = False
    asked: bool = True  # False: the search was not sent to anybody


@dataclass(slots=True, kw_only=True)
class _Found:
    """What one member gave for one query."""

    rows: list[Attributes]
    capped: bool


class Searcher:
    def __init__(
        self, members: Members, locator: Locator, copies: Copies, gate: Gate, naming: Naming, options: SearchOptions
    ) -> None:
        self._members = members
        self._locator = locator
        self._copies = copies
        self._gate = gate
        self._naming = naming
        self._options = options

    async def search(
        self,
        requester: Requester,
        query: Query,
        links: Links,
        *,
        request_id: str,
        asked_as: str,
        own_site: bool | None = None,
    ) -> Answer:
        """`asked_as` is the request in its protocol's words, for the trace. `own_site` None = as configured.

        Raises `NotFound` (scope), `Conflict`, `SourcesUnavailable`, `consent.Unavailable`.
        """
        sites = sites_in(query.scope, self._members.directory())
        # The trace becomes durable while members are asked; nothing is answered before it is.
        trace = asyncio.ensure_future(self._gate.trace_query(requester, query.scope, asked_as, request_id))
        try:
            if query.study_uid is not None:
                answer = await self._within_study(requester, query, links, sites)
            else:
                answer = await self._across(requester, query, links, sites, own_site)
        except BaseException:
            await asyncio.gather(trace, return_exceptions=True)
            raise
        await trace
        return answer

    # Across studies ---------------------------------------------------------------------------------------------

    async def _across(
        self, requester: Requester, query: Query, links: Links, sites: Sequence[Site], own_site: bool | None
    ) -> Answer:
        report = Report()
        if self._options.require_patient_criterion and query.scope.wide and not has_patient_criterion(query):
            report.notices.append(CRITERION_NOTICE)
            return Answer(rows=[], report=report, asked=False)
        include_own = self._options.include_own_site if own_site is None else own_site
        home = own_site_left_out(query, requester, include=include_own)
        if home is not None:
            sites = [s for s in sites if s.emetteur != home.emetteur]
            report.notices.append(f"Exams of your own site, {home.emetteur}, are left out: ask with own_site=include")
        if not sites:
            return _nobody(report)
        directory = self._members.directory()
        outcomes = await self._fan_out(query, sites, directory)
        report.add(outcomes)
        hits, known = await self._matching(query, outcomes, report, directory)
        merged = merge(query.level, hits, directory, known)
        for m in merged:
            self._copies.learn(m.study_uid, m.identity)
        if home is not None:
            merged = [m for m in merged if m.identity.origin.emetteur != home.emetteur]
        return await self._answer(requester, query, links, merged, report)

    async def _fan_out(self, query: Query, sites: Sequence[Site], directory: Directory) -> list[Outcome[_Found]]:
        include = query.include | IDENTITY_TAGS | {p.partition(".")[0] for p in query.filters} - OURS
        include |= _PARENTS[query.level]
        if query.include_all:
            include |= _DESCRIPTIONS
        asked = replace(query, include=frozenset(include), limit=None, offset=0)
        cap = self._options.member_cap

        async def call(member: Member, deadline: Deadline) -> _Found:
            variants = filters_for(query.filters, member.site, self._naming, directory)
            found = await self._ask(member, asked, variants, cap, deadline)
            if found.capped and PATIENT_NAME in query.filters:
                # The wide patterns brought more than the cap: make sure that the likely spellings are there.
                variants = filters_for(query.filters, member.site, self._naming, directory, narrow=True)
                likely = await self._ask(member, asked, variants, cap, deadline)
                found = _Found(rows=_distinct(query.level, [*likely.rows, *found.rows]), capped=True)
            return found

        return await self._members.ask(sites, "search", call)

    async def _ask(
        self, member: Member, query: Query, variants: Sequence[Mapping[str, str]], cap: int, deadline: Deadline
    ) -> _Found:
        searches = [member.search(replace(query, filters=v), limit=cap + 1, deadline=deadline) for v in variants]
        answers: list[MemberRows] = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
        rows = answers[0].rows if len(answers) == 1 else [row for a in answers for row in a.rows]
        uid_tag = UID_OF[query.level]
        if not all(text_of(row, uid_tag) and text_of(row, "0020000D") for row in rows):
            raise MemberGarbage(f"{member.site.emetteur}: rows without their UIDs")
        rows = _distinct(query.level, rows)
        return _Found(rows=rows[:cap], capped=len(rows) > cap or any(a.more for a in answers))

    async def _matching(
        self, query: Query, outcomes: Sequence[Outcome[_Found]], report: Report, directory: Directory
    ) -> tuple[list[Hit], dict[str, list[Record]]]:
        """→ (the rows that match, what else is known of whose they are)."""
        hits: list[Hit] = []
        answering: list[Site] = []
        for outcome in outcomes:
            site, found = outcome.site, outcome.result
            if isinstance(found, MemberError):
                continue
            answering.append(site)
            if found.capped:
                report.note(site.emetteur, SourceStatus.CAPPED)
            anonymous = [row for row in found.rows if "00100020" not in row]
            whose = await self._whose(site, anonymous, report) if anonymous else {}
            for row in found.rows:
                study_uid = text_of(row, "0020000D")
                record = (
                    record_of(row, site, directory, long_ids=self._naming.long_ids)
                    if "00100020" in row
                    else whose.get(study_uid)
                )
                if record is not None and matches_row(row, query.filters, record, self._naming, directory):
                    hits.append(Hit(record=record, row=row, study_uid=study_uid))
        known: dict[str, list[Record]] = {}
        if not query.filters.keys() <= SAME_EVERYWHERE and len(answering) > 1:
            hits, known = await self._completed(query.level, hits, answering, report)
        heard = {s.emetteur for s in answering} - {s.emetteur for s in report.failed}
        for study_uid, present in _by_study(hits).items():
            absent = self._copies.absent(study_uid, present, heard, directory, self._naming.long_ids)
            if absent:
                known.setdefault(study_uid, []).extend(absent)
        return hits, known

    async def _whose(self, site: Site, rows: Sequence[Attributes], report: Report) -> dict[str, Record]:
        """Rows without a PatientID: ask the member about their studies."""
        uids = sorted({text_of(row, "0020000D") for row in rows})
        found, outcomes = await self._locator.complete({site.emetteur: (site, uids)})
        report.add(outcomes)
        return {hit.study_uid: hit.record for hit in found}

    async def _completed(
        self, level: Level, hits: list[Hit], answering: Sequence[Site], report: Report
    ) -> tuple[list[Hit], dict[str, list[Record]]]:
        """A filter on what differs between holders (PatientID, accession number…) may have found a study at one of
        them only: ask the others that answered whether they hold it too."""
        have = {(h.study_uid, h.holder.emetteur) for h in hits}
        studies = sorted({h.study_uid for h in hits})
        wanted = {
            site.emetteur: (site, missing)
            for site in answering
            if (missing := [uid for uid in studies if (uid, site.emetteur) not in have])
        }
        if not wanted:
            return hits, {}
        found, outcomes = await self._locator.complete(wanted)
        report.add(outcomes)
        if level is Level.STUDY:
            return [*hits, *found], {}
        known: dict[str, list[Record]] = {}
        for hit in found:
            known.setdefault(hit.study_uid, []).append(hit.record)
        return hits, known

    # Within one study -------------------------------------------------------------------------------------------

    async def _within_study(self, requester: Requester, query: Query, links: Links, sites: Sequence[Site]) -> Answer:
        assert query.study_uid is not None
        if not sites:
            return _nobody(Report())
        location = await self._locator.locate(sites, query.study_uid)
        identity = self._gate.one_person(requester, location)
        if identity is None:
            if location.report.none_answered:
                raise SourcesUnavailable("No source could be asked.", report=location.report)
            return Answer(rows=[], report=location.report)
        directory = self._members.directory()
        records: dict[str, list[Record]] = {}
        for hit in location.hits:
            if identity.knows(hit.record.raw_patient_id, hit.holder):
                records.setdefault(hit.holder.emetteur, []).append(hit.record)
        holders = [s for s in sites if s.emetteur in records]
        outcomes = await self._fan_out(query, holders, directory)
        report = location.report
        report.add(outcomes)
        hits = []
        for outcome in outcomes:
            if isinstance(outcome.result, MemberError):
                continue
            if outcome.result.capped:
                report.note(outcome.site.emetteur, SourceStatus.CAPPED)
            mine = {r.raw_patient_id: r for r in records[outcome.site.emetteur]}
            for row in outcome.result.rows:
                if text_of(row, "0020000D") != query.study_uid:
                    continue
                if query.series_uid is not None and text_of(row, "0020000E") != query.series_uid:
                    continue
                # A row that bears an id of its own is nobody else's, whatever study it came with.
                record = (
                    mine.get(text_of(row, "00100020"))
                    or record_of(row, outcome.site, directory, long_ids=self._naming.long_ids)
                    if "00100020" in row
                    else next(iter(mine.values()))
                )
                if matches_row(row, query.filters, record, self._naming, directory):
                    hits.append(Hit(record=record, row=row, study_uid=query.study_uid))
        merged = merge(query.level, hits, directory, {query.study_uid: list(identity.records)})
        return await self._answer(requester, query, links, merged, report)

    # The answer -------------------------------------------------------------------------------------------------

    async def _answer(
        self, requester: Requester, query: Query, links: Links, merged: list[Merged], report: Report
    ) -> Answer:
        if report.none_answered:
            raise SourcesUnavailable("None of the sources answered.", report=report)
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
                self._tag(m, query.level, links)
            seen = [m for m in seen if matches_tagged(m.row, query.filters, m.identity)]
        self._count_rows(seen, report)
        rows, remaining = page(ordered(query.level, seen), query.offset, query.limit)
        await self._count_unions(query.level, rows, report)
        for m in rows:
            self._tag(m, query.level, links)
        self._say_conflicts(seen, report)
        capped = report.capped
        for source in capped:
            report.notices.append(
                f"Source {source.emetteur} was cut at {self._options.member_cap} rows: it has more, narrow the search"
            )
        return Answer(rows=[m.row for m in rows], report=report, remaining=remaining, at_least=bool(capped))

    def _tag(self, m: Merged, level: Level, links: Links) -> None:
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

    async def _count_unions(self, level: Level, rows: Sequence[Merged], report: Report) -> None:
        """Counts of what several holders have together can't be added up: take the union of their instances."""
        several = [m for m in rows if len(m.holders) > 1]
        if not several or level is Level.INSTANCE:
            return
        limit = asyncio.Semaphore(_COUNTED_AT_ONCE)

        async def count(m: Merged) -> None:
            async with limit:
                inventory = await self._locator.inventory(m.study_uid, m.holders)
            for source in inventory.report.failed:
                report.note(source.emetteur, source.status, source.elapsed_s)
            union = inventory.union()
            if not union or inventory.report.failed:
                return  # the largest count stands, and the source that could not be asked is named
            if level is Level.STUDY:
                m.row["00201206"] = element("IS", len(set(union.values())))
                m.row["00201208"] = element("IS", len(union))
            else:
                m.row["00201209"] = element("IS", sum(1 for series in union.values() if series == m.uid))

        await asyncio.gather(*(count(m) for m in several))


def _nobody(report: Report) -> Answer:
    report.notices.append("No source is connected in this scope")
    return Answer(rows=[], report=report, asked=False)


def _distinct(level: Level, rows: Sequence[Attributes]) -> list[Attributes]:
    """One row per UID and PatientID: several searches may have found the same."""
    uid = UID_OF[level]
    return list({(text_of(r, uid), text_of(r, "00100020"), text_of(r, "0020000D")): r for r in rows}.values())


def _by_study(hits: Sequence[Hit]) -> dict[str, list[Record]]:
    studies: dict[str, list[Record]] = {}
    for hit in hits:
        studies.setdefault(hit.study_uid, []).append(hit.record)
    return studies
