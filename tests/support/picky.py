"""A scripted PACS that is poor in chosen ways: of searches, forms and HTTP."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from support.peer import Connection, Request

Row = dict[str, Any]
_UIDS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
_IGNORED = {"limit", "offset", "includefield"}


@dataclass
class Picky:
    """`rows` are of instances, each with what its series and study have; searches of studies give one of each study."""

    rows: list[Row]
    limit: bool = True
    offset: bool = True
    any_case: bool = True
    star: bool = True
    question: bool = True
    decodes: bool = True
    lists: tuple[str, ...] = (",", "\\")
    includefield: bool = True
    across: bool = True
    below: bool = True
    no_match: int = 204
    json: tuple[str, ...] = ("application/dicom+json", "application/json")
    nonsense: bool = False  # what it sends as application/json is not DICOM's
    charset: str = "utf-8"
    unknown: int = 404  # the status of what is not offered
    methods: tuple[str, ...] = ("HEAD", "OPTIONS")
    metadata: list[Row] = field(default_factory=list)
    #: path's end → (media type that must stand in Accept, body, content type)
    forms: dict[str, tuple[str, bytes, str]] = field(default_factory=dict)

    async def __call__(self, request: Request, connection: Connection) -> None:
        if request.method != "GET":
            known = request.method in self.methods
            await connection.answer(200 if known else 405, b"", "text/plain")
            return
        accept = request.headers.get("accept", "")
        if request.path.endswith("/metadata") and self.metadata:
            await self._json(self.metadata, accept, connection)
            return
        level = request.path.rsplit("/", 1)[1]
        if level in _UIDS:
            await self._search(request, level, accept, connection)
            return
        for end, (wanted, body, content_type) in self.forms.items():
            if re.search(end, request.path) and wanted in accept:
                await connection.answer(200, body, content_type)
                return
        await connection.answer(self.unknown, b"", "text/plain")

    async def _search(self, request: Request, level: str, accept: str, connection: Connection) -> None:
        path = dict(re.findall(r"/(studies|series)/([0-9.]+)", request.path))
        if (not path and level != "studies" and not self.across) or (path and not self.below):
            await connection.answer(self.unknown, b"", "text/plain")
            return
        asked = {tag: value for tag, value in request.query if tag not in _IGNORED}
        if not self.decodes:
            asked = {tag: quote(value, safe="*,@?/:") for tag, value in asked.items()}
        wanted = [r for r in self.rows if all(_text(r, _UIDS[above]) == uid for above, uid in path.items())]
        found = {_text(r, _UIDS[level]): r for r in wanted if all(self._matches(r, *one) for one in asked.items())}
        offset = int((request.values("offset") or ["0"])[0]) if self.offset else 0
        limit = int((request.values("limit") or ["1000"])[0]) if self.limit else 1000
        include = set(request.values("includefield"))
        unasked = {"00280004", "00080070"} - (include if self.includefield else set())
        rows = [{t: c for t, c in row.items() if t not in unasked} for row in found.values()][offset : offset + limit]
        if not rows and self.no_match != 200:
            await connection.answer(self.no_match, b"", "text/plain")
            return
        await self._json(rows, accept, connection)

    def _matches(self, row: Row, tag: str, wanted: str) -> bool:
        text = _text(row, tag)
        if tag in _UIDS.values():
            return any(text in wanted.split(separator) for separator in self.lists) or text == wanted
        if not self.star:
            wanted = wanted.replace("*", "[*]")
        if not self.question:
            wanted = wanted.replace("?", "[?]")
        fold = str.casefold if self.any_case else str
        return fnmatch.fnmatchcase(fold(text), fold(wanted))

    async def _json(self, rows: list[Row], accept: str, connection: Connection) -> None:
        if accept not in self.json:
            await connection.answer(406, b"", "text/plain")
        elif self.nonsense and accept == "application/json":
            await connection.answer(200, b'{"studies": "many"}', accept)
        else:
            body = orjson.dumps(rows).decode().encode(self.charset)
            await connection.answer(200, body, accept)


def _text(row: Row, tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return values[0].get("Alphabetic", "") if isinstance(values[0], dict) else str(values[0])


def instance(study: str, series: str, sop: str, *, name: str = "DUPONT^MARIE", accession: str = "A 1") -> Row:
    return {
        "0020000D": {"vr": "UI", "Value": [study]},
        "0020000E": {"vr": "UI", "Value": [series]},
        "00080018": {"vr": "UI", "Value": [sop]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00100020": {"vr": "LO", "Value": ["4547"]},
        "00100030": {"vr": "DA", "Value": ["19600512"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "00080020": {"vr": "DA", "Value": ["20240101"]},
        "00080030": {"vr": "TM", "Value": ["101500"]},
        "00080050": {"vr": "SH", "Value": [accession]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00201208": {"vr": "IS", "Value": [1]},
        "00280004": {"vr": "CS", "Value": ["MONOCHROME2"]},
        "00280010": {"vr": "US", "Value": [16]},
        "00280011": {"vr": "US", "Value": [16]},
        "00280100": {"vr": "US", "Value": [16]},
    }
