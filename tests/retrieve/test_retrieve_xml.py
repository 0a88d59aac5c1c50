"""Metadata and search results as DICOM XML, over real Orthancs: the same as in JSON, attribute by attribute."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from pydicom.dataset import Dataset
from retrieve_archives import CT, EXAMS, FOLDERS, MR, US, archives
from retrieve_member import read
from support.native_model import check_model, data_set_of
from support.serving import Serving

XML = 'multipart/related; type="application/dicom+xml"'


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def root(members: dict[str, OrthancServer], serve_module) -> str:
    serving: Serving = serve_module({e: m.dicomweb_url for e, m in members.items()}, folders=FOLDERS)
    return serving.dicomweb()


def instance(exam: Any) -> str:
    dataset = read(exam.data[0])
    return f"/studies/{exam.uid}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def as_xml(root: str, path: str, accept: str | None = XML) -> list[dict[str, Any]]:
    seen = wire.get(root, path, {} if accept is None else {"Accept": accept})
    assert (seen.status, seen.ended, seen.closed) == (200, True, True)
    assert seen.headers["content-type"].startswith(f"{XML}; boundary=")
    found = []
    for part in seen.parts:
        assert part.type == "application/dicom+xml"
        document = ET.fromstring(part.body)
        check_model(document)
        found.append(data_set_of(document))
    return found


def as_json(root: str, path: str) -> list[dict[str, Any]]:
    seen = wire.get(root, path, {"Accept": "application/dicom+json"})
    assert seen.status == 200
    rows: list[dict[str, Any]] = json.loads(seen.body)
    return rows


def plain(value: Any) -> Any:
    """Without what both forms may write in two ways: an empty value, trailing carets, 1 and 1.0, numbers as text."""
    if isinstance(value, dict) and "vr" in value:
        vr, kept = value["vr"], {k: plain(v) for k, v in value.items()}
        if vr == "PN" and "Value" in kept:
            kept["Value"] = [{g: n.rstrip("^") for g, n in (v or {}).items() if n} for v in kept["Value"]]
        if vr in ("IS", "DS") and "Value" in kept:
            kept["Value"] = [None if v is None else float(v) for v in kept["Value"]]
        return {k: v for k, v in kept.items() if v not in ([], None)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if value == "" else value


@pytest.mark.parametrize("exam", [CT, US, MR], ids=EXAMS)
def test_metadata_say_the_same_in_both_forms(exam: Any, root: str) -> None:
    series = instance(exam).partition("/instances")[0]
    for path in (f"/studies/{exam.uid}", series, instance(exam)):
        xml, rows = as_xml(root, f"{path}/metadata"), as_json(root, f"{path}/metadata")
        assert len(rows) == (1 if "instances" in path else len(exam.data) if "series" not in path else len(xml))
        assert plain(xml) == plain(rows)


def test_metadata_are_what_the_instances_say(root: str) -> None:
    """Whose it is shown as, and the rest as pydicom reads it from the member's own file."""
    (xml,) = as_xml(root, f"{instance(US)}/metadata")
    own = read(US.data[0])
    shown = Dataset.from_json(xml, lambda *_: b"")
    assert shown.PatientID == US.patient_id
    assert shown.PatientName == own.PatientName
    assert shown.SpecificCharacterSet == "ISO_IR 192"
    assert (shown.Rows, shown.NumberOfFrames) == (own.Rows, own.NumberOfFrames)


@pytest.mark.parametrize(
    "path",
    [
        f"/studies?StudyInstanceUID={CT.uid}&includefield=all",
        f"/studies?PatientID={quote(MR.patient_id)}",
        "/studies?Modality=CT&ModalitiesInStudy=CT",
        f"/studies/{CT.uid}/series",
        f"/studies/{CT.uid}/instances",
        f"/series?StudyInstanceUID={US.uid}",
        f"/instances?StudyInstanceUID={MR.uid}",
    ],
)
def test_search_results_say_the_same_in_both_forms(path: str, root: str) -> None:
    assert plain(as_xml(root, path)) == plain(as_json(root, path)) != []


def test_asked_for_by_parameter(root: str) -> None:
    path = f"/studies/{CT.uid}/metadata"
    assert as_xml(root, f"{path}?accept={quote(XML, safe='')}", None) == as_xml(root, path)
    assert as_xml(root, f"{path}?accept={quote('multipart/related;type=application/dicom+xml')}", "*/*")


def test_no_match_has_no_body(root: str) -> None:
    seen = wire.get(root, "/studies?StudyInstanceUID=1.2.3", {"Accept": XML})
    assert (seen.status, seen.body) == (204, b"")


def test_a_refusal_is_plain(root: str) -> None:
    seen = wire.get(root, "/studies/1.2.3/metadata", {"Accept": XML})
    assert (seen.status, seen.headers["content-type"]) == (404, "application/json")
