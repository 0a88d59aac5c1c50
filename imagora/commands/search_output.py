"""Rows of a study search for people (a table) and for spreadsheets (CSV)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from federation.identity import SCHEME
from federation.names import alphabetic
from imagora.commands.tables import safe_cell, table

Row = Mapping[str, Any]


def values(row: Row, tag: str) -> list[Any]:
    found = row.get(tag, {}).get("Value")
    return [value for value in found if value is not None] if isinstance(found, list) else []


def text(row: Row, tag: str) -> str:
    return str(values(row, tag)[0]) if values(row, tag) else ""


def _day(tag: str) -> Callable[[Row], str]:
    """`20240110` → `2024-01-10`; anything else as it is."""
    return lambda row: re.sub(r"(\d{4})(\d{2})(\d{2})", r"\1-\2-\3", text(row, tag).strip())


def _plain(tag: str) -> Callable[[Row], str]:
    return lambda row: text(row, tag)


def _several(tag: str) -> Callable[[Row], str]:
    return lambda row: " ".join(map(str, values(row, tag)))


def _name(row: Row) -> str:
    return next((alphabetic(value) for value in values(row, "00100010")), "")


def _name_for_people(row: Row) -> str:
    return " ".join(_name(row).replace("^", " ").split())


def _origin(tag: str) -> Callable[[Row], str]:
    """From the item of InstitutionCodeSequence that the façade wrote."""

    def read(row: Row) -> str:
        items = (item for item in values(row, "00080082") if isinstance(item, dict))
        return next((text(item, tag) for item in items if text(item, "00080102") == SCHEME), "")

    return read


def _size(row: Row) -> str:
    counts = [text(row, tag) or "?" for tag in ("00201206", "00201208")]
    return "/".join(counts) if counts != ["?", "?"] else ""


_TABLE: Sequence[tuple[str, Callable[[Row], str]]] = (
    ("DATE", _day("00080020")),
    ("MOD", _several("00080061")),
    ("DESCRIPTION", _plain("00081030")),
    ("NAME", _name_for_people),
    ("BORN", _day("00100030")),
    ("SEX", _plain("00100040")),
    ("PATIENT ID", _plain("00100020")),
    ("SITE", _origin("00080100")),
    ("EMETTEUR", _several("00080054")),
    ("SERIES/IMAGES", _size),
)
_CSV: Sequence[tuple[str, Callable[[Row], str]]] = (
    ("study_date", _day("00080020")),
    ("study_time", _plain("00080030")),
    ("modalities", _several("00080061")),
    ("description", _plain("00081030")),
    ("patient_name", _name),
    ("birth_date", _day("00100030")),
    ("sex", _plain("00100040")),
    ("patient_id", _plain("00100020")),
    ("accession_number", _plain("00080050")),
    ("site", _origin("00080100")),
    ("site_name", _origin("00080104")),
    ("emetteurs", _several("00080054")),
    ("series", _plain("00201206")),
    ("instances", _plain("00201208")),
    ("study_uid", _plain("0020000D")),
    ("url", _plain("00081190")),
)


def as_table(rows: Sequence[Row]) -> str:
    return table([[head for head, _ in _TABLE], *([read(row) for _, read in _TABLE] for row in rows)])


def as_csv(rows: Sequence[Row]) -> str:
    """RFC 4180 with a header line, UTF-8, lines ended by LF. What would be a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([head for head, _ in _CSV])
    writer.writerows([safe_cell(read(row)) for _, read in _CSV] for row in rows)
    return out.getvalue()
