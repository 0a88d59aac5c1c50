"""The registry in memory, kept fresh: what the hot path reads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

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
#: In so many turns of the loop an answer that has come is heard.
_TURNS = 8
#: A connection that does not answer an epoch in this time is given up for a new one.
ANSWER_S = 2.0


class Part(Protocol):
    """A further picture that is kept fresh with the registry's: of consent."""

    async def read(self, connection: Connection, since: int, until: int) -> None:
        """Take in what changed after epoch `since`, up to `until`, which is what this connection's snapshot shows.

        What is called again with the same `since`, after a loss, may find a part of it done.
        """
        ...


class _Epochs(NamedTuple):
    value: int
    registry: int
    consent: int


class RegistryCache:
    """The current picture of the registry, and of consent, confirmed every 250 ms.

    Notifications hasten a change but are never trusted alone: a dead connection is silent. While the database is lost
    the last picture stays and `confirmed_at` grows old; who must not answer from an old picture looks at it.
    """

    def __init__(self, store: RegistryStore, parts: Sequence[Part] = (), *, poll_s: float = POLL_S) -> None:
        self._database = store.database
        self._parts = tuple(parts)
        self._poll_s = poll_s
        self._directory = Directory(())
        self._epochs = _Epochs(-1, -1, -1)
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

    @property
    def version(self) -> int:
        """Changes whenever an answer may."""
        return self._epochs.value

    async def fresh(self, patience_s: float = PATIENCE_S) -> bool:
        """True if the picture was confirmed within the last 750 ms. A late one is awaited for half a second.

        Where the database answers, only too late for this process to have heard it in time, as after a moment in which
        its loop was held up, it is asked again and awaited anew, four times as long in all.
        """
        until = time.monotonic() + patience_s
        last = until + 3 * patience_s
        while not self.is_fresh():
            left = until - time.monotonic()
            if left <= 0:
                return False
            confirmed = self._confirmed
            self._wake.set()
            try:
                async with asyncio.timeout(left):
                    await confirmed.wait()
            except TimeoutError:
                for _ in range(_TURNS):  # what came while the loop was held up is heard first
                    await asyncio.sleep(0)
                if not confirmed.is_set():
                    return self.is_fresh()
            until = min(last, time.monotonic() + patience_s)
        return True

    def is_fresh(self) -> bool:
        return time.monotonic() - self._confirmed_at <= FRESH_S

    async def refresh(self) -> None:
        """Return once the picture shows all that was committed before this call, or after two seconds without."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._confirmed_at < asked:
                    confirmed = self._confirmed
                    self._wake.set()
                    await confirmed.wait()
        except TimeoutError:
            return

    def on_change(self, callback: Callable[[Directory], object]) -> None:
        """Call back with each new picture, in the event loop. What it raises is logged."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Load the registry and keep it fresh from now on. Raises `DatabaseUnavailable`."""
        if self._task is not None:
            return
        asked = time.monotonic()
        async with self._database.connection() as connection:
            await self._read(connection)
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
                    await connection.listen(CHANNEL, lambda _: self._wake.set())
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
            except Exception as error:  # its text may be of patient data
                _log.error("the registry's picture cannot be read: unexpected %s", type(error).__name__)
                await asyncio.sleep(self._poll_s)

    async def _confirm(self, connection: Connection) -> None:
        asked = time.monotonic()
        epoch = await connection.fetchval(queries.EPOCH, timeout=ANSWER_S)
        if epoch != self._epochs.value:
            asked = time.monotonic()
            await self._read(connection)
            self._confirmed_at = asked
            self._tell()
        self._confirmed_at = asked
        self._confirmed.set()
        self._confirmed = asyncio.Event()  # for who comes later

    async def _read(self, connection: Connection) -> None:
        """Read what changed, as one snapshot shows it. The picture changes at once, so that whoever sees it is told."""
        directory: Directory | None = None
        async with connection.transaction("repeatable_read"):
            row = await connection.fetchrow(queries.EPOCHS)
            assert row is not None
            epochs, known = _Epochs(row["value"], row["registry"], row["consent"]), self._epochs
            if epochs.consent != known.consent:
                for part in self._parts:
                    await part.read(connection, known.value, epochs.value)
            if epochs.registry != known.registry or epochs.consent == known.consent:
                directory = await read_directory(connection)
        # After the transaction, and without a pause before the callbacks.
        if directory is not None:
            self._directory = directory
        self._epochs = epochs

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
