"""Emergency access: a requester declares that a patient's life is at risk, and sees what is withheld, for two hours.

It is bound to one requester and one patient, here and not at the client. It is traced before it works, and its end is
traced too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from consent.access import utc_now
from consent.model import Event, EventKind, Requester, Unavailable
from registry.database import Database, DatabaseError, DatabaseUnavailable, Row

_log = logging.getLogger(__name__)

#: How long an emergency access lasts.
EMERGENCY_S = 7200
#: Ends are looked for this often.
ENDS_S = 5.0
#: A database that takes longer to keep one does not answer.
ANSWER_S = 5.0
#: So many of one requester run at once: more than one person can care for, fewer than would open a region's files.
RUNNING_MAX = 20
_BATCH = 100
#: On closing, an end that is being traced may be traced to its end.
_CLOSE_S = 6.0

#: requester_id. Two declarations of one requester at once are counted one after the other.
LOCK_REQUESTER = "SELECT pg_advisory_xact_lock(hashtextextended('imagora emergency ' || $1, 0))"

#: requester_id → running, first_end: how many he has running, and when the first of them ends
RUNNING = """
SELECT count(*) AS running, min(expires_at) AS first_end FROM emergency
WHERE stopped_at IS NULL AND expires_at > now() AND requester_id = $1
"""

#: id, requester_id, requester_name, ipp, emetteur, reason, expires_at
ADD = """
INSERT INTO emergency (id, requester_id, requester_name, ipp, emetteur, reason, started_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), $7)
"""

#: number → id, requester_id, requester_name, ipp, emetteur: of those that are over and whose end nobody traced, nor is
#: about to. Locked, so that another process leaves them alone.
OVER = """
SELECT id, requester_id, requester_name, ipp, emetteur FROM emergency
WHERE stopped_at IS NULL AND expires_at <= now()
ORDER BY expires_at LIMIT $1
FOR UPDATE SKIP LOCKED
"""

#: id[]
MARK = "UPDATE emergency SET stopped_at = clock_timestamp() WHERE id = ANY ($1)"

#: PatientID as it is shown → ipp, emetteur, if it is the hashed form of a longer one
LONG_ID = "SELECT ipp, emetteur FROM long_patient_id WHERE hashed = $1"

Write = Callable[[Event], Awaitable[None]]
#: (IPP, EMETTEUR) → PatientID as exams show it.
Shown = Callable[[str, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """One declaration. `emetteur` in the registry's case."""

    id: str
    requester: Requester
    ipp: str
    emetteur: str
    reason: str
    expires_at: datetime


class TooManyRunning(Exception):
    """This requester has as many running as one may. `first_end`: when the first of them ends."""

    def __init__(self, first_end: datetime) -> None:
        super().__init__(f"{RUNNING_MAX} emergency accesses of this requester are running")
        self.first_end = first_end


class EmergencyStore:
    """Raises `DatabaseUnavailable`, within five seconds, and `DatabaseError`."""

    def __init__(self, database: Database, *, answer_s: float = ANSWER_S) -> None:
        self._database = database
        self._answer_s = answer_s

    async def add(self, emergency: Emergency, *, traced: Callable[[], Awaitable[None]]) -> None:
        """From here on it works. `traced` is awaited before: if it raises, there is none. Raises `TooManyRunning`."""
        e = emergency
        try:
            async with asyncio.timeout(self._answer_s), self._database.transaction() as connection:
                await connection.execute(LOCK_REQUESTER, e.requester.id)
                row = await connection.fetchrow(RUNNING, e.requester.id)
                assert row is not None
                if row["running"] >= RUNNING_MAX:
                    raise TooManyRunning(row["first_end"])
                await traced()
                await connection.execute(
                    ADD, e.id, e.requester.id, e.requester.name, e.ipp, e.emetteur, e.reason, e.expires_at
                )
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer in time") from None

    async def long_id(self, patient_id: str) -> tuple[str, str] | None:
        """What the hashed form of a PatientID stands for: (IPP, EMETTEUR)."""
        try:
            async with asyncio.timeout(self._answer_s):
                row = await self._database.fetchrow(LONG_ID, patient_id)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer in time") from None
        return (row["ipp"], row["emetteur"]) if row is not None else None


class EmergencyEnds:
    """Traces the end of each emergency access that expired, those too that expired while nothing ran.

    Every serving process runs one. What one of them is about to trace the others leave alone, so each end is traced
    once; twice if a process dies between the trace and the mark, never not at all. `write` returns once a trace is
    durable and raises `Unavailable`. Without a database it tries again later, and says so once.
    """

    def __init__(self, database: Database, write: Write, shown: Shown, *, every_s: float = ENDS_S) -> None:
        self._database = database
        self._write = write
        self._shown = shown
        self._every_s = every_s
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def __aenter__(self) -> Self:
        self._closing.clear()
        self._task = asyncio.create_task(self._run(), name="emergency-ends")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._closing.set()
        await asyncio.wait({task}, timeout=_CLOSE_S)
        task.cancel()
        await asyncio.wait({task})

    async def end_expired(self) -> int:
        """Trace and mark what is over; how many. Raises `DatabaseError`, `Unavailable`."""
        ended = 0
        while True:
            async with self._database.transaction() as connection:
                over = await connection.fetch(OVER, _BATCH)
                traced, refused = await self._trace(over)
                if traced:
                    await connection.execute(MARK, traced)
            ended += len(traced)
            if refused is not None:
                raise refused
            if len(over) < _BATCH or self._closing.is_set():
                return ended

    async def _trace(self, over: Sequence[Row]) -> tuple[list[str], Unavailable | None]:
        """Ids of those whose end was traced, and why not all of them."""
        traced: list[str] = []
        for row in over:
            if self._closing.is_set():
                break
            try:
                await self._write(self._stopped(row))
            except Unavailable as error:
                return traced, error
            traced.append(row["id"])
        return traced, None

    def _stopped(self, row: Row) -> Event:
        return Event(
            kind=EventKind.EMERGENCY_STOPPED,
            requester=Requester(id=row["requester_id"], name=row["requester_name"]),
            at=utc_now(),
            patient_id=self._shown(row["ipp"], row["emetteur"]),
            origin=row["emetteur"],
            detail={"emergency": row["id"]},
        )

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                await self.end_expired()
                self._recovered()
            except (DatabaseError, Unavailable) as error:
                self._report(error)
            try:
                async with asyncio.timeout(self._every_s):
                    await self._closing.wait()
            except TimeoutError:
                pass

    def _report(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            _log.error("ends of emergency accesses cannot be traced: %s", error)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            _log.warning("ends of emergency accesses can be traced again")
