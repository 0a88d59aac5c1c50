"""Traces for people (a table), for programs (JSON) and for spreadsheets (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

from consent.audit import CODES, OUTCOMES, UNCODED
from consent.chain import Link
from imagora.commands.tables import safe_cell, table

_TABLE_HEAD = (
    "AT",
    "KIND",
    "OUTCOME",
    "REQUESTER",
    "PATIENT",
    "ORIGIN",
    "STUDY OR QUERY",
    "SCOPE",
    "HOLDERS",
    "DETAIL",
)


def as_table(links: Sequence[Link]) -> str:
    return table([_TABLE_HEAD, *map(_row, links)])


def _row(link: Link) -> tuple[str, ...]:
    r = link.record
    return (
        f"{r.at.astimezone():%Y-%m-%d %H:%M:%S}",
        r.kind,
        r.outcome,
        f"{r.requester_id} {' '.join(r.requester_name.replace('^', ' ').split())}".strip()
        if r.requester_name != r.requester_id
        else r.requester_id,
        r.patient_id,
        r.origin,
        r.study_uid or r.query,
        r.scope,
        " ".join(r.holders),
        " ".join(f"{name}={value}" for name, value in orjson.loads(r.detail).items()),
    )


def as_object(link: Link) -> Mapping[str, object]:
    """One trace with DICOM's audit codes. Moments are UTC, hashes in hexadecimal."""
    r = link.record
    code = CODES.get(r.kind, UNCODED)
    return {
        "at": _moment(r.at),
        "kind": r.kind,
        "outcome": r.outcome,
        "requester_id": r.requester_id,
        "requester_name": r.requester_name,
        "patient_id": r.patient_id,
        "study_uid": r.study_uid,
        "origin": r.origin,
        "holders": list(r.holders),
        "scope": r.scope,
        "query": r.query,
        "request_id": r.request_id,
        "detail": orjson.loads(r.detail),
        "event_id": code.event_id,
        "event_id_meaning": code.meaning,
        "event_type_code": code.event_type,
        "event_action_code": code.action,
        "event_outcome_indicator": OUTCOMES.get(r.outcome, ""),
        "writer": link.writer,
        "sequence": link.sequence,
        "recorded_at": _moment(link.recorded_at),
        "previous": link.previous.hex(),
        "hash": link.hash.hex(),
    }


_OBJECT_KEYS = (
    *("at", "kind", "outcome", "requester_id", "requester_name", "patient_id", "study_uid", "origin", "holders"),
    *("scope", "query", "request_id", "detail", "event_id", "event_id_meaning", "event_type_code"),
    *("event_action_code", "event_outcome_indicator", "writer", "sequence", "recorded_at", "previous", "hash"),
)


def csv_head() -> str:
    """The header line, ended by LF."""
    return _csv_line(_OBJECT_KEYS)


def csv_line(link: Link) -> str:
    """One trace (RFC 4180), UTF-8, ended by LF. Formulas of spreadsheets are made texts."""
    cells = {**as_object(link), "holders": " ".join(link.record.holders), "detail": link.record.detail}
    return _csv_line([safe_cell(str(cells[key])) for key in _OBJECT_KEYS])


def json_text(link: Link, *, indent: bool = False) -> str:
    return orjson.dumps(as_object(link), option=orjson.OPT_INDENT_2 if indent else 0).decode()


def _csv_line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
