"""Oppositions in the database, and the queue of near matches. Nothing is ever deleted: oppositions are lifted.

Each change bumps the epoch, so every process learns of it within a second.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TypeAlias

from consent import opposition_queries as queries
from consent.bindings import Binding, Channel, Declaration, OppositionKind
from consent.model import NearMatch
from registry.database import Connection, Database, Row
from registry.queries import LOCK_EPOCH

#: An import may be of many thousands; a list as well.
_LONG_S = 120.0
#: What the table of bound studies takes.
_UID = re.compile(r"[0-9.]{1,64}")


class UnknownOpposition(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"there is no opposition {number}: `imagora oppositions list --all` shows all")


class AlreadyLifted(Exception):
    def __init__(self, number: int, by: str, at: datetime) -> None:
        super().__init__(f"opposition {number} was lifted already, by {by} on {at.astimezone():%Y-%m-%d %H:%M}")


class UnknownNearMatch(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"there is no near match {number}: `imagora oppositions review --all` shows all")


class NothingToDecide(Exception):
    def __init__(self, match: int, opposition: int) -> None:
        super().__init__(
            f"opposition {opposition} is lifted, so near match {match} binds nobody: nothing is to be decided"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposition:
    """One opposition as it stands."""

    id: int
    binding: Binding
    declared_on: date  # when the patient said so
    channel: Channel
    reason: str
    recorded_by: str  # RPPS
    recorder: str  # his name
    recorded_at_site: str  # EMETTEUR of his home site, as it is now
    recorded_at: datetime
    found: tuple[str, ...]  # studies that the site said it holds under the accession number or the IPP
    resolved_at: datetime | None  # when it last said so
    lifted_by: str | None
    lifted_at: datetime | None
    lift_reason: str

    @property
    def active(self) -> bool:
        return self.lifted_at is None


@dataclass(frozen=True, slots=True)
class Recorded:
    """`new` False: an active opposition that binds the same stands already, under this id."""

    id: int
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """An opposition whose site is to be asked which studies it names."""

    id: int
    kind: OppositionKind  # ACCESSION or PATIENT
    emetteur: str
    number: str  # accession number or IPP


#: StudyInstanceUIDs that were found, and whose each is where it was found, as `str(Traits)`, where that is known.
Studies: TypeAlias = Mapping[str, str] | Iterable[str]


class NearMatchStatus(StrEnum):
    PENDING = "pending"  # withheld
    CONFIRMED = "confirmed"  # he is the person: withheld
    DISMISSED = "dismissed"  # he is another


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMatch:
    """A patient who may be the person of an opposition, for a correspondent to decide."""

    id: int
    opposition: int
    emetteur: str  # whose patient
    ipp: str
    name: str  # as the site spells it
    birth_date: str
    sex: str
    difference: str
    study_uid: str  # one of his exams
    found_at: datetime
    status: NearMatchStatus
    decided_by: str | None
    decided_at: datetime | None
    recorded_name: str | None
    recorded_birth_date: str | None
    recorded_sex: str | None
    recorded_ins: str | None
    lifted_at: datetime | None  # of the opposition


class OppositionStore:
    """Reads and writes oppositions. Raises `DatabaseUnavailable` and `DatabaseError`.

    Who may do what is `consent.bindings`' business: ask it first. `traced` is awaited before a change becomes one, and
    not where nothing changes: if it raises, nothing was changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Oppositions ------------------------------------------------------------------------------------------------

    async def all(self, emetteur: str | None = None, *, lifted: bool = False) -> tuple[Opposition, ...]:
        """In the order in which they were recorded. With `emetteur` (registry case): those at this site, and those
        that its people recorded and that name no site."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(queries.OPPOSITIONS, emetteur, lifted, timeout=_LONG_S)
        return tuple(map(_opposition, rows))

    async def get(self, number: int) -> Opposition:
        """Raises `UnknownOpposition`."""
        row = await self._database.fetchrow(queries.OPPOSITION, number)
        if row is None:
            raise UnknownOpposition(number)
        return _opposition(row)

    async def standing(self, binding: Binding) -> int | None:
        """The active opposition that binds the same, if there is one."""
        async with self._database.connection() as connection:
            return (await _alike(connection, [binding])).get(binding.key)

    async def add(
        self,
        declaration: Declaration,
        by: str,
        *,
        found: Studies | None = None,
        whole: bool = True,
        traced: Callable[[Recorded], Awaitable[None]],
    ) -> Recorded:
        """Record one. `found` = the studies that its site holds under its accession number or IPP, as the site has just
        said, `whole` = all of them; None = it was not asked."""
        async with self._changing() as connection:
            (recorded,) = await _record(connection, [declaration], by, resolved=found is not None and whole)
            if recorded.new:
                if found:
                    await _bind(connection, recorded.id, found)
                await traced(recorded)
        return recorded

    async def add_all(
        self, declarations: Sequence[Declaration], by: str, *, traced: Callable[[list[int]], Awaitable[None]]
    ) -> list[Recorded]:
        """Record all or none, in one transaction; the same twice is recorded once. In the order given. `traced` is
        given the ids of those that are new."""
        async with self._changing() as connection:
            recorded = await _record(connection, declarations, by, resolved=False)
            if new := [r.id for r in recorded if r.new]:
                await traced(new)
        return recorded

    async def lift(
        self, number: int, by: str, reason: str = "", *, traced: Callable[[], Awaitable[None]]
    ) -> Opposition:
        """What was lifted, as it stands now. Raises `UnknownOpposition`, `AlreadyLifted`."""
        async with self._changing() as connection:
            row = await connection.fetchrow(queries.OPPOSITION, number)
            if row is None:
                raise UnknownOpposition(number)
            if row["lifted_at"] is not None:
                raise AlreadyLifted(number, row["lifted_by"], row["lifted_at"])
            await connection.execute(queries.LIFT, number, by, reason)
            after = await connection.fetchrow(queries.OPPOSITION, number)
            await traced()
        assert after is not None
        return _opposition(after)

    # Studies of accession numbers and IPPs ----------------------------------------------------------------------

    async def bind_studies(self, opposition_id: int, study_uids: Studies, *, resolved: bool = False) -> None:
        """Bind studies that were found. `resolved` = they are all that the site holds. A lifted one stays as it is."""
        async with self._changing() as connection:
            await _settle(connection, opposition_id, study_uids, resolved=resolved)

    @asynccontextmanager
    async def take_unresolved(
        self, sites: Sequence[str], apart_from: Sequence[int] = ()
    ) -> AsyncIterator[tuple[Unresolved, Settle] | None]:
        """One opposition whose site (one of `sites`, EMETTEURs) is to be asked, and what writes its answer; None if
        there is none. No other process gets it until the context is left."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(queries.TAKE_UNRESOLVED, list(sites), list(apart_from))
            if row is None or await connection.fetchrow(queries.UNRESOLVED, row["id"]) is None:
                yield None
                return
            kind = OppositionKind(row["kind"])
            taken = Unresolved(id=row["id"], kind=kind, emetteur=row["emetteur"], number=row["number"])
            yield taken, Settle(connection, taken.id)

    # Near matches -----------------------------------------------------------------------------------------------

    async def note_near_matches(self, matches: Sequence[NearMatch]) -> None:
        """Put them into the queue; who is in it, or was decided on, stays as he is. Changes no epoch."""
        if not matches:
            return
        await self._database.execute(
            queries.NOTE_NEAR_MATCHES,
            [m.opposition for m in matches],
            [_storable(m.emetteur) for m in matches],
            [_storable(m.ipp) for m in matches],
            [_storable(str(m.traits)) for m in matches],
            [_storable(m.name) for m in matches],
            [_storable(m.traits.birth_date) for m in matches],
            [_storable(m.traits.sex) for m in matches],
            [_storable(m.difference) for m in matches],
            [_storable(m.study_uid) for m in matches],
        )

    async def near_matches(self, emetteur: str | None = None, *, decided: bool = False) -> tuple[QueuedMatch, ...]:
        """The queue in the order in which they were found. `decided`: also what was decided on, or was lifted."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(queries.NEAR_MATCHES, emetteur, decided, timeout=_LONG_S)
        return tuple(map(_queued, rows))

    async def near_match(self, number: int) -> QueuedMatch:
        """Raises `UnknownNearMatch`."""
        row = await self._database.fetchrow(queries.NEAR_MATCH, number)
        if row is None:
            raise UnknownNearMatch(number)
        return _queued(row)

    async def decide(
        self, number: int, status: NearMatchStatus, by: str, *, traced: Callable[[], Awaitable[None]]
    ) -> bool:
        """Confirm or dismiss, or revise that. False if it was so already: who decided it first stays.

        Raises `UnknownNearMatch`, `NothingToDecide`.
        """
        async with self._changing() as connection:
            row = await connection.fetchrow(queries.NEAR_MATCH, number)
            if row is None:
                raise UnknownNearMatch(number)
            if row["lifted_at"] is not None:
                raise NothingToDecide(number, row["opposition"])
            if row["status"] == status:
                return False
            await connection.execute(queries.DECIDE, number, status.value, by)
            await traced()
            return True

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            await connection.execute(LOCK_EPOCH)
            yield connection


class Settle:
    """Writes what a site said of an opposition that was taken, in the transaction that took it."""

    __slots__ = ("_connection", "_number")

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    async def __call__(self, study_uids: Studies, *, resolved: bool) -> None:
        """`resolved` False: these are not all, the site is to be asked again."""
        await self._connection.execute(LOCK_EPOCH)
        await _settle(self._connection, self._number, study_uids, resolved=resolved)


async def _settle(connection: Connection, number: int, study_uids: Studies, *, resolved: bool) -> None:
    if await connection.fetchrow(queries.ACTIVE, number) is None:
        return
    await _bind(connection, number, study_uids)
    if resolved:
        await connection.execute(queries.RESOLVED, number)


async def _bind(connection: Connection, number: int, study_uids: Studies) -> None:
    """What is no UID is left out: nobody can ask for such a study by it."""
    whose: Mapping[str, str] = study_uids if isinstance(study_uids, Mapping) else {}
    uids = [uid for uid in dict.fromkeys(study_uids) if _UID.fullmatch(uid)]
    missing = [row["study_uid"] for row in await connection.fetch(queries.UNBOUND, number, uids)]
    if missing:  # else the statement would bump the epoch for nothing
        traits = [whose.get(uid, "") for uid in missing]
        await connection.execute(queries.BIND, [number] * len(missing), missing, traits, False)


async def _record(
    connection: Connection, declarations: Sequence[Declaration], by: str, *, resolved: bool
) -> list[Recorded]:
    ids = await _alike(connection, [d.binding for d in declarations])
    standing = set(ids)
    first: dict[tuple[str, ...], Declaration] = {}
    for declaration in declarations:
        first.setdefault(declaration.binding.key, declaration)
    new = [declaration for key, declaration in first.items() if key not in standing]
    if new:
        columns = zip(*map(_values, new), strict=True)
        rows = await connection.fetch(queries.ADD, *map(list, columns), by, resolved, timeout=_LONG_S)
        # Numbers are given out in the order of the rows, whatever order they come back in.
        ids |= {d.binding.key: number for d, number in zip(new, sorted(row["id"] for row in rows), strict=True)}
        named = [(ids[d.binding.key], uid) for d in new for uid in d.binding.study_uids]
        if named:
            numbers, uids = zip(*named, strict=True)
            await connection.execute(queries.BIND, numbers, uids, [""] * len(uids), True, timeout=_LONG_S)
    recorded = []
    for declaration in declarations:
        key = declaration.binding.key
        recorded.append(Recorded(ids[key], key not in standing))
        standing.add(key)
    return recorded


async def _alike(connection: Connection, bindings: Sequence[Binding]) -> dict[tuple[str, ...], int]:
    """→ of those that stand already, key → id."""
    local = [b for b in bindings if b.emetteur is not None]
    people = [b for b in bindings if b.birth_date is not None]
    rows = await connection.fetch(
        queries.ALIKE,
        [b.kind.value for b in local],
        [b.emetteur for b in local],
        [b.accession or b.ipp for b in local],
        [b.birth_date for b in people],
        [b.sex for b in people],
        [b.ins for b in bindings if b.ins is not None],
        [uid for b in bindings for uid in b.study_uids],
        timeout=_LONG_S,
    )
    wanted = {b.key for b in bindings}
    found: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = _binding(row).key
        if key in wanted:
            found.setdefault(key, row["id"])
    return found


def _values(declaration: Declaration) -> tuple[object, ...]:
    b = declaration.binding
    bound = (b.kind.value, b.emetteur, b.accession, b.ipp, b.name, b.birth_date, b.sex, b.ins)
    return (*bound, declaration.declared_on, declaration.channel.value, declaration.reason)


def _binding(row: Row) -> Binding:
    return Binding(
        kind=OppositionKind(row["kind"]),
        study_uids=tuple(sorted(row["given"])),
        emetteur=row["emetteur"],
        accession=row["accession"],
        ipp=row["ipp"],
        name=row["name"],
        birth_date=row["birth_date"],
        sex=row["sex"],
        ins=row["ins"],
    )


def _opposition(row: Row) -> Opposition:
    return Opposition(
        id=row["id"],
        binding=_binding(row),
        declared_on=row["declared_on"],
        channel=Channel(row["channel"]),
        reason=row["reason"],
        recorded_by=row["recorded_by"],
        recorder=row["recorder"],
        recorded_at_site=row["recorded_at_site"],
        recorded_at=row["recorded_at"],
        found=tuple(row["found"]),
        resolved_at=row["resolved_at"],
        lifted_by=row["lifted_by"],
        lifted_at=row["lifted_at"],
        lift_reason=row["lift_reason"],
    )


def _queued(row: Row) -> QueuedMatch:
    return QueuedMatch(**{**row, "status": NearMatchStatus(row["status"])})


def _storable(text: str) -> str:
    """Members send what PostgreSQL's text cannot hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
