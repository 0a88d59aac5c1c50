"""What keeps the traces in order while a process serves: signed heads, months made ahead, retention."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Self

from consent import trace_queries as queries
from consent.access import utc_now
from consent.chain import Head, HeadKind, Tip
from consent.heads import HeadFile, Keys
from consent.journal import Journal
from registry.database import Database, DatabaseError, Row

_log = logging.getLogger(__name__)

#: A head is signed this often of each chain that grew.
SEAL_S = 10.0
#: A chain that nobody signed for so long has no writer any more; others look for such chains this often.
ABANDONED_S = 45.0
ADOPT_S = 60.0
#: Partitions are made, and old ones dropped, this often.
MONTHS_S = 3600.0
_MONTHS_AHEAD = 2
#: Later looks for abandoned chains go back so far: the first goes back to the beginning.
_ADOPT_DAYS = 62
#: Heads that could not be written yet. Beyond it only the newest of each chain is kept, which covers the others.
_PENDING_MAX = 1000


class Keeper:
    """Signs how far the journal's chains have come every ten seconds, and writes it into the database and outside it.

    Close the journal first, so that its last rows are signed too. A failure stops nothing and is told once: what could
    not be written is written later.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        keys: Keys,
        file: HeadFile,
        *,
        retention_months: int,
        seal_s: float = SEAL_S,
        abandoned_s: float = ABANDONED_S,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._journal = journal
        self._keys = keys
        self._file = file
        self._retention_months = retention_months
        self._seal_s = seal_s
        self._abandoned_s = abandoned_s
        self._clock = clock
        self._for_file: list[Head] = []
        self._for_database: list[Head] = []
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="trace-keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        await self.seal()

    async def seal(self) -> None:
        """Sign what grew, and write what is signed."""
        await self._write(self._sign(HeadKind.HEAD, self._journal.take_tips()))

    async def adopt(self, *, since: datetime | None = None) -> int:
        """Sign the ends of chains whose writers are gone, as after a crash; how many. Raises `DatabaseError`."""
        beginning = since or datetime(1970, 1, 1, tzinfo=UTC)
        rows = await self._database.fetch(queries.ABANDONED, beginning, self._abandoned_s)
        await self._write(self._sign(HeadKind.HEAD, map(_tip, rows)))
        return len(rows)

    async def drop_old_months(self) -> int:
        """Drop the months that retention does not ask for any more; signed heads stay. Raises `DatabaseError`."""
        dropped = 0
        for month in await self._database.fetch(queries.OLD_MONTHS, self._retention_months):
            last = await self._database.fetch(queries.LAST_OF_MONTH, month["begins"])
            await self._write(self._sign(HeadKind.DROPPED, map(_tip, last)))
            if self._for_file or self._for_database:
                break  # no row goes before its head is kept; the next round tries again
            if await self._database.fetchval(queries.DROP_MONTH, month["begins"]):
                dropped += 1
                _log.warning("traces of %s were dropped: retention ended", f"{month['begins']:%Y-%m}")
        return dropped

    async def _run(self) -> None:
        months_at = adopt_at = float("-inf")
        since: datetime | None = None
        while True:
            now = time.monotonic()
            await self.seal()
            if now - adopt_at >= ADOPT_S:
                adopt_at = now
                if await self._attempt("abandoned chains cannot be signed", self._adopt_since(since)):
                    since = datetime.fromtimestamp(self._clock().timestamp() - _ADOPT_DAYS * 86400, UTC)
            if now - months_at >= MONTHS_S:
                months_at = now
                await self._attempt("months of traces cannot be made or dropped", self._turn_months())
            await asyncio.sleep(self._seal_s)

    async def _adopt_since(self, since: datetime | None) -> None:
        await self.adopt(since=since)

    async def _turn_months(self) -> None:
        await self._database.execute(queries.MAKE_MONTHS_AHEAD, _MONTHS_AHEAD)
        await self.drop_old_months()

    async def _attempt(self, what: str, work: object) -> bool:
        assert asyncio.iscoroutine(work)
        try:
            await work
        except DatabaseError as error:
            self._failed(what, error)
            return False
        self._went_well(what)
        return True

    def _sign(self, kind: HeadKind, tips: Iterable[Tip]) -> list[Head]:
        now = self._clock()
        return [
            self._keys.sign(Head(writer=tip.writer, sequence=tip.sequence, hash=tip.hash, kind=kind, signed_at=now))
            for tip in tips
        ]

    async def _write(self, heads: list[Head]) -> None:
        self._for_file = _bounded([*self._for_file, *heads])
        self._for_database = _bounded([*self._for_database, *heads])
        if self._for_file:
            what = f"signed heads of traces cannot be written to {self._file.path}"
            try:
                await asyncio.to_thread(self._file.append, self._for_file)  # waits for the disk
            except OSError as error:
                self._failed(what, error.strerror or type(error).__name__)
            else:
                self._for_file = []
                self._went_well(what)
        if self._for_database:
            what = "signed heads of traces cannot be written to the database"
            try:
                await self._database.execute(queries.ADD_HEADS, *_columns(self._for_database))
            except DatabaseError as error:
                self._failed(what, error)
            else:
                self._for_database = []
                self._went_well(what)

    def _failed(self, what: str, why: object) -> None:
        if what not in self._failing:
            self._failing.add(what)
            _log.error("%s: %s", what, why)

    def _went_well(self, what: str) -> None:
        if what in self._failing:
            self._failing.discard(what)
            _log.warning("over: %s", what)


def _bounded(heads: list[Head]) -> list[Head]:
    if len(heads) <= _PENDING_MAX:
        return heads
    newest = {(head.writer, head.kind, head.sequence if head.kind is HeadKind.DROPPED else 0): head for head in heads}
    return list(newest.values())


def _tip(row: Row) -> Tip:
    return Tip(row["writer"], row["sequence"], bytes(row["hash"]))


def _columns(heads: list[Head]) -> tuple[object, ...]:
    return (
        [head.writer for head in heads],
        [head.sequence for head in heads],
        [head.kind.value for head in heads],
        [head.hash for head in heads],
        [head.signed_at for head in heads],
        [head.key for head in heads],
        [head.signature for head in heads],
    )
