"""Build DICOM studies as Part-10 bytes, the same bytes for the same arguments. Everyone in them is fictitious.

    exams.study(name="DUPONT-LÉVY^Marie", patient_id="4547", n_instances=3, charset="ISO_IR 100")  # list[bytes]
    exams.light_study(seed="one")            # one 8 × 8 image, made by the thousand
    exams.light_studies(401, seed="site-a")  # an iterator over the bytes of 401 studies, each its own patient
    exams.iter_study(n_instances=4000, rows=512, columns=512)  # one at a time, for what memory would not hold

UIDs are derived from names (`uid("a", 1)`), never drawn, so data made twice do not double in an archive.
The demonstration's exams that look like something stand in `pictures`, `chest` and `documents`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

ROOT = "1.2.826.0.1.3680043.10.1462"
IMPLEMENTATION_CLASS_UID = UID(f"{ROOT}.1")
IMPLEMENTATION_VERSION_NAME = "IMAGORA_DEMO"

#: Storage SOP class of a modality's images; others become secondary captures.
SOP_CLASS_OF_MODALITY: Mapping[str, UID] = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "CR": UID("1.2.840.10008.5.1.4.1.1.1"),
    "SC": SecondaryCaptureImageStorage,
}

_FAMILIES = """
MARTIN BERNARD THOMAS PETIT ROBERT RICHARD DURAND DUBOIS MOREAU LAURENT SIMON MICHEL LEFÈVRE LEROY ROUX DAVID
BERTRAND MOREL FOURNIER GIRARD BONNET DUPONT-LÉVY LAMBERT FONTAINE ROUSSEAU VINCENT MULLER LEFÈBVRE FAURE ANDRÉ
MERCIER BLANC GUÉRIN BOYER GARNIER CHEVALIER FRANÇOIS LEGRAND GAUTHIER GARCIA PERRIN ROBIN CLÉMENT MORIN NICOLAS
HENRY ROUSSEL MATHIEU GAUTIER MASSON MARCHAND DUVAL DENIS DUMONT MARIE LEMAIRE NOËL MEYER DUFOUR MEUNIER O'NEIL
"""
_GIVEN = """
Marie Jean Éloïse Pierre Anne-Sophie Michel Françoise André Monique Philippe Nathalie René Isabelle Alain Sylvie
Jacques Hélène Bernard Zoé Noël Chloé François Léa Jérôme Inès Gaël Maëlle Benoît Agnès Loïc
"""
FAMILY_NAMES = tuple(_FAMILIES.split())
GIVEN_NAMES = tuple(_GIVEN.split())

Pixels = npt.NDArray[np.uint8 | np.uint16 | np.int16]
#: Pixels of one instance from its place: (series index, instance index), both from 0. Shape (rows, columns),
#: (frames, rows, columns), or with a last axis of 3 for RGB.
Painter = Callable[[int, int], Pixels]
#: Last changes to one instance before it is written: (data set, series index, instance index).
Finisher = Callable[[Dataset, int, int], None]


def uid(*names: object) -> UID:
    """The UID that belongs to these names, e.g. `uid("csrom41200", "study", 3)`."""
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return UID(f"{ROOT}.{int.from_bytes(digest[:14], 'big')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeader:
    """Patient and study of an exam. Dates are `YYYYMMDD`, times `HHMMSS`; empty strings are written empty."""

    study_uid: str
    name: str = "DUPONT-LÉVY^Marie"
    patient_id: str = "4547"
    birth_date: str = "19600512"
    sex: str = "F"
    study_date: str = "20240110"
    study_time: str = "101500"
    accession: str = ""
    study_id: str = ""
    description: str = ""
    institution: str = ""
    referring: str = ""
    charset: str | Sequence[str] = "ISO_IR 192"
    more: Callable[[Dataset], None] | None = None  # sets more elements of patient and study

    def dataset(self) -> Dataset:
        """A new data set with the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1)."""
        made = Dataset()
        made.SpecificCharacterSet = self.charset if isinstance(self.charset, str) else list(self.charset)
        made.PatientName = self.name
        made.PatientID = self.patient_id
        made.PatientBirthDate = self.birth_date
        made.PatientSex = self.sex
        made.StudyInstanceUID = self.study_uid
        made.StudyDate = self.study_date
        made.StudyTime = self.study_time
        made.AccessionNumber = self.accession
        made.StudyID = self.study_id
        made.ReferringPhysicianName = self.referring
        if self.description:
            made.StudyDescription = self.description
        if self.institution:
            made.InstitutionName = self.institution
        if self.more is not None:
            self.more(made)
        return made


def begin_series(
    header: StudyHeader,
    *,
    modality: str,
    number: int,
    description: str = "",
    sop_class: UID | None = None,
    series_uid: str | None = None,
) -> Dataset:
    """A new data set with patient, study, series and equipment, to which instances add the rest."""
    made = header.dataset()
    made.SOPClassUID = sop_class or SOP_CLASS_OF_MODALITY.get(modality, SecondaryCaptureImageStorage)
    made.Modality = modality
    made.SeriesInstanceUID = series_uid or uid(header.study_uid, "series", number)
    made.SeriesNumber = number
    made.SeriesDate = header.study_date
    made.SeriesTime = header.study_time
    made.ContentDate = header.study_date
    made.ContentTime = header.study_time
    made.Manufacturer = "Fictive"
    made.ManufacturerModelName = "Phantom"
    if description:
        made.SeriesDescription = description
    return made


def number_instance(dataset: Dataset, number: int) -> None:
    """Make `dataset` the instance `number` (from 1) of its series."""
    dataset.SOPInstanceUID = uid(dataset.SeriesInstanceUID, "instance", number)
    dataset.InstanceNumber = number


def set_pixels(dataset: Dataset, pixels: Pixels, transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Set the Image Pixel module (PS3.3 C.7.6.3) from an array, encoded for `transfer_syntax`.

    Knows the native syntaxes, RLE, JPEG Baseline (8 bits) and JPEG 2000 lossless; else `ValueError`.
    """
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    frames = pixels if pixels.ndim - colour == 3 else pixels[np.newaxis]
    multi = len(frames) > 1 or pixels.ndim - colour == 3
    bits = pixels.itemsize * 8
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if multi:
        dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[1], frames.shape[2]
    dataset.BitsAllocated = bits
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 1 if pixels.dtype == np.int16 else 0
    _encode_pixels(dataset, frames, UID(transfer_syntax))


def _encode_pixels(dataset: Dataset, frames: Pixels, syntax: UID) -> None:
    vr = "OB" if frames.itemsize == 1 else "OW"
    if syntax == RLELossless:
        data = frames.astype(frames.dtype.newbyteorder("<"), copy=False).tobytes()
        dataset.add_new(0x7FE00010, vr, data + b"\0" * (len(data) % 2))
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, generate_instance_uid=False)
        return
    if syntax in (JPEGBaseline8Bit, JPEG2000Lossless):
        format_ = "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000"
        options: dict[str, Any] = {"quality": 90} if syntax == JPEGBaseline8Bit else {"no_jp2": True}
        streams = []
        for frame in frames:
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, format_, **options)
            streams.append(stream.getvalue())
        if syntax == JPEGBaseline8Bit:
            if frames.ndim == 4:
                dataset.PhotometricInterpretation = "YBR_FULL_422"
            dataset.LossyImageCompression = "01"
            dataset.LossyImageCompressionMethod = "ISO_10918_1"
            dataset.LossyImageCompressionRatio = f"{frames.nbytes / sum(map(len, streams)):.2f}"
        dataset.add_new(0x7FE00010, "OB", encapsulate(streams))
        dataset["PixelData"].is_undefined_length = True
        return
    if syntax.is_encapsulated:
        raise ValueError(f"pixels cannot be encoded as {syntax.name} here")
    big = syntax == ExplicitVRBigEndian
    data = frames.astype(frames.dtype.newbyteorder(">" if big else "<"), copy=False).tobytes()
    vr = "OW" if syntax == ImplicitVRLittleEndian else vr
    dataset.add_new(0x7FE00010, vr, data + b"\0" * (len(data) % 2))


def to_bytes(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Part-10 bytes (PS3.10 §7) of a data set, whose pixels are already encoded for `transfer_syntax`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def gradients(rows: int, columns: int, *, bits: int = 16, frames: int = 1) -> Painter:
    """A painter of cheap gradients, different in each instance, so that no two images can be mixed up."""
    kind: Any = np.uint8 if bits == 8 else np.uint16
    ramp = np.add.outer(np.arange(rows, dtype=np.uint32) * 7, np.arange(columns, dtype=np.uint32) * 3)

    def paint(series: int, instance: int) -> Pixels:
        picture = ((ramp + 31 * instance + 101 * series) % (256 if bits == 8 else 4096)).astype(kind)
        if frames == 1:
            return picture
        moving = np.empty((frames, rows, columns), kind)
        for frame in range(frames):
            moving[frame] = np.roll(picture, frame, axis=0)
        return moving

    return paint


def iter_study(
    *,
    seed: str = "study",
    name: str = "DUPONT-LÉVY^Marie",
    patient_id: str = "4547",
    birth_date: str = "19600512",
    sex: str = "F",
    study_uid: str | None = None,
    study_date: str = "20240110",
    study_time: str = "101500",
    accession: str = "",
    study_id: str = "",
    description: str = "",
    institution: str = "",
    modality: str = "CT",
    n_series: int = 1,
    n_instances: int = 1,
    first_series: int = 1,
    rows: int = 64,
    columns: int = 64,
    bits: int = 16,
    frames: int = 1,
    charset: str | Sequence[str] = "ISO_IR 192",
    transfer_syntax: str = ExplicitVRLittleEndian,
    sop_class: UID | None = None,
    extra: Mapping[str, Any] | None = None,
    pixels: Painter | None = None,
    finish: Finisher | None = None,
) -> Iterator[bytes]:
    """Yield the instances of one study as Part-10 bytes, series by series.

    seed: makes the UIDs where `study_uid` is not given; same seed, same study.
    n_instances: per series. first_series: number of the first series; a copy of the study with
        `n_series=1, first_series=3` holds a series that the copy with `n_series=2` lacks.
    bits: 8 or 16 allocated. frames: > 1 makes multi-frame instances.
    charset: of the text; a list for code extensions, e.g. `["", "ISO 2022 IR 87"]`.
    transfer_syntax: native (Deflated too), RLE, JPEG Baseline (with `bits=8`) or JPEG 2000 lossless.
    extra: more elements by keyword, set in every instance, over ours; None as value removes one.
    pixels: paints each instance; default is `gradients`. finish: last changes to each instance.
    """
    header = StudyHeader(
        study_uid=study_uid or uid(seed, "study"),
        name=name,
        patient_id=patient_id,
        birth_date=birth_date,
        sex=sex,
        study_date=study_date,
        study_time=study_time,
        accession=accession,
        study_id=study_id,
        description=description,
        institution=institution,
        charset=charset,
    )
    paint = pixels or gradients(rows, columns, bits=bits, frames=frames)
    for series in range(n_series):
        dataset = begin_series(header, modality=modality, number=first_series + series, sop_class=sop_class)
        for instance in range(n_instances):
            number_instance(dataset, instance + 1)
            set_pixels(dataset, paint(first_series - 1 + series, instance), transfer_syntax)
            for keyword, value in (extra or {}).items():
                if value is None:
                    dataset.pop(keyword, None)
                else:
                    setattr(dataset, keyword, value)
            if finish is not None:
                finish(dataset, series, instance)
            yield to_bytes(dataset, transfer_syntax)


def study(**parameters: Any) -> list[bytes]:
    """The instances of one study as Part-10 bytes; parameters as of `iter_study`."""
    return list(iter_study(**parameters))


def light_study(seed: str = "light", **parameters: Any) -> list[bytes]:
    """A study of one 8 × 8 CT image; any parameter of `iter_study` may be changed."""
    return study(seed=seed, **({"rows": 8, "columns": 8} | parameters))


def light_studies(count: int, *, seed: str = "light", **parameters: Any) -> Iterator[bytes]:
    """Yield `count` light studies, each of another patient: names, birth dates and dates vary with the seed.

    PatientIDs are the numbers from 1, so two sites of different seeds share IPPs for different people.
    """
    dice = random.Random(seed)
    for number in range(1, count + 1):
        varying = {
            "name": f"{dice.choice(FAMILY_NAMES)}^{dice.choice(GIVEN_NAMES)}",
            "birth_date": any_date(dice, 1930, 2020),
            "sex": dice.choice("FM"),
            "patient_id": str(number),
            "study_date": any_date(dice, 2015, 2025),
            "study_time": f"{dice.randrange(7, 20):02}{dice.randrange(60):02}{dice.randrange(60):02}",
            "accession": f"A{number:06}",
            "description": "Scanner thoracique",
        }
        yield from light_study(f"{seed}/{number}", **(varying | parameters))


def any_date(dice: random.Random, first_year: int, last_year: int) -> str:
    """A date (`YYYYMMDD`) from the first day of one year to the last day of another."""
    first = dt.date(first_year, 1, 1).toordinal()
    last = dt.date(last_year, 12, 31).toordinal()
    return dt.date.fromordinal(dice.randint(first, last)).strftime("%Y%m%d")
