"""Who may read which traces, and the trace of reading them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from consent import Event, EventKind, Requester, Role, utc_now
from consent.heads import KeyProblem, load_keys
from consent.journal import Journal
from consent.traces import Selection
from imagora.commands.traced import NotEntitled, operator, person, trace
from imagora.settings import Settings
from registry import Directory
from registry.database import Database
from registry.store import UnknownSite


def select_for(directory: Directory, by: str | None, asked: Mapping[str, Any]) -> tuple[Requester, Selection]:
    """Who reads, and what he may read of what is asked: options as the command line names them.

    A correspondent reads the traces of his own site's exams, a referent all; without `by`, whoever uses this machine
    reads all. Raises `UnknownPractitioner`, `UnknownSite`, `NotEntitled`.
    """
    site: str | None = None
    if asked["site"] is not None:
        known = directory.site(asked["site"])
        if known is None:
            raise UnknownSite(asked["site"])
        site = known.emetteur
    reader = operator()
    if by is not None:
        practitioner, reader = person(directory, by)
        if practitioner.role is Role.PRACTITIONER:
            raise NotEntitled(f"{by} may not read traces: a correspondent may read those of his site, a referent all")
        if practitioner.role is Role.CORRESPONDENT:
            if site not in (None, practitioner.site):
                raise NotEntitled(
                    f"{by} may read the traces of {practitioner.site} only: "
                    f"the correspondent of {site} or a referent may read those of {site}"
                )
            site = practitioner.site
    since = asked["since"]
    return reader, Selection(
        site=site,
        patient_id=asked["patient"],
        requester_id=asked["practitioner"],
        since=since.astimezone() if since is not None else None,
        emergencies=asked["emergencies"],
    )


def reading(action: str, reader: Requester, selection: Selection | None = None) -> Event:
    """The event of reading what is selected; its `request_id` tells it from others."""
    s = selection or Selection()
    said: dict[str, str | int | None] = {
        "action": action,
        "site": s.site,
        "patient": s.patient_id,
        "practitioner": s.requester_id,
        "since": s.since.astimezone(UTC).isoformat() if s.since is not None else None,
        "emergencies": 1 if s.emergencies else None,
    }
    return Event(
        kind=EventKind.TRACES_READ,
        requester=reader,
        at=utc_now(),
        request_id=secrets.token_hex(8),
        # The site and the patient see that what is kept of them was read.
        origin=s.site or "",
        patient_id=s.patient_id if s.patient_id is not None and "@" in s.patient_id else "",
        detail={name: value for name, value in said.items() if value is not None},
    )


async def trace_reading(settings: Settings, database: Database, event: Event) -> None:
    """Return once the reading is durable. Raises `Unavailable`.

    Who reads need not be able to sign: without the private key a running server signs the end of the row's chain.
    """
    try:
        keys = load_keys(settings.trace_key_path)
    except KeyProblem:
        keys = None
    if keys is not None and keys.name:
        await trace(settings, database, [event])
        return
    async with Journal(database) as journal:
        await journal.write(event)
