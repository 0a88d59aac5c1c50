"""`imagora exams`: exams that are withheld because their patient could not be informed yet"""

from __future__ import annotations

from datetime import UTC

import click
import orjson

from consent import Event, EventKind, Unavailable, utc_now
from consent.heads import KeyProblem
from consent.holds import Default, Holds, HoldState, HoldStore, Word
from imagora.commands import criteria
from imagora.commands.behalf import by_option, for_site
from imagora.commands.common import Failure, config_option, open_registry, run, settings_of
from imagora.commands.tables import count, table
from imagora.commands.traced import trace
from imagora.settings import Settings
from registry import Directory, Site
from registry.store import RegistryStore, UnknownSite

_REASON_MAX = 500


def _uid(_: click.Context, __: click.Parameter, value: str) -> str:
    return criteria.uid(value)


def _reason(_: click.Context, __: click.Parameter, value: str) -> str:
    reason = " ".join(value.split())
    if len(reason) > _REASON_MAX or not reason.isprintable():
        raise click.BadParameter(f"use at most {_REASON_MAX} characters, and no control characters")
    return reason


_study = click.option("--study", required=True, callback=_uid, metavar="UID", help="StudyInstanceUID.")
_site = click.option("--site", required=True, metavar="EMETTEUR", help="The site that made the exam.")
_by = by_option("On whose behalf: the correspondent of the site, or a referent.", required=True)
_why = click.option("--reason", default="", callback=_reason, metavar="TEXT", help="Why, for those who read the list.")


@click.group()
@config_option
def exams() -> None:
    """Exams whose patient could not be informed yet: withhold, release, default, list.

    A withheld exam is shown to its own site, and to who declares a vital emergency of its patient.
    """


@exams.command()
@_study
@_site
@_by
@_why
@config_option
@click.pass_context
def withhold(context: click.Context, study: str, site: str, by: str, reason: str) -> None:
    """Withhold an exam: its patient could not be informed yet. Every running server knows within a second.

    No site is asked: the exam may arrive there later, and a UID with a mistake in it withholds nothing.
    """
    click.echo(run(_say(settings_of(context), HoldState.WITHHELD, study, site, by, reason)))


@exams.command()
@_study
@_site
@_by
@_why
@config_option
@click.pass_context
def release(context: click.Context, study: str, site: str, by: str, reason: str) -> None:
    """Release an exam: its patient is informed. It stays released whatever the site's default is."""
    click.echo(run(_say(settings_of(context), HoldState.RELEASED, study, site, by, reason)))


@exams.command()
@click.option("--site", required=True, metavar="EMETTEUR", help="The site that made the exams.")
@click.option("--withhold", is_flag=True, help="Withhold each exam until it is released.")
@click.option("--release", is_flag=True, help="Show each exam unless it is withheld.")
@_by
@config_option
@click.pass_context
def default(context: click.Context, site: str, withhold: bool, release: bool, by: str) -> None:
    """What holds for a site's exams of which nobody said anything. Without a word they are shown."""
    if withhold is release:
        raise click.UsageError("say one of --withhold and --release", context)
    state = HoldState.WITHHELD if withhold else HoldState.RELEASED
    click.echo(run(_say_default(settings_of(context), state, site, by)))


@exams.command(name="list")
@click.option("--site", metavar="EMETTEUR", help="Only exams that this site made.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def list_(context: click.Context, site: str | None, form: str) -> None:
    """List what is withheld, and which sites withhold by default; of these, also what was released."""
    holds = run(_all(settings_of(context), site))
    if form == "json":
        value = {
            "defaults": [_default_object(default) for default in holds.defaults],
            "exams": [_word_object(word) for word in holds.words],
        }
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
        return
    header = ("STUDY", "SITE", "STATE", "SINCE", "BY", "REASON")
    click.echo(table([header, *map(_word_row, holds.words)]))
    withheld = sum(word.state is HoldState.WITHHELD for word in holds.words)
    click.echo(f"\n{count(withheld, 'exam')} withheld.")
    for default in holds.defaults:
        if default.state is HoldState.WITHHELD:
            click.echo(
                f"{default.emetteur} withholds every other exam until it is released "
                f"(since {default.set_at.astimezone():%Y-%m-%d %H:%M}, by {default.set_by})."
            )


async def _say(settings: Settings, state: HoldState, study: str, emetteur: str, by: str, reason: str) -> str:
    async with open_registry(settings) as registry:
        directory = await registry.load()
        site = _known(directory, emetteur)
        verb = "withhold" if state is HoldState.WITHHELD else "release"
        requester = for_site(directory, by, site.emetteur, f"{verb} exams of {site.emetteur}")
        detail: dict[str, str | int | float] = {"action": f"exam-{state}"}
        event = Event(
            kind=EventKind.CONSENT,
            requester=requester,
            at=utc_now(),
            study_uid=study,
            origin=site.emetteur,
            detail={**detail, "reason": reason} if reason else detail,
        )
        changed = await HoldStore(registry.database).say(
            study,
            site.emetteur,
            state,
            reason=reason,
            set_by=requester.id,
            traced=lambda: _trace(settings, registry, event),
        )
    return f"{study} of {site.emetteur} is {state}{'' if changed else ' already'}."


async def _say_default(settings: Settings, state: HoldState, emetteur: str, by: str) -> str:
    async with open_registry(settings) as registry:
        directory = await registry.load()
        site = _known(directory, emetteur)
        requester = for_site(directory, by, site.emetteur, f"say what holds for exams of {site.emetteur}")
        event = Event(
            kind=EventKind.CONSENT,
            requester=requester,
            at=utc_now(),
            origin=site.emetteur,
            detail={"action": f"site-default-{state}"},
        )
        changed = await HoldStore(registry.database).say_default(
            site.emetteur,
            state,
            set_by=requester.id,
            traced=lambda: _trace(settings, registry, event),
        )
    said = (
        "withholds each exam of which nothing is said"
        if state is HoldState.WITHHELD
        else "shows each exam of which nothing is said"
    )
    return f"{site.emetteur} {said}{'' if changed else ' already'}."


async def _trace(settings: Settings, registry: RegistryStore, event: Event) -> None:
    try:
        await trace(settings, registry.database, [event])
    except (Unavailable, KeyProblem) as error:
        raise Failure(f"{error}. So nothing was changed") from None


async def _all(settings: Settings, emetteur: str | None) -> Holds:
    async with open_registry(settings) as registry:
        site = _known(await registry.load(), emetteur).emetteur if emetteur is not None else None
        return await HoldStore(registry.database).all(site)


def _known(directory: Directory, emetteur: str) -> Site:
    site = directory.site(emetteur)
    if site is None:
        raise UnknownSite(emetteur)
    return site


def _word_row(word: Word) -> tuple[str, ...]:
    since = f"{word.set_at.astimezone():%Y-%m-%d %H:%M}"
    return (word.study_uid, word.emetteur, word.state.value, since, word.set_by, word.reason)


def _word_object(word: Word) -> dict[str, object]:
    return {
        "study_uid": word.study_uid,
        "emetteur": word.emetteur,
        "state": word.state,
        "reason": word.reason,
        "by": word.set_by,
        "at": word.set_at.astimezone(UTC),
    }


def _default_object(default: Default) -> dict[str, object]:
    return {
        "emetteur": default.emetteur,
        "state": default.state,
        "by": default.set_by,
        "at": default.set_at.astimezone(UTC),
    }
