"""What a member was seen to do lately, by this process itself."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long what was seen counts, in seconds.
SEEN_S = 300.0


class Seen:
    """Only this spares an attempt. A stored profile may be old or wrong, so it says no more than what to try first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def note(self, what: str) -> None:
        self._until[what] = self._clock() + SEEN_S

    def forget(self, what: str) -> None:
        self._until.pop(what, None)

    def lately(self, what: str) -> bool:
        return self._until.get(what, float("-inf")) > self._clock()
