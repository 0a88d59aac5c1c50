"""`imagora sites`: who is in the federation"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson

from imagora.commands.behalf import administered, administration
from imagora.commands.common import Failure, config_option, open_registry, run, settings_of
from imagora.commands.lazy import LazyGroup
from imagora.commands.tables import count, table
from imagora.commands.traced import operator
from imagora.settings import Settings
from registry.entries import Changes
from registry.model import Directory, Site, SiteStatus
from registry.store import SiteHealth, UnknownSite
from registry.table import Table, read_table

COMMANDS = {"check": "imagora.commands.check:check"}


@click.group(cls=LazyGroup, table=COMMANDS)
@config_option
def sites() -> None:
    """The sites of the federation: import, list, check, suspend, resume. Every change is traced."""


@sites.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.csv")
@config_option
@click.pass_context
def import_(context: click.Context, file: Path) -> None:
    """Add and update sites from a table (CSV, UTF-8).

    Columns: emetteur, site, name, folder, availability, status; optionally dicomweb, aet, host, port, oid.

    All of the table is imported, or nothing. Folders it names are created. Numbers, names, folders and availability of
    known sites are updated; an address is never cleared, and a suspended site stays suspended.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}") from None
    changes = run(_import(settings_of(context), read_table(content)))
    for note in changes.notes:
        click.echo(note, err=True)
    known = Counter(site.status for site in (*changes.new_sites, *changes.changed_sites))
    click.echo(
        f"{count(len(changes.new_sites), 'site')} added, {len(changes.changed_sites)} updated, "
        f"{changes.unchanged} unchanged; {count(len(changes.new_folders), 'folder')} added."
    )
    if known:
        click.echo("Of those added or updated: " + ", ".join(f"{n} {status}" for status, n in known.items()) + ".")


async def _import(settings: Settings, table: Table) -> Changes:
    async with open_registry(settings) as store, administration(settings, store.database) as events:
        changes = await store.import_csv(table)
        who = operator()
        folders = (("folder-added", changes.new_folders), ("folder-changed", changes.changed_folders))
        sites = (("site-added", changes.new_sites), ("site-changed", changes.changed_sites))
        events += [administered(who, action, folder=f.name) for action, some in folders for f in some]
        events += [administered(who, action, site=s.emetteur) for action, some in sites for s in some]
    return changes


@sites.command(name="list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def list_(context: click.Context, form: str) -> None:
    """List all sites, in registry order, and how each PACS is doing.

    HEALTH is what the running servers know of a PACS from their own requests, whichever heard of it last:

    \b
    answers   its last request went well
    fails     its last request failed; it is still asked
    left out  it failed too often: it is not asked for a while, then tried again
    –         no running server has asked it, or none has reported for two minutes

    The moment behind is since when it answers, or fails. `imagora sites check` asks a PACS at once.
    """
    directory, health = run(_load(settings_of(context)))
    if form == "json":
        objects = [_as_object(site, health.get(site.emetteur)) for site in directory.sites]
        click.echo(orjson.dumps(objects, option=orjson.OPT_INDENT_2).decode())
        return
    header = ("EMETTEUR", "SITE", "NAME", "FOLDER", "AVAILABILITY", "STATUS", "ADDRESS", "HEALTH")
    click.echo(table([header, *(_as_row(site, health.get(site.emetteur)) for site in directory.sites)]))
    statuses = Counter(site.status for site in directory.sites)
    asked = sum(site.asked for site in directory.sites)
    summary = ", ".join(f"{statuses[status]} {status}" for status in SiteStatus if statuses[status])
    click.echo(f"\n{count(len(directory.sites), 'site')}{': ' * bool(summary)}{summary}; {asked} asked.")


async def _load(settings: Settings) -> tuple[Directory, Mapping[str, SiteHealth]]:
    async with open_registry(settings) as store:
        return await store.load(), await store.health()


@sites.command()
@click.argument("emetteur")
@config_option
@click.pass_context
def suspend(context: click.Context, emetteur: str) -> None:
    """Stop asking a site, from now on and on every running server, until it is resumed."""
    click.echo(run(_change(settings_of(context), emetteur, SiteStatus.SUSPENDED)))


@sites.command()
@click.argument("emetteur")
@config_option
@click.pass_context
def resume(context: click.Context, emetteur: str) -> None:
    """Ask a suspended site again."""
    click.echo(run(_change(settings_of(context), emetteur, SiteStatus.MEMBER)))


async def _change(settings: Settings, emetteur: str, status: SiteStatus) -> str:
    async with open_registry(settings) as store:
        site = (await store.load()).site(emetteur)
        if site is None:
            raise UnknownSite(emetteur)
        if site.status is SiteStatus.UNREFERENCED:
            raise Failure(
                f"{site.emetteur} is unreferenced: it is listed but never asked. "
                "To make it a member, import a table that gives it the status member"
            )
        if site.status is status:
            return f"{site.emetteur} is {'a member' if status is SiteStatus.MEMBER else 'suspended'} already."
        async with administration(settings, store.database) as events:
            await store.set_status(site.emetteur, status)
            action = "site-suspended" if status is SiteStatus.SUSPENDED else "site-resumed"
            events.append(administered(operator(), action, site=site.emetteur))
        if status is SiteStatus.SUSPENDED:
            return f"{site.emetteur} is suspended: it is not asked any more."
        return f"{site.emetteur} is a member again" + ("." if site.has_address else ", but it has no address to ask.")


def _as_object(site: Site, health: SiteHealth | None) -> dict[str, object]:
    values = dataclasses.asdict(site)
    values["site"] = values.pop("number")
    order = ("emetteur", "site", "name", "folder", "availability", "status", "dicomweb", "aet", "host", "port", "oid")
    return {
        **{name: values.pop(name) for name in order},
        **values,
        "asked": site.asked,
        "health": _health_object(health) if health is not None else None,
    }


def _health_object(health: SiteHealth) -> dict[str, object]:
    values = dataclasses.asdict(health)
    del values["emetteur"]
    return {name: v.astimezone(UTC) if isinstance(v, datetime) else v for name, v in values.items()}


#: A breaker's state in words for people; `closed` stands for two of them.
_HEALTH_WORDS = {"open": "left out", "half-open": "left out"}


def _health_text(health: SiteHealth | None) -> str:
    if health is None:
        return "–"
    word = _HEALTH_WORDS.get(health.state) or ("fails" if health.failures_in_a_row else "answers")
    text = f"{word} since {health.since.astimezone():%Y-%m-%d %H:%M}"
    return f"{text} ({health.last_failure})" if health.failures_in_a_row and health.last_failure else text


def _as_row(site: Site, health: SiteHealth | None) -> tuple[str, ...]:
    if site.dicomweb is not None:
        address = site.dicomweb
    elif site.has_address:
        address = f"{site.aet}@{site.host}:{site.port}"
    else:
        address = "none"
    return (
        site.emetteur,
        str(site.number),
        site.name,
        site.folder or "",
        site.availability,
        site.status.value,
        address,
        _health_text(health),
    )
