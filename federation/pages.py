"""The next page of a search that was just made: from what was merged for the page before, decided anew.

Kept per requester for a minute, as long as no rule and no site changed, up to a number of rows in all. What is kept was
never shown as it is: each page passes the rules as they are when it leaves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
KEPT_S = 60.0
ROWS_MAX = 20_000


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T
    rows: int
    version: int
    until: float


class Pages(Generic[T]):
    """`put` what was gathered for a page; `get` it back for a further one."""

    def __init__(
        self, *, rows_max: int = ROWS_MAX, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rows_max = rows_max
        self._kept_s = kept_s
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._rows = 0

    @property
    def rows(self) -> int:
        """How many are kept in all."""
        return self._rows

    def put(self, key: Hashable, value: T, *, rows: int, version: int) -> None:
        """`version` changes with the rules and the registry. What is larger than all that may be kept is not."""
        self._drop(key)
        now = self._clock()
        while self._kept and (self._kept[next(iter(self._kept))].until <= now or self._rows + rows > self._rows_max):
            self._drop(next(iter(self._kept)))
        if rows <= self._rows_max:
            self._kept[key] = _Kept(value, rows, version, now + self._kept_s)
            self._rows += rows

    def get(self, key: Hashable, *, version: int) -> T | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.version != version or kept.until <= self._clock():
            self._drop(key)
            return None
        return kept.value

    def clear(self) -> None:
        self._kept.clear()
        self._rows = 0

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._rows -= kept.rows
