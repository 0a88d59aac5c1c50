"""What the commands on oppositions share: on whose behalf, on which registry, and how it is traced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click

from consent import Event, EventKind, Requester, Unavailable, utc_now
from consent.bindings import Binding
from consent.heads import KeyProblem
from consent.oppositions import (
    AlreadyLifted,
    NothingToDecide,
    OppositionStore,
    UnknownNearMatch,
    UnknownOpposition,
)
from federation.identity import Id, qualify
from imagora.commands.common import Failure, open_registry
from imagora.commands.traced import NotEntitled, person, trace
from imagora.settings import Settings
from registry import Directory
from registry.database import DatabaseError
from registry.people import check_rpps
from registry.store import RegistryStore, UnknownSite


def _rpps(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_rpps(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


by_option = click.option(
    "--by", required=True, callback=_rpps, metavar="RPPS", help="On whose behalf: a correspondent's or the referent's."
)
number_argument = click.argument("number", metavar="ID", type=click.IntRange(1, 2**63 - 1))
site_option = click.option("--site", metavar="EMETTEUR", help="Only those of this site.")
format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    settings: Settings
    registry: RegistryStore
    store: OppositionStore
    directory: Directory
    long_ids: dict[str, Id]
    requester: Requester

    def event(self, binding: Binding | None, **detail: str | int | float) -> Event:
        """What is traced of a change, with the patient or the study that it concerns, if it is one."""
        patient_id = study_uid = ""
        origin = binding.emetteur or "" if binding is not None else ""
        if binding is not None and binding.ipp:
            site = self.directory.site(origin)
            qualified = self.settings.search.patient_id == "qualified" and site is not None
            patient_id = qualify(binding.ipp, site) if qualified and site is not None else binding.ipp
        if binding is not None and len(binding.study_uids) == 1:
            study_uid = binding.study_uids[0]
        return Event(
            kind=EventKind.CONSENT,
            requester=self.requester,
            at=utc_now(),
            patient_id=patient_id,
            study_uid=study_uid,
            origin=origin,
            detail=detail,
        )

    async def trace(self, event: Event) -> None:
        """Return once it is durable. Raises `Failure`: to be awaited before the change becomes one."""
        try:
            await trace(self.settings, self.registry.database, [event])
        except (Unavailable, KeyProblem, DatabaseError) as error:
            raise Failure(f"{error}. So nothing was changed") from None


@asynccontextmanager
async def open_work(settings: Settings, by: str) -> AsyncIterator[Work]:
    async with open_registry(settings) as registry:
        directory = await registry.load()
        _, requester = person(directory, by)
        long_ids = {i.hashed: (i.ipp, i.emetteur) for i in await registry.long_patient_ids()}
        try:
            yield Work(
                settings=settings,
                registry=registry,
                store=OppositionStore(registry.database),
                directory=directory,
                long_ids=long_ids,
                requester=requester,
            )
        except (AlreadyLifted, NothingToDecide, UnknownNearMatch, UnknownOpposition) as error:
            raise Failure(str(error)) from None


async def read_all(
    settings: Settings, site: str | None, read: Callable[[OppositionStore, str | None], Awaitable[str]]
) -> str:
    async with open_registry(settings) as registry:
        emetteur = None
        if site is not None:
            known = (await registry.load()).site(site)
            if known is None:
                raise UnknownSite(site)
            emetteur = known.emetteur
        return await read(OppositionStore(registry.database), emetteur)


def permit(why_not: str | None) -> None:
    if why_not is not None:
        raise NotEntitled(why_not)
