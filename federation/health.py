"""A circuit breaker per member: a sick member is left alone for a while, then probed by one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A member as seen by this process. Times are of the clock that the breaker was given, in seconds."""

    state: BreakerState
    consecutive_failures: int
    successes: int
    failures: int
    last_success_at: float | None
    last_failure_at: float | None
    last_failure: str


class Breaker:
    """Opens after `failures` in a row; after `open_s` one request goes through as a probe."""

    def __init__(self, clock: Callable[[], float], *, failures: int = 3, open_s: float = 15.0) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._probing = False
        self._successes = 0
        self._failures = 0
        self._last_success_at: float | None = None
        self._last_failure_at: float | None = None
        self._last_failure = ""

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() - self._opened_at < self._open_s else BreakerState.HALF_OPEN

    def admit(self) -> bool:
        """May a request go to the member now? Each admitted one must end in `succeeded`, `failed` or `released`."""
        state = self.state
        if state is BreakerState.CLOSED:
            return True
        if state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return False

    def succeeded(self) -> None:
        self._in_a_row = 0
        self._opened_at = None
        self._probing = False
        self._successes += 1
        self._last_success_at = self._clock()

    def failed(self, why: str) -> None:
        self._in_a_row += 1
        self._failures += 1
        self._last_failure_at = self._clock()
        self._last_failure = why
        if self._probing or self._in_a_row >= self._limit:
            self._opened_at = self._clock()
        self._probing = False

    def released(self) -> None:
        """The request ended without telling anything about the member (cancelled, or only it was wrong)."""
        self._probing = False

    def health(self) -> Health:
        return Health(
            state=self.state,
            consecutive_failures=self._in_a_row,
            successes=self._successes,
            failures=self._failures,
            last_success_at=self._last_success_at,
            last_failure_at=self._last_failure_at,
            last_failure=self._last_failure,
        )
