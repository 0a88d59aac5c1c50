"""The engine's side of consent: what an exam is, for `decide` and `trace`. There is no way to a member around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from consent import Access, Event, EventKind, EventOutcome, Exam, Requester, utc_now
from federation.errors import Conflict
from federation.identity import Identity, Naming
from federation.locate import Location
from federation.model import Scope
from registry import Site

_log = logging.getLogger(__name__)


class Gate:
    def __init__(self, access: Access, naming: Naming) -> None:
        self._access = access
        self._naming = naming
        self._background: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait for the traces that nobody waited for."""
        if self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    def exam(self, study_uid: str, identity: Identity) -> Exam:
        main = identity.main
        return Exam(
            study_uid=study_uid,
            origin=identity.origin,
            patient_id=self._naming.patient_id(main),
            ids=frozenset([*identity.ids, *(r.own_id for r in identity.records if r.raw_patient_id)]),
            holders=tuple({r.holder.emetteur: r.holder for r in identity.records}.values()),
            patient_name=main.shown_name,
            birth_date=main.birth_date,
            sex=main.sex,
        )

    def permits(self, requester: Requester, study_uid: str, identity: Identity) -> bool:
        return self._access.decide(requester, self.exam(study_uid, identity), utc_now()).permitted

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

    async def trace_query(self, requester: Requester, scope: Scope, query: str, request_id: str) -> None:
        await self._access.trace(
            Event(
                kind=EventKind.QUERY,
                requester=requester,
                at=utc_now(),
                scope=str(scope),
                query=query,
                request_id=request_id,
            )
        )

    async def trace_access(
        self,
        kind: EventKind,
        requester: Requester,
        scope: Scope,
        study_uid: str,
        identity: Identity,
        holders: Iterable[Site],
        request_id: str,
        *,
        outcome: EventOutcome = EventOutcome.SUCCESS,
        detail: dict[str, str | int | float] | None = None,
    ) -> None:
        """Return once durable. Accesses (metadata, frames, bulk data) are covered for a quarter of an hour."""
        event = Event(
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
            detail=detail or {},
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
        task = asyncio.ensure_future(
            self.trace_access(
                kind, requester, scope, study_uid, identity, holders, request_id, outcome=outcome, detail=detail
            )
        )
        self._background.add(task)
        task.add_done_callback(self._traced)

    def _traced(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the end of a transfer, or a refusal, could not be traced: %s", type(task.exception()).__name__)
