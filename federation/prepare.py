"""What a retrieval will bring, decided before anything is opened: which study, whose, from which holders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from consent import Requester
from federation.copies import Copies
from federation.errors import NotFound, SourcesUnavailable
from federation.gate import Gate
from federation.health import BreakerState
from federation.identity import Identity
from federation.locate import Location, Locator
from federation.members import Members
from federation.model import Form, Scope, Target
from federation.plan import Fetch, missing_series, plan
from federation.report import Report
from federation.scoping import sites_in
from registry import Site


@dataclass(slots=True, kw_only=True)
class Located:
    """A study that may be shown, and how it is to be fetched."""

    location: Location
    identity: Identity
    holders: tuple[Site, ...]
    fetches: list[Fetch]
    complete: bool
    also: set[str] = field(default_factory=set)  # PatientIDs of instances that bear another than the study's

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

    async def prepare(self, requester: Requester, scope: Scope, target: Target, request_id: str) -> Located:
        """Raises `NotFound` (unknown and withheld alike), `Conflict`, `SourcesUnavailable`."""
        sites = sites_in(scope, self._members.directory())
        hurried = target.form not in (Form.DICOM, Form.METADATA)
        location = await self._locator.locate(sites, target.study_uid, hurried=hurried)
        report = location.report
        identity = self._gate.one_person(requester, location)
        if identity is None:
            if report.none_answered:
                raise SourcesUnavailable("None of the sources answered.", report=report)
            raise NotFound("There is no such study, or it can't be shown.", report=report)
        answering = {h.holder.emetteur for h in location.hits}
        holders = tuple(
            {r.holder.emetteur: r.holder for r in identity.records if r.holder.emetteur in answering}.values()
        )
        holders = tuple(sorted(holders, key=lambda s: self._members.breaker(s).state is BreakerState.OPEN))
        if target.holder is not None:
            holders = tuple(s for s in holders if s.emetteur == target.holder)
            if not holders:
                raise NotFound("There is no such bulk data.", report=report)
        fetches = [Fetch(target=target, candidates=holders)]
        complete = True
        if target.form in (Form.DICOM, Form.METADATA):
            fetches, complete = await self._plan(target, identity, location, holders)
        return Located(location=location, identity=identity, holders=holders, fetches=fetches, complete=complete)

    async def _plan(
        self, target: Target, identity: Identity, location: Location, holders: tuple[Site, ...]
    ) -> tuple[list[Fetch], bool]:
        """→ (the requests to make, whether they bring all that is known to exist)."""
        uid = target.study_uid
        silent = {r.holder.emetteur for r in identity.records} - {s.emetteur for s in holders}
        remembered = {e: series for e in silent & location.silent if (series := self._copies.series_at(uid, e))}
        if len(holders) == 1 and not remembered:
            return [Fetch(target=target, candidates=holders)], True
        inventory = await self._locator.inventory(uid, holders)
        for source in inventory.report.failed:
            location.report.note(source.emetteur, source.status, source.elapsed_s)
            if series := self._copies.series_at(uid, source.emetteur):
                remembered[source.emetteur] = series
        contents = inventory.contents
        self._copies.learn(uid, identity, {e: frozenset(c.values()) for e, c in contents.items()})
        fetches = plan(target, contents, holders)
        if not fetches:
            if contents and not inventory.report.failed:
                raise NotFound("There is no such series or instance, or it can't be shown.", report=location.report)
            fetches = [Fetch(target=target, candidates=holders)]
        missing = missing_series(target, contents, remembered)
        if missing and target.instance_uid is None:
            location.report.notices.append(
                f"{len(missing)} series that {', '.join(sorted(remembered))} had can't be had now: this is not all"
            )
            return fetches, False
        return fetches, True
