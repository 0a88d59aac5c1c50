"""The one door: every search and retrieve passes `decide` and `trace` here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from consent.findings import Findings
from consent.model import Decision, Event, EventKind, Exam, Policy, Requester, Unavailable

#: A viewer's hundreds of requests for one study are covered by one trace per requester, study and quarter
#: of an hour in each process.
COVER_S = 15 * 60
#: How long an answer waits for its rules to be confirmed, and how long a transfer under way does.
ANSWER_PATIENCE_S = 1.0
TRANSFER_PATIENCE_S = 5.0
#: How long a trace that is being written waits for the database to show that it is there.
TRACE_PATIENCE_S = 0.5
#: While a trace is being written, what it rests on is looked at this often.
_LOOK_S = 0.25

PERMITTED = Decision(permitted=True)


class Open:
    """The policy without rules: every exam is shown."""

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return PERMITTED


class Pulse(Protocol):
    """Whether what decisions rest on is known to be what the database says (`registry.watch.RegistryCache`)."""

    @property
    def version(self) -> int:
        """Changes whenever a decision may."""
        ...

    def is_fresh(self) -> bool: ...

    async def fresh(self, patience_s: float = ...) -> bool:
        """The same, after waiting for a late confirmation."""
        ...


class Access:
    """Decides and traces for the engine.

    `write` returns once the event is durable and raises `Unavailable` if it can't be made so. `findings` is told of
    near matches and of studies that turned out to be an opposition's.
    """

    def __init__(
        self,
        policy: Policy,
        write: Callable[[Event], Awaitable[None]],
        pulse: Pulse,
        findings: Findings | None = None,
        *,
        emergencies: Callable[[Requester, datetime], list[str]] = lambda _requester, _at: [],
        covered_max: int = 50_000,
    ) -> None:
        self._policy = policy
        self._write = write
        self._pulse = pulse
        self._findings = findings or Findings()
        self.emergencies = emergencies
        self._covered: dict[tuple[str, ...], float] = {}
        self._covered_max = covered_max

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        decision = self._policy.decide(requester, exam, at)
        if decision.near:
            self._findings.near(decision.near)
        elif decision.opposition is not None and decision.by_ins:
            # Where the INS stands in instances only, searches know it from now on.
            self._findings.bind(decision.opposition, exam.study_uid)
        return decision

    def look(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        """What would be decided. Nothing is told to anybody of what that brings to light."""
        return self._policy.decide(requester, exam, at)

    def bind(self, opposition: int, study_uid: str) -> None:
        """A study turned out to be an opposition's, by what is not told of it where it is searched."""
        self._findings.bind(opposition, study_uid)

    @property
    def version(self) -> int:
        return self._pulse.version

    def is_fresh(self) -> bool:
        return self._pulse.is_fresh()

    async def confirm(self, patience_s: float = ANSWER_PATIENCE_S) -> None:
        """Raises `Unavailable` if nobody knows whether what is in memory still holds."""
        if not self._pulse.is_fresh() and not await self._pulse.fresh(patience_s):
            raise Unavailable("what patients refuse can't be confirmed now")

    async def trace(self, event: Event) -> None:
        """Return once `event` is durable. Raises `Unavailable`, at once when the database is known to be lost."""
        writing = asyncio.ensure_future(self._write(event))
        try:
            while True:
                done, _ = await asyncio.wait({writing}, timeout=_LOOK_S)
                if done:
                    writing.result()
                    return
                if not self._pulse.is_fresh() and not await self._pulse.fresh(TRACE_PATIENCE_S):
                    raise Unavailable("no trace can be made: the database is lost")
        finally:
            writing.cancel()

    async def cover(self, event: Event) -> None:
        """Like `trace`, but a like event of the same requester and study in this quarter of an hour covers it."""
        assert event.kind is EventKind.ACCESSED
        key = (event.requester.id, event.study_uid, event.patient_id, str(event.detail.get("emergency", "")))
        now = event.at.timestamp()
        until = self._covered.get(key)
        if until is not None and now < until:
            return
        await self.trace(event)
        if len(self._covered) >= self._covered_max:
            self._covered = {k: t for k, t in self._covered.items() if t > now}
            if len(self._covered) >= self._covered_max:
                self._covered.clear()  # costs extra traces, never a missing one
        self._covered[key] = now + COVER_S


def utc_now() -> datetime:
    return datetime.now(UTC)
