"""What serving processes learn of copies and long patient ids, in the memory of all of them.

Whose an exam is shown as must not depend on which process answers. So what one learnt is in the database, and told to
the others, before the answer that shows it leaves; and the others take in what they were told before they answer.
Notifications need a connection that lives: who lost his reads everything anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.copies import Copies, Copy
from federation.identity import Id
from federation.long_ids import LongPatientIDs
from registry import Directory
from registry.database import DatabaseError
from registry.store import LongPatientID, RegistryStore, StudyCopy

_log = logging.getLogger(__name__)

CHANNEL = "imagora_learnt"
#: An answer that is made waits so long, at most, for what it shows to be told: with the 750 ms for which it may rest on
#: what was confirmed before, it is less than the second in which an opposition must hold everywhere.
HOLD_S = 0.2
#: A request waits so long, at most, for what others told to be read, and what is told for word of it to come back.
PATIENCE_S = 1.0
#: A connection that brings nothing is asked this often whether it lives, and has so long to answer.
PROBE_S = 1.0
ANSWER_S = 2.0
RETRY_S = 0.5
#: PostgreSQL wakes all who listen at one moment; so long a processor may be busy with another of them first.
SPREAD_S = 0.01
_COPY, _LONG_ID = "copy", "id"
#: As `federation.identity.qualify` makes it.
_HASHED = re.compile(r"(~[0-9a-f]{32})@([\w.-]{1,16})", re.ASCII)


class _Progress:
    """How far something has come, of what has been asked of it."""

    def __init__(self) -> None:
        self._asked = self._done = 0
        self._moved = asyncio.Event()

    @property
    def behind(self) -> bool:
        return self._done < self._asked

    @property
    def asked(self) -> int:
        return self._asked

    def ask(self) -> None:
        self._asked += 1

    def come(self, number: int) -> None:
        self._done = max(self._done, number)
        self._moved.set()
        self._moved = asyncio.Event()

    async def reach(self, within_s: float) -> bool:
        """Wait until what has been asked by now is done. False if that takes too long."""
        number = self._asked
        try:
            async with asyncio.timeout(within_s):
                while self._done < number:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True


class Learnt:
    """Keeps `copies` and `long_ids` of all processes alike, while it is entered. Raises `DatabaseError` at first."""

    def __init__(
        self,
        store: RegistryStore,
        copies: Copies,
        long_ids: LongPatientIDs,
        directory: Callable[[], Directory],
    ) -> None:
        self._store = store
        self._directory = directory
        self._copies = copies
        self._long_ids = long_ids
        self._me = secrets.token_hex(4)
        self._told = _Progress()
        self._taken = _Progress()
        self._heard: set[tuple[str, str]] = set()
        self._pending = asyncio.Event()
        self._news = asyncio.Event()
        self._echo = asyncio.Event()
        self._failing = self._late = False
        self._deaf = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        listening = asyncio.create_task(self._listen(ready), name="learnt-by-others")
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
        except BaseException:
            listening.cancel()
            raise
        finally:
            waiting.cancel()
        self._copies.wake = self._long_ids.wake = self._learns
        self._copies.told = self.settle
        self._tasks = [listening, asyncio.create_task(self._tell(), name="learnt-here")]
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, self._tasks = self._tasks, []
        if not self._failing:
            await self._told.reach(PATIENCE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # For answers ------------------------------------------------------------------------------------------------

    @property
    def untold(self) -> bool:
        """True while something that was learnt here is not told yet, and soon will be."""
        return self._told.behind and not self._failing and not self._late

    async def settle(self) -> None:
        """`tell` what is untold."""
        if self.untold:
            await self.tell()

    async def tell(self) -> None:
        """Return once all that was learnt here by now is told, or a moment later."""
        if not await self._told.reach(HOLD_S):
            self._late = True  # one wait is enough

    async def take_in(self) -> None:
        """Return once all that others told by now is known here."""
        if self._taken.behind and not self._deaf:
            await self._taken.reach(PATIENCE_S)

    async def look_up(self, query: str) -> None:
        """Read what unknown hashed PatientIDs in a request stand for: who shows one keeps it first, but word of it may
        be late."""
        sites = ((digest, self._directory().site(emetteur)) for digest, emetteur in _HASHED.findall(query))
        asked = {f"{digest}@{site.emetteur}" for digest, site in sites if site is not None}
        unknown = [patient_id for patient_id in asked if self._long_ids.get(patient_id) is None]
        if unknown:
            with contextlib.suppress(DatabaseError):  # then nothing is shown at all
                await self._read_long_ids(unknown)

    # Telling ----------------------------------------------------------------------------------------------------

    def _learns(self) -> None:
        self._told.ask()
        self._pending.set()

    async def _tell(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            number = self._told.asked
            copies, long_ids = self._copies.take_pending(), self._long_ids.take_pending()
            try:
                await self._keep(copies, long_ids)
            except DatabaseError as error:
                self._fails(str(error))
                self._copies.put_back(copies)
                self._long_ids.put_back(long_ids)
                self._pending.set()
                await asyncio.sleep(RETRY_S)
                continue
            # What we hear of it ourselves, the others hear at this moment.
            if not self._deaf:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S):
                        await self._echo.wait()
                        await asyncio.sleep(SPREAD_S)
            self._told.come(number)
            self._late = False
            if self._failing:
                self._failing = False
                _log.warning("what is learnt of copies is kept again")

    async def _keep(self, copies: Sequence[Copy], long_ids: Sequence[tuple[str, Id]]) -> None:
        now = datetime.now(UTC)
        await self._store.remember_copies(_row(copy, now) for copy in copies)
        for hashed, (ipp, emetteur) in long_ids:
            await self._store.remember_long_patient_id(LongPatientID(hashed=hashed, ipp=ipp, emetteur=emetteur))
        self._echo.clear()
        keys = dict.fromkeys([*((_COPY, c.study_uid) for c in copies), *((_LONG_ID, hashed) for hashed, _ in long_ids)])
        await self._store.notify(CHANNEL, [f"{self._me} {kind} {key}" for kind, key in keys])

    def _fails(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            _log.warning("what was learnt of copies could not be kept: %s", why)

    # Hearing ----------------------------------------------------------------------------------------------------

    def _hear(self, message: str) -> None:
        who, _, what = message.partition(" ")
        if who == self._me:
            self._echo.set()
            return
        kind, _, key = what.partition(" ")
        self._heard.add((kind, key))
        self._taken.ask()
        self._news.set()

    async def _listen(self, ready: asyncio.Event) -> None:
        while True:
            try:
                async with self._store.database.session() as connection:
                    await connection.listen(CHANNEL, self._hear)
                    await self._take(None)
                    ready.set()
                    if self._deaf:
                        self._deaf = False
                        _log.warning("what others learn of copies is heard again")
                    while True:
                        try:
                            async with asyncio.timeout(PROBE_S):
                                await self._news.wait()
                        except TimeoutError:
                            await connection.fetchval("SELECT 1", timeout=ANSWER_S)
                            continue
                        await self._take(self._heard)
            except DatabaseError as error:
                if not ready.is_set():
                    raise
                if not self._deaf:
                    self._deaf = True
                    _log.warning("what others learn of copies is not heard: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _take(self, keys: set[tuple[str, str]] | None) -> None:
        """Read what others learnt of these; None: all there is."""
        number = self._taken.asked
        self._news.clear()
        self._heard = set()
        studies = [key for kind, key in keys if kind == _COPY] if keys is not None else None
        hashed = [key for kind, key in keys if kind == _LONG_ID] if keys is not None else None
        if hashed is None or hashed:
            await self._read_long_ids(hashed)
        if studies is None or studies:
            for stored in await self._store.study_copies(studies):
                self._copies.add(_copy(stored))
        self._taken.come(number)

    async def _read_long_ids(self, hashed: Sequence[str] | None) -> None:
        for known in await self._store.long_patient_ids(hashed):
            self._long_ids.add(known.hashed, (known.ipp, known.emetteur))


class OneMemory:
    """ASGI layer: no answer leaves before what it shows is told, none is made before what was told is known."""

    def __init__(self, app: ASGIApp, learnt: Callable[[], Learnt | None]) -> None:
        self._app = app
        self._learnt = learnt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        learnt = self._learnt() if scope["type"] == "http" else None
        if learnt is None:
            await self._app(scope, receive, send)
            return
        await learnt.take_in()
        if b"~" in scope["query_string"] or b"%7e" in scope["query_string"].lower():
            await learnt.look_up(unquote_plus(scope["query_string"].decode("latin-1")))

        async def told(message: Message) -> None:
            if learnt.untold:
                await learnt.tell()
            await send(message)

        await self._app(scope, receive, told)


_SHARED = tuple(field.name for field in dataclasses.fields(Copy) if field.name != "series")


def _copy(stored: StudyCopy) -> Copy:
    """The registry's row as the engine has it: they share their names."""
    return Copy(**{name: getattr(stored, name) for name in _SHARED}, series=frozenset(stored.series))


def _row(copy: Copy, seen_at: datetime) -> StudyCopy:
    shared = {name: getattr(copy, name) for name in _SHARED}
    return StudyCopy(**shared, series=tuple(sorted(copy.series)), seen_at=seen_at)
