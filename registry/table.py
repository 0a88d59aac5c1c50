"""Reads a table of sites from a CSV file. Pure: text in, values out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from registry import rules
from registry.model import Folder, Site, SiteStatus

REQUIRED = ("emetteur", "site", "name", "folder", "availability", "status")
OPTIONAL = ("dicomweb", "aet", "host", "port", "oid")


class TableError(Exception):
    """The table cannot be imported: one line per problem, with line and column. Nothing was imported."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    sites: tuple[Site, ...]
    folders: tuple[Folder, ...]  # named by the sites, in order of appearance


def read_table(content: bytes) -> Table:
    """Columns `emetteur,site,name,folder,availability,status`, then any of `dicomweb,aet,host,port,oid`.

    UTF-8, with or without a byte order mark; commas or, as spreadsheets in France write it, semicolons.
    Raises `TableError`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TableError([f"line {line}: not UTF-8: save the table as CSV UTF-8"]) from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", strict=True)
    problems: list[str] = []
    sites: list[Site] = []
    begun = 1  # a quoted cell may hold line breaks: a row is named by the line it begins on
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(columns)
        begun = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                site = _site(begun, columns, cells, problems)
                if site is not None:
                    sites.append(site)
            begun = reader.line_num + 1
    except csv.Error as error:
        raise TableError([*problems, f"line {begun}: not CSV: {error}"]) from None
    if problems:
        raise TableError(problems)
    if not sites:
        raise TableError(["line 2: there is no site in the table"])
    names = dict.fromkeys(site.folder for site in sites if site.folder is not None)
    return Table(sites=tuple(sites), folders=tuple(Folder(name=name) for name in names))


def _check_columns(columns: Sequence[str]) -> None:
    problems = [f"line 1: column {name!r} is missing" for name in REQUIRED if name not in columns]
    problems += [
        f"line 1: column {number} ({name!r}) is unknown: remove it; known are {', '.join((*REQUIRED, *OPTIONAL))}"
        for number, name in enumerate(columns, 1)
        if name not in REQUIRED and name not in OPTIONAL
    ]
    problems += [f"line 1: column {name!r} stands twice" for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if problems:
        raise TableError(problems)


def _site(line: int, columns: Sequence[str], cells: Sequence[str], problems: list[str]) -> Site | None:
    before = len(problems)
    if len(cells) != len(columns):
        problems.append(
            f"line {line}: has {len(cells)} cells where the first line has {len(columns)}: "
            "put a cell that holds the separator in double quotes"
        )
        return None
    row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}

    def read(column: str, check: Callable[[str], object]) -> object:
        """The value of a cell, or None where it is empty or wrong."""
        if not (cell := row.get(column, "")):
            return None
        try:
            return check(cell)
        except ValueError as error:
            problems.append(f"line {line}, column {column}: {error}")
            return None

    values: Mapping[str, object] = {
        "emetteur": read("emetteur", rules.check_emetteur),
        "number": read("site", rules.check_number),
        "name": read("name", rules.check_name),
        "folder": read("folder", rules.check_name),
        "availability": read("availability", rules.check_name) or "",
        "status": read("status", _status) or SiteStatus.MEMBER,
        "dicomweb": read("dicomweb", rules.check_http_url),
        "aet": read("aet", rules.check_ae_title),
        "host": read("host", rules.check_host),
        "port": read("port", rules.check_port),
        "oid": read("oid", rules.check_oid),
    }
    problems.extend(
        f"line {line}, column {column}: is empty: it must be filled" for column in REQUIRED[:3] if not row[column]
    )
    if len(problems) == before and (
        problem := rules.address_problem(aet=values["aet"], host=values["host"], port=values["port"])
    ):
        problems.append(f"line {line}, columns aet, host, port: {problem}")
    if len(problems) > before:
        return None
    return Site(**values)  # type: ignore[arg-type]  # each was checked above


def _status(cell: str) -> SiteStatus:
    try:
        return SiteStatus(cell.lower())
    except ValueError:
        raise ValueError(f"{cell!r} is not a status: write {', '.join(SiteStatus)}") from None
