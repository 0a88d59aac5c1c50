"""The registry in memory, kept fresh: what the hot path reads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Self

from registry import queries
from registry.database import Connection
from registry.errors import DatabaseError
from registry.model import Directory
from registry.store import RegistryStore, read_directory

_log = logging.getLogger(__name__)

CHANNEL = "imagora_epoch"
POLL_S = 0.25
#: An answer that rests on the registry is given only if it was confirmed within this time.
FRESH_S = 0.75
#: How long one waits for a confirmation that is late, as after a moment in which this process was held up.
PATIENCE_S = 0.5
#: A connection that does not answer an epoch in this time is given up for a new one.
ANSWER_S = 2.0


class RegistryCache:
    """The current picture of the registry, confirmed every 250 ms.

    Notifications hasten a change but are never trusted alone: a dead connection is silent. While the database is lost
    the last picture stays and `confirmed_at` grows old; who must not answer from an old picture looks at it.
    """

    def __init__(self, store: RegistryStore, *, poll_s: float = POLL_S) -> None:
        self._database = store.database
        self._poll_s = poll_s
        self._directory = Directory(())
        self._confirmed_at = float("-inf")
        self._wake = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[Directory], object]] = []

    @property
    def directory(self) -> Directory:
        return self._directory

    @property
    def confirmed_at(self) -> float:
        """`time.monotonic()` at which the epoch that was last confirmed was asked for."""
        return self._confirmed_at

    async def fresh(self) -> bool:
        """True if the picture was confirmed within the last 750 ms. A late one is awaited for half a second."""
        if self._is_fresh():
            return True
        confirmed = self._confirmed
        self._wake.set()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await confirmed.wait()
        except TimeoutError:
            return False
        return self._is_fresh()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._confirmed_at <= FRESH_S

    def on_change(self, callback: Callable[[Directory], object]) -> None:
        """Call back with each new picture, in the event loop. What it raises is logged."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Load the registry and keep it fresh from now on. Raises `DatabaseUnavailable`."""
        if self._task is not None:
            return
        asked = time.monotonic()
        async with self._database.transaction("repeatable_read") as connection:
            self._directory = await read_directory(connection)
        self._confirmed_at = asked
        self._task = asyncio.create_task(self._watch(), name="registry-watch")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _watch(self) -> None:
        lost = False
        while True:
            try:
                async with self._database.session() as connection:
                    await connection.listen(CHANNEL, self._wake.set)
                    while True:
                        self._wake.clear()
                        await self._confirm(connection)
                        if lost:
                            lost = False
                            _log.warning("the registry's database is back")
                        await self._pause()
            except DatabaseError as error:
                if not lost:
                    lost = True
                    _log.error("the registry's database is lost, its last picture stays: %s", error)
                await asyncio.sleep(self._poll_s)

    async def _confirm(self, connection: Connection) -> None:
        asked = time.monotonic()
        epoch = await connection.fetchval(queries.EPOCH, timeout=ANSWER_S)
        if epoch != self._directory.epoch:
            async with connection.transaction("repeatable_read"):
                self._directory = await read_directory(connection)
            self._confirmed_at = asked
            self._tell()
        self._confirmed_at = asked
        self._confirmed.set()
        self._confirmed = asyncio.Event()  # for who comes later

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _tell(self) -> None:
        for callback in self._callbacks:
            try:
                callback(self._directory)
            except Exception:
                _log.exception("a callback on a change of the registry failed")
