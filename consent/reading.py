"""Fills the book of consent from the database, and keeps it: a part of what the registry's watch reads."""

from __future__ import annotations

import gc

from consent import book_queries as queries
from consent.access import utc_now
from consent.book import Book, Emergency, Opposition
from consent.traits import Traits, normalise, strict
from registry.database import Connection, Row

#: Oppositions read at once, as at a start, that are set aside from the collector.
_MANY = 50_000


class BookReader:
    """Reads what changed since an epoch. Reading something twice changes nothing."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def read(self, connection: Connection, since: int, until: int) -> None:
        book = self._book
        taken = 0
        async for row in connection.stream(queries.OPPOSITIONS, since, until, rows_at_once=2000):
            book.put(_opposition(row))
            taken += 1
        if taken > _MANY:
            # They stay as long as this process: Python's collector needs not walk them again and again.
            gc.collect()
            gc.freeze()
        async for row in connection.stream(queries.DECIDED, since, until):
            book.decide_near_match(
                row["opposition"], row["emetteur"], row["ipp"], row["traits"], confirmed=row["status"] == "confirmed"
            )
        async for row in connection.stream(queries.HOLDS, since, until):
            book.hold(row["study_uid"], row["emetteur"], withheld=row["state"] == "withheld")
        async for row in connection.stream(queries.HOLD_DEFAULTS, since, until):
            book.hold_by_default(row["emetteur"], withheld=row["state"] == "withheld")
        now = utc_now()
        async for row in connection.stream(queries.EMERGENCIES, since, until):
            book.put_emergency(
                Emergency(
                    id=row["id"],
                    requester_id=row["requester_id"],
                    patient=(row["ipp"], row["emetteur"]),
                    expires_at=row["expires_at"],
                ),
                now,
            )


def _opposition(row: Row) -> Opposition:
    emetteur = row["emetteur"]
    studies = [(uid, _whose(traits)) for uid, traits in zip(row["studies"] or (), row["whose"] or (), strict=True)]
    return Opposition(
        number=row["id"],
        active=row["active"],
        studies=tuple(uid for uid, whose in studies if whose is None),
        found=tuple((uid, whose) for uid, whose in studies if whose is not None),
        accession=(row["accession"], emetteur) if row["accession"] is not None else None,
        patient=(row["ipp"], emetteur) if row["ipp"] is not None else None,
        traits=strict(normalise(row["name"]), row["birth_date"], row["sex"]) if row["name"] is not None else None,
        ins=row["ins"],
    )


def _whose(text: str) -> Traits | None:
    """None where it is not known, or can't be read: then the study is bound whoever bears its UID."""
    return Traits.read(text) if text.count("|") == 2 else None
