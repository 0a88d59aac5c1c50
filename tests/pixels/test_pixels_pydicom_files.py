"""Every one of pydicom's test files with pixels that pydicom itself can decode: the same pixels, in every form."""

from __future__ import annotations

import io
import pprint
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pixels_files import PIXELS, readable
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian
from support.showing import expected_colour, expected_grey, frames_of, is_grey, shown_size

from federation.pixels.errors import SickFile
from federation.pixels.limits import Limits
from federation.pixels.metadata import metadata
from federation.pixels.options import SMALL, MediaType, RenderOptions
from federation.pixels.render import Picture, render, thumbnail
from federation.pixels.transcode import frames, to_explicit

# pydicom reads these files with many remarks about how they are made.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LIMITS = Limits()
Array = np.ndarray[Any, Any]


@cache
def decodable() -> tuple[tuple[Path, Dataset, Array], ...]:
    """With stored values as pydicom decodes them: (frames, rows, columns[, 3])."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, dataset in readable():
            if not any(keyword in dataset for keyword in PIXELS):
                continue
            pixels = frames_of(dataset)
            if pixels is not None:
                found.append((path, dataset, pixels))
    assert len(found) > 95
    return tuple(found)


def problems_of(check: Callable[[bytes, Dataset, Array], str]) -> None:
    problems = {}
    for path, dataset, pixels in decodable():
        problem = check(path.read_bytes(), dataset, pixels)
        if problem:
            problems[path.name] = problem
    assert not problems, pprint.pformat(problems, width=160)


def pictures(data: bytes, media_type: MediaType, **options: Any) -> list[Picture]:
    return list(render(io.BytesIO(data), RenderOptions(media_type=media_type, **options), LIMITS))


def opened(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    assert image.format == picture.media_type.removeprefix("image/").upper()
    assert image.size == picture.size
    return image


def test_png_shows_what_the_standards_pipeline_gives() -> None:
    def check(data: bytes, dataset: Dataset, pixels: Array) -> str:
        [picture] = pictures(data, MediaType.PNG, frames=(1,))
        image = opened(picture)
        if image.size != shown_size(dataset):
            return f"{image.size} for {shown_size(dataset)}"
        if image.size != (dataset.Columns, dataset.Rows):
            image = image.resize((dataset.Columns, dataset.Rows), Image.Resampling.NEAREST)
            allowed = 255.0  # stretched: its pixels are interpolated
        else:
            allowed = 0.51
        grey = is_grey(dataset)
        expected = expected_grey(dataset, pixels[0], pixels) if grey else expected_colour(dataset, pixels[0])
        seen = np.asarray(image).astype(float)
        if seen.shape != expected.shape:
            return f"shape {seen.shape} for {expected.shape}"
        if np.abs(seen - expected).mean() > (0.51 if allowed < 1 else 12):
            return f"differs by {np.abs(seen - expected).mean()} on average"
        worst = np.abs(seen - expected).max()
        return f"differs by {worst}" if worst > max(allowed, 1.0 if grey else 0) else ""

    problems_of(check)


def test_jpeg_and_thumbnail_show_every_image() -> None:
    def check(data: bytes, dataset: Dataset, pixels: Array) -> str:
        [jpeg] = pictures(data, MediaType.JPEG, frames=(len(pixels),), quality=95)
        small = thumbnail(io.BytesIO(data), SMALL, LIMITS)
        image = opened(jpeg)
        image.load()
        if image.size != shown_size(dataset):
            return f"{image.size} for {shown_size(dataset)}"
        if max(opened(small).size) != 128:
            return f"thumbnail of {opened(small).size}"
        return "" if small.frame == len(pixels) // 2 + 1 else f"thumbnail of frame {small.frame}"

    problems_of(check)


def test_gif_shows_every_frame() -> None:
    def check(data: bytes, dataset: Dataset, pixels: Array) -> str:
        wanted = tuple(range(1, min(len(pixels), 8) + 1))
        [gif] = pictures(data, MediaType.GIF, frames=wanted)
        image = opened(gif)
        if image.size != shown_size(dataset):
            return f"{image.size} for {shown_size(dataset)}"
        different = len({p.data for p in pictures(data, MediaType.PNG, frames=wanted)})
        count = getattr(image, "n_frames", 1)
        return "" if different <= count <= len(wanted) else f"{count} frames for {different}"

    problems_of(check)


def test_frames_in_explicit_little_endian_are_pydicoms() -> None:
    def check(data: bytes, dataset: Dataset, pixels: Array) -> str:
        given = list(frames(io.BytesIO(data), None, LIMITS, as_stored=False))
        if [frame.number for frame in given] != list(range(1, len(pixels) + 1)):
            return "numbers"
        for frame, stored in zip(given, pixels, strict=True):
            seen = read_native(frame.data, frame.described, dataset)
            expected = stored
            if frame.described["PhotometricInterpretation"] != dataset.PhotometricInterpretation:
                expected = pixel_array(dataset, index=frame.number - 1)
            if not np.array_equal(seen, expected):
                return f"frame {frame.number} differs"
        return ""

    problems_of(check)


def read_native(data: bytes, described: dict[str, Any], dataset: Dataset) -> Array:
    """By pydicom, from an instance that holds this frame alone."""
    alone = Dataset()
    alone.file_meta = type(dataset.file_meta)()
    alone.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    alone.set_original_encoding(False, True)
    for keyword, value in described.items():
        setattr(alone, keyword, value)
    keyword = next(keyword for keyword in PIXELS if keyword in dataset)
    setattr(alone, keyword, data + b"\0" * (len(data) % 2))
    alone[keyword].VR = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}.get(keyword, "OW")
    return pixel_array(alone, raw=True)


def test_frames_as_stored_are_joined_fragments_with_their_media_type() -> None:
    def check(data: bytes, dataset: Dataset, pixels: Array) -> str:
        given = list(frames(io.BytesIO(data), None, LIMITS, as_stored=True))
        if len(given) != len(pixels):
            return f"{len(given)} frames"
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated:
            return "" if {frame.media_type for frame in given} == {"application/octet-stream"} else "media type"
        starts = {"image/jpeg": b"\xff\xd8", "image/jls": b"\xff\xd8", "image/dicom-rle": b""}
        for frame in given:
            if frame.transfer_syntax != syntax:
                return "transfer syntax"
            start = starts.get(frame.media_type, (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "))
            if not frame.data.startswith(start) or frame.data[:16] not in dataset.PixelData:
                return f"{frame.media_type} starts with {frame.data[:8]!r}"
        return ""

    problems_of(check)


def test_explicit_little_endian_file_holds_the_same_values() -> None:
    problems: dict[str, str] = {}
    forms = set()
    for path, before in readable():
        out = io.BytesIO()
        try:
            to_explicit(io.BytesIO(path.read_bytes()), out, LIMITS)
        except Exception as error:
            if path in {decodable_path for decodable_path, _, _ in decodable()}:
                problems[path.name] = repr(error)
            continue
        forms.add(str(before.file_meta.TransferSyntaxUID))
        after = dcmread(io.BytesIO(out.getvalue()))
        if after.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
            problems[path.name] = "another transfer syntax"
        problem = differs(dcmread(path, force=True), after)
        if problem:
            problems[path.name] = problem
    assert not problems, pprint.pformat(problems, width=160)
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.90"} <= forms


def differs(before: Dataset, after: Dataset) -> str:
    keywords = [keyword for keyword in PIXELS if keyword in before]
    decoded = before.file_meta.TransferSyntaxUID.is_encapsulated and keywords
    if keywords:
        try:
            expected = pixel_array(
                before, raw=before.get("PhotometricInterpretation") == after.PhotometricInterpretation
            )
        except Exception:
            expected = None
        if expected is not None and not np.array_equal(pixel_array(after, raw=True), expected):
            return "pixels"
    gone = {0x7FE00001, 0x7FE00002, 0x7FE00003}
    changed = {0x00280002, 0x00280004, 0x00280006, 0x00280100, 0x00280101, 0x00280103} if decoded else set()
    for tag in sorted({*before.keys(), *after.keys()}):
        if tag in gone | changed or tag.element == 0 or tag.group == 0x7FE0:
            continue
        if (tag in before) != (tag in after):
            return f"{tag} {'gone' if tag in before else 'new'}"
        try:
            old = before[tag]
        except Exception:  # invalid in the file, and still so
            continue
        new = after[tag]
        if old.VR in ("OW", "UN") and before.original_encoding[1] is False:
            continue  # in the other byte order: test_pixels_explicit
        if str(old.value) != str(new.value) and old.value not in (None, "") and old.VR == new.VR:
            return f"{tag} {str(old.value)[:60]!r} became {str(new.value)[:60]!r}"
    return ""


def test_metadata_hold_every_element() -> None:
    problems: dict[str, str] = {}
    for path, dataset in readable():
        try:
            model = metadata(
                io.BytesIO(path.read_bytes()), LIMITS, bulk_over=1000, uri_of=lambda place: f"bulk/{place}"
            )
        except SickFile:
            if path.name != "rtplan_truncated.dcm":  # told, and not read as far as it goes
                problems[path.name] = "sick"
            continue
        wanted = {f"{tag:08X}" for tag in dataset.keys() if tag.element and tag != 0xFFFCFFFC}  # noqa: SIM118
        if model.keys() != wanted:
            problems[path.name] = str(model.keys() ^ wanted)
        elif any(not {"vr"} <= element.keys() or len(element) > 2 for element in model.values()):
            problems[path.name] = "element without vr, or with more than one value"
        else:
            problem = names_differ(dataset, model)
            if problem:
                problems[path.name] = problem
    assert not problems, pprint.pformat(problems, width=160)


def names_differ(dataset: Dataset, model: dict[str, Any]) -> str:
    if dataset.get("PatientName"):
        seen = model["00100010"]["Value"][0]
        name = dataset.PatientName
        expected = {"Alphabetic": name.alphabetic, "Ideographic": name.ideographic, "Phonetic": name.phonetic}
        if seen != {group: text for group, text in expected.items() if text}:
            return str(seen)
    if "SpecificCharacterSet" in dataset and model["00080005"]["Value"] != ["ISO_IR 192"]:
        return "character set"
    return ""
