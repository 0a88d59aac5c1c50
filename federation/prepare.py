"""What a retrieval will bring, decided before anything is opened: which study, whose, from which holders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from consent import Requester
from federation.copies import Copies
from federation.errors import Conflict, NotFound, SourcesUnavailable
from federation.gate import Gate
from federation.health import BreakerState
from federation.identity import Identity
from federation.locate import Location, Locator
from federation.members import Members
from federation.model import Form, Scope, Target
from federation.plan import Fetch, missing_series, plan
from federation.report import Report
from federation.scoping import sites_in
from federation.shared_uids import sort_out
from registry import Site

NOT_SHOWN = "There is no such study, or it can't be shown."


@dataclass(slots=True, kw_only=True)
class Located:
    """A study that may be shown, and how it is to be fetched."""

    location: Location
    identity: Identity
    holders: tuple[Site, ...]
    fetches: list[Fetch]
    complete: bool
    scope: Scope
    request_id: str
    came_at: float  # on the loop's clock
    version: int  # of the rules by which it was decided
    people: list[Identity] = field(default_factory=list)  # the study's, then those of instances that bear other ids
    untraced: list[Identity] = field(default_factory=list)  # other patients among them, to be traced before they pass
    strangers: list[Identity] = field(default_factory=list)  # those that are traced
    passed: bool = False  # some of it has gone out

    def __post_init__(self) -> None:
        self.people.insert(0, self.identity)

    @property
    def report(self) -> Report:
        return self.location.report

    def given_in_part(self, site: Site) -> None:
        """A holder, whose word is all that is known of what there is, says that it does not give all."""
        self.complete = False
        self.report.notices.append(f"{site.emetteur} says that some of it can't be had there now: this is not all")

    def leave_out(self, fetches: Sequence[Fetch]) -> None:
        """These can't be had now. The answer is no longer complete, and says so."""
        if not fetches:
            return
        self.complete = False
        number = sum(len(f.expected or ()) for f in fetches)
        holders = ", ".join(sorted({s.emetteur for f in fetches for s in f.candidates}))
        self.report.notices.append(f"{number} instances that {holders} had can't be had now: this is not all")


class Preparer:
    def __init__(self, members: Members, locator: Locator, copies: Copies, gate: Gate) -> None:
        self._members = members
        self._locator = locator
        self._copies = copies
        self._gate = gate

    async def even_out(self, came_at: float, report: Report) -> None:
        """Before unknown or withheld is answered: also what was just learnt of copies is told by then."""
        await self._copies.told()
        await self._gate.even_out(came_at, report)

    async def prepare(self, requester: Requester, scope: Scope, target: Target, request_id: str) -> Located:
        """Raises `NotFound` (unknown and withheld alike), `Conflict`, `SourcesUnavailable`, `consent.Unavailable`."""
        came_at = asyncio.get_running_loop().time()
        sites = sites_in(scope, self._members.directory())
        await self._gate.confirm()
        hurried = target.form not in (Form.DICOM, Form.METADATA)
        may = self._gate.remembers(requester)
        location = await self._locator.locate(sites, target.study_uid, may, hurried=hurried)
        report = location.report
        await self._gate.confirm()
        version = self._gate.version
        try:
            identity = self._gate.one_person(requester, location)
        except Conflict:
            why = "this StudyInstanceUID stands for different patients"
            self._gate.refused_later(requester, scope, location, request_id, why=why)
            raise
        if identity is None:
            self._gate.refused_later(requester, scope, location, request_id)
            await self.even_out(came_at, report)
            if report.none_answered:
                raise SourcesUnavailable("None of the sources answered.", report=report)
            raise NotFound(NOT_SHOWN, report=report)
        answering = {h.holder.emetteur for h in location.hits}
        holders = tuple(
            {r.holder.emetteur: r.holder for r in identity.records if r.holder.emetteur in answering}.values()
        )
        holders = tuple(sorted(holders, key=lambda s: self._members.breaker(s).state is BreakerState.OPEN))
        others = {r.holder.emetteur for i in location.identities if i is not identity for r in i.records}
        if target.form not in (Form.DICOM, Form.METADATA):
            # Pixels don't say whose they are: not from a holder that has another person's under the same UID.
            holders = tuple(s for s in holders if s.emetteur not in others)
            if not holders:
                self._gate.refused_later(requester, scope, location, request_id, why="it may be another person's")
                await self.even_out(came_at, report)
                raise NotFound(NOT_SHOWN, report=report)
        fetches = [Fetch(target=target, candidates=holders)]
        complete = True
        try:
            if target.holder is not None:
                holders = tuple(s for s in holders if s.emetteur == target.holder)
                if not holders:
                    raise NotFound("There is no such bulk data.", report=report)
                fetches = [Fetch(target=target, candidates=holders)]
            if target.form in (Form.DICOM, Form.METADATA):
                fetches, complete = await self._plan(target, identity, location, holders, others)
        except NotFound:
            why = "no such part of the study was found"
            self._gate.refused_later(requester, scope, location, request_id, why=why)
            raise
        return Located(
            location=location,
            identity=identity,
            holders=holders,
            fetches=fetches,
            complete=complete,
            scope=scope,
            request_id=request_id,
            came_at=came_at,
            version=version,
        )

    async def _plan(
        self, target: Target, identity: Identity, location: Location, holders: tuple[Site, ...], others: set[str]
    ) -> tuple[list[Fetch], bool]:
        """→ (the requests to make, whether they bring all that is known to exist). `others`: EMETTEURs that have
        another person's instances under the same UID."""
        uid = target.study_uid
        silent = {r.holder.emetteur for r in identity.records} - {s.emetteur for s in holders}
        remembered = {e: series for e in silent & location.silent if (series := self._copies.series_at(uid, e))}
        shared = tuple(s for s in holders if s.emetteur in others)
        if len(holders) == 1 and not remembered and not shared:
            return [Fetch(target=target, candidates=holders)], True
        inventory = await self._locator.inventory(uid, [s for s in holders if s not in shared])
        sorting = await sort_out(self._members, uid, identity, shared)
        for source in (*inventory.report.failed, *sorting.report.failed):
            location.report.note(source.emetteur, source.status, source.elapsed_s)
            if series := self._copies.series_at(uid, source.emetteur):
                remembered[source.emetteur] = series
        contents = inventory.contents | sorting.contents
        self._copies.learn(uid, identity, {e: frozenset(c.values()) for e, c in contents.items()})
        fetches = [part for fetch in plan(target, contents, holders) for part in sorting.apart(fetch)]
        if not fetches:
            if contents and not inventory.report.failed and not sorting.report.failed and not sorting.unsure:
                raise NotFound("There is no such series or instance, or it can't be shown.", report=location.report)
            whole = tuple(s for s in holders if s not in shared)
            if not whole:
                raise SourcesUnavailable(
                    "No source that holds this could give it.", report=location.report, http_status=502
                )
            fetches = [Fetch(target=target, candidates=whole)]
        complete = not sorting.unsure
        if sorting.unsure:  # without telling why: the other patient may be one who must not be known of
            named = ", ".join(sorted(sorting.unsure))
            location.report.notices.append(f"Some of what {named} has can't be had now: this is not all")
        missing = missing_series(target, contents, remembered)
        if missing and target.instance_uid is None:
            location.report.notices.append(
                f"{len(missing)} series that {', '.join(sorted(remembered))} had can't be had now: this is not all"
            )
            complete = False
        return fetches, complete
