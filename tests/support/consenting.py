"""What patients refuse, what is withheld and which emergencies run, written into the database while servers run; and
professionals with home sites and tokens, for whom it is decided."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from consent.traits import normalise, strict
from registry import Role
from registry.database import Database
from registry.practitioners import PractitionerStore
from support.people import RULES, SOON_S, SigningKey, claims, key_set

T = TypeVar("T")


class People:
    """Professionals by RPPS, and their tokens. `auth` is the section of the settings that takes these."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key = SigningKey("key", "ES256")
        (folder / "keys.json").write_bytes(key_set(self._key))
        self.auth = {"mode": "oidc", "issuer": RULES.issuer, "jwks": str(folder / "keys.json")}

    def register(self, database_url: str, homes: Mapping[str, str]) -> None:
        """`homes`: RPPS → EMETTEUR. All of them have signed the charter, and every server that runs knows of them
        when this returns."""

        async def write() -> None:
            async with Database(database_url) as database:
                store = PractitionerStore(database)
                for rpps, site in homes.items():
                    await store.add(rpps=rpps, name=f"DOCTEUR^{rpps}", site=site, role=Role.PRACTITIONER)
                    await store.sign(rpps, "1")

        asyncio.run(write())
        time.sleep(SOON_S)

    def bearer(self, rpps: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.sign(claims(RULES, rpps))}"}


class Ledger:
    """Each call is committed when it returns. `by` is the RPPS in whose name it is written."""

    def __init__(self, database_url: str, by: str) -> None:
        self._url = database_url
        self._by = by

    def run(self, work: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[T]]) -> T:
        async def connected() -> T:
            connection = await asyncpg.connect(self._url, timeout=20)
            try:
                async with connection.transaction():
                    return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())

    def execute(self, sql: str, *values: object) -> None:
        self.run(lambda connection: connection.execute(sql, *values))

    # Oppositions ---------------------------------------------------------------------------------------------------

    def oppose(
        self,
        *,
        studies: Sequence[str] = (),
        accession: tuple[str, str] | None = None,
        patient: tuple[str, str] | None = None,
        person: tuple[str, str, str] | None = None,
        ins: str | None = None,
    ) -> int:
        """`accession`, `patient`: the number and its EMETTEUR. `person`: name, birth date, sex. → its id."""
        kind = "accession" if accession else "patient" if patient else "person" if person or ins else "study"
        name, birth_date, sex = person or (None, None, None)
        values = (
            kind,
            (accession or patient or (None, None))[1],
            accession[0] if accession else None,
            patient[0] if patient else None,
            name,
            birth_date,
            sex,
            ins,
            self._by,
        )

        async def write(connection: asyncpg.Connection[asyncpg.Record]) -> int:
            number: int = await connection.fetchval(
                "INSERT INTO opposition (kind, emetteur, accession, ipp, name, birth_date, sex, ins, declared_on, "
                "channel, recorded_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, current_date, 'oral', $9) RETURNING id",
                *values,
            )
            for uid in studies:
                await connection.execute(_BIND, number, uid, kind == "study")
            return number

        return self.run(write)

    def bind(self, opposition: int, study_uid: str) -> None:
        """Add a study that turned out to be the opposition's."""
        self.execute(_BIND, opposition, study_uid, False)

    def lift(self, opposition: int) -> None:
        self.execute("UPDATE opposition SET lifted_at = now(), lifted_by = $2 WHERE id = $1", opposition, self._by)

    def decide_near_match(
        self,
        opposition: int,
        *,
        patient: tuple[str, str],
        person: tuple[str, str, str],
        study_uid: str,
        status: str,
    ) -> None:
        """A row of the queue, decided: 'confirmed' or 'dismissed'. A server may have put it there already."""
        name, birth_date, sex = person
        traits = str(strict(normalise(name), birth_date, sex))

        async def write(connection: asyncpg.Connection[asyncpg.Record]) -> None:
            await connection.execute(
                "INSERT INTO near_match (opposition, ipp, emetteur, traits, name, birth_date, sex, difference, "
                "study_uid) VALUES ($1, $2, $3, $4, $5, $6, $7, 'one letter', $8) ON CONFLICT DO NOTHING",
                *(opposition, *patient, traits, name, birth_date, sex, study_uid),
            )
            await connection.execute(
                "UPDATE near_match SET status = $5, decided_by = $6, decided_at = now() "
                "WHERE (opposition, ipp, emetteur, traits) = ($1, $2, $3, $4)",
                *(opposition, *patient, traits, status, self._by),
            )

        self.run(write)

    # Not informed --------------------------------------------------------------------------------------------------

    def hold(self, study_uid: str, emetteur: str, state: str = "withheld") -> None:
        self.execute(
            "INSERT INTO exam_hold (study_uid, emetteur, state, set_by) VALUES ($1, $2, $3, $4)",
            *(study_uid, emetteur, state, self._by),
        )

    def hold_by_default(self, emetteur: str, state: str = "withheld") -> None:
        self.execute(
            "INSERT INTO hold_default (emetteur, state, set_by) VALUES ($1, $2, $3)", emetteur, state, self._by
        )

    def declare_emergency(self, requester: str, patient: tuple[str, str], *, lasting_s: float = 7200.0) -> str:
        """→ its id."""
        identifier = secrets.token_urlsafe(12)
        self.execute(
            "INSERT INTO emergency (id, requester_id, requester_name, ipp, emetteur, reason, expires_at) "
            "VALUES ($1, $2, $2, $3, $4, 'vital', now() + make_interval(secs => $5))",
            *(identifier, requester, *patient, lasting_s),
        )
        return identifier

    # Traces --------------------------------------------------------------------------------------------------------

    def traces(self, request_id: str = "") -> list[dict[str, Any]]:
        """In the order of their moments; those of one request, or all. `detail` is read."""

        async def read(connection: asyncpg.Connection[asyncpg.Record]) -> list[dict[str, Any]]:
            rows = await connection.fetch("SELECT * FROM trace WHERE $1 IN ('', request_id) ORDER BY at", request_id)
            return [{**row, "detail": json.loads(row["detail"])} for row in rows]

        return self.run(read)


_BIND = "INSERT INTO opposition_study (opposition, study_uid, given) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
