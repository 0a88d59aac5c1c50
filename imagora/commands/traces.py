"""`imagora traces`: who saw what, and whether the record of it is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from consent.chain import Head, Link
from consent.heads import Keys, ReadHeads, load_keys, read_heads
from consent.traces import Verification, select, verify
from imagora.commands import trace_output as output
from imagora.commands.behalf import by_option
from imagora.commands.common import Failure, config_option, open_database, open_registry, run, settings_of
from imagora.commands.tables import count
from imagora.commands.trace_reading import reading, select_for, trace_reading
from imagora.commands.traced import operator
from imagora.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

#: Findings that are told one by one.
_FINDINGS_MAX = 200


@click.group()
@config_option
def traces() -> None:
    """Traces of every search and access: list, export, verify.

    Reading them is traced too, before anything is shown. A reading does not stand in what it shows itself; later ones
    show it.
    """


def _selection(command: F) -> F:
    for option in reversed(
        (
            by_option(
                "On whose behalf: a correspondent reads the traces of his site's exams, a referent all. "
                "Otherwise whoever uses this machine reads all.",
                required=False,
            ),
            click.option("--site", metavar="EMETTEUR", help="Only exams that this site made."),
            click.option("--patient", metavar="ID", help="Only this patient: IPP@EMETTEUR, or an IPP at any site."),
            click.option("--practitioner", metavar="RPPS", help="Only what this professional, or node, did."),
            click.option(
                "--since",
                type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
                help="Only from this day, or moment, on (local time).",
            ),
            click.option("--emergencies", is_flag=True, help="Only emergency accesses and what was seen by them."),
        )
    ):
        command = option(command)
    return command


@traces.command(name="list")
@_selection
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@config_option
@click.pass_context
def list_(context: click.Context, /, limit: int, form: str, **asked: Any) -> None:
    """List traces, oldest first."""
    newest: deque[Link] = deque(maxlen=limit)
    total = run(_each(settings_of(context), "list", asked, newest.append))
    if form == "json":
        click.echo("[" + ",\n".join(output.json_text(link, indent=True) for link in newest) + "]")
    else:
        click.echo(output.as_table(newest))
        click.echo(f"\n{count(len(newest), 'trace')}.")
    if total > len(newest):
        click.echo(f"{total - len(newest)} older ones are left out: use --limit, or `imagora traces export`.", err=True)


@traces.command()
@_selection
@click.option("--format", "form", type=click.Choice(["json", "csv"]), required=True)
@config_option
@click.pass_context
def export(context: click.Context, /, form: str, **asked: Any) -> None:
    """Write traces to standard output, oldest first, all of them, with DICOM's audit codes (PS3.15 A.5.3).

    Moments are UTC. The CSV file is UTF-8; what a spreadsheet would take for a formula begins with an apostrophe.
    """
    settings = settings_of(context)
    if form == "csv":

        def begin() -> None:
            click.echo(output.csv_head(), nl=False)

        run(_each(settings, "export", asked, lambda link: click.echo(output.csv_line(link), nl=False), begin))
        return
    marks = iter(["[\n"])
    total = run(
        _each(
            settings,
            "export",
            asked,
            lambda link: click.echo(next(marks, ",\n") + output.json_text(link), nl=False),
        )
    )
    click.echo("\n]" if total else "[]")


async def _each(
    settings: Settings,
    action: str,
    asked: dict[str, Any],
    take: Callable[[Link], None],
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Trace the reading, `begin`, and give each selected trace to `take`; how many there were."""
    total = 0
    async with open_registry(settings) as store:
        reader, selection = select_for(await store.load(), asked["by"], asked)
        event = reading(action, reader, selection)
        await trace_reading(settings, store.database, event)
        begin()
        async with aclosing(select(store.database, selection)) as links:
            async for link in links:
                if link.record.request_id != event.request_id:
                    take(link)
                    total += 1
    return total


@traces.command(name="verify")
@click.option(
    "--heads",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="File of signed heads, as kept or copied elsewhere; may be given several times. Otherwise traces.heads_file.",
)
@config_option
@click.pass_context
def verify_(context: click.Context, files: Sequence[Path]) -> None:
    """Check that no trace was changed, removed, added, moved or cut off. The check itself is traced, after it.

    Each row must fit the one before it, and the rows must reach every signed head, in the database and in the file
    outside it. Exit status: 0 all is as it was written, 1 something is not, and it is named.

    The key of the traces must be on this machine, or its public part: traces.key_file.
    """
    settings = settings_of(context)
    outside, notes = _outside(files or (settings.heads_path,), given=bool(files))
    keys = load_keys(settings.trace_key_path)
    if keys is None:
        notes.append(f"There is no key at {settings.trace_key_path}: signed heads cannot be trusted without it.")
    result = run(_verify(settings, keys, outside))
    for finding in result.findings[:_FINDINGS_MAX]:
        click.echo(str(finding))
    if len(result.findings) > _FINDINGS_MAX:
        click.echo(f"… and {len(result.findings) - _FINDINGS_MAX} more.")
    click.echo(_summary(result))
    for note in notes:
        click.echo(note, err=True)
    if result.findings:
        raise Failure(f"the traces are not as they were written: {count(len(result.findings), 'finding')}")


async def _verify(settings: Settings, keys: Keys | None, outside: dict[str, list[Head]]) -> Verification:
    async with open_database(settings) as database:
        result = await verify(database, keys, outside)
        await trace_reading(settings, database, reading("verify", operator()))
    return result


def _outside(files: Sequence[Path], *, given: bool) -> tuple[dict[str, list[Head]], list[str]]:
    """The heads of the files by writer, and what is to be said of them."""
    heads: dict[str, list[Head]] = {}
    notes: list[str] = []
    for path in files:
        try:
            read: ReadHeads = read_heads(path)
        except FileNotFoundError:
            notes.append(f"There is no file {path}: rows that were cut off together with their heads do not show.")
            continue
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from None
        for writer, found in read.heads.items():
            heads.setdefault(writer, []).extend(found)
        if read.unreadable:
            lines = ", ".join(map(str, read.unreadable[:10])) + (", …" if len(read.unreadable) > 10 else "")
            notes.append(f"{path}: these of its {read.lines} lines are no heads, and were left out: {lines}.")
    return heads, notes


def _summary(result: Verification) -> str:
    if not result.rows:
        return "There are no traces."
    text = f"{count(result.rows, 'row')} in {count(sum(r.rows > 0 for r in result.runs), 'chain')} checked"
    text += f", recorded from {_moment(result.first_at)} to {_moment(result.last_at)}."
    if result.sealed_at is not None:
        text += f" The last head was signed {_moment(result.sealed_at)}."
    if result.unsealed:
        rows = count(result.unsealed, "row")
        text += f" Not signed yet, so that cutting them off would not show: {rows} at the end of chains."
    return text


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "?"
