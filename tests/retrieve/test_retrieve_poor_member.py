"""A member that does the least that can be called DICOMweb looks through the façade as a real Orthanc does.

Two regions have one hospital each, of the same name and with the same exams: one is an Orthanc, the other is poor.
"""

from __future__ import annotations

import io
import pprint
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from retrieve_files import number_of_frames
from retrieve_member import read
from retrieve_poor import poor

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

#: By how much two decoders of lossy JPEG may differ in a value.
LOSSY_OFF = 3
SITE = "csrom41200"
DICOM, OCTETS, XML = (f'multipart/related; type="application/{t}"' for t in ("dicom", "octet-stream", "dicom+xml"))


def _exam(seed: str, name: str, number: int, **more: Any) -> list[bytes]:
    more = {"rows": 24, "columns": 20, "charset": "ISO_IR 100", "patient_id": f"IPP{number}", **more}
    return exams.study(
        seed=f"poor-{seed}",
        name=name,
        study_date=f"2024010{number}",
        study_id=str(number),
        accession=f"A{number}",
        **more,
    )


EXAMS = {
    "two series": _exam("one", "LEFÈVRE-DUPRÉ^Hélène", 1, n_series=2, n_instances=3, description="Scanner à vide"),
    "JPEG 2000": _exam(
        "two", "lefevre dupre^helene", 2, n_instances=2, transfer_syntax=JPEG2000Lossless, modality="MR"
    ),
    "RLE": _exam("three", "Çelik^François", 3, transfer_syntax=RLELossless, frames=3),
    "JPEG": _exam("four", "D'ANGÉLY^Anaïs", 4, transfer_syntax=JPEGBaseline8Bit, bits=8, modality="US", frames=4),
    "plain": _exam("five", "MARTIN^ZOÉ", 5, n_instances=4, birth_date="19701231", sex="F"),
}
#: pydicom's: another syntax or pixels of another kind each, one that is no image, one that is sick.
FILES = [
    *(
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "image_dfl.dcm",
        "SC_rgb_jpeg_dcmd.dcm",
        "ExplVR_BigEnd.dcm",
    ),
    *("rtplan.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "examples_palette.dcm", "SC_ybr_full_422_uncompressed.dcm"),
]


@dataclass(frozen=True)
class Two:
    """Each answer of both regions: the Orthanc's first."""

    good: str
    poor: str
    held: list[Dataset]

    def get(self, path: str, accept: str | None = None) -> tuple[requests.Response, requests.Response]:
        headers = {"Accept": accept} if accept else {}
        good, other = (requests.get(f"{root}{path}", headers=headers, timeout=60) for root in (self.good, self.poor))
        return good, other

    def wire(self, path: str, accept: str | None = None) -> tuple[wire.Seen, wire.Seen]:
        headers = {"Accept": accept} if accept else {}
        return wire.get(self.good, path, headers), wire.get(self.poor, path, headers)


@pytest.fixture(scope="module")
def two(serve_module) -> Iterator[Two]:
    files = [Path(str(pydicom.data.get_testdata_file(name))).read_bytes() for name in FILES]
    data = [*(d for exam in EXAMS.values() for d in exam), *files]
    with ExitStack() as stack:
        orthanc = stack.enter_context(OrthancServer())
        orthanc.upload(data)
        member = stack.enter_context(poor(data))
        good, other = (
            serve_module({SITE: url}, search={"deadline_s": 30}).dicomweb()
            for url in (orthanc.dicomweb_url, member.url)
        )
        yield Two(good, other, [h.dataset for h in member.held])


def place(dataset: Dataset, level: str = "instance") -> str:
    path = f"/studies/{dataset.StudyInstanceUID}"
    if level != "study":
        path += f"/series/{dataset.SeriesInstanceUID}"
    return f"{path}/instances/{dataset.SOPInstanceUID}" if level == "instance" else path


def one_of_each_series(held: list[Dataset]) -> list[Dataset]:
    return list({str(d.SeriesInstanceUID): d for d in held}.values())


#: Headers that are another each time, or tell the length of what is another: of a boundary, an address, a time.
_ALWAYS_OTHER = {
    "date",
    "content-length",
    "etag",
    "x-request-id",
    "content-type",
    "transfer-encoding",
    "imagora-sources",
}


def headers(answer: requests.Response | wire.Seen, root: str) -> dict[str, str]:
    kept = {k.lower(): v.replace(root, "") for k, v in answer.headers.items() if k.lower() not in _ALWAYS_OTHER}
    kind = answer.headers.get("content-type", "")
    kept["content-type"] = re.sub(r"boundary=\S+", "boundary", kind)
    kept["imagora-sources"] = re.sub(r";\d+(?=,|$)", "", answer.headers.get("imagora-sources", ""))
    return kept


def same_headers(two: Two, good: Any, other: Any) -> str:
    ours = [headers(good, two.good.removesuffix("/dicom-web")), headers(other, two.poor.removesuffix("/dicom-web"))]
    return "" if ours[0] == ours[1] else f"headers {ours[0]} and {ours[1]}"


# Searches -------------------------------------------------------------------------------------------------------------

#: Only Orthanc returns them, and the standard wants them where they are known. For the same reason `includefield=all`
#: is not among the searches: a row has what its member knows.
_EXTRA = {
    "00080056",  # InstanceAvailability "ONLINE", from Orthanc itself
    "00081030",
    "00080201",
}
NAMES = [
    *("LEFEVRE*", "lefèvre*", "*h%C3%A9l%C3%A8ne", "LEFEVRE DUPRE^HELENE", "d'angely*", "dangely^ana*", "%C3%87*"),
    *("celik^francois", "M?RTIN*", "martin^zoe", "*nobody*"),
]
PATIENTS = ["IPP1", "IPP1@csrom41200", "IPP*", "ipp1"]
SEARCHES = [
    *("/studies", "/series", "/instances", "/studies?limit=3", "/studies?limit=3&offset=3", "/studies?offset=11"),
    *("/instances?limit=5&offset=4", "/series?limit=2&offset=1", "/studies?limit=0", "/studies?offset=500"),
    *(f"/studies?PatientName={name}" for name in NAMES),
    *(f"/instances?PatientName={name}" for name in ("lefevre*", "*francois")),
    *(f"/series?PatientName={name}" for name in ("lefevre dupre*", "MARTIN*")),
    "/studies?PatientName=lefebvre&fuzzymatching=true",
    *(f"/studies?PatientID={number}" for number in PATIENTS),
    *("/studies?StudyDate=20240102-20240104", "/studies?StudyDate=-20240102", "/studies?StudyDate=20240104-"),
    *("/studies?AccessionNumber=A3", "/studies?StudyID=3", "/studies?PatientBirthDate=19701231"),
    *("/studies?PatientSex=F", "/studies?ModalitiesInStudy=MR", "/series?Modality=MR"),
    *("/studies?StudyDescription=Scanner*", "/studies?includefield=StudyDescription&PatientID=IPP1"),
    *("/studies?Nonsense=1", "/studies?PatientName=LEF%C3%88VRE*&StudyDate=20240101&limit=1"),
]


def rows(answer: requests.Response, root: str) -> list[dict[str, Any]]:
    found = answer.json() if answer.status_code == 200 else []
    text = root.removesuffix("/dicom-web")
    cleaned = []
    for row in found:
        kept = {t: v for t, v in row.items() if t not in _EXTRA and v.get("Value")}
        kept["00081190"] = {"vr": "UR", "Value": [v.replace(text, "") for v in row["00081190"]["Value"]]}
        cleaned.append(kept)
    return cleaned


def test_searches_find_the_same_rows(two: Two) -> None:
    uids = "%2C".join(sorted({str(d.StudyInstanceUID) for d in two.held})[:4])
    first = two.held[0]
    below = [f"{place(first, 'study')}/series", f"{place(first, 'study')}/instances?limit=2&offset=1"]
    below += [f"{place(first, 'series')}/instances", f"{place(first, 'study')}/series?SeriesNumber=2"]
    problems: dict[str, Any] = {}
    for path in (*SEARCHES, *below, f"/studies?StudyInstanceUID={uids}", f"/series?StudyInstanceUID={uids}"):
        good, other = two.get(path)
        ours = [rows(good, two.good), rows(other, two.poor)]
        if good.status_code != other.status_code:
            problems[path] = f"{good.status_code} and {other.status_code}: {other.text[:150]}"
        elif len(ours[0]) != len(ours[1]):
            problems[path] = f"{len(ours[0])} and {len(ours[1])} rows"
        elif ours[0] != ours[1]:
            problems[path] = next(
                f"row {n}: {t}: {a.get(t)} and {b.get(t)}"
                for n, (a, b) in enumerate(zip(*ours, strict=True))
                for t in sorted(a.keys() | b.keys())
                if a.get(t) != b.get(t)
            )
        elif problem := same_headers(two, good, other):
            problems[path] = problem
    assert not problems, pprint.pformat(problems, width=200)


# Instances, metadata, frames, pictures --------------------------------------------------------------------------------


def test_instances_are_the_same(two: Two) -> None:
    """Bytes are, where both give what is stored; else the elements: Orthanc and we write them each in our way."""
    problems: dict[str, str] = {}
    for dataset in one_of_each_series(two.held):
        for level in ("instance", "series", "study"):
            for accept in (None, f"{DICOM}; transfer-syntax=*", "application/dicom"):
                path = f"{place(dataset, level)} {accept}"
                good, other = two.wire(place(dataset, level), accept)
                if (good.status, good.ended) != (other.status, other.ended):
                    problems[path] = f"{good.status} and {other.status}: {other.body[:150]!r}"
                    continue
                if problem := same_headers(two, good, other):
                    problems[path] = problem
                    continue
                single = level == "instance" and accept == "application/dicom"
                parts = [
                    {"": seen.body} if single else {p.location.partition("/studies")[2]: p.body for p in seen.parts}
                    for seen in (good, other)
                ]
                if parts[0].keys() != parts[1].keys():
                    problems[path] = f"{parts[0].keys()} and {parts[1].keys()}"
                for sop in parts[0].keys() & parts[1].keys():
                    if problem := differ(*(read(p[sop]) for p in parts), lossy=is_lossy(dataset)):
                        problems[path] = problem
    assert not problems, pprint.pformat(problems, width=200)


def is_lossy(dataset: Dataset) -> bool:
    return str(dataset.file_meta.TransferSyntaxUID) == JPEGBaseline8Bit


def differ(one: Dataset, other: Dataset, *, lossy: bool) -> str:
    if one.file_meta.TransferSyntaxUID != other.file_meta.TransferSyntaxUID:
        return f"{one.file_meta.TransferSyntaxUID} and {other.file_meta.TransferSyntaxUID}"
    described = {0x00280004, 0x00280006}  # of lossy colours, which Orthanc leaves as YBR
    for tag in sorted({*one.keys(), *other.keys()}):
        if tag.element == 0 or tag.group == 0xFFFC or tag in described:
            continue
        if tag == 0x7FE00010:
            if any(one.get(t) != other.get(t) for t in described) or one[tag].value == other[tag].value:
                continue
            if not lossy:
                return "pixels"
            off = np.abs(np.subtract(*(np.frombuffer(d[tag].value, np.uint8).astype(int) for d in (one, other)))).max()
            if off > LOSSY_OFF:
                return f"pixels by {off}"
        elif tag not in one or tag not in other:
            return f"{tag} only in {'one' if tag in one else 'the other'}"
        elif str(one[tag].value) != str(other[tag].value) and one[tag].VR == other[tag].VR:
            return f"{tag}: {one[tag].value!r} and {other[tag].value!r}"
    return ""


def stripped(value: Any) -> Any:
    """Orthanc keeps the padding of single values."""
    if isinstance(value, dict):
        return {k: stripped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [stripped(v) for v in value]
    return value.strip() if isinstance(value, str) else value


def test_metadata_are_the_same(two: Two) -> None:
    """But for bulk data: what the poor one does not name has no URL."""
    problems: dict[str, str] = {}
    for dataset in one_of_each_series(two.held):
        for level in ("instance", "series", "study"):
            path = f"{place(dataset, level)}/metadata"
            good, other = two.get(path)
            if good.status_code != other.status_code:
                problems[path] = f"{good.status_code} and {other.status_code}: {other.text[:150]}"
                continue
            if problem := same_headers(two, good, other):
                problems[path] = problem
                continue
            both = [{r["00080018"]["Value"][0]: r for r in a.json()} for a in (good, other)]
            if both[0].keys() != both[1].keys():
                problems[path] = f"{len(both[0])} and {len(both[1])}"
                continue
            for sop, row in both[0].items():
                for tag in sorted(row.keys() | both[1][sop].keys()):
                    ours = [b[sop].get(tag, {}) for b in both]
                    if tag == "00081190" or "BulkDataURI" in ours[0] or tag.startswith("0002"):
                        continue
                    if stripped(ours[0].get("Value")) != stripped(ours[1].get("Value")):
                        problems[f"{path} {tag}"] = f"{ours[0]} and {ours[1]}"[:200]
            as_xml = two.get(path, XML)
            if [a.status_code for a in as_xml] != [200, 200]:
                problems[path] = "XML"
    assert not problems, pprint.pformat(problems, width=200)


def test_frames_are_the_same(two: Two) -> None:
    problems: dict[str, str] = {}
    for dataset in one_of_each_series(two.held):
        count = number_of_frames(dataset)
        for numbers in ("1", ",".join(map(str, range(count, 0, -1))), str(count + 1)):
            for accept in (None, f"{OCTETS}; transfer-syntax=*", 'multipart/related; type="image/dicom-rle"'):
                path = f"{place(dataset)}/frames/{numbers}"
                good, other = two.wire(path, accept)
                if (good.status, good.ended) != (other.status, other.ended):
                    problems[f"{path} {accept}"] = f"{good.status} and {other.status}: {other.body[:150]!r}"
                elif good.status != 200:
                    continue
                elif (problem := same_headers(two, good, other)) or len(good.parts) != len(other.parts):
                    problems[f"{path} {accept}"] = problem or "number"
                else:
                    for a, b in zip(good.parts, other.parts, strict=True):
                        if a.type.partition("syntax=")[2] != b.type.partition("syntax=")[2]:
                            problems[f"{path} {accept}"] = f"{a.type} and {b.type}"
                        elif a.body.rstrip(b"\0") != b.body.rstrip(b"\0"):
                            pair = [np.frombuffer(p.body, np.uint8).astype(int) for p in (a, b)]
                            # Colours may come in another space, which bytes don't tell: test_retrieve_matrix.
                            grey = dataset.SamplesPerPixel == 1
                            if not is_lossy(dataset) or (grey and np.abs(np.subtract(*pair)).max() > LOSSY_OFF):
                                problems[f"{path} {accept}"] = "other bytes"
    assert not problems, pprint.pformat(problems, width=200)


def test_pictures_are_alike(two: Two) -> None:
    """Orthanc makes its own, so greys differ: by little on average."""
    problems: dict[str, str] = {}
    for dataset in one_of_each_series(two.held):
        windowed = "WindowWidth" in dataset
        below = [place(dataset, level) for level in ("instance", "study")] + [f"{place(dataset)}/frames/1"]
        for path in below:
            for form in ("rendered", "thumbnail"):
                for accept in (None, "image/png", "image/gif"):
                    good, other = two.get(f"{path}/{form}", accept)
                    if good.status_code != other.status_code:
                        problems[f"{path}/{form} {accept}"] = f"{good.status_code} and {other.status_code}"
                    elif good.status_code == 200:
                        pictures = [Image.open(io.BytesIO(a.content)).convert("L") for a in (good, other)]
                        # Orthanc's tells what was asked for; one that is made here, which instance it shows.
                        for answer in (good, other):
                            assert dataset.StudyInstanceUID in answer.headers.pop("content-location")
                        problem = same_headers(two, good, other)
                        if pictures[0].size != pictures[1].size:
                            problem = f"{pictures[0].size} and {pictures[1].size}"
                        elif windowed and accept != "image/gif":
                            pass  # Orthanc shows what is from least to greatest, whatever window an instance has
                        elif (off := np.abs(np.subtract(*(np.asarray(p, float) for p in pictures))).mean()) > 20:
                            problem = f"off by {off:.1f}"
                        if problem:
                            problems[f"{path}/{form} {accept}"] = problem
    assert not problems, pprint.pformat(problems, width=200)
