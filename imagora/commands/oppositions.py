"""`imagora oppositions`: what patients refuse to share"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import click

from consent.bindings import (
    FIELDS,
    BadDeclaration,
    Binding,
    Channel,
    Declaration,
    OppositionKind,
    check_reason,
    located,
    read_declaration,
    why_not_lift,
    why_not_record,
)
from consent.oppositions import OppositionStore, Recorded
from federation.binding import Bound, Incomplete
from imagora.commands import near_matches
from imagora.commands import opposition_output as output
from imagora.commands.common import Failure, config_option, run, settings_of
from imagora.commands.opposition_studies import may_ask, studies_now
from imagora.commands.opposition_table import Table, read_table
from imagora.commands.opposition_work import (
    by_option,
    format_option,
    number_argument,
    open_work,
    permit,
    read_all,
    site_option,
)
from imagora.commands.tables import count, printable
from imagora.settings import Settings
from registry.store import UnknownSite

#: Lines of an imported table that are told one by one.
_TOLD_MAX = 20


def _reason(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_reason(value.strip())
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.group()
@config_option
def oppositions() -> None:
    """What patients refuse to share: add, lift, list, import; and the queue of near matches: review, confirm, dismiss.

    An opposition is recorded by the MIRC correspondent of a site for its own patients, or by the referent. It takes
    what it binds from everyone outside its origin, on every server, within a second. It is never deleted, only lifted.
    """


@oppositions.command()
@click.option("--study", multiple=True, metavar="UID", help="One study. May be given several times.")
@click.option("--accession", metavar="A", help="The studies of this accession number at --site.")
@click.option("--ipp", metavar="I", help="All exams of the patient of this IPP at --site.")
@click.option("--site", metavar="EMETTEUR", help="Whose accession number or IPP it is.")
@click.option("--person", metavar="NAME^FIRST", help="Everything of a person, region-wide; with --born and --sex.")
@click.option("--born", metavar="YYYYMMDD", help="The person's birth date.")
@click.option("--sex", metavar="F|M", help="The person's sex.")
@click.option("--ins", metavar="N", help="Everything of the person of this INS; alone or with --person.")
@by_option
@click.option(
    "--channel", type=click.Choice([c.value for c in Channel]), required=True, help="How the patient said so."
)
@click.option("--on", metavar="YYYY-MM-DD", help="The day on which the patient said so. Otherwise today.")
@click.option("--reason", metavar="TEXT", help="Why, in the correspondent's words.")
@config_option
@click.pass_context
def add(context: click.Context, /, by: str, study: tuple[str, ...], **typed: str | None) -> None:
    """Record an opposition, and print its id.

    Of an accession number or an IPP, the site is asked at once which studies it names, so that copies elsewhere are
    bound too. If it does not answer, the servers ask on.
    """
    given = {**typed, "study": " ".join(study) if study else None}
    empty = [
        (name, "is empty: give a value, or leave it out")
        for name in FIELDS
        if given[name] is not None and not str(given[name]).strip()
    ]
    try:
        if empty:
            raise BadDeclaration(empty)
        declaration = read_declaration({name: value or "" for name, value in given.items()}, date.today())
        done = run(_add(settings_of(context), by, declaration))
    except BadDeclaration as error:
        raise click.UsageError("\n".join(f"--{field}: {text}" for field, text in error.problems), context) from None
    click.echo(done.recorded.id)
    if not done.recorded.new:
        click.echo(f"Opposition {done.recorded.id} binds the same and stands already: nothing was added.", err=True)
        return
    click.echo(printable(f"Opposition {done.recorded.id} is recorded: {done.binding}. {done.studies}"), err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Added:
    recorded: Recorded
    binding: Binding
    studies: str = ""  # which studies are bound, in words


async def _add(settings: Settings, by: str, declaration: Declaration) -> _Added:
    async with open_work(settings, by) as work:
        if declaration.binding.emetteur is not None and work.directory.site(declaration.binding.emetteur) is None:
            raise UnknownSite(declaration.binding.emetteur)
        binding = located(declaration.binding, work.directory, work.long_ids)
        declaration = replace(declaration, binding=binding)
        permit(why_not_record(work.requester, binding))
        standing = await work.store.standing(binding)
        if standing is not None:
            return _Added(recorded=Recorded(standing, new=False), binding=binding)
        site = may_ask(binding, work.directory)
        bound = await studies_now(settings, work.directory, work.long_ids, site, binding) if site is not None else None

        async def traced(recorded: Recorded) -> None:
            await work.trace(
                work.event(
                    binding,
                    action="opposition-added",
                    opposition=recorded.id,
                    kind=binding.kind.value,
                    channel=declaration.channel.value,
                    declared_on=declaration.declared_on.isoformat(),
                    studies=len(binding.study_uids or (bound.study_uids if bound is not None else ())),
                )
            )

        recorded = await _record(work.store, declaration, by, bound, traced)
        return _Added(recorded=recorded, binding=binding, studies=_studies(binding, bound))


async def _record(
    store: OppositionStore,
    declaration: Declaration,
    by: str,
    bound: Bound | None,
    traced: Callable[[Recorded], Awaitable[None]],
) -> Recorded:
    if bound is None or (bound.error is not None and not bound.study_uids):
        return await store.add(declaration, by, traced=traced)
    return await store.add(declaration, by, found=bound.whose, whole=bound.error is None, traced=traced)


def _studies(binding: Binding, bound: Bound | None) -> str:
    match binding.kind:
        case OppositionKind.STUDY:
            return f"{_count(binding.study_uids)} bound."
        case OppositionKind.PERSON:
            return "It binds all exams of this person, in the whole region."
    number = "accession number" if binding.kind is OppositionKind.ACCESSION else "IPP"
    if bound is None or (bound.error is not None and not isinstance(bound.error, Incomplete)):
        why = "is not connected" if bound is None or bound.error is None else f"does not answer ({bound.error.status})"
        return (
            f"{binding.emetteur} {why}: what it holds under this {number} is bound from now on, and the servers bind "
            "copies elsewhere once it has said which studies these are."
        )
    found = f"{binding.emetteur} holds {_count(bound.study_uids)} under it now"
    if bound.error is not None:
        return f"{found} and has more than it gives: these are bound, and the servers ask on."
    if not bound.study_uids:
        return f"{found}: check that the {number} is right. What comes under it later is bound too."
    return f"{found}, bound wherever they are."


def _count(study_uids: tuple[str, ...]) -> str:
    return f"{len(study_uids)} {'study' if len(study_uids) == 1 else 'studies'}"


@oppositions.command()
@number_argument
@by_option
@click.option("--reason", default="", callback=_reason, metavar="TEXT")
@config_option
@click.pass_context
def lift(context: click.Context, /, number: int, by: str, reason: str) -> None:
    """End an opposition: the patient agrees to share again. It stays in the record."""
    run(_lift(settings_of(context), number, by, reason))
    click.echo(f"Opposition {number} is lifted.")


async def _lift(settings: Settings, number: int, by: str, reason: str) -> None:
    async with open_work(settings, by) as work:
        opposition = await work.store.get(number)
        permit(why_not_lift(work.requester, opposition.binding, opposition.recorded_at_site))
        binding = opposition.binding
        event = work.event(binding, action="opposition-lifted", opposition=number, kind=binding.kind.value)
        await work.store.lift(number, by, reason, traced=lambda: work.trace(event))


@oppositions.command(name="list")
@site_option
@click.option("--all", "lifted", is_flag=True, help="Also those that were lifted.")
@format_option
@config_option
@click.pass_context
def list_(context: click.Context, /, site: str | None, lifted: bool, form: str) -> None:
    """List oppositions in the order in which they were recorded.

    Those of a site are those to its accession numbers and IPPs, and what its people recorded else.
    """

    async def read(store: OppositionStore, emetteur: str | None) -> str:
        found = await store.all(emetteur, lifted=lifted)
        return output.as_json(found) if form == "json" else output.as_table(found)

    click.echo(run(read_all(settings_of(context), site, read)))


@oppositions.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@by_option
@config_option
@click.pass_context
def import_(context: click.Context, /, file: Path, by: str) -> None:
    """Record the oppositions of a CSV file, all or none.

    The first line names the columns that are there: study (several separated by spaces), accession, ipp, site, person,
    born, sex, ins, channel, on, reason, with what `add` takes. Separator: comma or semicolon. What stands already is
    not added again.

    Sites are not asked here: the servers do it, and then bind the copies that are elsewhere.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}") from None
    table, recorded = run(_import(settings_of(context), content, by))
    if table.encoding != "UTF-8":
        click.echo(f"{file} is not UTF-8 and was read as {table.encoding}: check the names with accents.", err=True)
    standing = [(line.number, r.id) for line, r in zip(table.lines, recorded, strict=True) if not r.new]
    for line, number in standing[:_TOLD_MAX]:
        click.echo(f"line {line}: opposition {number} binds the same and stands already", err=True)
    if len(standing) > _TOLD_MAX:
        click.echo(f"… and {len(standing) - _TOLD_MAX} more lines that stand already", err=True)
    new = [r.id for r in recorded if r.new]
    ids = "" if not new else f" (id {new[0]})" if len(new) == 1 else f" (ids {new[0]} to {new[-1]})"
    click.echo(f"{count(len(new), 'opposition')} recorded{ids}, {len(standing)} stood already.")


async def _import(settings: Settings, content: bytes, by: str) -> tuple[Table, list[Recorded]]:
    async with open_work(settings, by) as work:
        table = read_table(
            content,
            work.directory,
            today=date.today(),
            long_ids=work.long_ids,
            why_not=lambda binding: why_not_record(work.requester, binding),
        )
        sites = {line.declaration.binding.emetteur for line in table.lines}

        async def traced(new: list[int]) -> None:
            event = work.event(None, action="oppositions-imported", oppositions=len(new), first=new[0], last=new[-1])
            await work.trace(replace(event, origin=(next(iter(sites)) or "") if len(sites) == 1 else ""))

        return table, await work.store.add_all([line.declaration for line in table.lines], by, traced=traced)


for _command in (near_matches.review, near_matches.confirm, near_matches.dismiss):
    oppositions.add_command(_command)
