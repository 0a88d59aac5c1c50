"""The portal's sessions: a random word in the browser's cookie, its hash in the database that all processes share."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from registry.database import Database, DatabaseUnavailable

#: What was read of a session counts for so long; then it is read again. So a session that another process ended is
#: over here as soon as an opposition would hold, and a frame request costs no query.
FRESH_S = 0.75
#: A database that takes longer to look a session up does not answer: the connection is given up for a new one.
ANSWER_S = 1.0
_WORD_BYTES = 32
_REFERENCE_DIGITS = 16
_KNOWN_MAX = 10_000

#: token_hash, rpps, seconds of life
ADD = """
INSERT INTO session (token_hash, rpps, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))
"""

#: token_hash → rpps, expires_at, of a session that is not over
READ = "SELECT rpps, expires_at FROM session WHERE token_hash = $1 AND expires_at > now()"

#: token_hash → rpps, if there was such a session
REMOVE = "DELETE FROM session WHERE token_hash = $1 RETURNING rpps"

SWEEP = "DELETE FROM session WHERE expires_at <= now()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    rpps: str
    expires_at: datetime
    reference: str  # names it in traces; lets nobody in

    @property
    def credential(self) -> str:
        """As a requester carries it into traces."""
        return _credential(self.reference)


class Sessions:
    """Begins, finds and ends sessions. Raises `DatabaseUnavailable` and `DatabaseError`."""

    def __init__(self, database: Database, *, lifetime_s: float, fresh_s: float = FRESH_S) -> None:
        self._database = database
        self.lifetime_s = lifetime_s
        self._fresh_s = fresh_s
        self._known: dict[bytes, tuple[float, Session | None]] = {}
        self._asked: dict[bytes, asyncio.Task[Session | None]] = {}

    async def begin(self, rpps: str, *, traced: Callable[[str], Awaitable[None]]) -> str:
        """A new session; returns the word for the cookie, which is kept nowhere. Sessions that are over are removed.

        `traced` is given the session's credential and awaited before there is one: if it raises, there is none.
        """
        word = secrets.token_urlsafe(_WORD_BYTES)
        await traced(_credential(_reference(_hash(word))))
        await self._database.execute(SWEEP)
        await self._database.execute(ADD, _hash(word), rpps, self.lifetime_s)
        return word

    async def find(self, word: str) -> Session | None:
        """The session of this word, if it is not over. Known within a second, or `DatabaseUnavailable`."""
        key = _hash(word)
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] <= self._fresh_s:
            return known[1]
        # A viewer's two dozen requests at once share one look.
        task = self._asked.get(key)
        if task is None:
            task = asyncio.create_task(self._read(key, now))
            self._asked[key] = task
            task.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(task)

    async def end(self, word: str) -> Session | None:
        """End a session; here at once, in other processes within a second."""
        key = _hash(word)
        session = await self.find(word)
        await self._database.execute(REMOVE, key)
        self._known[key] = (time.monotonic() + self._fresh_s, None)  # whatever a look under way still finds
        return session

    async def _read(self, key: bytes, asked_at: float) -> Session | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                row = await self._database.fetchrow(READ, key)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer in time") from None
        session = None
        if row is not None:
            session = Session(rpps=row["rpps"], expires_at=row["expires_at"], reference=_reference(key))
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        if key not in self._known or self._known[key][0] <= asked_at:
            self._known[key] = (asked_at, session)
        return session


def form_token(word: str) -> str:
    """What a form of ours carries to show that a page of ours was its origin: tied to the cookie, which pages can't
    read and other sites can't guess."""
    return hashlib.sha256(f"form {word}".encode()).hexdigest()


def is_form_token(word: str, given: str) -> bool:
    return hmac.compare_digest(form_token(word).encode(), given.encode())


def _reference(token_hash: bytes) -> str:
    return token_hash.hex()[:_REFERENCE_DIGITS]


def _credential(reference: str) -> str:
    return f"session:{reference}"


def _hash(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()
