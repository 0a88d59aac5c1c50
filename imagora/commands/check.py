"""`imagora sites check`: what a member's PACS can do"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import asdict

import click
import orjson

from dicomweb.client import ClientOptions, Credentials
from dicomweb.probe import ProbedMember
from imagora.checkup import Checkup, Result, examine_all
from imagora.commands.common import Failure, config_option, open_registry, run, settings_of
from imagora.commands.tables import count, printable, table
from imagora.settings import Settings, member_credentials
from registry.model import Directory, Site, SiteStatus
from registry.store import RegistryStore, UnknownSite

_MARKS = {Result.OK: "ok", Result.LIMIT: "limit", Result.FAILED: "FAILED", Result.UNKNOWN: "?"}


@click.command()
@click.argument("emetteurs", nargs=-1, metavar="[EMETTEUR]...")
@click.option("--all", "everyone", is_flag=True, help="Check every site that is asked.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def check(context: click.Context, /, emetteurs: tuple[str, ...], everyone: bool, form: str) -> None:
    """Ask the PACS of one or more sites some twenty questions, and say what was found.

    Name the sites, suspended ones too, or give --all. Each PACS is asked directly, with its credentials from the
    environment (IMAGORA_MEMBER_<EMETTEUR>_USER and _PASSWORD, or _TOKEN), and each question has the time that a
    search has (search.deadline_s, or the site's own).

    Tried: whether it answers; lists studies, series and instances; honours limit and offset; its order; names in
    capitals and small letters, and without accents; and, with one small instance, metadata, the DICOM file and its
    transfer syntax, a frame, a rendered image. Never more than a handful of rows and one instance are read. Nothing
    of a patient's is shown.

    What was learnt of names, limit and offset is kept, and searches make use of it from then on.

    \b
    ok      works
    limit   not as it should be, but Imagora gets along with it
    FAILED  the PACS cannot be used as it is
    ?       could not be told, as with a PACS that holds too little

    Exit status: 0 if all sites checked are usable, 1 if one is not, 2 for a wrong command line or settings.
    """
    if bool(emetteurs) == everyone:
        raise click.UsageError("name the sites to check, or give --all", context)
    checkups, unconnected = run(_check(settings_of(context), emetteurs))
    if form == "json":
        objects = [_as_object(checkup) for checkup in checkups]
        click.echo(orjson.dumps(objects, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n\n".join(map(_as_text, checkups)))
        if len(checkups) > 1:
            usable = sum(checkup.usable for checkup in checkups)
            click.echo(f"\n{usable} of {count(len(checkups), 'site')} usable.")
    if unconnected:
        click.echo(f"Not checked, for want of a DICOMweb address: {', '.join(unconnected)}.", err=True)
    if not all(checkup.usable for checkup in checkups):
        context.exit(1)


async def _check(settings: Settings, emetteurs: Sequence[str]) -> tuple[list[Checkup], list[str]]:
    """→ (what was found, members that have no address to check)."""
    async with open_registry(settings) as store:
        directory = await store.load()
        if emetteurs:
            sites, unconnected = _named(directory, emetteurs), []
        else:
            members = [site for site in directory.sites if site.status is SiteStatus.MEMBER]
            sites = [site for site in members if site.dicomweb is not None]
            unconnected = [site.emetteur for site in members if site.dicomweb is None]
        if not sites:
            raise Failure("no site has a DICOMweb address to check")
        tls = ssl.create_default_context()
        checkups = await examine_all([_connect(site, settings, tls) for site in sites])
        for checkup in checkups:
            await _keep(store, checkup)
        return checkups, unconnected


def _named(directory: Directory, emetteurs: Sequence[str]) -> list[Site]:
    sites: dict[str, Site] = {}
    for emetteur in emetteurs:
        site = directory.site(emetteur)
        if site is None:
            raise UnknownSite(emetteur)
        if site.status is SiteStatus.UNREFERENCED:
            raise Failure(f"{site.emetteur} is unreferenced: it is listed but never asked")
        if site.dicomweb is None:
            lack = "speaks DIMSE only, which cannot be checked yet" if site.has_address else "has no address"
            raise Failure(f"{site.emetteur} {lack}")
        sites[site.emetteur] = site
    return list(sites.values())


def _connect(site: Site, settings: Settings, tls: ssl.SSLContext) -> tuple[ProbedMember, float]:
    """A client of the check's own, and its deadline in seconds."""
    deadline_s = site.deadline_s or settings.search.deadline_s
    known = member_credentials(site.emetteur)
    credentials = (
        Credentials(user=known.user, password=known.password, token=known.token) if known is not None else None
    )
    options = ClientOptions(idle_s=deadline_s, connections=1)
    return ProbedMember(site, credentials=credentials, options=options, tls=tls), deadline_s


async def _keep(store: RegistryStore, checkup: Checkup) -> None:
    """What could not be told this time is not known any more: the PACS may be another one than last time."""
    if checkup.quirks is not None:
        await store.save_quirks(checkup.site.emetteur, checkup.quirks)


def _as_object(checkup: Checkup) -> dict[str, object]:
    return {
        "emetteur": checkup.site.emetteur,
        "name": checkup.site.name,
        "usable": checkup.usable,
        "verdict": checkup.verdict,
        "findings": [
            {
                "topic": finding.topic,
                "result": str(finding.result),
                "text": finding.text,
                "ms": round(finding.elapsed_s * 1000) if finding.elapsed_s is not None else None,
            }
            for finding in checkup.findings
        ],
        "quirks": asdict(checkup.quirks) if checkup.quirks is not None else None,
    }


def _as_text(checkup: Checkup) -> str:
    title = printable(f"{checkup.site.emetteur}, {checkup.site.name}: {checkup.verdict}")
    rows = []
    for finding in checkup.findings:
        took = f" ({finding.elapsed_s * 1000:.0f} ms)" if finding.elapsed_s is not None else ""
        rows.append((f"  {_MARKS[finding.result]}", finding.topic, f"{finding.text}{took}"))
    return f"{title}\n{table(rows)}"
