"""`imagora sites check`: what a member's PACS can do"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

import click
import orjson

from consent import Access
from consent.book import Book
from consent.policy import Rules
from consent.reading import BookReader
from federation.gate import Gate
from imagora.checkup import Checkup, Looking, Result, connect, examine_all
from imagora.commands.common import Failure, config_option, open_registry, run, settings_of
from imagora.commands.tables import count, printable, table
from imagora.commands.traced import open_journal, operator
from imagora.naming import naming_of
from imagora.scorecard import LANGUAGES, Language, html, lacks, speed
from imagora.settings import Settings
from registry.model import Directory, Site, SiteStatus
from registry.profiles import Feature, Profile, ProfileStore
from registry.store import RegistryStore, UnknownSite
from registry.watch import RegistryCache

_MARKS = {Result.OK: "ok", Result.LIMIT: "limit", Result.FAILED: "FAILED", Result.UNKNOWN: "?"}


@click.command()
@click.argument("emetteurs", nargs=-1, metavar="[EMETTEUR]...")
@click.option("--all", "everyone", is_flag=True, help="Check every site that is asked.")
@click.option("--last", is_flag=True, help="Ask nobody: show what the last check of each site found.")
@click.option("--format", "form", type=click.Choice(["table", "json", "html"]), default="table", show_default=True)
@click.option("--lang", type=click.Choice(["fr", "en"]), help="Language of --format html; both if it is not given.")
@config_option
@click.pass_context
def check(
    context: click.Context,
    /,
    emetteurs: tuple[str, ...],
    everyone: bool,
    last: bool,
    form: str,
    lang: Language | None,
) -> None:
    """Ask the PACS of one or more sites some forty questions, and say what was found.

    Name the sites, suspended ones too, or give --all. Each PACS is asked directly, with its credentials from the
    environment (IMAGORA_MEMBER_<EMETTEUR>_USER and _PASSWORD, or _TOKEN), and each question has the time that a
    search has (search.deadline_s, or the site's own).

    Tried, one after the other: whether it answers; lists studies, series and instances; honours limit and offset;
    its order; names in capitals and small letters, without accents, with wildcards; percent-encoding; lists of UIDs;
    includefield; what it answers where nothing is found; HEAD and OPTIONS; and, with one small instance, metadata, the
    DICOM file and its transfer syntax, a frame, bulk data, a rendered image, a thumbnail. How fast it is. Nothing is
    stored. Never more than a handful of rows and one instance are read: of an exam that is neither refused nor
    withheld, and that is traced. Nothing of a patient's is shown or kept.

    What was learnt is kept with the site, as its profile: searches and retrieves try first what should work.
    --format html makes a scorecard of it. A server checks again by itself every search.check_every_h hours.

    \b
    ok      works
    limit   not as it should be, but Imagora gets along with it
    FAILED  the PACS cannot be used as it is
    ?       could not be told, as with a PACS that holds too little

    Exit status: 0 if all sites checked are usable, 1 if one is not, 2 for a wrong command line or settings.
    """
    if bool(emetteurs) == everyone:
        raise click.UsageError("name the sites to check, or give --all", context)
    if last:
        profiles = run(_last(settings_of(context), emetteurs))
        click.echo(_shown(profiles, form, lang))
        return
    checkups, unconnected = run(_check(settings_of(context), emetteurs))
    if form == "html":
        click.echo(_shown([checkup.profile for checkup in checkups], form, lang))
    elif form == "json":
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
        connected = [connect(site, settings.search.deadline_s, tls) for site in sites]
        async with _looking(settings, store) as looking:
            checkups = await examine_all(connected, looking.at)
        for checkup in checkups:
            await _keep(store, checkup)
        return checkups, unconnected


@asynccontextmanager
async def _looking(settings: Settings, store: RegistryStore) -> AsyncIterator[Looking]:
    """What the user of this machine may read of members. Raises `KeyProblem`, `DatabaseError`."""
    book = Book()
    long_ids = {i.hashed: (i.ipp, i.emetteur) for i in await store.long_patient_ids()}
    naming = naming_of(settings, long_ids.get)
    async with (
        RegistryCache(store, (BookReader(book),)) as registry,
        open_journal(settings, store.database) as journal,
    ):
        gate = Gate(Access(Rules(book), journal.write, registry), naming)
        yield Looking(gate, naming, lambda: registry.directory, operator())
        await gate.aclose()


async def _last(settings: Settings, emetteurs: Sequence[str]) -> list[Profile]:
    async with open_registry(settings) as store:
        directory = await store.load()
        wanted = {site.emetteur for site in (_named(directory, emetteurs) if emetteurs else directory.sites)}
        return [profile for profile in await ProfileStore(store.database).all() if profile.emetteur in wanted]


def _shown(profiles: Sequence[Profile], form: str, lang: Language | None) -> str:
    if form == "html":
        return html(profiles, (lang,) if lang is not None else LANGUAGES)
    if form == "json":
        return orjson.dumps([_profile_object(p) for p in profiles], option=orjson.OPT_INDENT_2).decode()
    if not profiles:
        return "No site was checked yet."
    return "\n\n".join(map(_profile_text, profiles))


def _profile_object(profile: Profile) -> dict[str, object]:
    return {
        "emetteur": profile.emetteur,
        "name": profile.name,
        "usable": profile.usable,
        "checked_at": profile.checked_at,
        "latency_ms": round(profile.latency_s * 1000, 1) if profile.latency_s is not None else None,
        "bytes_per_s": round(profile.bytes_per_s) if profile.bytes_per_s is not None else None,
        "features": {str(feature): profile.features.get(feature) for feature in Feature},
        "lacks": [{"feature": name, "means": means} for name, means in lacks(profile)],
    }


def _profile_text(profile: Profile) -> str:
    latency, rate = speed(profile)
    when = f"{profile.checked_at.astimezone():%Y-%m-%d %H:%M}" if profile.checked_at is not None else "never"
    verdict = "usable" if profile.usable else "not usable"
    lines = [
        f"{profile.emetteur}, {profile.name}: {verdict} when last checked, {when}",
        f"  answers a search in {latency}, gives {rate}",
        *(f"  lacks: {name}. {means}" for name, means in lacks(profile)),
    ]
    return "\n".join(map(printable, lines))


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


async def _keep(store: RegistryStore, checkup: Checkup) -> None:
    """What could not be told this time is not known any more: the PACS may be another one than last time."""
    if checkup.answered and checkup.site.dicomweb is not None:
        await ProfileStore(store.database).keep(checkup.profile, checkup.site.dicomweb)


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
        "profile": _profile_object(checkup.profile) if checkup.answered else None,
    }


def _as_text(checkup: Checkup) -> str:
    title = printable(f"{checkup.site.emetteur}, {checkup.site.name}: {checkup.verdict}")
    rows = []
    for finding in checkup.findings:
        took = f" ({finding.elapsed_s * 1000:.0f} ms)" if finding.elapsed_s is not None else ""
        rows.append((f"  {_MARKS[finding.result]}", finding.topic, f"{finding.text}{took}"))
    text = f"{title}\n{table(rows)}"
    if not checkup.latencies_s:
        return text
    latency, rate = speed(checkup.profile)
    return f"{text}\n  answers a search in {latency}, gives {rate}"
