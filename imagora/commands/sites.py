"""`imagora sites`: who is in the federation"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from imagora.commands.common import Failure, config_option, open_registry, run, settings_of
from imagora.commands.lazy import LazyGroup
from imagora.settings import Settings
from registry.entries import Changes
from registry.model import Directory, Site, SiteStatus
from registry.store import UnknownSite
from registry.table import Table, read_table

COMMANDS = {"check": "imagora.commands.check:check"}


@click.group(cls=LazyGroup, table=COMMANDS)
@config_option
def sites() -> None:
    """The sites of the federation: import, list, check, suspend, resume."""


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
        f"{_count(len(changes.new_sites), 'site')} added, {len(changes.changed_sites)} updated, "
        f"{changes.unchanged} unchanged; {_count(len(changes.new_folders), 'folder')} added."
    )
    if known:
        click.echo("Of those added or updated: " + ", ".join(f"{n} {status}" for status, n in known.items()) + ".")


async def _import(settings: Settings, table: Table) -> Changes:
    async with open_registry(settings) as store:
        return await store.import_csv(table)


@sites.command(name="list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def list_(context: click.Context, form: str) -> None:
    """List all sites, in registry order."""
    directory = run(_load(settings_of(context)))
    if form == "json":
        rows = [_as_object(site) for site in directory.sites]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    header = ("EMETTEUR", "SITE", "NAME", "FOLDER", "AVAILABILITY", "STATUS", "ADDRESS")
    click.echo(_table([header, *map(_as_row, directory.sites)]))
    statuses = Counter(site.status for site in directory.sites)
    asked = sum(site.asked for site in directory.sites)
    summary = ", ".join(f"{statuses[status]} {status}" for status in SiteStatus if statuses[status])
    click.echo(f"\n{_count(len(directory.sites), 'site')}{': ' * bool(summary)}{summary}; {asked} asked.")


async def _load(settings: Settings) -> Directory:
    async with open_registry(settings) as store:
        return await store.load()


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
        await store.set_status(site.emetteur, status)
        if status is SiteStatus.SUSPENDED:
            return f"{site.emetteur} is suspended: it is not asked any more."
        return f"{site.emetteur} is a member again" + ("." if site.has_address else ", but it has no address to ask.")


def _as_object(site: Site) -> dict[str, object]:
    values = dataclasses.asdict(site)
    values["site"] = values.pop("number")
    order = ("emetteur", "site", "name", "folder", "availability", "status", "dicomweb", "aet", "host", "port", "oid")
    return {**{name: values.pop(name) for name in order}, **values, "asked": site.asked}


def _as_row(site: Site) -> tuple[str, ...]:
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
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
