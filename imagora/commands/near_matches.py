"""`imagora oppositions review|confirm|dismiss`: patients who may be the person of an opposition"""

from __future__ import annotations

from dataclasses import replace

import click

from consent.bindings import Binding, OppositionKind, why_not_decide
from consent.oppositions import NearMatchStatus, OppositionStore, QueuedMatch
from imagora.commands import opposition_output as output
from imagora.commands.common import config_option, run, settings_of
from imagora.commands.opposition_work import (
    by_option,
    format_option,
    number_argument,
    open_work,
    permit,
    read_all,
    site_option,
)
from imagora.settings import Settings


@click.command()
@site_option
@click.option("--all", "decided", is_flag=True, help="Also those that were decided on.")
@format_option
@config_option
@click.pass_context
def review(context: click.Context, /, site: str | None, decided: bool, form: str) -> None:
    """Show near matches that are to be decided.

    These are patients who may be the person of an opposition: their exams are withheld until somebody decides.

    \b
    FOUND       the patient's name, birth date and sex, as the site has them
    RECORDED    the person's, as the opposition has them

    Next: `imagora oppositions confirm ID` if he is the person, `imagora oppositions dismiss ID` if he is another.
    """

    async def read(store: OppositionStore, emetteur: str | None) -> str:
        found = await store.near_matches(emetteur, decided=decided)
        return output.as_json(found) if form == "json" else output.queue_as_table(found)

    click.echo(run(read_all(settings_of(context), site, read)))


@click.command()
@number_argument
@by_option
@config_option
@click.pass_context
def confirm(context: click.Context, /, number: int, by: str) -> None:
    """Say that a near match is the person.

    His exams stay withheld. `dismiss` revises that.
    """
    _decide(context, number, by, NearMatchStatus.CONFIRMED)


@click.command()
@number_argument
@by_option
@config_option
@click.pass_context
def dismiss(context: click.Context, /, number: int, by: str) -> None:
    """Say that a near match is another person.

    His exams are shared again. `confirm` revises that.
    """
    _decide(context, number, by, NearMatchStatus.DISMISSED)


def _decide(context: click.Context, number: int, by: str, status: NearMatchStatus) -> None:
    match, changed = run(_decided(settings_of(context), number, by, status))
    is_he = "is" if status is NearMatchStatus.CONFIRMED else "is not"
    if not changed:
        click.echo(f"Near match {number} is {status} already.")
        return
    click.echo(f"Near match {number} is {status}: this patient {is_he} the person of opposition {match.opposition}.")


async def _decided(settings: Settings, number: int, by: str, status: NearMatchStatus) -> tuple[QueuedMatch, bool]:
    async with open_work(settings, by) as work:
        match = await work.store.near_match(number)
        permit(why_not_decide(work.requester, match.emetteur))
        whose = Binding(kind=OppositionKind.PATIENT, emetteur=match.emetteur, ipp=match.ipp)
        event = replace(
            work.event(whose, action=f"near-match-{status}", near_match=number, opposition=match.opposition),
            study_uid=match.study_uid,
        )
        return match, await work.store.decide(number, status, by, traced=lambda: work.trace(event))
