"""Traces that nobody waits for: ends of transfers that were traced when they began, and refusals, which showed nothing.

While none can be made they are kept in memory, and written once the database is back, with the time of what happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from consent.model import Event, Unavailable

_log = logging.getLogger(__name__)

#: So many are kept; beyond it the oldest are given up.
KEPT_MAX = 10_000
#: Whether the database is back is looked at this often, in seconds.
EVERY_S = 0.5
#: Written at a time.
_BATCH = 500
#: What is refused so often by a database that is there is given up.
_TRIES = 10


class Later:
    """`write` returns once an event is durable and raises `Unavailable`; `is_there`: is the database known to answer?

    What was being committed when the database went away may stand twice, as in the journal; nothing is missing.
    """

    def __init__(
        self,
        write: Callable[[Event], Awaitable[None]],
        is_there: Callable[[], bool],
        *,
        most: int = KEPT_MAX,
        every_s: float = EVERY_S,
    ) -> None:
        self._write = write
        self._is_there = is_there
        self._most = most
        self._every_s = every_s
        self._kept: deque[tuple[Event, int]] = deque()  # how often it was refused
        self._lost = 0
        self._writing: set[asyncio.Task[None]] = set()
        self._again: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def kept(self) -> int:
        return len(self._kept)

    def put(self, event: Event) -> None:
        """Begin to write it."""
        self._start(event, 0)

    async def aclose(self) -> None:
        """Wait for what is being written, and try once more what is kept."""
        self._closing = True
        if self._again is not None:
            self._again.cancel()
            await asyncio.wait({self._again})
        await self._all_written()
        kept, self._kept = self._kept, deque()
        for event, tries in kept:
            self._start(event, tries)
        await self._all_written()
        if left := len(self._kept):
            self._kept.clear()
            _log.error("%d ends of transfers, or refusals, could not be traced and are given up", left)

    async def _all_written(self) -> None:
        while self._writing:
            await asyncio.wait(self._writing)

    def _start(self, event: Event, tries: int) -> asyncio.Task[None]:
        task = asyncio.create_task(self._try(event, tries))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _try(self, event: Event, tries: int) -> None:
        try:
            await self._write(event)
        except Unavailable as error:
            self._keep(event, tries + self._is_there(), error)
        except Exception as error:
            _log.error("the end of a transfer, or a refusal, could not be traced: %s", type(error).__name__)

    def _keep(self, event: Event, tries: int, error: Unavailable) -> None:
        if tries >= _TRIES:
            _log.error("the end of a transfer, or a refusal, could not be traced and is given up: %s", error)
            return
        self._kept.append((event, tries))
        if len(self._kept) > self._most:
            self._kept.popleft()
            self._lost += 1
            if self._lost == 1:
                _log.error("ends of transfers, or refusals, are given up untraced: more than %d wait", self._most)
        if not self._closing and (self._again is None or self._again.done()):
            _log.error("ends of transfers, or refusals, cannot be traced now and are kept: %s", error)
            self._again = asyncio.create_task(self._write_kept(), name="kept-traces")

    async def _write_kept(self) -> None:
        while self._kept:
            await asyncio.sleep(self._every_s)
            if self._is_there():
                batch = [self._kept.popleft() for _ in range(min(_BATCH, len(self._kept)))]
                tasks = [self._start(event, tries) for event, tries in batch]
                if tasks:
                    await asyncio.wait(tasks)
        lost, self._lost = self._lost, 0
        _log.warning("ends of transfers, and refusals, are traced again; %d were given up", lost)
