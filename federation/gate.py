"""The engine's side of consent: what an exam is, for `decide` and `trace`. There is no way to a member around it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from consent import Access, Decision, Event, EventKind, EventOutcome, Exam, Requester, utc_now
from consent.access import TRANSFER_PATIENCE_S
from consent.later import Later
from consent.traits import strict
from federation.errors import Conflict
from federation.identity import Identity, Naming, Record
from federation.locate import Location
from federation.model import Query, Scope
from federation.report import Report
from federation.transfers import Transfers
from registry import Site

#: What is unknown and what is withheld are answered on the next of these steps after the request came, so that the time
#: that members took does not tell the two apart.
REFUSAL_STEP_S = 0.1
_LATELY_MAX = 10_000
_UID = re.compile(r"[0-9.]{1,64}")
#: Whether a search still goes on is looked at this often, in seconds.
_LOOK_S = 0.25


class Gate:
    def __init__(self, access: Access, naming: Naming) -> None:
        self._access = access
        self._naming = naming
        self._untold = Later(access.trace, access.is_fresh)
        self._transfers = Transfers(self.permits)
        self._lately: dict[tuple[str, str], int] = {}

    async def aclose(self) -> None:
        """Wait for the traces that nobody waited for."""
        await self._untold.aclose()

    # Deciding ----------------------------------------------------------------------------------------------------

    def exam(self, study_uid: str, identity: Identity) -> Exam:
        main, records = identity.main, identity.records
        if len(records) == 1:  # nearly all, and done for every row of a search
            return Exam(
                study_uid=study_uid,
                origin=main.origin,
                patient_id=self._naming.patient_id(main),
                ids=frozenset(_ids(main)),
                holders=(main.holder,),
                main_id=main.id,
                accessions=frozenset(_accessions(main)),
                traits=(strict(main.name, main.birth_date, main.sex),),
                ins=frozenset(main.ins),
                patient_name=main.shown_name,
                birth_date=main.birth_date,
                sex=main.sex,
            )
        return Exam(
            study_uid=study_uid,
            origin=identity.origin,
            patient_id=self._naming.patient_id(main),
            ids=frozenset(i for r in records for i in _ids(r)),
            holders=tuple({r.holder.emetteur: r.holder for r in records}.values()),
            main_id=main.id,
            accessions=frozenset(a for r in records for a in _accessions(r)),
            traits=tuple(dict.fromkeys(strict(r.name, r.birth_date, r.sex) for r in records)),
            ins=frozenset(ins for r in records for ins in r.ins),
            patient_name=main.shown_name,
            birth_date=main.birth_date,
            sex=main.sex,
            origin_named=identity.origin_named,
        )

    def decide(self, requester: Requester, study_uid: str, identity: Identity) -> Decision:
        return self._access.decide(requester, self.exam(study_uid, identity), utc_now())

    def permits(self, requester: Requester, study_uid: str, identity: Identity) -> bool:
        return self.decide(requester, study_uid, identity).permitted

    def permits_instance(self, requester: Requester, study_uid: str, located: Identity, own: Identity) -> bool:
        """May an instance be passed on that tells of another identity than its study was located as?

        If it is filed as the study is, and tells besides that it is an opposed patient's, the study is his: from now on
        searches and pictures, which don't tell it, are withheld too. It tells so by an id, an INS or strict traits; an
        opposition that only names the UID may mean the study that another person has under it.
        """
        exam = self.exam(study_uid, own)
        decision = self._access.decide(requester, exam, utc_now())
        if decision.opposition is not None and all(located.knows(r.raw_patient_id, r.holder) for r in own.records):
            told = self._access.look(requester, replace(exam, study_uid="", accessions=frozenset()), utc_now())
            if told.opposition is not None:
                self._access.bind(told.opposition, study_uid)
        return decision.permitted

    def one_person(self, requester: Requester, location: Location) -> Identity | None:
        """The one identity of a study that the requester may see. None: there is none. Two → `Conflict`."""
        seen = [i for i in location.identities if self.permits(requester, location.study_uid, i)]
        if len(seen) > 1:
            emetteurs = tuple(dict.fromkeys(r.holder.emetteur for i in seen for r in i.records))
            raise Conflict(
                "This StudyInstanceUID stands for different patients at different sites. Ask each site by itself.",
                emetteurs=emetteurs,
                study_uid=location.study_uid,
                report=location.report,
            )
        return seen[0] if seen else None

    def remembers(self, requester: Requester) -> Callable[[str, Callable[[], Sequence[Identity]]], bool]:
        """May what is remembered of a study be used for this requester?

        A study that he may not see must cost him what an unknown one costs: members are asked for it each time.
        """

        def may(study_uid: str, identities: Callable[[], Sequence[Identity]]) -> bool:
            version, key = self._access.version, (requester.id, study_uid)
            if self._lately.get(key) == version:
                return True
            if not any(self.permits(requester, study_uid, i) for i in identities()):
                return False
            if len(self._lately) >= _LATELY_MAX:
                self._lately.clear()
            self._lately[key] = version
            return True

        return may

    # Freshness ---------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        return self._access.version

    async def confirm(self) -> None:
        """Before anything is answered. Raises `consent.Unavailable`."""
        await self._access.confirm()

    async def holds(self, version: int) -> bool:
        """Is what was decided at this version still what holds? Confirmed now, however long deciding took. Raises
        `consent.Unavailable`."""
        await self._access.confirm()
        return self._access.version == version

    def changes_with_time(self, requester: Requester) -> bool:
        """May a decision for this requester become another though no rule changes? While an emergency of his runs,
        without which none is permitted by one."""
        return bool(self._access.emergencies(requester, utc_now()))

    async def beat(self) -> None:
        """Before each batch of a transfer: at once, or after a pause for confirmation, of five seconds at most."""
        if not self._access.is_fresh():
            await self._access.confirm(TRANSFER_PATIENCE_S)

    def transfer(
        self, requester: Requester, study_uid: str, people: Sequence[Identity]
    ) -> AbstractAsyncContextManager[None]:
        """Inside, a transfer that must not go on is broken off within a second. Raises `Withdrawn` then.

        `people` are the identities whose instances may be in it; more may turn up.
        """
        return self._transfers.begin(requester, lambda: ((study_uid, identity) for identity in people))

    def showing(self, requester: Requester, exams: Sequence[tuple[str, Identity]]) -> AbstractAsyncContextManager[None]:
        """The same for an answer that tells of these exams, while it is sent. Entered at once after it was decided."""
        return self._transfers.begin(requester, lambda: exams)

    def review(self) -> None:
        """Something changed: cut what may not be seen any more."""
        self._transfers.review()

    # Refusing ----------------------------------------------------------------------------------------------------

    async def even_out(self, came_at: float, report: Report) -> None:
        """Before unknown or withheld is answered (`came_at` on the loop's clock)."""
        for source in report.sources.values():
            source.elapsed_s = _stepped(source.elapsed_s)
        passed = asyncio.get_running_loop().time() - came_at
        await asyncio.sleep(_stepped(passed) - passed)

    def refused_later(
        self,
        requester: Requester,
        scope: Scope,
        location: Location,
        request_id: str,
        *,
        why: str = "it may not be shown",
    ) -> None:
        """Trace that a study was asked for and not shown: because it is unknown or withheld, or `why` else."""
        study_uid = location.study_uid
        if not location.identities:
            self._later(
                Event(
                    kind=EventKind.REFUSED,
                    requester=requester,
                    at=utc_now(),
                    outcome=EventOutcome.FAILURE,
                    request_id=request_id,
                    scope=str(scope),
                    study_uid=study_uid,
                    detail={"reason": "no such study was found"},
                )
            )
        for identity in location.identities:
            reason = self.decide(requester, study_uid, identity).reason
            self.trace_later(
                EventKind.REFUSED,
                requester,
                scope,
                study_uid,
                identity,
                request_id,
                outcome=EventOutcome.FAILURE,
                detail={"reason": reason or why},
            )

    def store_refused(self, requester: Requester, scope: Scope, study_uid: str, request_id: str, *, why: str) -> None:
        """Trace that instances of a study were not taken."""
        self._later(
            Event(
                kind=EventKind.REFUSED,
                requester=requester,
                at=utc_now(),
                outcome=EventOutcome.FAILURE,
                request_id=request_id,
                scope=str(scope),
                study_uid=study_uid,
                detail={"reason": f"not stored: {why}"},
            )
        )

    # Tracing -----------------------------------------------------------------------------------------------------

    def trace_query(
        self,
        requester: Requester,
        query: Query,
        asked_as: str,
        request_id: str,
        locate: Callable[[str], Awaitable[Location]],
    ) -> asyncio.Task[None]:
        """Begin to trace the search that the current task makes; done once durable.

        A search within one study names the exam that has its UID, so that its origin's correspondent reads it: also one
        that may not be shown, since traces are not the requester's to read. All that is written is written at once,
        after the same wait, whether there is such an exam or not.

        `locate` = where a study is; members are asked once for it and for the search itself, and no longer than that.
        """
        emergencies = self._access.emergencies(requester, utc_now())
        event = Event(
            kind=EventKind.QUERY,
            requester=requester,
            at=utc_now(),
            scope=str(query.scope),
            query=asked_as,
            request_id=request_id,
            study_uid=_one_study(query),
            detail={"emergency": " ".join(emergencies)} if emergencies else {},
        )
        search = asyncio.current_task()

        async def write() -> None:
            identities: Sequence[Identity] = ()
            if query.study_uid is not None:
                identities = await _found_while(search, locate(query.study_uid))
            of_exams = [
                replace(
                    event,
                    patient_id=self._naming.patient_id(i.main),
                    origin=i.origin.emetteur,
                    holders=tuple(dict.fromkeys(r.holder.emetteur for r in i.records)),
                )
                for i in identities
            ]
            await asyncio.gather(*map(self._access.trace, of_exams or [event]))

        return asyncio.ensure_future(write())

    async def trace_access(
        self,
        kind: EventKind,
        requester: Requester,
        scope: Scope,
        study_uid: str,
        identity: Identity,
        holders: Iterable[Site],
        request_id: str,
    ) -> None:
        """Return once durable. Accesses (metadata, frames, bulk data) are covered for a quarter of an hour."""
        event = self._event(
            kind, requester, scope, study_uid, identity, holders, request_id, outcome=EventOutcome.SUCCESS, detail={}
        )
        if kind is EventKind.ACCESSED:
            await self._access.cover(event)
        else:
            await self._access.trace(event)

    def trace_later(
        self,
        kind: EventKind,
        requester: Requester,
        scope: Scope,
        study_uid: str,
        identity: Identity,
        request_id: str,
        *,
        outcome: EventOutcome = EventOutcome.SUCCESS,
        detail: dict[str, str | int | float] | None = None,
    ) -> None:
        """For what showed nothing, or was traced when it began: nobody waits for it."""
        holders = tuple(r.holder for r in identity.records)
        self._later(
            self._event(
                kind, requester, scope, study_uid, identity, holders, request_id, outcome=outcome, detail=detail or {}
            )
        )

    def _event(
        self,
        kind: EventKind,
        requester: Requester,
        scope: Scope,
        study_uid: str,
        identity: Identity,
        holders: Iterable[Site],
        request_id: str,
        *,
        outcome: EventOutcome,
        detail: dict[str, str | int | float],
    ) -> Event:
        if self.changes_with_time(requester) and (emergency := self.decide(requester, study_uid, identity).emergency):
            detail = {**detail, "emergency": emergency}
        return Event(
            kind=kind,
            requester=requester,
            at=utc_now(),
            outcome=outcome,
            request_id=request_id,
            scope=str(scope),
            study_uid=study_uid,
            patient_id=self._naming.patient_id(identity.main),
            origin=identity.origin.emetteur,
            holders=tuple(s.emetteur for s in holders),
            detail=detail,
        )

    def _later(self, event: Event) -> None:
        self._untold.put(event)


async def _found_while(search: asyncio.Task[Any] | None, locating: Awaitable[Location]) -> Sequence[Identity]:
    """Whose a study is; nobody's if the search is cancelled meanwhile, since its client has left."""
    located = asyncio.ensure_future(locating)
    try:
        while not located.done():
            await asyncio.wait({located}, timeout=_LOOK_S)
            if search is not None and search.cancelling():
                return ()
        return located.result().identities
    finally:
        located.cancel()


def _one_study(query: Query) -> str:
    """The StudyInstanceUID that the path or the query names, "" if it is none or several."""
    named = query.study_uid or query.filters.get("0020000D", "")
    return named if _UID.fullmatch(named) else ""


def _ids(record: Record) -> Sequence[tuple[str, str]]:
    """The id that it stands for, and the PatientID there if that is a number of the holder's own, not the bare one of
    whose patient it is."""
    raw, holder, authority = record.raw_patient_id, record.holder.emetteur, record.authority.emetteur
    named = ((record.ipp, authority),) if record.ipp else ()
    if not raw or (raw == record.ipp):  # the same number twice, or another's, bare
        return named
    return (*named, (raw, holder))


def _accessions(record: Record) -> Sequence[tuple[str, str]]:
    if not record.accession:
        return ()
    holder, origin = record.holder.emetteur, record.origin.emetteur
    if holder == origin:
        return ((record.accession, holder),)
    return ((record.accession, holder), (record.accession, origin))


def _stepped(seconds: float) -> float:
    """Up to the next step, never none."""
    return (seconds // REFUSAL_STEP_S + 1) * REFUSAL_STEP_S
