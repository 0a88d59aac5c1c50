"""Exams that look like what they are called: chest CT and radiograph, brain MR, abdominal ultrasound, mammography.

Each takes a `StudyHeader` and yields Part-10 bytes. Sizes: CT 116 MB, MR 8 MB, ultrasound 2 MB, radiograph 1 MB,
mammography 6 MB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage

from imagora_demo import chest
from imagora_demo.canvas import Canvas, Plane, smooth_noise
from imagora_demo.exams import StudyHeader, begin_series, number_instance, set_pixels, to_bytes, uid

AXIAL = [1, 0, 0, 0, 1, 0]


def chest_ct(
    header: StudyHeader, *, n: int = chest.N_SLICES, slice_mm: float = chest.SLICE_MM, number: int = 2
) -> Iterator[bytes]:
    """One series of `n` axial slices, 512 × 512, with the geometry of a real acquisition (PS3.3 C.7.6.2)."""
    dataset = begin_series(
        header, modality="CT", number=number, description=f"Thorax injecté {slice_mm:g} mm".replace(".", ",")
    )
    _axial_geometry(dataset, header, spacing_mm=chest.PIXEL_MM, slice_mm=slice_mm)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.ContrastBolusAgent = "Iode 350 mg/mL"
    dataset.KVP = "120"
    dataset.XRayTubeCurrent = 180
    dataset.ExposureTime = 500
    dataset.ConvolutionKernel = "B30f"
    dataset.RescaleIntercept = "-1024"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter = ["40", "-600"]
    dataset.WindowWidth = ["400", "1500"]
    dataset.WindowCenterWidthExplanation = ["MEDIASTIN", "PARENCHYME"]
    for index, image in enumerate(chest.slices(n=n, slice_mm=slice_mm)):
        number_instance(dataset, index + 1)
        _place(dataset, chest.SIZE, chest.PIXEL_MM, chest.slice_z(index, slice_mm))
        set_pixels(dataset, (image + 1024).astype(np.uint16))
        _store_12_bits(dataset)
        yield to_bytes(dataset)


def chest_radiograph(header: StudyHeader, *, modality: str = "DX", number: int = 1) -> Iterator[bytes]:
    """A frontal view of the same chest; patients differ by seed of the study."""
    dice = _dice(header)
    density = chest.projection()
    size = (int(density.shape[1] * 1.5), int(density.shape[0] * dice.uniform(1.5, 1.7)))
    view = np.asarray(Image.fromarray(density).resize(size, Image.Resampling.BICUBIC), np.float32)
    view = 1 - np.exp(-dice.uniform(2.6, 3.4) * np.clip(view, 0, 1))
    view += 0.006 * dice.standard_normal(view.shape, np.float32)
    dataset = begin_series(header, modality=modality, number=number, description="Thorax face")
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = ["0.5", "0.5"]
    dataset.KVP = "120"
    if modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.ImageLaterality = "U"
        dataset.RescaleIntercept = "0"
        dataset.RescaleSlope = "1"
        dataset.RescaleType = "US"
    dataset.WindowCenter = "2100"
    dataset.WindowWidth = "3600"
    number_instance(dataset, 1)
    set_pixels(dataset, _twelve_bits(view))
    _store_12_bits(dataset)
    yield to_bytes(dataset)


#: Signal of each tissue (0–1): fat, bone, CSF, grey matter, white matter, lesion.
MR_WEIGHTINGS = {
    "T1 axial": (0.9, 0.06, 0.14, 0.45, 0.62, 0.38),
    "T2 axial": (0.7, 0.05, 0.95, 0.5, 0.34, 0.8),
    "FLAIR axial": (0.6, 0.05, 0.1, 0.52, 0.4, 0.92),
}


def brain_mr(header: StudyHeader, *, n: int = 22, series: Sequence[int] = (1, 2, 3)) -> Iterator[bytes]:
    """These of three series (T1, T2, FLAIR) of `n` axial slices, 256 × 256, in one frame of reference."""
    size, spacing, slice_mm = 256, 0.9, 132.0 / n
    textures = [smooth_noise((size, size), 9, _dice(header, layer)) for layer in range(2)]
    for number, (description, tissue) in enumerate(MR_WEIGHTINGS.items(), start=1):
        if number not in series:
            continue
        dice = _dice(header, description)
        dataset = begin_series(header, modality="MR", number=number, description=description)
        _axial_geometry(dataset, header, spacing_mm=spacing, slice_mm=slice_mm)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
        dataset.BodyPartExamined = "BRAIN"
        dataset.PatientPosition = "HFS"
        dataset.ScanningSequence = "IR" if "FLAIR" in description else "SE"
        dataset.SequenceVariant = "SK"
        dataset.MRAcquisitionType = "2D"
        dataset.MagneticFieldStrength = "1.5"
        dataset.RepetitionTime, dataset.EchoTime = ("500", "12") if "T1" in description else ("4500", "98")
        dataset.WindowCenter, dataset.WindowWidth = "520", "1100"
        for index in range(n):
            z = -58 + index * slice_mm
            image = _brain_slice(z, tissue, textures, size, spacing)
            # The magnitude of a complex signal: noise is never negative (Rician).
            noise = dice.standard_normal((2, size, size), np.float32) * 0.02
            image = np.hypot(image + noise[0], noise[1]).astype(np.float32)
            number_instance(dataset, index + 1)
            _place(dataset, size, spacing, z)
            set_pixels(dataset, (np.clip(image, 0, 1.2) * 1000).astype(np.uint16))
            _store_12_bits(dataset)
            yield to_bytes(dataset)


def _brain_slice(z: float, tissue: tuple[float, ...], textures: list[Plane], size: int, spacing: float) -> Plane:
    fat, bone, fluid, grey, white, lesion = tissue
    canvas = Canvas(size, size, spacing)
    canvas.ball((0, 0, -5), (78, 98, 92), fat, z)
    canvas.ball((0, 0, -5), (74, 94, 87), bone, z)
    canvas.ball((0, 0, -5), (69, 89, 81), fluid, z)
    # Where the texture is dark, grey matter and the fluid of the furrows reach inwards.
    folds = np.clip(0.5 + 1.3 * textures[0], 0, 1)
    matter = (grey + (white - grey) * folds).astype(np.float32)
    rim = (fluid + (grey - fluid) * np.clip(0.9 + 1.2 * textures[1], 0, 1)).astype(np.float32)
    canvas.ball((0, 0, -5), (66, 86, 78), rim, z)
    canvas.ball((0, 0, -5), (61, 81, 74), grey, z)
    canvas.ball((0, 0, -3), (55, 75, 68), matter, z)
    for side in (-1, 1):
        canvas.ball((side * 25, -4, 8), (19, 52, 38), white, z)
        canvas.ball((side * 15, 2, 0), (11, 17, 14), grey, z)  # thalamus
        canvas.ball((side * 26, -6, 2), (7, 20, 13), grey, z)  # putamen
        canvas.ball((side * 10, -16, 16), (6, 25, 13), fluid, z)  # ventricles
        canvas.ball((side * 18, 28, 10), (6, 17, 12), fluid, z)
        canvas.ball((side * 29, -72, -46), (14, 14, 14), fluid, z)  # eyes
        canvas.ball((side * 28, 52, -48), (29, 28, 24), matter, z)  # cerebellum
    canvas.ball((0, 2, -4), (2.5, 15, 12), fluid, z)
    canvas.ball((0, 25, -50), (15, 15, 40), white, z)  # brain stem
    if z > 24:  # between the hemispheres
        canvas.ball((0, 0, -5), (12, 80, 74), fluid, z, within=_midline(canvas))
    canvas.ball((34, 20, 22), (6, 7, 6), lesion, z)
    canvas.ball((-30, -30, 26), (3.5, 4, 5), lesion, z)
    return canvas.image


def _midline(canvas: Canvas) -> Plane:
    line = np.clip(1.6 - np.abs(canvas.x) / canvas.spacing, 0, 0.8)
    return np.broadcast_to(line.astype(np.float32), canvas.image.shape)


def abdomen_ultrasound(header: StudyHeader, *, n_frames: int = 40, number: int = 1) -> Iterator[bytes]:
    """A cine loop (multi-frame, JPEG Baseline) of liver and kidney, and one still picture in the same syntax."""
    frames = _ultrasound_frames(header, n_frames)
    dataset = begin_series(
        header,
        modality="US",
        number=number,
        description="Foie et rein droit",
        sop_class=UltrasoundMultiFrameImageStorage,
    )
    _ultrasound_elements(dataset)
    dataset.FrameTime = "40"
    dataset.FrameIncrementPointer = Tag("FrameTime")
    dataset.CineRate = 25
    number_instance(dataset, 1)
    set_pixels(dataset, frames, JPEGBaseline8Bit)
    yield to_bytes(dataset, JPEGBaseline8Bit)
    dataset = begin_series(header, modality="US", number=number + 1, description="Foie et rein droit, figé")
    _ultrasound_elements(dataset)
    number_instance(dataset, 1)
    set_pixels(dataset, frames[0], JPEGBaseline8Bit)
    yield to_bytes(dataset, JPEGBaseline8Bit)


def _ultrasound_elements(dataset: Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL"]
    dataset.BodyPartExamined = "ABDOMEN"
    region = Dataset()  # so that viewers measure in centimetres (PS3.3 C.8.5.5)
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 2
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 40, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 599, 469
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.035
    dataset.SequenceOfUltrasoundRegions = [region]


def _ultrasound_frames(header: StudyHeader, n: int) -> npt.NDArray[np.uint8]:
    rows, columns = 480, 640
    dice = _dice(header)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    across, down = x - columns / 2, y + 55
    depth, angle = np.hypot(across, down), np.arctan2(across, down)
    sector = (np.abs(angle) < 0.62) & (depth > 85) & (depth < 515)
    grain = smooth_noise((rows, columns), 3, dice)
    tissue = smooth_noise((rows, columns), 24, dice)
    caption = _caption(rows, columns, "Foie / rein droit   C5-1   15 cm   25 i/s")
    frames = []
    for frame in range(n):
        beat = math.sin(2 * math.pi * frame / 20)
        breath = 5 * math.sin(2 * math.pi * frame / n)
        canvas = Canvas(rows, columns, 1.0, 0.33)
        canvas.image += 0.03 * np.roll(tissue, round(breath), axis=0)
        canvas.ellipse(-20, 225 + breath, 330, 42, 0.75)  # diaphragm
        canvas.ellipse(-20, 238 + breath, 340, 44, 0.12)
        canvas.ellipse(70, 70 + breath, 98, 46, 0.62, angle=-0.35)  # kidney: capsule, cortex, sinus
        canvas.ellipse(70, 70 + breath, 94, 42, 0.22, angle=-0.35)
        canvas.ellipse(70, 70 + breath, 56, 17, 0.68, angle=-0.35)
        canvas.ellipse(-95, -20 + breath, 42, 24, 0.02, angle=0.5)  # gall bladder, echoes stronger behind it
        canvas.ellipse(-100, 95 + breath, 40, 78, 0.47, opacity=0.45)
        canvas.ellipse(-20, -70 + breath, 60, 7 + 2 * beat, 0.03, angle=-0.2)  # a vein that beats
        speckle = np.abs(0.85 + 0.36 * np.roll(grain, (round(breath), frame % 3), (0, 1)))
        fade = np.exp(-(depth - 85) / 640)
        image = np.where(sector, canvas.image * speckle * fade * 1.35, 0)
        frames.append((np.clip(np.maximum(image, caption), 0, 1) * 255).astype(np.uint8))
    return np.stack(frames)


def _caption(rows: int, columns: int, text: str) -> Plane:
    image = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(image)
    draw.text((12, 8), text, fill=210, font=ImageFont.load_default(14))
    for step in range(64):  # grey scale
        draw.rectangle((614, 60 + step * 3, 626, 62 + step * 3), fill=255 - step * 4)
    return np.asarray(image, np.float32) / np.float32(255)


def mammography(header: StudyHeader) -> Iterator[bytes]:
    """Four series of one view each: right and left, cranio-caudal and oblique; 1024 × 768, 12 bits stored."""
    number = 0
    for view, code, meaning in (("CC", "399162004", "cranio-caudal"), ("MLO", "399368009", "medio-lateral oblique")):
        for laterality in "RL":
            number += 1
            dataset = begin_series(header, modality="MG", number=number, description=f"{laterality} {view}")
            dataset.ImageType = ["ORIGINAL", "PRIMARY"]
            dataset.BodyPartExamined = "BREAST"
            dataset.ImageLaterality = laterality
            dataset.ViewPosition = view
            dataset.PatientOrientation = ["A" if laterality == "L" else "P", "L" if view == "CC" else "FL"]
            dataset.ViewCodeSequence = [_code(code, "SCT", meaning)]
            dataset.PresentationIntentType = "FOR PRESENTATION"
            dataset.PresentationLUTShape = "IDENTITY"
            dataset.PixelIntensityRelationship = "LOG"
            dataset.PixelIntensityRelationshipSign = -1
            dataset.ImagerPixelSpacing = ["0.2", "0.2"]
            dataset.KVP = "28"
            dataset.WindowCenter, dataset.WindowWidth = "2000", "3200"
            number_instance(dataset, 1)
            picture = _breast(_dice(header, view, laterality), oblique=view == "MLO")
            # Hung as usual, the chest wall of the right breast is on the right of the picture.
            set_pixels(dataset, _twelve_bits(picture if laterality == "L" else picture[:, ::-1]))
            _store_12_bits(dataset)
            yield to_bytes(dataset)


def _breast(dice: np.random.Generator, *, oblique: bool) -> Plane:
    rows, columns = 1024, 768
    canvas = Canvas(rows, columns, 1.0)
    wall = -columns / 2
    tall = 420 if oblique else 400
    canvas.ellipse(wall, 20, 560, tall, 0.42)
    canvas.ellipse(wall, 20, 548, tall - 10, 0.24)
    strands = sum(
        (smooth_noise((rows, columns), cell, dice) / (2**level) for level, cell in enumerate((90, 42, 18, 7)))
    )
    gland = np.clip(0.38 + 0.16 * np.asarray(strands, np.float32), 0.2, 0.95).astype(np.float32)
    soft = Canvas(rows, columns, 1.0)
    for step in range(40):
        soft.ellipse(wall + 130, 20, 350 - 4 * step, 300 - 4 * step, (step + 1) / 40)
    inside = canvas.image > 0.2
    canvas.image += np.where(inside, soft.image * (gland - canvas.image), 0)
    if oblique:
        canvas.ellipse(wall - 60, -440, 260, 470, 0.62, angle=0.25, within=(canvas.image > 0.01).astype(np.float32))
    for _ in range(6):
        x, y = wall + dice.uniform(120, 420), dice.uniform(-200, 220)
        canvas.ellipse(x, y, 2.2, 2.2, 0.95)
    canvas.image += 0.01 * dice.standard_normal((rows, columns), np.float32)
    return canvas.image


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _dice(header: StudyHeader, *names: object) -> np.random.Generator:
    return np.random.default_rng(int(uid(header.study_uid, *names).rsplit(".", 1)[1]) % 2**32)


def _axial_geometry(dataset: Dataset, header: StudyHeader, *, spacing_mm: float, slice_mm: float) -> None:
    dataset.FrameOfReferenceUID = uid(header.study_uid, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.ImageOrientationPatient = AXIAL
    dataset.PixelSpacing = [f"{spacing_mm:g}", f"{spacing_mm:g}"]
    dataset.SliceThickness = f"{slice_mm:g}"
    dataset.SpacingBetweenSlices = f"{slice_mm:g}"
    dataset.AcquisitionNumber = 1


def _place(dataset: Dataset, size: int, spacing_mm: float, z: float) -> None:
    corner = -(size - 1) / 2 * spacing_mm
    dataset.ImagePositionPatient = [f"{corner:g}", f"{corner:g}", f"{z:g}"]
    dataset.SliceLocation = f"{z:g}"


def _twelve_bits(picture: Plane) -> npt.NDArray[np.uint16]:
    return (np.clip(picture, 0, 1) * 4095).astype(np.uint16)


def _store_12_bits(dataset: Dataset) -> None:
    dataset.BitsStored, dataset.HighBit = 12, 11
