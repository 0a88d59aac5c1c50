"""Every file of pydicom's test set that an Orthanc accepts, relayed as that Orthanc itself answers, but tagged."""

from __future__ import annotations

import io
import pprint
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from retrieve_member import read
from retrieve_wire import Part, Seen
from support.serving import Serving

# pydicom reads these files with many remarks about how they are made.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
DICOM, OCTETS = "application/dicom", "application/octet-stream"

#: What Orthanc does not store, so that there is nothing to relay.
NOT_DICOM = {
    "FileInfo.txt",
    "README",
    "README.txt",
    "crayons.icc",
    "rtplan.dump",
    "rtstruct.dump",
    "test1.json",
    "test_PN.json",
    "zipMR.gz",
}
REFUSED_BY_ORTHANC = {
    "DICOMDIR": "a directory, no instance",
    "DICOMDIR-bigEnd": "a directory, no instance",
    "DICOMDIR-empty.dcm": "a directory, no instance",
    "DICOMDIR-implicit": "a directory, no instance",
    "DICOMDIR-nooffset": "a directory, no instance",
    "DICOMDIR-nopatient": "a directory, no instance",
    "DICOMDIR-reordered": "a directory, no instance",
    "JPEGLSNearLossless_08.dcm": "has no UIDs",
    "JPEGLSNearLossless_16.dcm": "has no UIDs",
    "MR_truncated.dcm": "is cut",
    "SC_rgb_jls_lossy_line.dcm": "has no UIDs",
    "SC_rgb_jls_lossy_sample.dcm": "has no UIDs",
    "SC_rgb_jpeg.dcm": "has no UIDs",
    "UN_sequence.dcm": "has no UIDs",
    "chrSQEncoding.dcm": "has no UIDs",
    "chrSQEncoding1.dcm": "has no UIDs",
    "empty_charset_LEI.dcm": "has no UIDs",
    "meta_missing_tsyntax.dcm": "has no UIDs",
    "nested_priv_SQ.dcm": "has no UIDs",
    "no_meta.dcm": "has no UIDs",
    "no_meta_group_length.dcm": "has no UIDs",
    "priv_SQ.dcm": "has no UIDs",
    "rtplan_truncated.dcm": "is cut",
}
#: Orthanc sends them without preamble and file meta, also when asked for Explicit VR Little Endian: that is no
#: Part-10 stream, and it is refused before the first byte.
NOT_PART_10 = {"ExplVR_LitEndNoMeta.dcm"}
#: Orthanc (DCMTK) draws a new MediaStorageSOPInstanceUID for each answer, so no two of its own answers are equal.
META_DRAWN = {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}
#: Orthanc sends these as stored whatever form that is; PS3.18 §8.7.3 forbids it, so they are asked for in Explicit
#: VR Little Endian instead.
NOT_FOR_THE_WEB = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", ""}

#: What the façade may change, and the two that it adds to by rule (DESIGN §5).
TAGGED = {0x00080080, 0x00080082, 0x00100020, 0x00100021, 0x00100024, 0x00101002}
#: Group lengths (retired) are set right again where their group was changed.
GROUP_LENGTHS = {0x00080000, 0x00100000}


@dataclass
class Stored:
    """One file at one Orthanc."""

    name: str
    site: str
    orthanc: OrthancServer
    path: str  # of the instance, below a DICOMweb root
    dataset: Dataset

    def direct(self, below: str, accept: str) -> Seen:
        return wire.get(self.orthanc.dicomweb_url, self.path + below, {"Accept": accept})


@dataclass
class Archive:
    stored: list[Stored]
    refused: set[str]
    server: Serving

    def relayed(self, stored: Stored, below: str, accept: str) -> Seen:
        return wire.get(self.server.dicomweb(f"/sites/{stored.site}"), stored.path + below, {"Accept": accept})


def files() -> list[Path]:
    every = {*pydicom.data.get_testdata_files(), *pydicom.data.get_charset_files()}
    return sorted(Path(f) for f in every if Path(f).is_file())


def spread(found: list[Path]) -> list[list[Path]]:
    """Files that share a SOPInstanceUID go to different sites: an archive keeps one of them only."""
    sites: list[tuple[list[Path], set[str]]] = []
    for file in found:
        try:
            uid = str(dcmread(file, force=True, stop_before_pixels=True).get("SOPInstanceUID", file.name))
        except Exception:  # what pydicom can't read is Orthanc's to judge
            uid = str(file)
        place = next((s for s in sites if uid not in s[1]), None)
        if place is None:
            place = ([], set())
            sites.append(place)
        place[0].append(file)
        place[1].add(uid)
    return [site[0] for site in sites]


@pytest.fixture(scope="module")
def archive(serve_module) -> Iterator[Archive]:
    loads = spread(files())
    servers = [OrthancServer(name=f"site{n}") for n in range(len(loads))]
    start_all(servers)
    try:
        stored: list[Stored] = []
        refused = set()
        for load, orthanc in zip(loads, servers, strict=True):
            for file, answer in zip(load, orthanc.upload(load, skip_refused=True), strict=True):
                if answer is None:
                    refused.add(file.name)
                    continue
                assert answer["Status"] == "Success", file.name
                tags = orthanc.get(f"/instances/{answer['ID']}/simplified-tags")
                path = f"/studies/{tags['StudyInstanceUID']}/series/{tags['SeriesInstanceUID']}"
                path += f"/instances/{tags['SOPInstanceUID']}"
                stored.append(Stored(file.name, orthanc.name, orthanc, path, dcmread(file, force=True)))
        server = serve_module({orthanc.name: orthanc.dicomweb_url for orthanc in servers})
        yield Archive(stored, refused, server)
    finally:
        stop_all(servers)


def test_exclusions_are_those_named(archive: Archive) -> None:
    assert archive.refused == NOT_DICOM | REFUSED_BY_ORTHANC.keys()
    assert len(archive.stored) > 140


@pytest.mark.parametrize("syntax", ["*", None])
def test_instances_are_relayed_unchanged_but_for_their_tags(syntax: str | None, archive: Archive) -> None:
    related = f'multipart/related; type="{DICOM}"'
    accept = f"{related}; transfer-syntax={syntax}" if syntax else related
    problems: dict[str, str] = {}
    forms: dict[str, int] = {}
    for stored in archive.stored:
        direct = stored.direct("", accept)
        if syntax is None or (direct.status == 200 and syntax_of(direct.parts[0].body) in NOT_FOR_THE_WEB):
            direct = stored.direct("", f"{related}; transfer-syntax={EXPLICIT}")
        seen = archive.relayed(stored, "", accept)
        if direct.status != 200 or stored.name in NOT_PART_10:
            # It can't give this one in a form that can be tagged: said as a plain error, before the first byte.
            if (seen.status, seen.ended) != (502, True):
                problems[stored.name] = f"Orthanc answers {direct.status}, relayed as {seen.status}"
            continue
        problem = differs(stored, direct, seen)
        if problem:
            problems[stored.name] = problem
        else:
            used = syntax_of(direct.parts[0].body)
            forms[used] = forms.get(used, 0) + 1
    assert not problems, pprint.pformat(problems, width=200)
    assert forms[EXPLICIT] > 100
    if syntax == "*":
        assert {DEFLATED, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"} <= forms.keys()


def differs(stored: Stored, direct: Seen, seen: Seen) -> str:
    """What is wrong with a relayed instance; "" if nothing is."""
    if seen.status != 200 or not seen.ended:
        return f"{seen.status}, {'whole' if seen.ended else 'cut'}: {seen.body[:200]!r}"
    if len(seen.parts) != 1:
        return f"{len(seen.parts)} parts"
    ours, theirs = seen.parts[0].body, direct.parts[0].body
    used = syntax_of(theirs)
    if seen.parts[0].type != f"{DICOM}; transfer-syntax={used}":
        return f"called {seen.parts[0].type}"
    if ours[:132] != theirs[:132] or (head(ours).file_meta != head(theirs).file_meta and stored.name not in META_DRAWN):
        return "file meta changed"
    if rest(ours) != rest(theirs):
        return "what follows the patient's module changed"
    for tag in sorted({*head(ours).keys(), *head(theirs).keys()}):
        if tag in TAGGED | GROUP_LENGTHS:
            continue
        if raw(head(ours), tag) != raw(head(theirs), tag):
            return f"{tag} changed"
    return wrong_tags(read(ours), read(theirs), stored.site)


def wrong_tags(ours: Dataset, theirs: Dataset, site: str) -> str:
    ipp = str(theirs.get("PatientID", "") or "")
    # Who has no PatientID gets one of the study, so that viewers mix nobody up with the next who has none.
    if not re.fullmatch(f"{re.escape(ipp)}@{site}" if ipp else rf"~none\.[0-9a-f]+@{site}", ours.PatientID):
        return f"PatientID {ours.PatientID!r}"
    if theirs.get("InstitutionName") and ours.InstitutionName != theirs.InstitutionName:
        return "InstitutionName changed though there was one"
    if ours.InstitutionCodeSequence[0].CodingSchemeDesignator != "99IMAGORA":
        return "no origin"
    if ipp:
        before = list(theirs.get("OtherPatientIDsSequence") or [])
        after = list(ours.OtherPatientIDsSequence)
        if after[:-1] != before or (after[-1].PatientID, after[-1].IssuerOfPatientID) != (ipp, site):
            return "OtherPatientIDsSequence"
        if ours.IssuerOfPatientID != "IMAGORA":
            return "IssuerOfPatientID"
    return ""


def syntax_of(data: bytes) -> str:
    return str(head(data).file_meta.get("TransferSyntaxUID", ""))


def head(data: bytes) -> Dataset:
    return read_partial(io.BytesIO(data), stop_when=lambda tag, *_: tag >= 0x00110000, force=True)


def rest(data: bytes) -> bytes:
    """All bytes from the first element behind group 0010; of a deflated one, inflated."""
    if syntax_of(data) == DEFLATED:
        start = 132 + 12 + head(data).file_meta.FileMetaInformationGroupLength
        whole = zlib.decompress(data[start:], -15)
        return whole[whole.index(_first_behind(data)) :]
    stream = io.BytesIO(data)
    read_partial(stream, stop_when=lambda tag, *_: tag >= 0x00110000, force=True)
    return data[stream.tell() :]


def _first_behind(data: bytes) -> bytes:
    tag = min(element.tag for element in read(data) if element.tag >= 0x00110000)
    return tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")


def raw(dataset: Dataset, tag: Any) -> Any:
    """An element as it was encoded, as far as pydicom keeps that."""
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    return (element.VR, element.value)


@pytest.mark.parametrize("syntax", ["*", None])
def test_frames_are_those_of_the_member(syntax: str | None, archive: Archive) -> None:
    related = f'multipart/related; type="{OCTETS}"'
    accept = f"{related}; transfer-syntax={syntax}" if syntax else related
    problems: dict[str, str] = {}
    same = 0
    for stored in archive.stored:
        if "PixelData" not in stored.dataset:
            continue
        count = number_of_frames(stored.dataset)
        below = "/frames/" + ",".join(map(str, range(1, min(count, 4) + 1)))
        direct = stored.direct(below, accept)
        if direct.status != 200:
            direct = stored.direct(below, f"{related}; transfer-syntax={EXPLICIT}")
        seen = archive.relayed(stored, below, accept)
        if direct.status != 200:
            if (seen.status, seen.ended) not in ((502, True), (406, True)):
                problems[stored.name] = f"Orthanc answers {direct.status}, relayed as {seen.status}"
            continue
        if seen.status != 200 or not seen.ended:
            problems[stored.name] = f"{seen.status}: {seen.body[:200]!r}"
        elif [p.body for p in seen.parts] != [p.body for p in direct.parts]:
            problems[stored.name] = "other bytes"
        elif [_plain(p) for p in seen.parts] != [_plain(p) for p in direct.parts]:
            problems[stored.name] = f"other types: {[p.type for p in seen.parts]} for {[p.type for p in direct.parts]}"
        else:
            same += 1
    assert not problems, pprint.pformat(problems, width=200)
    assert same > 80


def number_of_frames(dataset: Dataset) -> int:
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except ValueError:  # badVR.dcm has "1A"
        return 1


def _plain(part: Part) -> str:
    return part.type.replace(" ", "").replace('"', "")


def test_metadata_are_those_of_the_member(archive: Archive) -> None:
    """But for the tags, the sources, UTF-8, and bulk data by our URLs, each of which gives the member's bytes."""
    ours_only = {f"{tag:08X}" for tag in TAGGED} | {"00080005", "00080054", "00081190"}
    problems: dict[str, str] = {}
    followed = 0
    for stored in archive.stored:
        direct = wire.json_of(stored.direct("/metadata", "application/dicom+json"))[0]
        seen = archive.relayed(stored, "/metadata", "application/dicom+json")
        if seen.status != 200:
            problems[stored.name] = f"{seen.status}: {seen.body[:200]!r}"
            continue
        relayed = wire.json_of(seen)[0]
        for tag in sorted(direct.keys() | relayed.keys()):
            if tag in ours_only or tag.startswith("0002"):
                continue
            theirs, mine = direct.get(tag), relayed.get(tag)
            if theirs != mine and not (theirs and mine and "BulkDataURI" in theirs and "BulkDataURI" in mine):
                if theirs is not None and _without_uris(theirs) == _without_uris(mine):
                    continue
                problems[stored.name] = f"{tag}: {theirs} became {mine}"[:300]
        uri = relayed.get("7FE00010", {}).get("BulkDataURI")
        if uri is not None:
            followed += 1
            ours, theirs_ = wire.get(uri, ""), wire.get(direct["7FE00010"]["BulkDataURI"], "")
            if [p.body for p in ours.parts] != [p.body for p in theirs_.parts]:
                problems[stored.name] = "bulk data differ"
    assert not problems, pprint.pformat(problems, width=200)
    assert followed > 40


def _without_uris(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_uris(v) if k != "BulkDataURI" else "" for k, v in value.items()}
    return [_without_uris(v) for v in value] if isinstance(value, list) else value
