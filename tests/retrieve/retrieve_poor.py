"""A PACS that does the least that can be called DICOMweb: rows to the letter, instances as they are stored."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydicom.dataset import Dataset
from retrieve_member import Held, Holder, content_type, giving, multipart
from support.peer import Connection, Request

Row = dict[str, Any]
_LEVELS = ("studies", "series", "instances")
#: What Orthanc returns at each level, as far as the standard asks for it.
_KEYWORDS = (
    (
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID"),
        *("PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDescription"),
    ),
    ("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
)
_PATH = re.compile(r"(?:/studies/([0-9.]+))?(?:/series/([0-9.]+))?/(studies|series|instances)")
#: As a service spells them that knows of no UTF-8.
_CHARSET = "latin-1"


def poor(data: Iterable[bytes]) -> Holder:
    """It tells accents and cases apart, knows neither `limit` nor `offset` nor `includefield`, writes JSON in Latin-1,
    transcodes nothing, and has no metadata, frames, bulk data and pictures."""

    async def search(request: Request, connection: Connection, held: list[Held]) -> None:
        path = _PATH.fullmatch(request.path)
        assert path is not None
        study, series, collection = path.groups()
        level = _LEVELS.index(collection)
        rows = [row for row in _rows(held, level) if _is(row, "0020000D", study) and _is(row, "0020000E", series)]
        for tag, wanted in request.query:
            if re.fullmatch("[0-9A-F]{8}", tag):
                rows = [row for row in rows if _matches(row, tag, wanted)]
        body = json.dumps(rows, ensure_ascii=False).encode(_CHARSET)
        await connection.answer(200, body, "application/dicom+json")

    async def deliver(request: Request, connection: Connection, held: list[Held]) -> None:
        named = re.search(r"transfer-syntax=\"?([0-9.]+)", request.headers.get("accept", ""))
        if named is not None and any(str(h.dataset.file_meta.TransferSyntaxUID) != named[1] for h in held):
            await connection.answer(406, b"", "text/plain")
            return
        await connection.answer(200, multipart([h.data for h in held], "b"), content_type("b"))

    lacking = giving(404, b"", "text/plain")
    return Holder(data, searches=search, deliver=deliver, describe=lacking, other=lacking)


def _rows(held: list[Held], level: int) -> list[Row]:
    """Sorted by nothing but the order in which they were stored, the last first."""
    counts = [Counter(h.uids[: n + 1] for h in held) for n in range(3)]
    rows: dict[tuple[str, ...], Row] = {}
    for h in reversed(held):
        key = h.uids[: level + 1]
        if key in rows:
            continue
        found = Dataset()
        for keyword in (k for keywords in _KEYWORDS[: level + 1] for k in keywords):
            if keyword in h.dataset:
                found[keyword] = h.dataset[keyword]
        if level == 0:
            found.NumberOfStudyRelatedSeries = len({u[1] for u in counts[2] if u[0] == key[0]})
            found.NumberOfStudyRelatedInstances = counts[0][key]
            found.ModalitiesInStudy = sorted({str(o.dataset.Modality) for o in held if o.uids[0] == key[0]})
        elif level == 1:
            found.NumberOfSeriesRelatedInstances = counts[1][key]
        rows[key] = {**found.to_json_dict(), "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    return list(rows.values())


def _texts(row: Row, tag: str) -> list[str]:
    values = row.get(tag, {}).get("Value") or [""]
    return [v.get("Alphabetic", "") if isinstance(v, dict) else str(v) for v in values]


def _is(row: Row, tag: str, wanted: str | None) -> bool:
    return wanted is None or wanted in _texts(row, tag)


def _matches(row: Row, tag: str, wanted: str) -> bool:
    texts = _texts(row, tag)
    if row.get(tag, {}).get("vr") in ("DA", "TM") and "-" in wanted:
        low, _, high = wanted.partition("-")
        return any(t and (not low or t >= low) and (not high or t <= high) for t in texts)
    return any(fnmatch.fnmatchcase(t, wanted.replace("[", "[[]")) for t in texts)
