"""Which exam a check may read an instance of: one that is hidden from nobody, and only once that is traced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from consent import EventKind, Requester, Unavailable
from federation.gate import Gate
from federation.identity import Identity, Naming, record_of, text_of
from federation.model import Attributes, Scope, ScopeKind
from imagora.checkup.asking import STUDY_UID
from registry import Directory, Site

#: Of a study, by the member's row of it. True: its access is traced, durably.
MayRead = Callable[[Attributes], Awaitable[bool]]
#: The server itself, which checks on a schedule.
SERVER = Requester(id="imagora:check", name="imagora: scheduled check")


class Looking:
    """What `requester`, who works at no site, may read of members to check them."""

    def __init__(
        self, gate: Gate, naming: Naming, directory: Callable[[], Directory], requester: Requester = SERVER
    ) -> None:
        self._gate = gate
        self._naming = naming
        self._directory = directory
        self._requester = requester

    def at(self, site: Site) -> MayRead:
        async def may_read(row: Attributes) -> bool:
            record = record_of(row, site, self._directory(), long_ids=self._naming.long_ids)
            identity, study_uid = Identity(records=(record,)), text_of(row, STUDY_UID)
            try:
                await self._gate.confirm()
                if not self._gate.permits(self._requester, study_uid, identity):
                    return False
                scope = Scope(ScopeKind.SITE, site.emetteur)
                await self._gate.trace_access(
                    EventKind.ACCESSED, self._requester, scope, study_uid, identity, (site,), "check"
                )
            except Unavailable:
                return False
            return True

        return may_read
