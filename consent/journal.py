"""Makes traces durable: what waits is committed together, and nobody goes on before his own is."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import orjson

from consent.access import utc_now
from consent.chain import Link, Record, Tip, append
from consent.model import Event, Unavailable
from consent.trace_queries import INSERT, INSERT_ONE, MAKE_MONTH
from registry.database import Connection, Database, DatabaseError, DatabaseUnavailable

_log = logging.getLogger(__name__)

#: How long a caller waits for his trace before he is told that it cannot be made.
PATIENCE_S = 5.0
#: Traces that may wait at once; who comes later waits for a place, within the same patience.
QUEUE_MAX = 2000
BATCH_MAX = 500

_HOLDERS = 14  # their place among the values of a row


@dataclass(slots=True, eq=False)
class _Entry:
    record: Record
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Journal:
    """Writes events to the table of traces.

    One task holds one connection and commits all that waits in one statement. A single event thus costs one round trip
    and one commit; events that come meanwhile share the next. If the connection breaks during a commit, its events are
    written again on the next one: a trace may then stand twice, but none is missing.

    What one connection writes is one chain (`consent.chain`): whether a commit that was cut off happened is not known,
    and a chain is only continued from where it is known to be.
    """

    def __init__(
        self, database: Database, *, patience_s: float = PATIENCE_S, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._patience_s = patience_s
        self._clock = clock
        self._tip = Tip(writer_name(clock()))
        self._advanced: dict[str, Tip] = {}
        self._month: tuple[int, int] | None = None  # the one that is known to have a partition
        self._queue: asyncio.Queue[_Entry | None] = asyncio.Queue(QUEUE_MAX)
        self._task: asyncio.Task[None] | None = None
        self._lost = False

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="journal")

    async def aclose(self) -> None:
        """Write what waits, then stop. Who still waits after the usual patience gets `Unavailable`."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._queue.put(None)
                await asyncio.shield(task)
        except TimeoutError:
            pass
        finally:
            task.cancel()
            await asyncio.wait({task})
            while not self._queue.empty():
                if (entry := self._queue.get_nowait()) is not None:
                    _refuse(entry, "the journal is closed")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def take_tips(self) -> list[Tip]:
        """How far each chain has been committed, of those that grew since this was last asked."""
        taken, self._advanced = self._advanced, {}
        return list(taken.values())

    async def write(self, event: Event) -> None:
        """Return once the event is committed. Raises `Unavailable` if that takes more than five seconds.

        A caller that is cancelled, or gives up, may leave a trace of what he did not do; never the reverse.
        """
        if self._task is None:
            raise Unavailable("no trace can be made: the journal is closed")
        entry = _Entry(_record(event))
        try:
            async with asyncio.timeout(self._patience_s):
                await self._queue.put(entry)
                await entry.done
        except TimeoutError:
            raise Unavailable("no trace can be made: the database does not take it in time") from None

    async def _run(self) -> None:
        waiting: list[_Entry] = []
        closing = False
        try:
            while not (closing and not waiting):
                try:
                    async with self._database.session() as connection:
                        self._tip = Tip(writer_name(self._clock()))
                        self._month = None
                        while not closing or waiting:
                            if not waiting:
                                waiting, closing = await self._take()
                            await self._commit(connection, waiting)
                            self._recovered()
                            waiting = []
                except DatabaseError as error:
                    self._report(error)
                    waiting = [entry for entry in waiting if not entry.done.done()]
                    await asyncio.sleep(0.1)
        finally:
            for entry in waiting:
                _refuse(entry, "the journal is closed")

    async def _take(self) -> tuple[list[_Entry], bool]:
        """Wait for an event and take all that have come by then. True with it if the journal is closing."""
        batch: list[_Entry] = []
        entry = await self._queue.get()
        while entry is not None:
            if not entry.done.done():  # else its caller is gone
                batch.append(entry)
            if len(batch) == BATCH_MAX or self._queue.empty():
                return batch, False
            entry = self._queue.get_nowait()
        return batch, True

    async def _commit(self, connection: Connection, batch: list[_Entry]) -> None:
        if not batch:
            return
        now = max(self._clock(), self._tip.recorded_at)
        tip = self._tip
        links = []
        for entry in batch:
            link, tip = append(tip, entry.record, now)
            links.append(link)
        try:
            if self._month != _month(now):
                await connection.fetchval(MAKE_MONTH, now, timeout=self._patience_s)
                self._month = _month(now)
            if len(links) == 1:
                await connection.execute(INSERT_ONE, *_values(links[0]), timeout=self._patience_s)
            else:
                await connection.execute(INSERT, *_columns(links), timeout=self._patience_s)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            self._month = None
            if len(batch) > 1:
                # One event that the database refuses must not take the others with it.
                for entry in batch:
                    await self._commit(connection, [entry])
                return
            _log.error("a trace was refused: %s", error)
            _refuse(batch[0], "the database refuses it")
            return
        self._tip = self._advanced[tip.writer] = tip
        for entry in batch:
            if not entry.done.done():
                entry.done.set_result(None)

    def _report(self, error: DatabaseError) -> None:
        if not self._lost:
            self._lost = True
            _log.error("no trace can be made, so nothing is shown: %s", error)

    def _recovered(self) -> None:
        if self._lost:
            self._lost = False
            _log.warning("traces can be made again")


def _refuse(entry: _Entry, reason: str) -> None:
    if not entry.done.done():
        entry.done.set_exception(Unavailable(f"no trace can be made: {reason}"))


def writer_name(moment: datetime) -> str:
    """A new run of a writer: since when, on which machine, which process, and a random end."""
    host = re.sub(r"[^\w.-]", "", socket.gethostname(), flags=re.ASCII)[:40]
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{host}-{os.getpid()}-{secrets.token_hex(6)}"


def _month(moment: datetime) -> tuple[int, int]:
    utc = moment.astimezone(UTC)
    return utc.year, utc.month


def _values(link: Link) -> tuple[object, ...]:
    """What `INSERT_ONE` takes."""
    r = link.record
    return (
        *(link.sequence, link.previous, link.hash, r.at, r.kind, r.outcome, r.requester_id, r.requester_name),
        *(r.request_id, r.scope, r.query, r.study_uid, r.patient_id, r.origin, r.holders, r.detail),
        *(link.writer, link.recorded_at),
    )


def _columns(links: list[Link]) -> tuple[object, ...]:
    """What `INSERT` takes. All rows of a batch are of one chain and one moment."""
    columns = [list(column) for column in zip(*map(_values, links), strict=True)][:-2]
    columns[_HOLDERS] = [",".join(link.record.holders) for link in links]
    return *columns, links[0].writer, links[0].recorded_at


def _record(event: Event) -> Record:
    detail = {**event.detail, **_credential(event.requester.credential)}
    return Record(
        at=event.at.astimezone(UTC),
        kind=event.kind.value,
        outcome=event.outcome.value,
        requester_id=_storable(event.requester.id),
        requester_name=_storable(event.requester.name),
        request_id=_storable(event.request_id),
        scope=_storable(event.scope),
        query=_storable(event.query),
        study_uid=_storable(event.study_uid),
        patient_id=_storable(event.patient_id),
        origin=_storable(event.origin),
        # As the column gives them back: it is filled from a text with commas.
        holders=tuple(filter(None, ",".join(map(_storable, event.holders)).split(","))),
        detail=orjson.dumps(
            {_storable(key): _storable(value) if isinstance(value, str) else value for key, value in detail.items()}
        ).decode(),
    )


def _credential(credential: str) -> dict[str, str]:
    if not credential:
        return {}
    kind, _, reference = credential.partition(":")
    return {"session": reference} if kind == "session" and reference else {"jti": credential}


def _storable(text: str) -> str:
    """What was asked may hold what PostgreSQL's text cannot: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
