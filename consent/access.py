"""The one door: every search and retrieve passes `decide` and `trace` here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from consent.model import Decision, Event, EventKind, Exam, Policy, Requester

#: A viewer's hundreds of requests for one study are covered by one trace per requester, study and quarter
#: of an hour in each process.
COVER_S = 15 * 60

PERMITTED = Decision(permitted=True)


class Open:
    """The policy without rules: every exam is shown. Stands until oppositions are recorded."""

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return PERMITTED


class Access:
    """Decides and traces for the engine.

    `write` returns once the event is durable and raises `Unavailable` if it can't be made so.
    """

    def __init__(self, policy: Policy, write: Callable[[Event], Awaitable[None]], *, covered_max: int = 50_000) -> None:
        self._policy = policy
        self._write = write
        self._covered: dict[tuple[str, str, str], float] = {}
        self._covered_max = covered_max

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return self._policy.decide(requester, exam, at)

    async def trace(self, event: Event) -> None:
        """Return once `event` is durable."""
        await self._write(event)

    async def cover(self, event: Event) -> None:
        """Like `trace`, but a like event of the same requester and study in this quarter of an hour covers it."""
        assert event.kind is EventKind.ACCESSED
        key = (event.requester.id, event.study_uid, event.patient_id)
        now = event.at.timestamp()
        until = self._covered.get(key)
        if until is not None and now < until:
            return
        await self._write(event)
        if len(self._covered) >= self._covered_max:
            self._covered = {k: t for k, t in self._covered.items() if t > now}
            if len(self._covered) >= self._covered_max:
                self._covered.clear()  # costs extra traces, never a missing one
        self._covered[key] = now + COVER_S


def utc_now() -> datetime:
    return datetime.now(UTC)
