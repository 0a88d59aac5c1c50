"""Traces of what is done at the command line."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from consent import Event, Requester
from consent.admission import requester_of
from consent.heads import HeadFile, load_or_make_keys
from consent.journal import Journal
from consent.keeper import Keeper
from imagora.settings import Settings
from registry import Directory, Practitioner
from registry.database import Database
from registry.practitioners import UnknownPractitioner


class NotEntitled(Exception):
    """This person may not do this. The text says who may."""


def operator() -> Requester:
    """Who runs a command without saying on whose behalf: the user of this machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Requester(id=f"operator:{name}", name=name)


def person(directory: Directory, rpps: str) -> tuple[Practitioner, Requester]:
    """On whose behalf a command runs. Raises `UnknownPractitioner`, `NotEntitled` (suspended)."""
    practitioner = directory.practitioners.get(rpps)
    if practitioner is None:
        raise UnknownPractitioner(rpps)
    if not practitioner.active:
        raise NotEntitled(f"{rpps} is suspended: `imagora practitioners resume --rpps {rpps}` ends that")
    return practitioner, requester_of(practitioner, directory)


@asynccontextmanager
async def open_journal(settings: Settings, database: Database) -> AsyncIterator[Journal]:
    """For traces, whose chain's head is signed on leaving. Raises `Unavailable`, `KeyProblem`."""
    keys, heads = load_or_make_keys(settings.trace_key_path), HeadFile(settings.heads_path)
    journal = Journal(database)
    # Entered before the journal, so that it signs the journal's rows after they are written.
    async with (
        Keeper(database, journal, keys, heads, retention_months=settings.traces.retention_months),
        journal,
    ):
        yield journal


async def trace(settings: Settings, database: Database, events: Sequence[Event]) -> None:
    """Return once the events are durable, their chain's head signed. Raises `Unavailable`, `KeyProblem`."""
    async with open_journal(settings, database) as journal:
        for event in events:
            await journal.write(event)
