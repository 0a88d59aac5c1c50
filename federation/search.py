"""Federated search: ask all members at once, keep what matches and may be seen, merge, order, cut the page."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence

from consent import Requester
from federation.answering import Answer, Answering, Gathered
from federation.asking import Asker, Found, is_named
from federation.copies import Copies
from federation.errors import MemberError, SourceStatus, SourcesUnavailable
from federation.filling import Filler
from federation.gate import Gate
from federation.identity import Identity, Naming, Record, group, record_of, text_of
from federation.locate import Locator, Told
from federation.matching import SAME_EVERYWHERE, matches_row
from federation.members import Members
from federation.merge import Hit, merge
from federation.model import Attributes, Level, Outcome, Query
from federation.pages import Pages
from federation.report import Report
from federation.scoping import CRITERION_NOTICE, SearchOptions, has_patient_criterion, own_site_left_out, sites_in
from federation.tagging import Links
from federation.whose import Whose, ask_whose
from registry import Directory, Site

#: Why a row is left out: it might be an opposed person's, or be shown as another's.
_WHOSE_UNKNOWN = "it does not say whose they are"


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
        self._asker = Asker(members, gate, naming, member_cap=options.member_cap)
        filler = Filler(members, locator, gate, naming)
        self._answering = Answering(locator, gate, naming, filler, member_cap=options.member_cap)
        self._pages: Pages[Gathered] = Pages(rows_max=options.page_rows)

    def forget_pages(self) -> None:
        """The rules changed."""
        self._pages.clear()

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
        came_at = asyncio.get_running_loop().time()
        sites = sites_in(query.scope, self._members.directory())
        await self._gate.confirm()
        # The trace becomes durable while members are asked; nothing is answered before it is.
        may = self._gate.remembers(requester)
        trace = self._gate.trace_query(
            requester, query, asked_as, request_id, lambda uid: self._locator.locate(sites, uid, may)
        )
        key = _page_key(requester, query, links, own_site)
        kept = self._pages.get(key, version=self._gate.version) if query.offset else None
        try:
            if kept is not None:
                gathered = kept
            elif query.study_uid is not None:
                gathered = await self._within_study(requester, query, sites)
            else:
                gathered = await self._across(requester, query, sites, own_site)
        except BaseException:
            await asyncio.gather(trace, return_exceptions=True)
            raise
        await trace
        answer = await self._answering.answer(requester, query, links, gathered)
        if kept is None and answer.remaining:
            self._pages.put(key, gathered, rows=len(gathered.merged), version=gathered.version)
        if answer.asked and not answer.rows:
            # Nothing there, or nothing that may be seen: the time that it took must not tell which.
            await self._copies.told()
            await self._gate.even_out(came_at, answer.report)
        if answer.report.none_answered:
            raise SourcesUnavailable("None of the sources answered.", report=answer.report)
        return answer

    # Across studies ---------------------------------------------------------------------------------------------

    async def _across(
        self, requester: Requester, query: Query, sites: Sequence[Site], own_site: bool | None
    ) -> Gathered:
        report = Report()
        if self._options.require_patient_criterion and query.scope.wide and not has_patient_criterion(query):
            report.notices.append(CRITERION_NOTICE)
            return Gathered(report=report, asked=False)
        include_own = self._options.include_own_site if own_site is None else own_site
        home = own_site_left_out(query, requester, include=include_own)
        if home is not None:
            sites = [s for s in sites if s.emetteur != home.emetteur]
            report.notices.append(f"Exams of your own site, {home.emetteur}, are left out: ask with own_site=include")
        if not sites:
            return _nobody(report)
        directory = self._members.directory()
        outcomes = await self._asker.ask(requester, query, sites, directory)
        report.add(outcomes)
        hits, known, aside = await self._matching(requester, query, outcomes, report, directory)
        merged = merge(query.level, hits, directory, known)
        for m in merged:
            self._copies.learn(m.study_uid, m.identity)
            for hit in m.hits:
                self._locator.found(hit.holder, m.study_uid)
        if home is not None:
            merged = [m for m in merged if m.identity.origin.emetteur != home.emetteur]
        return Gathered(report=report, merged=merged, aside=aside)

    async def _matching(
        self,
        requester: Requester,
        query: Query,
        outcomes: Sequence[Outcome[Found]],
        report: Report,
        directory: Directory,
    ) -> tuple[list[Hit], dict[str, list[Record]], list[Told]]:
        """→ (the rows that match, what else is known of whose they are, how asking further about them ended)."""
        hits: list[Hit] = []
        answering: list[Site] = []
        cut: list[Site] = []
        for outcome in outcomes:
            site, found = outcome.site, outcome.result
            if isinstance(found, MemberError):
                continue
            answering.append(site)
            if found.capped:
                report.note(site.emetteur, SourceStatus.CAPPED)
                cut.append(site)
            rows = self._named(requester, found.rows, query.level, site, directory, report)
            whose = await ask_whose(self._locator, site, rows, report, query.level)
            for row in rows:
                study_uid = text_of(row, "0020000D")
                record = whose.record(row, site, directory, self._naming, query.level)
                if record is None:
                    self._leave_out(requester, row, site, directory, report, _WHOSE_UNKNOWN)
                elif matches_row(row, query.filters, record, self._naming, directory, fuzzy=query.fuzzy):
                    hits.append(Hit(record=record, row=row, study_uid=study_uid))
        known: dict[str, list[Record]] = {}
        aside: list[Told] = []
        # Who may hold what was found here and did not say so.
        mute = cut if query.filters.keys() <= SAME_EVERYWHERE else answering
        unasked: set[str] = set()
        if mute and len(answering) > 1:
            studies = self._worth_completing(requester, hits, directory)
            unasked = {h.study_uid for h in hits} - studies
            hits, known, aside = await self._completed(query.level, hits, studies, mute)
        silent: dict[str, set[str]] = {}
        for study_uids, told in aside:
            if isinstance(told.result, MemberError):
                for study_uid in study_uids:
                    silent.setdefault(study_uid, set()).add(told.site.emetteur)
        heard = {s.emetteur for s in answering} - {s.emetteur for s in report.failed}
        for study_uid, present in _by_study(h for h in hits if self._copies.knows(h.study_uid)).items():
            mine = heard - silent.get(study_uid, set())
            if study_uid in unasked:
                mine -= {s.emetteur for s in mute} - {r.holder.emetteur for r in present}
            absent = self._copies.absent(study_uid, present, mine, directory, self._naming.long_ids)
            if absent:
                known.setdefault(study_uid, []).extend(absent)
        return hits, known, aside

    def _worth_completing(self, requester: Requester, hits: Sequence[Hit], directory: Directory) -> set[str]:
        """Their studies, without those that by all that is known of them may not be seen: about these nobody is asked,
        as about one that is not there. At the requester's own site, who made an exam may still change that."""
        home = requester.home
        worth: set[str] = set()
        for study_uid, present in _by_study(hits).items():
            holders = {r.holder.emetteur for r in present}
            if (home is not None and home.emetteur in holders) or any(
                self._gate.permits(requester, study_uid, identity)
                for identity in self._as_remembered(study_uid, present, holders, directory)
            ):
                worth.add(study_uid)
        return worth

    def _as_remembered(
        self, study_uid: str, present: Sequence[Record], holders: set[str], directory: Directory
    ) -> list[Identity]:
        absent = self._copies.absent(study_uid, present, holders, directory, self._naming.long_ids)
        if len(present) == 1 and not absent:
            return [Identity(records=(present[0],))]
        records = {(r.holder.emetteur, r.raw_patient_id): r for r in [*absent, *present]}
        return group(records.values(), directory)

    def _named(
        self,
        requester: Requester,
        rows: Sequence[Attributes],
        level: Level,
        site: Site,
        directory: Directory,
        report: Report,
    ) -> list[Attributes]:
        """Without those that nobody could ask for, and whose UIDs would stand in URLs."""
        named: list[Attributes] = []
        for row in rows:
            if is_named(row, level):
                named.append(row)
            else:
                self._leave_out(requester, row, site, directory, report, "they have no UID, or one that is none")
        return named

    def _leave_out(
        self, requester: Requester, row: Attributes, site: Site, directory: Directory, report: Report, why: str
    ) -> None:
        """Said only of what may be seen, as far as that can be told."""
        notice = f"Rows of {site.emetteur} were left out: {why}"
        alone = Identity(records=(record_of(row, site, directory, long_ids=self._naming.long_ids),))
        if notice not in report.notices and self._gate.permits(requester, text_of(row, "0020000D"), alone):
            report.notices.append(notice)

    async def _completed(
        self, level: Level, hits: list[Hit], studies: set[str], mute: Sequence[Site]
    ) -> tuple[list[Hit], dict[str, list[Record]], list[Told]]:
        """A filter on what differs between holders (PatientID, accession number…) may have found a study at one of
        them only, and so may a cut: ask the others that answered whether they hold it too."""
        have = {(h.study_uid, h.holder.emetteur) for h in hits}
        wanted = {
            site.emetteur: (site, missing)
            for site in mute
            if (missing := [uid for uid in sorted(studies) if (uid, site.emetteur) not in have])
        }
        if not wanted:
            return hits, {}, []
        found, told = await self._locator.complete(wanted)
        if level is Level.STUDY:
            return [*hits, *found], {}, told
        known: dict[str, list[Record]] = {}
        for hit in found:
            known.setdefault(hit.study_uid, []).append(hit.record)
        return hits, known, told

    # Within one study -------------------------------------------------------------------------------------------

    async def _within_study(self, requester: Requester, query: Query, sites: Sequence[Site]) -> Gathered:
        assert query.study_uid is not None
        if not sites:
            return _nobody(Report())
        location = await self._locator.locate(sites, query.study_uid, self._gate.remembers(requester))
        await self._gate.confirm()
        identity = self._gate.one_person(requester, location)
        if identity is None:
            return Gathered(report=location.report)
        directory = self._members.directory()
        holding = {h.holder.emetteur for h in location.hits if identity.knows(h.record.raw_patient_id, h.holder)}
        holders = [s for s in sites if s.emetteur in holding]
        outcomes = await self._asker.ask(requester, query, holders, directory)
        report = location.report
        report.add(outcomes)
        hits = []
        for outcome in outcomes:
            if isinstance(outcome.result, MemberError):
                continue
            if outcome.result.capped:
                report.note(outcome.site.emetteur, SourceStatus.CAPPED)
            site = outcome.site
            whose = Whose(hit for hit in location.hits if hit.holder.emetteur == site.emetteur)
            for row in self._named(requester, outcome.result.rows, query.level, site, directory, report):
                if text_of(row, "0020000D") != query.study_uid:
                    continue
                if query.series_uid is not None and text_of(row, "0020000E") != query.series_uid:
                    continue
                study = whose.hit(row)
                if study is not None and not identity.knows(study.record.raw_patient_id, site):
                    continue  # another person's, who was looked at above
                # A row that bears an id of its own is nobody else's, whatever study it came with.
                record = (
                    study.record if study is not None else whose.record(row, site, directory, self._naming, query.level)
                )
                if record is None:
                    self._leave_out(requester, row, site, directory, report, _WHOSE_UNKNOWN)
                elif matches_row(row, query.filters, record, self._naming, directory, fuzzy=query.fuzzy):
                    hits.append(Hit(record=record, row=row, study_uid=query.study_uid))
        merged = merge(query.level, hits, directory, {query.study_uid: list(identity.records)})
        return Gathered(report=report, merged=merged)


def _page_key(requester: Requester, query: Query, links: Links, own_site: bool | None) -> Hashable:
    """Searches with one key differ in nothing but their page."""
    asked = (query.scope, query.level, query.study_uid, query.series_uid, frozenset(query.filters.items()))
    return (requester, asked, query.include, query.include_all, query.fuzzy, links, own_site)


def _nobody(report: Report) -> Gathered:
    report.notices.append("No source is connected in this scope")
    return Gathered(report=report, asked=False)


def _by_study(hits: Iterable[Hit]) -> dict[str, list[Record]]:
    studies: dict[str, list[Record]] = {}
    for hit in hits:
        studies.setdefault(hit.study_uid, []).append(hit.record)
    return studies
