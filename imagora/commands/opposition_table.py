"""Reads a table of oppositions from a CSV file. Pure: bytes in, values out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from consent.bindings import FIELDS, NAMING, BadDeclaration, Binding, Declaration, located, read_declaration
from registry import Directory
from registry.table import TableError

#: Beyond ASCII, what a French spreadsheet writes in Windows-1252. Other bytes speak of another encoding (of the Mac, of
#: DOS), whose letters would turn into others: a name read wrongly binds nobody.
_LETTERS = frozenset("àâäçéèêëîïôöùûüÿñæœÀÂÄÇÉÈÊËÎÏÔÖÙÛÜŸÑÆŒ’‘«»“”–—…°€·\u00a0")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, and its number in the file."""

    number: int
    declaration: Declaration


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    lines: tuple[Line, ...]
    encoding: str  # "UTF-8" or "Windows-1252"


def read_table(
    content: bytes,
    directory: Directory,
    *,
    today: date,
    long_ids: Mapping[str, tuple[str, str]],
    why_not: Callable[[Binding], str | None] = lambda _: None,
) -> Table:
    """Columns of `FIELDS`, named by the first line, in any order; UTF-8 with or without a byte order mark, or
    Windows-1252; commas or, as spreadsheets in France write it, semicolons. `why_not` says why one may not be recorded.

    Raises `TableError` with every problem of every line.
    """
    text, encoding = decode(content)
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", strict=True)
    problems: list[str] = []
    lines: list[Line] = []
    begun = 1  # a quoted cell may hold line breaks: a row is named by the line it begins on
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(columns)
        begun = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                try:
                    lines.append(Line(begun, _read(columns, cells, directory, today, long_ids, why_not)))
                except BadDeclaration as error:
                    problems += [
                        f"line {begun}, column {field}: {text}" if field else f"line {begun}: {text}"
                        for field, text in error.problems
                    ]
            begun = reader.line_num + 1
    except csv.Error as error:
        raise TableError([*problems, f"line {begun}: not CSV: {error}"]) from None
    if problems:
        raise TableError(problems)
    if not lines:
        raise TableError(["line 2: there is no opposition in the table"])
    return Table(lines=tuple(lines), encoding=encoding)


def decode(content: bytes) -> tuple[str, str]:
    """→ (text, its encoding). Raises `TableError` if that cannot be told."""
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = TableError([f"line {line}: neither UTF-8 nor Windows-1252: save the table as CSV UTF-8"])
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise problem from None
    if not all(c.isascii() or c in _LETTERS for c in text):
        raise problem
    return text, "Windows-1252"


def _check_columns(columns: Sequence[str]) -> None:
    known = ", ".join(FIELDS)
    problems = [
        f"line 1: column {number} ({name[:40]!r}) is unknown: remove it; known are {known}"
        for number, name in enumerate(columns, 1)
        if name not in FIELDS
    ]
    problems += [f"line 1: column {name!r} stands twice" for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if not problems and not any(name in columns for name in NAMING):
        problems.append(f"line 1: no column says what is opposed: name one of {', '.join(NAMING)}")
    if not problems and "channel" not in columns:
        problems.append("line 1: column 'channel' is missing: it says how the patient said so")
    if problems:
        raise TableError(problems)


def _read(
    columns: Sequence[str],
    cells: Sequence[str],
    directory: Directory,
    today: date,
    long_ids: Mapping[str, tuple[str, str]],
    why_not: Callable[[Binding], str | None],
) -> Declaration:
    if len(cells) != len(columns):
        text = (
            f"has {len(cells)} cells where the first line has {len(columns)}: "
            "put a cell that holds the separator in double quotes"
        )
        raise BadDeclaration([("", text)])
    declaration = read_declaration(dict(zip(columns, cells, strict=True)), today)
    declaration = replace(declaration, binding=located(declaration.binding, directory, long_ids))
    if (why := why_not(declaration.binding)) is not None:
        raise BadDeclaration([("", why)])
    return declaration
