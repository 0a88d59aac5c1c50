"""`imagora search`: QIDO-RS from a shell"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import date
from typing import Any

import click
import orjson

from imagora.commands import criteria as typed
from imagora.commands.common import Failure, config_option, settings_of
from imagora.commands.search_output import as_csv, as_table
from imagora.commands.tables import count, printable
from imagora.search_client import Heard, Row, SearchClient, SearchFailed
from registry.model import EMETTEUR_PATTERN, slugify
from registry.rules import check_http_url

INCOMPLETE = 3


def _root(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_http_url(value).removesuffix("/dicom-web").rstrip("/")
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command()
@click.option("--name", type=typed.name, metavar="NAME", help="Patient's name: 'DUPONT^M*' or 'dupont,m*'.")
@click.option("--born", type=typed.day, metavar="DATE", help="Patient's birth date.")
@click.option("--patient-id", type=typed.words, metavar="ID", help="PatientID: an IPP, or IPP@EMETTEUR.")
@click.option("--accession", type=typed.words, metavar="NUMBER", help="Accession number.")
@click.option("--modality", type=typed.modality, metavar="CODE", help="Modality: CT, MR, US, DX, MG…")
@click.option("--description", type=typed.words, metavar="TEXT", help="Study description: '*thorax*'.")
@click.option("--since", type=typed.period, metavar="DATE", help="Exams from this day (month, year) on.")
@click.option("--until", type=typed.period, metavar="DATE", help="Exams up to this day (month, year) included.")
@click.option("--study", type=typed.uid, metavar="UID", help="StudyInstanceUID.")
@click.option(
    "--scope",
    type=typed.words,
    metavar="EMETTEUR|FOLDER|all",
    default="all",
    show_default=True,
    help="Where to look: one site, one folder (as mirc-historique), or everywhere.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show at most N exams. Otherwise all.")
@click.option(
    "--url",
    callback=_root,
    metavar="BASE",
    help="The server's address, as http://127.0.0.1:8080. Otherwise server.public_url of the settings.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=3600),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the server may stay silent.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json: the rows in DICOM JSON. csv: UTF-8, commas, a header line; safe to open in a spreadsheet.",
)
@config_option
@click.pass_context
def search(
    context: click.Context,
    /,
    scope: str,
    limit: int | None,
    url: str | None,
    timeout: float,
    form: str,
    since: typed.Period | None,
    until: typed.Period | None,
    **criteria: Any,
) -> None:
    """Search for exams through a running server, newest first.

    Names match whatever their case, accents, hyphens and apostrophes. In names, ids, accession numbers and
    descriptions, * stands for any text and ? for one character. Dates are written 1960-05-12, 19600512 or
    12/05/1960; --since and --until also take a month (2020-03) or a year (2020).

    A search that is not within one site must say something of the patient (two letters of the family name, a birth
    date with a letter of the name, a PatientID, an accession number) or name a UID, unless the server is set
    otherwise.

    A server that asks who you are takes the bearer token in the environment variable IMAGORA_TOKEN.

    Warnings go to standard error. Exit status:

    \b
    0  done
    1  no answer: the server cannot be reached, refuses, or no source answered
    2  wrong command line or settings
    3  an answer, but an incomplete one: a source is missing or was cut, or none was asked
    """
    if since is not None and until is not None and since.first > until.last:
        raise click.UsageError("--since is later than --until", context)
    root = url if url is not None else settings_of(context).server.public_url
    filters = _filters(since.first if since else None, until.last if until else None, **criteria)
    with contextlib.closing(SearchClient(root, timeout_s=timeout, token=os.environ.get("IMAGORA_TOKEN"))) as client:
        try:
            rows = _rows(client, scope, filters, limit)
        except SearchFailed as error:
            _tell(client.heard)
            raise Failure(printable(str(error))) from None
    click.echo(_shown(rows, form, client.heard), nl=form != "csv")
    _tell(client.heard)
    if client.heard.remaining and limit is not None and len(rows) >= limit:
        more = f"{'at least ' * client.heard.at_least}{client.heard.remaining}"
        click.echo(f"{more} more: ask for them with a larger --limit.", err=True)
    if client.heard.incomplete:
        context.exit(INCOMPLETE)


def _filters(
    since: date | None,
    until: date | None,
    *,
    name: str | None,
    born: date | None,
    patient_id: str | None,
    accession: str | None,
    modality: str | None,
    description: str | None,
    study: str | None,
) -> dict[str, str]:
    """Matching attributes by keyword (PS3.18 §10.6.1.2)."""
    filters = {
        "PatientName": name,
        "PatientBirthDate": _da(born) if born is not None else None,
        "PatientID": patient_id,
        "AccessionNumber": accession,
        "ModalitiesInStudy": modality,
        "StudyDescription": description,
        "StudyInstanceUID": study,
        "StudyDate": f"{_da(since)}-{_da(until)}" if since is not None or until is not None else None,
    }
    return {keyword: value for keyword, value in filters.items() if value is not None}


def _da(day: date | None) -> str:
    return f"{day:%Y%m%d}" if day is not None else ""


def _rows(client: SearchClient, scope: str, filters: dict[str, str], limit: int | None) -> list[Row]:
    """All pages, in the first scope of that name that the server knows."""
    prefixes = _prefixes(scope)
    for prefix in prefixes:
        try:
            return [row for page in client.pages(prefix, filters, limit) for row in page]
        except SearchFailed as error:
            if error.status != 404:
                raise
    if prefixes == [""]:
        raise SearchFailed("there is no DICOMweb façade at this address: --url names another")
    raise SearchFailed(f"there is no site and no folder {scope!r}: `imagora sites list` shows all", 404)


def _prefixes(scope: str) -> list[str]:
    """Where a scope may be: an EMETTEUR and a folder's slug look alike. A folder's name does as well."""
    if scope.casefold() == "all":
        return [""]
    site = [f"/sites/{scope}"] if EMETTEUR_PATTERN.fullmatch(scope) else []
    folder = [f"/folders/{slug}"] if (slug := slugify(scope)) else []
    return [*site, *folder]


def _shown(rows: Sequence[Row], form: str, heard: Heard) -> str:
    if form == "json":
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()
    if form == "csv":
        return as_csv(rows)
    if rows:
        return f"{as_table(rows)}\n\n{count(len(rows), 'exam')}."
    if not heard.asked:
        return "Nothing was searched."
    return "No exam found by the sources that answered." if heard.incomplete else "No exam found."


def _tell(heard: Heard) -> None:
    for warning in heard.warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)
