"""Other forms of an instance: its frames one by one, a Part-10 file in Explicit VR Little Endian. Pure; in the pool.

A colour space is changed only where the decoded pixels can't have the one that is declared: YBR_FULL_422 of a
compressed frame, YBR_ICT and YBR_RCT become RGB. All else stays as it was, bit by bit; `described` says what holds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRLittleEndian

from federation.elements import U32
from federation.pixels.errors import SickFile, TooLarge
from federation.pixels.explicit import make_explicit, turned
from federation.pixels.limits import Limits
from federation.pixels.source import Array, Source

OCTETS = "application/octet-stream"
#: PS3.18 tables 8.7.3-2, 8.7.3-4 and 8.7.3-5: of one frame, or of a whole video.
_MEDIA_TYPES = {
    f"1.2.840.10008.1.2.4.{last}": media
    for media, all_last in {
        "image/jpeg": ("50", "51", "57", "70"),
        "image/jls": ("80", "81"),
        "image/jp2": ("90", "91"),
        "image/jpx": ("92", "93"),
        "image/jxl": ("110", "111", "112"),
        "image/jphc": ("201", "202", "203"),
        "video/mpeg": ("100", "100.1", "101", "101.1"),
        "video/mp4": ("102", "102.1", "103", "103.1", "104", "104.1", "105", "105.1", "106", "106.1", "107", "108"),
    }.items()
    for last in all_last
}
_MEDIA_TYPES["1.2.840.10008.1.2.5"] = "image/dicom-rle"
_DESCRIPTION = {
    "SamplesPerPixel": "samples_per_pixel",
    "PhotometricInterpretation": "photometric_interpretation",
    "PlanarConfiguration": "planar_configuration",
    "Rows": "rows",
    "Columns": "columns",
    "BitsAllocated": "bits_allocated",
    "BitsStored": "bits_stored",
    "PixelRepresentation": "pixel_representation",
}
_OFFSET_TABLES = (0x7FE0_0001, 0x7FE0_0002, 0x7FE0_0003)
_CHUNK = 1 << 20
_LENGTH_MAX = 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Frame:
    """`number` from 1. `described`: attributes of the image pixel module that hold for `data`."""

    number: int
    media_type: str
    transfer_syntax: str
    data: bytes
    described: dict[str, Any]


def frames(file: IO[bytes], numbers: Sequence[int] | None, limits: Limits, *, as_stored: bool) -> Iterator[Frame]:
    """Frames `numbers` (from 1; None: all), in that order: as stored, or as Explicit VR Little Endian has them.

    Native pixels keep their PlanarConfiguration; decoded colour has 0. Of a video all is one frame when as stored.
    """
    with Source(file, limits) as source:
        _ = source.element
        described = declared_description(source.dataset)
        if as_stored and source.encapsulated:
            media = _MEDIA_TYPES.get(str(source.syntax), OCTETS)
            if media.startswith("video/"):
                numbers = [1] if numbers is None else numbers
                source.dataset.NumberOfFrames = 1  # the stream is not cut into frames
            indices = source.indices(numbers)
            for index, data in zip(indices, source.encoded(indices), strict=True):
                yield Frame(index + 1, media, str(source.syntax), data, described)
            return
        indices = source.indices(numbers)
        syntax = str(ExplicitVRLittleEndian)
        for index, (data, now) in zip(indices, _native(source, indices), strict=True):
            yield Frame(index + 1, OCTETS, syntax, data, described | now)


def declared_description(dataset: Dataset) -> dict[str, Any]:
    return {keyword: dataset[keyword].value for keyword in _DESCRIPTION if keyword in dataset}


def _native(source: Source, indices: Sequence[int]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Frames as PS3.5 §8.1 wants them, little endian; what changed in the description."""
    if source.encapsulated:
        for pixels, properties in source.decoded(indices):
            yield _laid_out(source, *_representable(pixels, properties))
        return
    if not float(source.native_length()).is_integer():
        for pixels, _ in source.decoded(indices):
            yield pack_bits(pixels, pad=False), {}
        return
    width = _swap_width(source)
    for index in indices:
        if width > 1 and source.native_length() % 2:
            # 8-bit pixels in words: a frame of odd length starts or ends inside of one
            [(pixels, _)] = source.decoded([index])
            if source.options().get("planar_configuration") == 1 and pixels.ndim == 3:
                pixels = pixels.transpose(2, 0, 1)
            yield pixels.tobytes(), {}
        else:
            data = source.native_frame(index)
            yield turned(data, width) if width > 1 else data, {}


def _representable(pixels: Array, properties: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
    if properties["photometric_interpretation"] == "YBR_FULL_422":
        return convert_color_space(pixels, "YBR_FULL", "RGB"), {**properties, "photometric_interpretation": "RGB"}
    return pixels, properties


def _laid_out(source: Source, pixels: Array, properties: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    now = {keyword: properties[name] for keyword, name in _DESCRIPTION.items() if name in properties}
    now["PhotometricInterpretation"] = str(now["PhotometricInterpretation"])
    if source.options()["bits_allocated"] == 1:
        return pack_bits(pixels, pad=False), now
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes(), now


def _swap_width(source: Source) -> int:
    """Bytes per number to turn round; 1: none."""
    if not source.big_endian:
        return 1
    allocated: int = source.options()["bits_allocated"] // 8
    # PS3.5 §A.3: OW is a string of 16-bit words, also if the pixels in it have 8 bits or one
    return max(2, allocated) if source.element.vr == "OW" else max(1, allocated)


def to_explicit(file: IO[bytes], out: IO[bytes], limits: Limits) -> dict[str, Any]:
    """Writes a Part-10 file in Explicit VR Little Endian → what the pixels are now, {} if there are none."""
    with Source(file, limits) as source:
        if source.syntax == ExplicitVRLittleEndian and not source.implicit:
            if source.pixels is not None and source.end_of_pixels() > source.file.size:
                raise SickFile("the instance is cut: its pixel data are shorter than they say")
            _copy(source.file, out, 0, source.file.size)
            return declared_description(source.dataset)
        trailing = source.trailing()
        described: dict[str, Any] = {}
        if source.pixels is not None:
            described = declared_description(source.dataset)
            if source.encapsulated:
                first = next(_native(source, [0]))[1]
                described |= first
                for keyword, value in first.items():
                    setattr(source.dataset, keyword, value)
        for tag in _OFFSET_TABLES:
            source.dataset.pop(tag, None)
        make_explicit(source.dataset, big_endian=source.big_endian)
        _write_head(source.dataset, out)
        if source.pixels is not None:
            _write_pixels(source, out)
        make_explicit(trailing, big_endian=source.big_endian)
        buffer = _dicom_buffer()
        write_dataset(buffer, trailing)
        out.write(buffer.getvalue())
        return described


def _write_head(dataset: Dataset, out: IO[bytes]) -> None:
    meta: FileMetaDataset = dataset.file_meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = getattr(dataset, "preamble", None) or b"\0" * 128
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True, overwrite=True, enforce_file_format=False)
    out.write(buffer.getbuffer())


def _write_pixels(source: Source, out: IO[bytes]) -> None:
    element, options = source.element, source.options()
    if source.encapsulated:
        length = options["rows"] * options["columns"] * options["samples_per_pixel"] * source.frame_count
        length = math.ceil(length / 8) if options["bits_allocated"] == 1 else length * (options["bits_allocated"] // 8)
    else:
        assert element.length is not None
        length = element.length
    padded = length + length % 2
    if padded > min(_LENGTH_MAX, source.limits.output_bytes):
        raise TooLarge("the instance is too large to be decoded as a whole: ask for its frames")
    vr = {0x7FE0_0008: b"OF", 0x7FE0_0009: b"OD"}.get(element.tag, b"OW" if options["bits_allocated"] > 8 else b"OB")
    out.write(bytes((0xE0, 0x7F, element.tag & 0xFF, 0)) + vr + b"\0\0" + U32.pack(padded))
    if source.encapsulated:
        if options["bits_allocated"] == 1:
            bits = [pixels.reshape(-1) for pixels, _ in source.decoded(range(source.frame_count))]
            out.write(pack_bits(np.concatenate(bits), pad=False))
        else:
            for data, _ in _native(source, range(source.frame_count)):
                out.write(data)
    else:
        _ = source.native_frame(source.frame_count - 1)  # SickFile if it is cut
        _copy(source.file, out, element.start, length, swap=_swap_width(source))
    out.write(b"\0" * (padded - length))


def _copy(file: IO[bytes], out: IO[bytes], start: int, length: int, *, swap: int = 1) -> None:
    file.seek(start)
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        length -= len(chunk)
        out.write(turned(chunk, swap) if swap > 1 else chunk)


def _dicom_buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    return buffer
