"""On whose behalf a command runs: the option, who may speak for a site, and the trace of what he changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from consent import Event, EventKind, Requester, Role, Unavailable, utc_now
from consent.heads import KeyProblem, load_or_make_keys
from imagora.commands.common import Failure
from imagora.commands.traced import NotEntitled, person, trace
from imagora.settings import Settings
from registry import Directory, Practitioner
from registry.database import Database, DatabaseError
from registry.people import check_rpps

F = TypeVar("F", bound=Callable[..., Any])


def rpps_value(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of an option that takes an RPPS."""
    if value is None:
        return None
    try:
        return check_rpps(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def by_option(text: str, *, required: bool) -> Callable[[F], F]:
    """`--by RPPS`, given to the command as `by`."""
    return click.option("--by", required=required, callback=rpps_value, metavar="RPPS", help=text)


def speaks_for(practitioner: Practitioner, emetteur: str) -> bool:
    """Is this the correspondent of that site, or a referent?"""
    if practitioner.role is Role.REFERENT:
        return True
    return practitioner.role is Role.CORRESPONDENT and practitioner.site == emetteur


def for_site(directory: Directory, rpps: str, emetteur: str, what: str) -> Requester:
    """Who acts for this site. `what` says what is done, for who may not: "withhold exams of csrom41200".

    Raises `UnknownPractitioner`, `NotEntitled`.
    """
    practitioner, requester = person(directory, rpps)
    if not speaks_for(practitioner, emetteur):
        raise NotEntitled(f"{rpps} may not {what}: the correspondent of {emetteur} or a referent may")
    return requester


def administered(requester: Requester, action: str, **what: str) -> Event:
    """The event of a change of the registry. `what`: whom or which it concerns; of these, `site` is its origin."""
    return Event(
        kind=EventKind.ADMINISTRATION,
        requester=requester,
        at=utc_now(),
        origin=what.get("site", ""),
        detail={"action": action, **what},
    )


@asynccontextmanager
async def administration(settings: Settings, database: Database) -> AsyncIterator[list[Event]]:
    """Traces what was put on the list in the meantime: changes that are made, committed, and only then traced.

    Without a key to sign with nothing is begun.
    """
    load_or_make_keys(settings.trace_key_path)
    events: list[Event] = []
    yield events
    if events:
        try:
            await trace(settings, database, events)
        except (DatabaseError, KeyProblem, Unavailable) as error:
            raise Failure(f"this was done, but it could not be traced: {error}") from None
