"""A Part-10 file, opened: its data set without pixels, and its frames one at a time, encoded or decoded.

The pixels stay in the file until a frame is wanted, and what is declared is checked before memory is taken for it.
Errors are `PixelError`, but for what pydicom raises on damaged bytes: `jobs` translates that.
"""

from __future__ import annotations

import io
import math
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.filereader import read_dataset, read_partial
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from federation.elements import META_END, U32, BadPart10, Head, Scanner, apply, encode_element
from federation.pixels.codestream import declared
from federation.pixels.errors import NoPixels, NoSuchFrame, SickFile, TooLarge, UnsupportedSyntax
from federation.pixels.limits import Limits

PIXEL_KEYWORDS = {0x7FE0_0008: "FloatPixelData", 0x7FE0_0009: "DoubleFloatPixelData", 0x7FE0_0010: "PixelData"}
DEFLATED = UID("1.2.840.10008.1.2.1.99")
_SYNTAX = 0x0002_0010
_META_SEARCH = 1 << 16
_STEP = 1 << 20
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFF_FFFF
_NAME = "<instance>"
#: EOI of JPEG and JPEG-LS, EOC of JPEG 2000: can't occur within what is encoded.
_END = b"\xff\xd9"
#: These carry their own dimensions.
_CODESTREAMS = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}

Array = np.ndarray[Any, np.dtype[Any]]


class BoundedFile(io.BufferedReader):
    """Takes no memory for bytes that the file does not have, whatever length an element declares."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_raw(file))
        self.short = False  # whether more was wanted than was left
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    @property
    def name(self) -> str:  # pydicom puts it into what it says of a cut file
        return _NAME

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        self.short = self.short or (size is not None and size > left > 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _raw(file: IO[bytes]) -> io.RawIOBase:
    raw = getattr(file, "raw", file)
    assert isinstance(raw, io.RawIOBase | io.BytesIO)
    return raw  # type: ignore[return-value]  # a BytesIO does what is asked of it here


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data's value stands in the file. `length` None: encapsulated, undefined."""

    tag: int
    vr: str | None
    start: int
    length: int | None


class Source:
    """`file` as it was sent: any transfer syntax, with or without pixels. Inflated here if it is deflated."""

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self.limits = limits
        self.file = BoundedFile(file)
        if self.file.size > limits.input_bytes:
            raise TooLarge(f"the instance is larger than {limits.input_bytes >> 20} MiB")
        self.stored_syntax = ""
        self._own = False
        self._inflate()
        self.pixels: PixelElement | None = None
        self.file.seek(0)
        self.dataset = self._read()
        self.syntax = UID(str(self.dataset.file_meta.get("TransferSyntaxUID", "")))
        if not self.syntax:
            raise SickFile("the instance is no DICOM file, or does not say its transfer syntax")
        self.stored_syntax = self.stored_syntax or str(self.syntax)
        if not self.syntax.is_transfer_syntax or self.syntax.is_private:
            raise UnsupportedSyntax("the transfer syntax of the instance is not known here")
        self._place_pixels()
        self._options: dict[str, Any] | None = None

    def close(self) -> None:
        """The file that was given stays open."""
        if self._own:
            self.file.close()
        elif not self.file.closed:
            self.file.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Dataset:
        """pydicom makes do with what there is of a cut file; but what is missing must not be missing in silence."""
        self.file.short = False
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            dataset: Dataset = read_partial(self.file, stop_when=self._at_pixels, force=True)
        values: list[Any] = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118 — as they are, not parsed
        incomplete = any(isinstance(v, RawDataElement) and _UNDEFINED > v.length > len(v.value or b"") for v in values)
        if self.file.short or incomplete or any(str(warning.message).endswith(f" in file {_NAME}") for warning in told):
            raise SickFile("the instance is cut, or is no DICOM file")
        return dataset

    def _at_pixels(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in PIXEL_KEYWORDS:
            self.pixels = PixelElement(tag, vr, 0, None if length == _UNDEFINED else length)
        return tag in PIXEL_KEYWORDS

    def _place_pixels(self) -> None:
        """The reader went back to the element's head. All VRs of pixels have a 32-bit length (PS3.5 §7.1.2)."""
        pixels = self.pixels
        if pixels is None:
            return
        start = self.file.tell() + (8 if pixels.vr is None else 12)
        self.pixels = PixelElement(pixels.tag, pixels.vr, start, pixels.length)
        if (pixels.length is None) != self.syntax.is_encapsulated and self.syntax != DEFLATED:
            raise SickFile("the pixel data are not encoded as the transfer syntax says")

    def _inflate(self) -> None:
        """PS3.5 §A.5. Goes into a file, and no further than the limit."""
        data = bytearray(self.file.read(_META_SEARCH))
        if data[128:132] != b"DICM":
            return
        scanner = Scanner(data, at=132, stop_at=META_END)
        try:
            scanner.scan()
        except BadPart10:
            return  # pydicom is more lenient, and judges
        head = Head(transfer_syntax="", data=bytes(data[: scanner.at]), elements=scanner.elements)
        if head.text(_SYNTAX) != DEFLATED or not scanner.done:
            return
        self.stored_syntax = str(DEFLATED)
        explicit = encode_element(_SYNTAX, "UI", ExplicitVRLittleEndian.encode())
        out = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 — lives as long as this source
        out.write(head.data[:132] + apply(head, {_SYNTAX: explicit}))
        self.file.seek(scanner.at)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        left = self.limits.input_bytes
        while not inflate.eof:
            chunk = inflate.unconsumed_tail or self.file.read(_STEP)
            try:
                plain = inflate.decompress(chunk, _STEP)
            except zlib.error:
                raise SickFile("the deflated instance is damaged") from None
            if not chunk and not plain:
                raise SickFile("the deflated instance is cut")
            left -= out.write(plain)
            if left < 0:
                raise TooLarge(f"the instance inflates to more than {self.limits.input_bytes >> 20} MiB")
        self.file.detach()
        self.file, self._own = BoundedFile(out), True

    @property
    def implicit(self) -> bool:
        """What it is, which is not always what the transfer syntax says."""
        if self.pixels is not None:
            return self.pixels.vr is None
        elements: list[Any] = [self.dataset.get_item(tag) for tag in self.dataset.keys()]  # noqa: SIM118 — not parsed
        return any(getattr(element, "is_implicit_VR", False) for element in elements)

    @property
    def big_endian(self) -> bool:
        return self.syntax == ExplicitVRBigEndian

    @property
    def encapsulated(self) -> bool:
        return self.syntax.is_encapsulated

    @property
    def element(self) -> PixelElement:
        """Of the pixel data. NoPixels if there are none."""
        if self.pixels is None:
            if "Rows" in self.dataset:
                raise SickFile("the instance is cut: it describes an image, and its pixels are missing")
            raise NoPixels("the instance is no image")
        return self.pixels

    @property
    def frame_count(self) -> int:
        """NumberOfFrames, 1 if it is absent or empty."""
        try:
            count = int(self.dataset.get("NumberOfFrames") or 1)
        except (TypeError, ValueError):
            raise SickFile("NumberOfFrames is no number") from None
        if count < 1:
            raise SickFile("NumberOfFrames is less than 1")
        return count

    def indices(self, frames: Sequence[int] | None) -> Sequence[int]:
        """Frame numbers from 1 → indices from 0; None: all."""
        count = self.frame_count
        if frames is None:
            return range(count)
        if not frames or min(frames) < 1 or max(frames) > count:
            raise NoSuchFrame(f"the instance has {count} frame{'s' if count > 1 else ''}, numbered from 1")
        return [number - 1 for number in frames]

    def options(self) -> dict[str, Any]:
        """What pydicom's decoders want to know, checked against the limits."""
        if self._options is None:
            element = self.element
            options = as_pixel_options(self.dataset, pixel_keyword=PIXEL_KEYWORDS[element.tag])
            options["number_of_frames"] = self.frame_count
            if element.vr:
                options["pixel_vr"] = element.vr
            options.setdefault("planar_configuration", 0)
            for name in ("rows", "columns", "samples_per_pixel", "bits_allocated"):
                if not isinstance(options.get(name), int) or options[name] < 1:
                    raise SickFile(f"the image has no valid {name.replace('_', ' ')}")
            allocated = options["bits_allocated"]
            if allocated != 1 and (allocated % 8 or allocated > 64):
                raise SickFile("the image has no valid bits allocated")
            stored = options.get("bits_stored") if element.tag == 0x7FE0_0010 else allocated
            if not isinstance(stored, int) or not 1 <= stored <= allocated:
                raise SickFile("the image has no valid bits stored")
            pixels = options["rows"] * options["columns"]
            size = pixels * options["samples_per_pixel"] * max(8, options["bits_allocated"]) // 8
            if pixels > self.limits.frame_pixels or size > self.limits.frame_bytes:
                raise TooLarge(
                    f"a frame of {options['columns']} × {options['rows']} pixels, {size >> 20} MiB, is more than "
                    f"is decoded here ({self.limits.frame_pixels} pixels, {self.limits.frame_bytes >> 20} MiB)"
                )
            self._options = options
        return self._options

    def decoder(self) -> Decoder:
        try:
            decoder: Decoder = get_decoder(self.syntax)
            if decoder.is_available:
                return decoder
        except NotImplementedError:  # how pydicom says that it knows no decoder of this syntax
            pass
        raise UnsupportedSyntax(f"pixels in {self.syntax.name} can't be decoded here")

    def native_length(self) -> int | float:
        """Bytes of one frame of native pixels; not whole if single bits are packed (PS3.5 §8.1.1)."""
        o = self.options()
        length: int | float = o["rows"] * o["columns"] * o["samples_per_pixel"]
        if o["bits_allocated"] == 1:
            return length / 8
        length *= o["bits_allocated"] // 8
        if o.get("photometric_interpretation") == "YBR_FULL_422":
            length = length // 3 * 2
        return length

    def native_frame(self, index: int) -> bytes:
        """The bytes that hold a native frame, as stored."""
        start, end = self._native_place(index)
        self.file.seek(start)
        return self.file.read(end - start)

    def _native_place(self, index: int) -> tuple[int, int]:
        element, length = self.element, self.native_length()
        start = element.start + math.floor(index * length)
        end = element.start + math.ceil((index + 1) * length)
        if end > min(self.file.size, element.start + (element.length or 0)):
            raise SickFile("the pixel data are shorter than the image that is declared")
        return start, end

    def encoded(self, indices: Sequence[int]) -> Iterator[bytes]:
        """Encapsulated frames, the fragments of each joined (PS3.5 §A.4)."""
        start, count = self.element.start, self.frame_count
        # Not by `options`: what is not decoded may be of any size
        tables = [self.dataset.get(f"ExtendedOffsetTable{part}") for part in ("", "Lengths")]
        offsets = (tables[0], tables[1]) if all(tables) else None
        if len(indices) == 1 or offsets:
            for index in indices:
                self.file.seek(start)
                yield get_frame(self.file, index, extended_offsets=offsets, number_of_frames=count)
            return
        # Without a table the frames can only be counted off: once for as long as the order allows it.
        frames: Iterator[bytes] = iter(())
        position = 0
        for index in indices:
            if index < position or position == 0:
                self.file.seek(start)
                frames, position = generate_frames(self.file, number_of_frames=count), 0
            for frame in frames:
                position += 1
                if position > index:
                    resume = self.file.tell()
                    yield frame
                    self.file.seek(resume)
                    break
            else:
                raise SickFile("the pixel data hold fewer frames than are declared")

    def decoded(self, indices: Sequence[int]) -> Iterator[tuple[Array, dict[str, Any]]]:
        """Frames as (rows, columns) or (rows, columns, samples), and the attributes that describe them now.

        No colour is converted, but where the decoder does it: YBR_ICT and YBR_RCT arrive as RGB.
        """
        options, decoder = self.options(), self.decoder()
        if not self.encapsulated:
            for index in indices:
                self._native_place(index)
                self.file.seek(self.element.start)
                yield decoder.as_array(self.file, index=index, raw=True, **options)
            return
        options = {name: value for name, value in options.items() if name != "extended_offsets"}
        options["number_of_frames"] = 1
        for frame in self.encoded(indices):
            self.check(frame)
            try:
                yield decoder.as_array(encapsulate([frame]), index=0, raw=True, **options)
            except (RuntimeError, ValueError) as error:
                raise SickFile("a frame can't be decoded: it is damaged or cut") from error

    def check(self, frame: bytes) -> None:
        """A compressed frame must declare the size that the data set declares."""
        if self.syntax not in _CODESTREAMS:
            return
        own = declared(frame)
        if own is None:
            raise SickFile("a compressed frame has no header that can be read")
        options = self.options()
        size = own.width * own.height
        if size > self.limits.frame_pixels or size * own.samples * own.precision // 8 > self.limits.frame_bytes:
            raise TooLarge(f"a compressed frame declares {own.width} × {own.height} pixels")
        if (own.width, own.height) != (options["columns"], options["rows"]):
            raise SickFile("a compressed frame declares another size than the instance does")
        if frame.rfind(_END) < own.end:
            # Decoders fill what is missing with grey, and say nothing
            raise SickFile("a compressed frame is cut")
        if own.samples != options["samples_per_pixel"]:
            raise SickFile("a compressed frame declares another number of samples than the instance does")

    def end_of_pixels(self) -> int:
        """Offset of what follows the pixel data."""
        element = self.element
        if element.length is not None:
            return element.start + element.length
        at = element.start
        while at + 8 <= self.file.size:
            self.file.seek(at)
            head = self.file.read(8)
            at += 8
            if head[:4] == _SEQUENCE_END:
                return at
            if head[:4] != _ITEM:
                break
            at += U32.unpack_from(head, 4)[0]
        raise SickFile("the fragments of the pixel data are damaged or cut")

    def trailing(self) -> Dataset:
        """What stands behind the pixel data: digital signatures, padding."""
        if self.pixels is None:
            return Dataset()
        self.file.seek(min(self.end_of_pixels(), self.file.size))
        return read_dataset(self.file, self.implicit, not self.big_endian)
