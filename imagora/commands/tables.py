"""Tables for people, in columns as wide as a terminal shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns, two spaces apart, each column as wide as its widest cell. Cells are made `printable`."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    lines = (
        "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )
    return "\n".join(lines)


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def printable(text: str) -> str:
    """Without what a terminal would obey: control characters, and those that turn the direction of writing."""
    return "".join(c if c.isprintable() else " " for c in text)


def safe_cell(text: str) -> str:
    """A cell of a CSV file: texts come from anywhere, and a spreadsheet must not run them as formulas."""
    return "'" + printable(text) if text.lstrip(' "').startswith(_FORMULA) else printable(text)


def count(number: int, noun: str) -> str:
    """`1 site`, `2 sites`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
