"""Makes traces durable: what waits is committed together, and nobody goes on before his own is."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Self

import orjson

from consent.model import Event, Unavailable
from registry.database import Connection, Database, DatabaseError, DatabaseUnavailable

_log = logging.getLogger(__name__)

#: How long a caller waits for his trace before he is told that it cannot be made.
PATIENCE_S = 5.0
#: Traces that may wait at once; who comes later waits for a place, within the same patience.
QUEUE_MAX = 2000
BATCH_MAX = 500

#: One array per column. holders: EMETTEURs joined by commas (an EMETTEUR has none): arrays of arrays are matrices.
INSERT = """
INSERT INTO trace (at, kind, outcome, requester_id, requester_name, request_id, scope, query, study_uid, patient_id,
                   origin, holders, detail)
SELECT u.at, u.kind, u.outcome, u.requester_id, u.requester_name, u.request_id, u.scope, u.query, u.study_uid,
       u.patient_id, u.origin, string_to_array(u.holders, ','), u.detail::jsonb
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
     WITH ORDINALITY
     AS u (at, kind, outcome, requester_id, requester_name, request_id, scope, query, study_uid, patient_id, origin,
           holders, detail, place)
ORDER BY u.place
"""


@dataclass(slots=True, eq=False)
class _Entry:
    values: tuple[object, ...]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Journal:
    """Writes events to the table of traces.

    One task holds one connection and commits all that waits in one statement. A single event thus costs one round trip
    and one commit; events that come meanwhile share the next. If the connection breaks during a commit, its events are
    written again on the next one: a trace may then stand twice, but none is missing.
    """

    def __init__(self, database: Database, *, patience_s: float = PATIENCE_S) -> None:
        self._database = database
        self._patience_s = patience_s
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

    async def write(self, event: Event) -> None:
        """Return once the event is committed. Raises `Unavailable` if that takes more than five seconds.

        A caller that is cancelled, or gives up, may leave a trace of what he did not do; never the reverse.
        """
        if self._task is None:
            raise Unavailable("no trace can be made: the journal is closed")
        entry = _Entry(_values(event))
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
        try:
            columns = (list(column) for column in zip(*(entry.values for entry in batch), strict=True))
            await connection.execute(INSERT, *columns, timeout=self._patience_s)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            if len(batch) > 1:
                # One event that the database refuses must not take the others with it.
                for entry in batch:
                    await self._commit(connection, [entry])
                return
            _log.error("a trace was refused: %s", error)
            _refuse(batch[0], "the database refuses it")
            return
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


def _values(event: Event) -> tuple[object, ...]:
    return (
        event.at,
        event.kind.value,
        event.outcome.value,
        _storable(event.requester.id),
        _storable(event.requester.name),
        _storable(event.request_id),
        _storable(event.scope),
        _storable(event.query),
        _storable(event.study_uid),
        _storable(event.patient_id),
        _storable(event.origin),
        ",".join(map(_storable, event.holders)),
        orjson.dumps(
            {
                _storable(key): _storable(value) if isinstance(value, str) else value
                for key, value in event.detail.items()
            }
        ).decode(),
    )


def _storable(text: str) -> str:
    """What was asked may hold what PostgreSQL's text cannot: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
