"""The registry in the database: read as one picture, changed in one transaction."""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from registry import queries
from registry.database import Connection, Database, Row
from registry.entries import Changes, importing, seeding
from registry.model import Directory, Folder, Quirks, Site, SiteStatus
from registry.people import Practitioner, Role
from registry.table import Table

_log = logging.getLogger(__name__)

#: Health that no process has confirmed for so long is not known any more.
HEALTH_FRESH_S = 120.0
_HEALTH_KEPT_DAYS = 1
_SECRET_BYTES = 64
_QUIRKS = tuple(field.name for field in dataclasses.fields(Quirks))


class UnknownSite(Exception):
    """No site of this EMETTEUR is registered."""

    def __init__(self, emetteur: str) -> None:
        super().__init__(f"no site has the EMETTEUR {emetteur!r}: `imagora sites list` shows all")


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPatientID:
    """A qualified PatientID that is shown hashed, because as it is it would exceed 64 characters."""

    hashed: str
    ipp: str
    emetteur: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCopy:
    """A study that more than one site holds, as one of them holds it, under one patient id."""

    study_uid: str
    emetteur: str
    patient_id: str
    person: str  # one study's copies with one `person` are one person's
    series: tuple[str, ...]  # SeriesInstanceUIDs
    seen_at: datetime
    ipp: str | None = None
    authority: str | None = None  # EMETTEUR whose IPP it is
    origin: str | None = None  # EMETTEUR
    accession: str = ""
    ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHealth:
    """A member as one serving process sees it now. Times are ages in seconds, None = never."""

    emetteur: str
    state: str  # of the breaker: "closed" (asked), "open" (left alone), "half-open" (to be tried again)
    failures_in_a_row: int
    since_s: float  # for how long it has answered, or failed
    last_success_s: float | None
    last_failure_s: float | None
    last_failure: str  # name of the error's class


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteHealth:
    """A member as the process saw it that had news of it last."""

    emetteur: str
    server: str
    state: str
    failures_in_a_row: int
    since: datetime  # since when it answers, or fails
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure: str
    updated_at: datetime  # when the process last confirmed this


class RegistryStore:
    """Reads and writes the registry. Raises `DatabaseUnavailable` and `DatabaseError`.

    `node` is the AE title of the federation's node, which no site or folder may take.
    """

    def __init__(self, database: Database, *, node: str | None = None) -> None:
        self._database = database
        self._node = node

    @property
    def database(self) -> Database:
        return self._database

    async def load(self) -> Directory:
        """The registry as it stands at one epoch."""
        async with self._database.transaction("repeatable_read") as connection:
            return await read_directory(connection)

    async def epoch(self) -> int:
        return int(await self._database.fetchval(queries.EPOCH))

    async def seed(self, sites: Sequence[Site], folders: Sequence[Folder] = ()) -> Changes:
        """Create what is new, fill what is blank, override nothing; differences are logged.

        Raises `RegistryConflict`.
        """
        changes = await self._change(lambda directory: seeding(directory, sites, folders, self._node))
        for note in changes.notes:
            _log.info("settings differ from the registry: %s", note)
        return changes

    async def import_csv(self, table: Table) -> Changes:
        """Add and update sites from a table, all or nothing. Raises `RegistryConflict`."""
        return await self._change(lambda directory: importing(directory, table.sites, table.folders, self._node))

    async def set_status(self, emetteur: str, status: SiteStatus) -> None:
        """Raises `UnknownSite`."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            if await connection.fetchrow(queries.SET_STATUS, emetteur, status.value) is None:
                raise UnknownSite(emetteur)

    async def save_quirks(self, emetteur: str, quirks: Quirks) -> None:
        """Keep what was learnt of a member. Raises `UnknownSite`."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            if await connection.fetchrow(queries.SAVE_QUIRKS, emetteur, quirks.known()) is None:
                raise UnknownSite(emetteur)

    async def long_patient_ids(self, hashed: Sequence[str] | None = None) -> tuple[LongPatientID, ...]:
        """All that are known, or those of these hashed forms."""
        if hashed is None:
            rows = await self._database.fetch(queries.LONG_PATIENT_IDS)
        else:
            rows = await self._database.fetch(queries.SOME_LONG_PATIENT_IDS, hashed)
        return tuple(LongPatientID(hashed=r["hashed"], ipp=r["ipp"], emetteur=r["emetteur"]) for r in rows)

    async def remember_long_patient_id(self, long_id: LongPatientID) -> None:
        await self._database.execute(queries.REMEMBER_LONG_PATIENT_ID, long_id.hashed, long_id.ipp, long_id.emetteur)

    async def study_copies(self, study_uids: Sequence[str] | None = None) -> tuple[StudyCopy, ...]:
        """All that are known, or those of these studies."""
        if study_uids is None:
            rows = await self._database.fetch(queries.STUDY_COPIES)
        else:
            rows = await self._database.fetch(queries.SOME_STUDY_COPIES, study_uids)
        return tuple(
            StudyCopy(
                study_uid=r["study_uid"],
                emetteur=r["emetteur"],
                patient_id=r["patient_id"],
                person=r["person"],
                series=tuple(r["series"]),
                seen_at=r["seen_at"],
                ipp=r["ipp"],
                authority=r["authority"],
                origin=r["origin"],
                accession=r["accession"],
                ins=tuple(r["ins"]),
            )
            for r in rows
        )

    async def remember_copies(self, copies: Iterable[StudyCopy]) -> None:
        """Keep where copies were seen. Of one holder's one study and patient id, the latest sight counts."""
        latest: dict[tuple[str, str, str], StudyCopy] = {}
        for copy in copies:
            key = (copy.study_uid, copy.emetteur, copy.patient_id)
            if key not in latest or latest[key].seen_at < copy.seen_at:
                latest[key] = copy
        if not latest:
            return
        kept = list(latest.values())
        await self._database.execute(
            queries.REMEMBER_COPIES,
            [c.study_uid for c in kept],
            [c.emetteur for c in kept],
            [c.patient_id for c in kept],
            [c.person for c in kept],
            [",".join(c.series) for c in kept],
            [c.seen_at for c in kept],
            [c.ipp for c in kept],
            [c.authority for c in kept],
            [c.origin for c in kept],
            [c.accession for c in kept],
            [",".join(c.ins) for c in kept],
        )

    async def notify(self, channel: str, messages: Sequence[str]) -> None:
        """Tell all who listen. A message takes less than 8000 bytes."""
        await self._database.execute(queries.NOTIFY, channel, messages)

    async def record_health(self, server: str, seen: Sequence[SeenHealth]) -> None:
        """Keep how a process sees members; each stands until it is recorded anew."""
        await self._database.execute(
            queries.RECORD_HEALTH,
            server,
            [h.emetteur for h in seen],
            [h.state for h in seen],
            [h.failures_in_a_row for h in seen],
            [h.since_s for h in seen],
            [h.last_success_s for h in seen],
            [h.last_failure_s for h in seen],
            [h.last_failure for h in seen],
        )

    async def forget_health(self, server: str) -> None:
        """A process ends: nobody confirms any more what it saw."""
        await self._database.execute(queries.FORGET_HEALTH, server)

    async def sweep_health(self) -> None:
        """Remove what processes left behind that did not end in order."""
        await self._database.execute(queries.SWEEP_HEALTH, _HEALTH_KEPT_DAYS)

    async def health(self) -> dict[str, SiteHealth]:
        """What is known of each site by EMETTEUR; nothing of those that no process has confirmed for two minutes."""
        rows = await self._database.fetch(queries.HEALTH, HEALTH_FRESH_S)
        return {row["emetteur"]: SiteHealth(**row) for row in rows}

    async def secret(self, name: str) -> bytes:
        """64 random bytes, the same for all processes and for ever."""
        async with self._database.connection() as connection:
            value = await connection.fetchval(queries.SECRET, name)
            if value is None:
                await connection.execute(queries.ADD_SECRET, name, secrets.token_bytes(_SECRET_BYTES))
                value = await connection.fetchval(queries.SECRET, name)
            return bytes(value)

    async def _change(self, decide: Callable[[Directory], Changes]) -> Changes:
        """Decide on the registry as it stands, locked, and write the decision."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            changes = decide(await read_directory(connection))
            await connection.executemany(queries.ADD_FOLDER, [(f.name, f.ae_title) for f in changes.new_folders])
            await connection.executemany(queries.UPDATE_FOLDER, [(f.name, f.ae_title) for f in changes.changed_folders])
            await connection.executemany(queries.ADD_SITE, [_values(site) for site in changes.new_sites])
            await connection.executemany(queries.UPDATE_SITE, [_values(site) for site in changes.changed_sites])
        return changes


async def read_directory(connection: Connection) -> Directory:
    """The registry as this connection's transaction sees it. Take a snapshot or the epoch's lock first."""
    epoch = await connection.fetchval(queries.EPOCH)
    folders = await connection.fetch(queries.FOLDERS)
    sites = await connection.fetch(queries.SITES)
    return Directory(
        [_site(row) for row in sites],
        [Folder(name=row["name"], ae_title=row["ae_title"]) for row in folders],
        epoch=epoch,
        practitioners=await read_practitioners(connection),
    )


async def read_practitioners(connection: Connection, rpps: str | None = None) -> tuple[Practitioner, ...]:
    """All practitioners, or the one of this RPPS, as this connection's transaction sees them."""
    rows = await connection.fetch(queries.PRACTITIONERS, rpps)
    return tuple(
        Practitioner(
            rpps=row["rpps"],
            name=row["name"],
            site=row["emetteur"],
            role=Role(row["role"]),
            active=row["active"],
            signatures=dict(zip(row["versions"], row["signed_at"], strict=True)),
        )
        for row in rows
    )


def _site(row: Row) -> Site:
    return Site(
        emetteur=row["emetteur"],
        number=row["number"],
        name=row["name"],
        folder=row["folder"],
        availability=row["availability"],
        status=SiteStatus(row["status"]),
        dicomweb=row["dicomweb"],
        aet=row["aet"],
        host=row["host"],
        port=row["port"],
        oid=row["oid"],
        deadline_s=row["deadline_s"],
        # A newer program may know more of them.
        quirks=Quirks(**{name: row["quirks"].get(name) for name in _QUIRKS}),
    )


def _values(site: Site) -> tuple[object, ...]:
    return (
        site.emetteur,
        site.number,
        site.name,
        site.folder,
        site.availability,
        site.status.value,
        site.dicomweb,
        site.aet,
        site.host,
        site.port,
        site.oid,
        site.deadline_s,
        site.quirks.known(),
    )
