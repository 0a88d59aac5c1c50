"""Exams that are withheld because their patient could not be informed yet: what a site said of one, or of all others.

What is said is only ever added to; of each site, the last word counts. Words are kept by the site that says them: one
site's word lifts nothing that another one said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry import queries
from registry.database import Database

#: study_uid, emetteur → state: the last word on a study
LAST_WORD = "SELECT state FROM exam_hold WHERE study_uid = $1 AND emetteur = $2 ORDER BY id DESC LIMIT 1"

#: study_uid, emetteur, state, reason, set_by
ADD_WORD = "INSERT INTO exam_hold (study_uid, emetteur, state, reason, set_by) VALUES ($1, $2, $3, $4, $5)"

#: emetteur → state: the last word on what holds by default
LAST_DEFAULT = "SELECT state FROM hold_default WHERE emetteur = $1 ORDER BY id DESC LIMIT 1"

#: emetteur, state, set_by
ADD_DEFAULT = "INSERT INTO hold_default (emetteur, state, set_by) VALUES ($1, $2, $3)"

#: emetteur or null for all → emetteur, state, set_by, set_at: the last word of each site that said one
DEFAULTS = """
SELECT DISTINCT ON (emetteur) emetteur, state, set_by, set_at FROM hold_default
WHERE $1::text IS NULL OR emetteur = $1
ORDER BY emetteur, id DESC
"""

#: emetteur or null for all → study_uid, emetteur, state, reason, set_by, set_at: the last words by which an exam is
#: withheld, and those by which it is not though its site withholds all of which nothing was said; oldest first
WORDS = """
WITH said AS (
    SELECT DISTINCT ON (study_uid, emetteur) id, study_uid, emetteur, state, reason, set_by, set_at FROM exam_hold
    WHERE $1::text IS NULL OR emetteur = $1
    ORDER BY study_uid, emetteur, id DESC
), by_default AS (
    SELECT DISTINCT ON (emetteur) emetteur, state FROM hold_default ORDER BY emetteur, id DESC
)
SELECT study_uid, emetteur, said.state, reason, set_by, set_at
FROM said LEFT JOIN by_default USING (emetteur)
WHERE said.state = 'withheld' OR by_default.state = 'withheld'
ORDER BY id
"""


class HoldState(StrEnum):
    WITHHELD = "withheld"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What was said last of one study of a site."""

    study_uid: str
    emetteur: str
    state: HoldState
    reason: str
    set_by: str  # RPPS
    set_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What holds for a site's exams of which nothing was said."""

    emetteur: str
    state: HoldState
    set_by: str  # RPPS
    set_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """`words`: of each study that is withheld, and of each that is not though its site withholds by default."""

    words: tuple[Word, ...]
    defaults: tuple[Default, ...]


class HoldStore:
    """Raises `DatabaseUnavailable` and `DatabaseError`.

    EMETTEURs are those of the registry, in its case. `traced` is awaited before a change becomes one: if it raises,
    nothing was changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def say(
        self,
        study_uid: str,
        emetteur: str,
        state: HoldState,
        *,
        reason: str,
        set_by: str,
        traced: Callable[[], Awaitable[None]],
    ) -> bool:
        """Withhold or release one study of a site. False if that was the last word on it already."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            if await connection.fetchval(LAST_WORD, study_uid, emetteur) == state.value:
                return False
            await connection.execute(ADD_WORD, study_uid, emetteur, state.value, reason, set_by)
            await traced()
        return True

    async def say_default(
        self, emetteur: str, state: HoldState, *, set_by: str, traced: Callable[[], Awaitable[None]]
    ) -> bool:
        """Withhold or release all exams of a site of which nothing was said. False if that holds already; exams are
        released until something else is said."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            stands = await connection.fetchval(LAST_DEFAULT, emetteur) or HoldState.RELEASED.value
            if stands == state.value:
                return False
            await connection.execute(ADD_DEFAULT, emetteur, state.value, set_by)
            await traced()
        return True

    async def all(self, emetteur: str | None = None) -> Holds:
        """What stands, of one site or of all."""
        async with self._database.transaction("repeatable_read") as connection:
            words = await connection.fetch(WORDS, emetteur)
            defaults = await connection.fetch(DEFAULTS, emetteur)
        return Holds(
            words=tuple(Word(**{**row, "state": HoldState(row["state"])}) for row in words),
            defaults=tuple(Default(**{**row, "state": HoldState(row["state"])}) for row in defaults),
        )
