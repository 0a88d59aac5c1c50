"""`imagora practitioners`: who may ask"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC

import click
import orjson

from imagora.commands.common import config_option, open_registry, run, settings_of
from imagora.commands.tables import count, table
from imagora.settings import Settings
from registry.people import Practitioner, Role, check_rpps
from registry.practitioners import Addition, PractitionerStore
from registry.rules import check_name


def _rpps(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_rpps(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


_rpps_option = click.option(
    "--rpps", required=True, callback=_rpps, metavar="RPPS", help="RPPS: 11 digits, or 8 and the RPPS."
)


@click.group()
@config_option
def practitioners() -> None:
    """The professionals who may ask: add, sign, list, suspend, resume."""


@practitioners.command()
@_rpps_option
@click.option("--name", required=True, callback=_name, metavar="NAME", help="Name: 'MARTIN^CLAIRE'.")
@click.option("--site", required=True, metavar="EMETTEUR", help="Home site.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.PRACTITIONER.value)
@config_option
@click.pass_context
def add(context: click.Context, rpps: str, name: str, site: str, role: str) -> None:
    """Register a practitioner, or change the name, home site and role of one who is registered.

    He may ask once his signature of the charter is recorded: `imagora practitioners sign`. A suspended one stays
    suspended.
    """
    settings = settings_of(context)
    addition, practitioner = run(_add(settings, rpps, name, site, Role(role)))
    said = {
        Addition.ADDED: "is registered",
        Addition.CHANGED: "is changed",
        Addition.UNCHANGED: "is registered already",
    }
    click.echo(f"{rpps} {said[addition]}: {practitioner.name}, {practitioner.role} at {practitioner.site}.")
    if not practitioner.active:
        click.echo(f"{rpps} stays suspended: `imagora practitioners resume --rpps {rpps}` ends that.", err=True)
    elif not practitioner.has_signed(settings.auth.charter_version):
        click.echo(
            f"Next, once version {settings.auth.charter_version} of the charter is signed: "
            f"imagora practitioners sign --rpps {rpps}"
        )


async def _add(settings: Settings, rpps: str, name: str, site: str, role: Role) -> tuple[Addition, Practitioner]:
    async with _store(settings) as store:
        return await store.add(rpps=rpps, name=name, site=site, role=role)


@practitioners.command()
@_rpps_option
@config_option
@click.pass_context
def sign(context: click.Context, rpps: str) -> None:
    """Record that a practitioner signed the charter, in the version that is in force (auth.charter_version)."""
    click.echo(run(_sign(settings_of(context), rpps)))


async def _sign(settings: Settings, rpps: str) -> str:
    version = settings.auth.charter_version
    async with _store(settings) as store:
        new, signed_at = await store.sign(rpps, version)
    when = f"{signed_at.astimezone():%Y-%m-%d %H:%M}"
    return (
        f"{rpps} has signed version {version} of the charter ({when})."
        if new
        else (f"{rpps} has signed version {version} of the charter already ({when}).")
    )


@practitioners.command(name="list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def list_(context: click.Context, form: str) -> None:
    """List all practitioners by name, and whether they may ask."""
    settings = settings_of(context)
    people = run(_all(settings))
    version = settings.auth.charter_version
    if form == "json":
        objects = [_as_object(person, version) for person in people]
        click.echo(orjson.dumps(objects, option=orjson.OPT_INDENT_2).decode())
        return
    header = ("RPPS", "NAME", "SITE", "ROLE", "CHARTER", "STATUS")
    click.echo(table([header, *(_as_row(person, version) for person in people)]))
    may = sum(_may_ask(person, version) for person in people)
    click.echo(f"\n{count(len(people), 'practitioner')}; {may} may ask (charter version {version}).")


async def _all(settings: Settings) -> tuple[Practitioner, ...]:
    async with _store(settings) as store:
        return await store.all()


@practitioners.command()
@_rpps_option
@config_option
@click.pass_context
def suspend(context: click.Context, rpps: str) -> None:
    """Let a practitioner ask no more, from now on and on every running server, until he is resumed."""
    changed = run(_set_active(settings_of(context), rpps, active=False))
    click.echo(f"{rpps} is suspended{'' if changed else ' already'}.")


@practitioners.command()
@_rpps_option
@config_option
@click.pass_context
def resume(context: click.Context, rpps: str) -> None:
    """End a practitioner's suspension."""
    changed = run(_set_active(settings_of(context), rpps, active=True))
    click.echo(f"{rpps} is {'active again' if changed else 'not suspended'}.")


async def _set_active(settings: Settings, rpps: str, *, active: bool) -> bool:
    async with _store(settings) as store:
        return await store.set_active(rpps, active=active)


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[PractitionerStore]:
    async with open_registry(settings) as registry:
        yield PractitionerStore(registry.database)


def _may_ask(person: Practitioner, charter_version: str) -> bool:
    return person.active and person.has_signed(charter_version)


def _as_object(person: Practitioner, charter_version: str) -> dict[str, object]:
    last = person.last_signature
    return {
        "rpps": person.rpps,
        "name": person.name,
        "site": person.site,
        "role": person.role,
        "active": person.active,
        "charter_version": last[0] if last is not None else None,
        "signed_at": last[1].astimezone(UTC) if last is not None else None,
        "may_ask": _may_ask(person, charter_version),
    }


def _as_row(person: Practitioner, charter_version: str) -> tuple[str, ...]:
    last = person.last_signature
    charter = f"{last[0]} ({last[1].astimezone():%Y-%m-%d})" if last is not None else "–"
    if not person.has_signed(charter_version):
        charter += f", {charter_version} to be signed"
    status = "active" if person.active else "suspended"
    return (person.rpps, person.name, person.site, person.role.value, charter, status)
