"""`imagora practitioners`: who may ask"""

from __future__ import annotations

from datetime import UTC

import click
import orjson

from consent import Requester
from imagora.commands.behalf import administered, administration, by_option, for_site, rpps_value
from imagora.commands.common import config_option, open_registry, run, settings_of
from imagora.commands.tables import count, table
from imagora.commands.traced import NotEntitled, operator
from imagora.settings import Settings
from registry import Directory
from registry.people import Practitioner, Role
from registry.practitioners import Addition, PractitionerStore, UnknownPractitioner
from registry.rules import check_name
from registry.store import UnknownSite


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


_rpps_option = click.option(
    "--rpps", required=True, callback=rpps_value, metavar="RPPS", help="RPPS: 11 digits, or 8 and the RPPS."
)
_by_option = by_option(
    "On whose behalf: the correspondent of the practitioner's home site, or a referent. Otherwise whoever uses this "
    "machine.",
    required=False,
)


@click.group()
@config_option
def practitioners() -> None:
    """The professionals who may ask: add, sign, list, suspend, resume. Every change is traced."""


@practitioners.command()
@_rpps_option
@click.option("--name", required=True, callback=_name, metavar="NAME", help="Name: 'MARTIN^CLAIRE'.")
@click.option("--site", required=True, metavar="EMETTEUR", help="Home site.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.PRACTITIONER.value)
@_by_option
@config_option
@click.pass_context
def add(context: click.Context, rpps: str, name: str, site: str, role: str, by: str | None) -> None:
    """Register a practitioner, or change the name, home site and role of one who is registered.

    He may ask once his signature of the charter is recorded: `imagora practitioners sign`. A suspended one stays
    suspended. Only a referent makes a referent, and who moves to another site needs the word of both.
    """
    settings = settings_of(context)
    addition, practitioner = run(_add(settings, rpps, name, site, Role(role), by))
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


async def _add(
    settings: Settings, rpps: str, name: str, emetteur: str, role: Role, by: str | None
) -> tuple[Addition, Practitioner]:
    async with open_registry(settings) as registry:
        directory = await registry.load()
        site = directory.site(emetteur)
        if site is None:
            raise UnknownSite(emetteur)
        before = directory.practitioners.get(rpps)
        requester = _adder(directory, by, before, site.emetteur, role)
        async with administration(settings, registry.database) as events:
            store = PractitionerStore(registry.database)
            addition, after = await store.add(rpps=rpps, name=name, site=site.emetteur, role=role)
            if addition is not Addition.UNCHANGED:
                events.append(
                    administered(
                        requester,
                        f"practitioner-{addition}",
                        practitioner=rpps,
                        site=after.site,
                        role=after.role.value,
                        **({"site_before": before.site} if before is not None and before.site != after.site else {}),
                        **({"role_before": before.role} if before is not None and before.role != after.role else {}),
                    )
                )
    return addition, after


def _adder(directory: Directory, by: str | None, before: Practitioner | None, emetteur: str, role: Role) -> Requester:
    """Who adds or changes a practitioner. Raises `NotEntitled`, `UnknownPractitioner`."""
    if by is None:
        return operator()
    requester = for_site(directory, by, emetteur, f"register practitioners of {emetteur}")
    if before is not None and before.site != emetteur:
        for_site(directory, by, before.site, f"move a practitioner of {before.site}")
    referent = role is Role.REFERENT or (before is not None and before.role is Role.REFERENT)
    if referent and requester.role is not Role.REFERENT:
        raise NotEntitled(f"{by} may not name or change a referent: a referent may, or whoever uses this machine")
    return requester


@practitioners.command()
@_rpps_option
@_by_option
@config_option
@click.pass_context
def sign(context: click.Context, rpps: str, by: str | None) -> None:
    """Record that a practitioner signed the charter, in the version that is in force (auth.charter_version)."""
    click.echo(run(_sign(settings_of(context), rpps, by)))


async def _sign(settings: Settings, rpps: str, by: str | None) -> str:
    version = settings.auth.charter_version
    async with open_registry(settings) as registry:
        requester, site = _speaker(await registry.load(), by, rpps, "record the charter's signature of")
        async with administration(settings, registry.database) as events:
            new, signed_at = await PractitionerStore(registry.database).sign(rpps, version)
            if new:
                events.append(administered(requester, "charter-signed", practitioner=rpps, site=site, version=version))
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
    async with open_registry(settings) as registry:
        return await PractitionerStore(registry.database).all()


def _speaker(directory: Directory, by: str | None, rpps: str, what: str) -> tuple[Requester, str]:
    """→ (who changes something of a practitioner, whose EMETTEUR). `what` says what: "suspend".

    Raises `NotEntitled`, `UnknownPractitioner`.
    """
    practitioner = directory.practitioners.get(rpps)
    if practitioner is None:
        raise UnknownPractitioner(rpps)
    home = practitioner.site
    return operator() if by is None else for_site(directory, by, home, f"{what} practitioners of {home}"), home


@practitioners.command()
@_rpps_option
@_by_option
@config_option
@click.pass_context
def suspend(context: click.Context, rpps: str, by: str | None) -> None:
    """Let a practitioner ask no more, from now on and on every running server, until he is resumed."""
    changed = run(_set_active(settings_of(context), rpps, by, active=False))
    click.echo(f"{rpps} is suspended{'' if changed else ' already'}.")


@practitioners.command()
@_rpps_option
@_by_option
@config_option
@click.pass_context
def resume(context: click.Context, rpps: str, by: str | None) -> None:
    """End a practitioner's suspension."""
    changed = run(_set_active(settings_of(context), rpps, by, active=True))
    click.echo(f"{rpps} is {'active again' if changed else 'not suspended'}.")


async def _set_active(settings: Settings, rpps: str, by: str | None, *, active: bool) -> bool:
    async with open_registry(settings) as registry:
        requester, site = _speaker(await registry.load(), by, rpps, "resume" if active else "suspend")
        async with administration(settings, registry.database) as events:
            changed = await PractitionerStore(registry.database).set_active(rpps, active=active)
            if changed:
                action = "practitioner-resumed" if active else "practitioner-suspended"
                events.append(administered(requester, action, practitioner=rpps, site=site))
    return changed


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
