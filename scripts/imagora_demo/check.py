"""Questions that the demonstration asks of itself, over HTTP as any client would."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pydicom.errors import InvalidDicomError

from imagora_demo import cast, check_consent
from imagora_demo.asking import Client, expect, patient_ids, study_uids, values
from imagora_demo.enrolment import CLAIRE
from imagora_demo.members import DemoError

_WRONG_ANSWERS = (AssertionError, AttributeError, DemoError, InvalidDicomError, LookupError, OSError, ValueError)


def run_checks(url: str, settings: Path, tell: Callable[[str], None]) -> bool:
    """Ask each question of the server at `url`, whose settings file is `settings`, as Claire MARTIN. Tell how it went.

    True if all went well.
    """
    logging.getLogger("dicomweb_client").setLevel(logging.ERROR)  # the Warnings it repeats are in our answers
    claire = Client(url, settings).signed_in(CLAIRE)
    all_well = True
    for question, ask in (QUESTIONS | check_consent.QUESTIONS).items():
        try:
            tell(f"ok      {question}: {ask(claire)}")
        except _WRONG_ANSWERS as error:
            all_well = False
            tell(f"FAILED  {question}: {type(error).__name__}: {error}")
    return all_well


def _region(client: Client) -> str:
    answer = client.get("/dicom-web/studies", PatientName="lefevre*")
    rows = answer.rows()
    expected = {exam.study_uid for exam in cast.exams_of(cast.ELOISE)}
    found = study_uids(rows)
    expect(found == expected, f"{len(rows)} rows instead of {len(expected)}: {patient_ids(rows)}")
    return f"“lefevre*” in the region finds {len(rows)} studies of LEFÈVRE at {len(patient_ids(rows))} sites"


def _folder(client: Client) -> str:
    answer = client.get("/folders/mirc-centres-imagerie/dicom-web/studies")
    rows = answer.rows()
    expected = len(cast.held_by(cast.IMAGERIE_37))
    expect(len(rows) == expected, f"{len(rows)} rows instead of {expected}")
    expect(cast.BLOIS.emetteur not in answer.warnings(), "it warns of a site that is not in the folder")
    return f"{len(rows)} studies in MIRC Centres Imagerie"


def _site(client: Client) -> str:
    rows = client.get("/sites/CSROM41200/dicom-web/studies").rows()
    expected = len(cast.held_by(cast.ROMORANTIN))
    expect(len(rows) == expected, f"{len(rows)} rows instead of {expected}")
    sources = {value for row in rows for value in values(row, "00080054")}
    expect(sources == {cast.ROMORANTIN.emetteur}, f"RetrieveAETitle is {sources}")
    return f"{len(rows)} studies at {cast.ROMORANTIN.name}"


def _down(client: Client) -> str:
    answer = client.get("/dicom-web/studies", PatientName="lefevre*")
    down = cast.BLOIS.emetteur
    expect(down in answer.warnings(), f"the Warning does not name {down}: {answer.warnings()!r}")
    sources = ",".join(answer.headers.get_all("Imagora-Sources", []))
    expect(down in sources, f"Imagora-Sources does not name {down}: {sources!r}")
    return answer.warnings()


def _same_ipp(client: Client) -> str:
    rows = client.get("/dicom-web/studies", PatientID="4547").rows()
    expected = {f"4547@{site.emetteur}" for site in (cast.ROMORANTIN, cast.ORLEANS)}
    expect(patient_ids(rows) == expected, f"PatientIDs are {patient_ids(rows)}")
    one = client.get("/dicom-web/studies", PatientID=f"4547@{cast.ORLEANS.emetteur}").rows()
    names = {name["Alphabetic"] for row in one for name in values(row, "00100010")}
    expect(names == {cast.JEAN_BAPTISTE.name}, f"names are {names}")
    return f"4547 is {' and '.join(sorted(expected))}"


def _two_holders(client: Client) -> str:
    study = _study(cast.SHARED_MR)
    rows = client.get("/dicom-web/studies", StudyInstanceUID=study).rows()
    expect(len(rows) == 1, f"{len(rows)} rows")
    holders = values(rows[0], "00080054")
    expect(set(holders) == {cast.ORLEANS.emetteur, cast.TOURS.emetteur}, f"RetrieveAETitle is {holders}")
    series = client.get(f"/dicom-web/studies/{study}/series").rows()
    expect(len(series) == 3, f"{len(series)} series instead of 3")
    return f"one row, held by {' and '.join(holders)}, {len(series)} series in all"


def _copy(client: Client) -> str:
    study = _study(cast.COPIED_RADIOGRAPH)
    rows = client.get("/dicom-web/studies", StudyInstanceUID=study).rows()
    expected = f"4547@{cast.ROMORANTIN.emetteur}"
    expect(len(rows) == 1 and patient_ids(rows) == {expected}, f"{len(rows)} rows of {patient_ids(rows)}")
    holders = values(rows[0], "00080054")
    for instance in client.dicomweb(f"/sites/{cast.TOURS.emetteur}").retrieve_study(study):
        expect(instance.PatientID == expected, f"the copy's PatientID is {instance.PatientID}")
    return f"the copy at {cast.TOURS.name} keeps {expected}; held by {' and '.join(holders)}"


def _retrieve(client: Client) -> str:
    study = _study(cast.BIG_CT)
    metadata = client.get(f"/dicom-web/studies/{study}/metadata").rows()
    slices = [row for row in metadata if values(row, "00080016") == ["1.2.840.10008.5.1.4.1.1.2"]]
    expect(len(slices) >= 200, f"metadata of {len(slices)} slices")
    expect(patient_ids(metadata) == {f"803455@{cast.TOURS.emetteur}"}, f"PatientIDs {patient_ids(metadata)}")
    middle = slices[len(slices) // 2]
    series, uid = values(middle, "0020000E")[0], values(middle, "00080018")[0]
    instance = client.dicomweb().retrieve_instance(study, series, uid)
    expect(instance.PatientID == f"803455@{cast.TOURS.emetteur}", f"PatientID {instance.PatientID}")
    place = instance.InstitutionCodeSequence[0]
    expect(place.CodeValue == str(cast.TOURS.number), f"InstitutionCodeSequence says {place.CodeValue}")
    pixels = instance.pixel_array
    expect(pixels.shape == (512, 512) and int(pixels.max()) > 1024, f"pixels {pixels.shape} up to {pixels.max()}")
    return (
        f"{len(metadata)} instances; a slice of {instance.PatientName} reads as {pixels.shape[1]} × {pixels.shape[0]}"
    )


def _viewer(client: Client) -> str:
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
    return str(cast.exam_of(key).study_uid)


QUESTIONS: dict[str, Callable[[Client], str]] = {
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
