"""Practitioners in the database. Each change bumps the epoch, so every process learns of it as of one of a site's."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from registry import queries
from registry.database import Connection, Database
from registry.people import Practitioner, Role
from registry.store import UnknownSite, read_practitioners


class UnknownPractitioner(Exception):
    """Nobody is registered under this RPPS."""

    def __init__(self, rpps: str) -> None:
        super().__init__(
            f"no practitioner has the RPPS {rpps}: `imagora practitioners list` shows all, "
            "`imagora practitioners add` registers one"
        )


class Addition(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class PractitionerStore:
    """Reads and writes practitioners. Raises `DatabaseUnavailable` and `DatabaseError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[Practitioner, ...]:
        """In the order of their names."""
        async with self._database.transaction("repeatable_read") as connection:
            return await read_practitioners(connection)

    async def add(self, *, rpps: str, name: str, site: str, role: Role) -> tuple[Addition, Practitioner]:
        """Register someone, or change the name, home site and role of one who is: a suspended one stays suspended,
        and signatures stay. Raises `UnknownSite`."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            emetteur = await connection.fetchval(queries.EMETTEUR_OF, site)
            if emetteur is None:
                raise UnknownSite(site)
            before = await _read(connection, rpps)
            await connection.execute(queries.PUT_PRACTITIONER, rpps, name, emetteur, role.value)
            after = await _read(connection, rpps)
        assert after is not None
        if before is None:
            return Addition.ADDED, after
        return (Addition.UNCHANGED if before == after else Addition.CHANGED), after

    async def sign(self, rpps: str, charter_version: str) -> tuple[bool, datetime]:
        """Record that this practitioner signed this version of the charter. True and now if it is new; a version that
        was signed before keeps its date. Raises `UnknownPractitioner`."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            practitioner = await _read(connection, rpps)
            if practitioner is None:
                raise UnknownPractitioner(rpps)
            if (signed_at := practitioner.signatures.get(charter_version)) is not None:
                return False, signed_at
            return True, await connection.fetchval(queries.SIGN_CHARTER, rpps, charter_version)

    async def set_active(self, rpps: str, *, active: bool) -> bool:
        """Suspend or resume. True if that changed something. Raises `UnknownPractitioner`."""
        async with self._database.transaction() as connection:
            await connection.execute(queries.LOCK_EPOCH)
            practitioner = await _read(connection, rpps)
            if practitioner is None:
                raise UnknownPractitioner(rpps)
            await connection.execute(queries.SET_ACTIVE, rpps, active)
            return practitioner.active is not active


async def _read(connection: Connection, rpps: str) -> Practitioner | None:
    return next((p for p in await read_practitioners(connection, rpps)), None)
