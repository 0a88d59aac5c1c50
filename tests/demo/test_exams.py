"""The exams that the demonstration, the tests and the benchmarks are made of."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from imagora_demo import cast, chest, documents, exams, pictures
from imagora_demo.orthanc import OrthancServer
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from consent.traits import difference, normalise, strict

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
HEADER = exams.StudyHeader(study_uid=exams.uid("tests"))
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEG2000Lossless,
)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def test_uids_are_valid_and_stable() -> None:
    assert exams.uid("a", 1) == "1.2.826.0.1.3680043.10.1462.2669519167424362451452174188537470"
    assert exams.uid("a", 1) != exams.uid("a1")
    assert all(exams.uid("n", number).is_valid for number in range(200))


def test_study_is_what_was_asked_for() -> None:
    instances = exams.study(
        name="O'NEIL^Kathleen",
        patient_id="7",
        birth_date="19700101",
        sex="F",
        study_date="20200202",
        accession="A1",
        modality="MR",
        n_series=2,
        n_instances=3,
        rows=12,
        columns=16,
        extra={"BodyPartExamined": "KNEE", "StudyID": None},
        finish=lambda dataset, series, instance: setattr(dataset, "ImageComments", f"{series}/{instance}"),
    )
    read_back = [read(data) for data in instances]
    assert len({data.SOPInstanceUID for data in read_back}) == 6
    assert {data.StudyInstanceUID for data in read_back} == {exams.uid("study", "study")}
    assert [(data.SeriesNumber, data.InstanceNumber) for data in read_back] == [
        (series, instance) for series in (1, 2) for instance in (1, 2, 3)
    ]
    last = read_back[-1]
    assert (last.PatientName, last.PatientID, last.PatientBirthDate) == ("O'NEIL^Kathleen", "7", "19700101")
    assert (last.AccessionNumber, last.Modality, last.BodyPartExamined) == ("A1", "MR", "KNEE")
    assert last.ImageComments == "1/2"
    assert "StudyID" not in last
    assert last.pixel_array.shape == (12, 16)
    assert exams.study(n_instances=2) == exams.study(n_instances=2)


def test_copies_of_one_study_can_hold_different_series() -> None:
    whole = {read(data).SOPInstanceUID for data in exams.study(n_series=3)}
    part = {read(data).SOPInstanceUID for data in exams.study(n_series=1, first_series=3)}
    assert part < whole


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_pixels_survive_each_transfer_syntax(syntax: pydicom.uid.UID) -> None:
    (data,) = exams.study(transfer_syntax=syntax, bits=8, rows=33, columns=21, frames=3)
    dataset = read(data)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    expected = exams.gradients(33, 21, bits=8, frames=3)(0, 0)
    if syntax == JPEGBaseline8Bit:
        assert dataset.LossyImageCompression == "01"
        assert dataset.pixel_array.shape == expected.shape
    else:
        assert np.array_equal(dataset.pixel_array, expected)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "DUPONT-LÉVY^Éloïse"),
        ("ISO_IR 192", "NGUYỄN^Thị Mai"),
        (["", "ISO 2022 IR 87"], "YAMADA^Taro=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_survive_their_character_set(charset: str | list[str], name: str) -> None:
    dataset = read(exams.light_study(charset=charset, name=name)[0])
    assert str(dataset.PatientName) == name
    assert dataset.SpecificCharacterSet == charset


def test_light_studies_differ_by_seed() -> None:
    here = [read(data) for data in exams.light_studies(5, seed="here")]
    there = [read(data) for data in exams.light_studies(5, seed="there")]
    assert [data.PatientID for data in here] == [data.PatientID for data in there] == list("12345")
    assert not {data.StudyInstanceUID for data in here} & {data.StudyInstanceUID for data in there}


def test_chest_ct_has_the_geometry_of_one_volume() -> None:
    slices = [read(data) for data in pictures.chest_ct(HEADER, n=6, slice_mm=20.0)]
    first = slices[0]
    assert len({data.FrameOfReferenceUID for data in slices}) == 1
    assert all(data.ImageOrientationPatient == [1, 0, 0, 0, 1, 0] for data in slices)
    heights = [float(data.ImagePositionPatient[2]) for data in slices]
    assert np.allclose(np.diff(heights), 20.0)
    assert float(first.SliceThickness) == float(first.SpacingBetweenSlices) == 20.0
    # The volume is centred: the middle of the picture lies at x = y = 0.
    corner, spacing = float(first.ImagePositionPatient[0]), float(first.PixelSpacing[1])
    assert corner + (first.Columns - 1) / 2 * spacing == pytest.approx(0, abs=1e-3)
    assert (first.BitsStored, first.HighBit, first.PixelRepresentation) == (12, 11, 0)


def test_chest_ct_looks_like_a_chest() -> None:
    image = next(image for index, image in enumerate(chest.slices(n=120)) if index == 110)
    middle = chest.SIZE // 2
    hounsfield = image.astype(int)
    assert hounsfield[5, 5] == pytest.approx(-1000, abs=90)  # air
    right_lung = hounsfield[middle - 20 : middle + 20, middle - 120 : middle - 80]
    assert -900 < np.median(right_lung) < -780
    vertebra = hounsfield[middle + 70 : middle + 86, middle - 8 : middle + 8]
    assert 100 < np.median(vertebra) < 700
    assert (hounsfield > 500).sum() > 300  # bone


def test_full_ct_has_over_200_slices() -> None:
    assert chest.N_SLICES >= 200


def test_cine_is_multi_frame_and_moves() -> None:
    cine, still = (read(data) for data in pictures.abdomen_ultrasound(HEADER, n_frames=6))
    assert (cine.NumberOfFrames, float(cine.FrameTime)) == (6, 40.0)
    frames = cine.pixel_array
    assert frames.shape == (6, 480, 640)
    assert not np.array_equal(frames[0], frames[2])
    assert still.pixel_array.shape == (480, 640)


def test_mammography_has_four_views() -> None:
    views = [read(data) for data in pictures.mammography(HEADER)]
    assert {(view.ImageLaterality, view.ViewPosition) for view in views} == {
        ("R", "CC"),
        ("L", "CC"),
        ("R", "MLO"),
        ("L", "MLO"),
    }
    # The chest wall is where the view's laterality puts it.
    for view in views:
        pixels = view.pixel_array.astype(int)
        left, right = pixels[400:600, :40].mean(), pixels[400:600, -40:].mean()
        assert (left > right) == (view.ImageLaterality == "L")


def test_report_reads_as_basic_text() -> None:
    image = (exams.uid("series"), exams.CTImageStorage, exams.uid("image"))
    (data,) = documents.report(HEADER, [("Conclusion", "Échographie normale.")], evidence=[image])
    report = read(data)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert report.ContentSequence[-1].TextValue == "Échographie normale."
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == exams.uid("image")


def test_letter_holds_a_sound_pdf() -> None:
    (data,) = documents.letter(HEADER, ["Cher confrère (é),"] * 60)
    letter = read(data)
    document = letter.EncapsulatedDocument[: letter.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF-1.4")
    assert document.endswith(b"%%EOF\n")
    assert b"/Count 2" in document
    assert "Cher confrère \\(é\\),".encode("cp1252") in document
    # Every entry of the cross-reference table points at its object.
    table = int(re.search(rb"startxref\n(\d+)\n", document).group(1))  # type: ignore[union-attr]
    assert document[table:].startswith(b"xref\n")
    for number, offset in enumerate(re.findall(rb"(\d{10}) 00000 n ", document), start=1):
        assert document[int(offset) :].startswith(b"%d 0 obj" % number)


def digest_of_a_little_of_everything() -> str:
    digest = hashlib.sha256()
    for exam in cast.held_by(cast.ORLEANS):
        if exam.description not in ("Mammographie bilatérale", "Scanner abdomino-pelvien"):
            for data in exam.instances():
                digest.update(data)
    for data in pictures.chest_ct(HEADER, n=3, slice_mm=60.0):
        digest.update(data)
    return digest.hexdigest()


def test_second_run_makes_the_same_bytes() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "import test_exams; print(test_exams.digest_of_a_little_of_everything())"],
        env=os.environ | {"PYTHONPATH": f"{SCRIPTS}:{Path(__file__).parent}", "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert other.stdout.strip() == digest_of_a_little_of_everything()


def test_cast_has_the_cases_it_promises() -> None:
    sites = {exam.site.emetteur for exam in cast.EXAMS if exam.person is cast.ELOISE}
    ipps = {exam.ipp for exam in cast.EXAMS if exam.person is cast.ELOISE}
    assert len(sites) == len(ipps) == 3
    same_ipp = {(exam.site.emetteur, exam.person.name) for exam in cast.EXAMS if exam.patient_id == "4547"}
    assert same_ipp == {("csrom41200", cast.MARIE.name), ("csorl45000", cast.JEAN_BAPTISTE.name)}
    shared = [exam for exam in cast.EXAMS if exam.key == cast.SHARED_MR]
    assert len({exam.site.emetteur for exam in shared}) == 2
    assert len({exam.study_uid for exam in shared}) == 1
    copies = [exam for exam in cast.EXAMS if exam.origin is not None]
    assert [exam.patient_id for exam in copies] == ["4547@csrom41200"]
    assert [site.emetteur for site in cast.SITES if not site.up] == ["cschb41000"]
    assert {exam.site.emetteur for exam in cast.EXAMS} == {site.emetteur for site in cast.SITES if site.up}
    recorded, nearly = (strict(normalise(p.name), p.born, p.sex) for p in (cast.MARTIN, cast.NEARLY_MARTIN))
    assert difference(recorded, nearly) == "one letter of the name differs"
    assert {exam.site for exam in cast.exams_of(cast.MARTIN)} != {
        exam.site for exam in cast.exams_of(cast.NEARLY_MARTIN)
    }
    assert len(cast.exams_of(cast.exam_of(cast.OPPOSED_EXAM).person)) == 2
    assert len(cast.exams_of(cast.exam_of(cast.WITHHELD_EXAM).person)) == 1


def test_orthanc_takes_every_kind_of_exam() -> None:
    kinds: dict[str, Callable[[exams.StudyHeader], Iterable[bytes]]] = {
        "ct": partial(pictures.chest_ct, n=4, slice_mm=60.0),
        "dx": pictures.chest_radiograph,
        "cr": partial(pictures.chest_radiograph, modality="CR"),
        "mr": partial(pictures.brain_mr, n=2),
        "us": partial(pictures.abdomen_ultrasound, n_frames=3),
        "mg": pictures.mammography,
        "sr": partial(documents.report, sections=[("Indication", "Toux.")]),
        "pdf": partial(documents.letter, lines=["Cher confrère,"]),
        "sc": partial(documents.dose_sheet, lines=["PDL 268 mGy.cm"]),
    }
    with OrthancServer(name="a") as server:
        for kind, make in kinds.items():
            stored = server.upload(make(exams.StudyHeader(study_uid=exams.uid(kind))))
            assert stored, kind
            assert all(answer and answer["Status"] == "Success" for answer in stored), kind
        syntaxes = [exams.study(seed=syntax, transfer_syntax=syntax, bits=8)[0] for syntax in SYNTAXES]
        assert len(server.upload(syntaxes)) == len(SYNTAXES)
