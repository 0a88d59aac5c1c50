"""pydicom's test files in real Orthancs behind one server, and what the façade has to make of each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom.data
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from pydicom import dcmread
from pydicom.dataset import Dataset
from retrieve_wire import Seen
from support.serving import Serving

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


@contextmanager
def archive_of(serve: Callable[[dict[str, str | None]], AbstractContextManager[Serving]]) -> Iterator[Archive]:
    """Real Orthancs with all of them, and one server before these."""
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
        with serve({orthanc.name: orthanc.dicomweb_url for orthanc in servers}) as server:
            yield Archive(stored, refused, server)
    finally:
        stop_all(servers)


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


def number_of_frames(dataset: Dataset) -> int:
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except ValueError:  # badVR.dcm has "1A"
        return 1
