"""What the header of a compressed frame declares, read before a decoder takes memory for it. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOI = b"\xff\xd8"
_J2K = b"\xff\x4f\xff\x51"
#: Markers without a length: RST0-7, SOI, EOI, TEM.
_BARE = {0x01, *range(0xD0, 0xDA)}
#: Start of frame; not DHT, JPG, DAC. 0xF7 is JPEG-LS.
_SOF = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
_SIZ = struct.Struct(">HHIIIIIIIIH")
_JP2 = b"\0\0\0\x0cjP  "


@dataclass(frozen=True, slots=True)
class Declared:
    """Pixels, samples per pixel, bits per sample."""

    width: int
    height: int
    samples: int
    precision: int
    end: int = 0  # offset of what follows this header


def declared(frame: bytes) -> Declared | None:
    """ISO 10918-1 and 14495-1 (SOI), ISO 15444-1 (SOC, or in a JP2 file). None if the header can't be read."""
    if frame[:2] == _SOI:
        return _jpeg(frame)
    start = _jp2(frame) if frame.startswith(_JP2) else 0
    return _jpeg2000(frame, start + 4) if start is not None and frame[start : start + 4] == _J2K else None


def _jp2(frame: bytes) -> int | None:
    """Where the codestream starts in a JP2 file (ISO 15444-1 §I.4). A box that does not lead on makes pydicom run in
    circles: then None."""
    at = 12
    while at + 8 <= len(frame):
        length = int.from_bytes(frame[at : at + 4], "big")
        if frame[at + 4 : at + 8] == b"jp2c":
            return at + 8
        if length < 8:
            return None
        at += length
    return None


def _jpeg(frame: bytes) -> Declared | None:
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _SOF:
            if len(frame) < at + 10:
                return None
            precision, height, width, samples = struct.unpack_from(">BHHB", frame, at + 4)
            return Declared(width, height, samples, precision, at + 10)
        else:
            at += 2 + max(2, int.from_bytes(frame[at + 2 : at + 4], "big"))
    return None


def _jpeg2000(frame: bytes, at: int) -> Declared | None:
    if len(frame) < at + _SIZ.size + 3:
        return None
    _, _, x1, y1, x0, y0, *_, samples = _SIZ.unpack_from(frame, at)
    return Declared(x1 - x0, y1 - y0, samples, (frame[at + _SIZ.size] & 0x7F) + 1, at)
