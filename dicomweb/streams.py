"""How much of a body is held while its client takes its time: the less, the more bodies are under way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

#: Bytes. A body may hold three to four times as much: what came and waits, what is passed on, what is being written.
FULL = 1 << 18
SMALL = 1 << 16
#: So many bodies at once have `FULL` each: few clients are relayed to as fast as can be.
_FULL_MOST = 8


class Streams:
    """Counts the bodies under way in this process."""

    def __init__(self) -> None:
        self._open = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[int]:
        """→ the size of its buffer, in bytes."""
        self._open += 1
        try:
            yield FULL if self._open <= _FULL_MOST else SMALL
        finally:
            self._open -= 1
