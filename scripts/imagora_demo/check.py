"""Questions that the demonstration asks of itself, over HTTP as any client would."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any

from dicomweb_client import DICOMwebClient
from pydicom.errors import InvalidDicomError

from imagora_demo import cast

TIMEOUT_S = 60.0
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Message
    body: bytes

    def rows(self) -> list[Row]:
        """The objects of a DICOM JSON body; none for 204."""
        expect(self.status in (200, 204), f"status {self.status}: {self.body[:200]!r}")
        found: list[Row] = json.loads(self.body) if self.body else []
        return found

    def warnings(self) -> str:
        return " ".join(self.headers.get_all("Warning", []))


def run_checks(url: str, tell: Callable[[str], None]) -> bool:
    """Ask each question of the server at `url`, tell how it went. True if all went well."""
    logging.getLogger("dicomweb_client").setLevel(logging.ERROR)  # the Warnings it repeats are in our answers
    all_well = True
    for question, ask in QUESTIONS.items():
        try:
            tell(f"ok      {question}: {ask(_Client(url))}")
        except (AssertionError, LookupError, ValueError, OSError, AttributeError, InvalidDicomError) as error:
            all_well = False
            tell(f"FAILED  {question}: {type(error).__name__}: {error}")
    return all_well


def expect(condition: bool, otherwise: str) -> None:
    """Raise `AssertionError` with this text unless the condition holds."""
    if not condition:
        raise AssertionError(otherwise)


class _Client:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, accept: str = "application/dicom+json", **query: str) -> Answer:
        target = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(target, headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


def _values(row: Row, tag: str) -> list[Any]:
    return list(row.get(tag, {}).get("Value", []))


def _patient_ids(rows: list[Row]) -> set[str]:
    return {str(value) for row in rows for value in _values(row, "00100020")}


def _region(client: _Client) -> str:
    answer = client.get("/dicom-web/studies", PatientName="lefevre*")
    rows = answer.rows()
    expected = {exam.study_uid for exam in cast.EXAMS if exam.person is cast.ELOISE}
    found = {uid for row in rows for uid in _values(row, "0020000D")}
    expect(found == expected, f"{len(rows)} rows instead of {len(expected)}: {_patient_ids(rows)}")
    return f"“lefevre*” in the region finds {len(rows)} studies of LEFÈVRE at {len(_patient_ids(rows))} sites"


def _folder(client: _Client) -> str:
    answer = client.get("/folders/mirc-centres-imagerie/dicom-web/studies")
    rows = answer.rows()
    expected = len(cast.held_by(cast.IMAGERIE_37))
    expect(len(rows) == expected, f"{len(rows)} rows instead of {expected}")
    expect(cast.BLOIS.emetteur not in answer.warnings(), "it warns of a site that is not in the folder")
    return f"{len(rows)} studies in MIRC Centres Imagerie"


def _site(client: _Client) -> str:
    rows = client.get("/sites/CSROM41200/dicom-web/studies").rows()
    expected = len(cast.held_by(cast.ROMORANTIN))
    expect(len(rows) == expected, f"{len(rows)} rows instead of {expected}")
    sources = {value for row in rows for value in _values(row, "00080054")}
    expect(sources == {cast.ROMORANTIN.emetteur}, f"RetrieveAETitle is {sources}")
    return f"{len(rows)} studies at {cast.ROMORANTIN.name}"


def _down(client: _Client) -> str:
    answer = client.get("/dicom-web/studies", PatientName="lefevre*")
    down = cast.BLOIS.emetteur
    expect(down in answer.warnings(), f"the Warning does not name {down}: {answer.warnings()!r}")
    sources = ",".join(answer.headers.get_all("Imagora-Sources", []))
    expect(down in sources, f"Imagora-Sources does not name {down}: {sources!r}")
    return answer.warnings()


def _same_ipp(client: _Client) -> str:
    rows = client.get("/dicom-web/studies", PatientID="4547").rows()
    expected = {f"4547@{site.emetteur}" for site in (cast.ROMORANTIN, cast.ORLEANS)}
    expect(_patient_ids(rows) == expected, f"PatientIDs are {_patient_ids(rows)}")
    one = client.get("/dicom-web/studies", PatientID=f"4547@{cast.ORLEANS.emetteur}").rows()
    names = {name["Alphabetic"] for row in one for name in _values(row, "00100010")}
    expect(names == {cast.JEAN_BAPTISTE.name}, f"names are {names}")
    return f"4547 is {' and '.join(sorted(expected))}"


def _two_holders(client: _Client) -> str:
    study = _study(cast.SHARED_MR)
    rows = client.get("/dicom-web/studies", StudyInstanceUID=study).rows()
    expect(len(rows) == 1, f"{len(rows)} rows")
    holders = _values(rows[0], "00080054")
    expect(set(holders) == {cast.ORLEANS.emetteur, cast.TOURS.emetteur}, f"RetrieveAETitle is {holders}")
    series = client.get(f"/dicom-web/studies/{study}/series").rows()
    expect(len(series) == 3, f"{len(series)} series instead of 3")
    return f"one row, held by {' and '.join(holders)}, {len(series)} series in all"


def _copy(client: _Client) -> str:
    study = _study(cast.COPIED_RADIOGRAPH)
    rows = client.get("/dicom-web/studies", StudyInstanceUID=study).rows()
    expected = f"4547@{cast.ROMORANTIN.emetteur}"
    expect(len(rows) == 1 and _patient_ids(rows) == {expected}, f"{len(rows)} rows of {_patient_ids(rows)}")
    holders = _values(rows[0], "00080054")
    site = DICOMwebClient(f"{client.url}/sites/{cast.TOURS.emetteur}/dicom-web")
    for instance in site.retrieve_study(study):
        expect(instance.PatientID == expected, f"the copy's PatientID is {instance.PatientID}")
    return f"the copy at {cast.TOURS.name} keeps {expected}; held by {' and '.join(holders)}"


def _retrieve(client: _Client) -> str:
    study = _study(cast.BIG_CT)
    metadata = client.get(f"/dicom-web/studies/{study}/metadata").rows()
    slices = [row for row in metadata if _values(row, "00080016") == ["1.2.840.10008.5.1.4.1.1.2"]]
    expect(len(slices) >= 200, f"metadata of {len(slices)} slices")
    expect(_patient_ids(metadata) == {f"803455@{cast.TOURS.emetteur}"}, f"PatientIDs {_patient_ids(metadata)}")
    middle = slices[len(slices) // 2]
    series, uid = _values(middle, "0020000E")[0], _values(middle, "00080018")[0]
    instance = DICOMwebClient(f"{client.url}/dicom-web").retrieve_instance(study, series, uid)
    expect(instance.PatientID == f"803455@{cast.TOURS.emetteur}", f"PatientID {instance.PatientID}")
    place = instance.InstitutionCodeSequence[0]
    expect(place.CodeValue == str(cast.TOURS.number), f"InstitutionCodeSequence says {place.CodeValue}")
    pixels = instance.pixel_array
    expect(pixels.shape == (512, 512) and int(pixels.max()) > 1024, f"pixels {pixels.shape} up to {pixels.max()}")
    return (
        f"{len(metadata)} instances; a slice of {instance.PatientName} reads as {pixels.shape[1]} × {pixels.shape[0]}"
    )


def _viewer(client: _Client) -> str:
    for path in ("/", f"/viewer?StudyInstanceUIDs={_study(cast.BIG_CT)}"):
        answer = client.get(path, "text/html")
        expect(answer.status == 200, f"{path} answered {answer.status}")
        expect(b"OHIF" in answer.body, f"{path} is not OHIF's page")
        opener = answer.headers.get("Cross-Origin-Opener-Policy")
        embedder = answer.headers.get("Cross-Origin-Embedder-Policy")
        expect(opener == "same-origin", f"{path}: Cross-Origin-Opener-Policy is {opener}")
        expect(embedder in ("require-corp", "credentialless"), f"{path}: Cross-Origin-Embedder-Policy is {embedder}")
    return "OHIF's page, isolated (COOP, COEP)"


def _study(key: str) -> str:
    return str(next(exam.study_uid for exam in cast.EXAMS if exam.key == key))


QUESTIONS: dict[str, Callable[[_Client], str]] = {
    "search the region": _region,
    "search a folder": _folder,
    "search a site": _site,
    "a member that is down is named": _down,
    "one IPP, two patients": _same_ipp,
    "one study, two holders": _two_holders,
    "a copy keeps its origin": _copy,
    "metadata and an instance": _retrieve,
    "viewer": _viewer,
}
