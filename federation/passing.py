"""What a retrieval passes on, and what is traced of it: whose each instance is, and whether it may be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consent import EventKind, EventOutcome, Requester
from federation.errors import NotFound
from federation.gate import Gate
from federation.identity import Identity, Naming
from federation.model import Scope
from federation.prepare import NOT_SHOWN, Located, Preparer


class Passing:
    def __init__(self, gate: Gate, naming: Naming, preparer: Preparer) -> None:
        self._gate = gate
        self._naming = naming
        self._preparer = preparer

    def stranger(self, requester: Requester, located: Located) -> Callable[[Identity], None]:
        """An instance that bears another id than its study must be permitted by itself."""

        def check(identity: Identity) -> None:
            study_uid = located.location.study_uid
            if not self._gate.permits_instance(requester, study_uid, located.identity, identity):
                self._gate.trace_later(
                    EventKind.REFUSED,
                    requester,
                    located.scope,
                    study_uid,
                    identity,
                    located.request_id,
                    outcome=EventOutcome.FAILURE,
                    detail={"reason": self._gate.decide(requester, study_uid, identity).reason},
                )
                raise NotFound(NOT_SHOWN, report=located.report)
            if identity not in located.people:
                located.people.append(identity)
                traced = (located.identity, *located.strangers, *located.untraced)
                if self._patient(identity) not in map(self._patient, traced):
                    located.untraced.append(identity)

        return check

    def _patient(self, identity: Identity) -> tuple[str, str]:
        """Whom a trace names: PatientID as shown, EMETTEUR of the origin."""
        return self._naming.patient_id(identity.main), identity.origin.emetteur

    async def trace_strangers(self, kind: EventKind, requester: Requester, located: Located) -> None:
        """Nothing of another patient's than the study's passes before it is traced as his: once for each and retrieval.

        To be awaited when a batch is in hand, before it is passed on: whose it is was noted when its heads were read.
        """
        if not located.untraced:
            return
        people, located.untraced = located.untraced, []
        uid, request_id = located.location.study_uid, located.request_id
        await asyncio.gather(
            *(
                self._gate.trace_access(
                    kind, requester, located.scope, uid, person, [r.holder for r in person.records], request_id
                )
                for person in people
            )
        )
        located.strangers += people

    async def not_begun(self, error: BaseException, trace: asyncio.Task[None], located: Located) -> None:
        """Before `error` is raised: what was begun to be traced is, and what is not shown is answered as unknown."""
        await asyncio.gather(trace, return_exceptions=True)
        if isinstance(error, NotFound) and error.message == NOT_SHOWN:
            await self._preparer.even_out(located.came_at, located.report)

    async def confirm(self, requester: Requester, located: Located) -> None:
        """Just before the first byte: what was decided still holds, for all whose instances are in hand."""
        await self._gate.confirm()
        one = len(located.people) == 1 and located.version == self._gate.version
        if one and not self._gate.changes_with_time(requester):
            return  # that is what was decided
        if not all(self._gate.permits(requester, located.location.study_uid, i) for i in located.people):
            self._gate.refused_later(requester, located.scope, located.location, located.request_id)
            await self._preparer.even_out(located.came_at, located.report)
            raise NotFound(NOT_SHOWN, report=located.report)

    def started(
        self, kind: EventKind, requester: Requester, scope: Scope, located: Located, request_id: str
    ) -> asyncio.Task[None]:
        """The trace becomes durable while the holder is opened; no byte passes before it is."""
        return asyncio.ensure_future(
            self._gate.trace_access(
                kind, requester, scope, located.location.study_uid, located.identity, located.holders, request_id
            )
        )

    def ended(
        self, requester: Requester, scope: Scope, located: Located, request_id: str, outcome: EventOutcome
    ) -> None:
        """The end of each patient's transfer that was traced as begun; the study's own names the others."""
        also = sorted({self._patient(person)[0] for person in located.strangers} - {self._patient(located.identity)[0]})
        for person in (located.identity, *located.strangers):
            detail: dict[str, str | int | float] = (
                {"also": " ".join(also)} if also and person is located.identity else {}
            )
            self._gate.trace_later(
                EventKind.TRANSFERRED,
                requester,
                scope,
                located.location.study_uid,
                person,
                request_id,
                outcome=outcome,
                detail=detail,
            )
