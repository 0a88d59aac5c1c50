"""Implicit VR or Big Endian data sets → Explicit VR Little Endian, value by value and without decoding text. Pure.

Values keep their bytes, whatever character set they are in and whether or not they are valid; numbers are turned round.
"""

from __future__ import annotations

from typing import Any

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

#: Bytes per number, PS3.5 §6.2 and §7.3. All others are strings of bytes.
WIDTHS = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
#: PS3.6's ambiguous VRs that don't depend on the sign of the pixels.
_AMBIGUOUS = {"OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}


def make_explicit(dataset: Dataset, *, big_endian: bool, signed: bool | None = None) -> None:
    """Changes `dataset` in place so that it is written as Explicit VR Little Endian. `signed`: of the parent."""
    if "PixelRepresentation" in dataset:
        signed = dataset.get("PixelRepresentation") == 1
    for tag in list(dataset.keys()):
        element: Any = dataset.get_item(tag)  # raw as long as nobody has asked for its value
        if isinstance(element, RawDataElement):
            vr = element.VR or _vr(dataset, tag, signed=bool(signed))
            if vr != "SQ":
                value: bytes = element.value or b""
                if big_endian:
                    value = turned(value, WIDTHS.get(vr, 1))
                dataset[tag] = element._replace(VR=vr, value=value, is_implicit_VR=False, is_little_endian=True)
                continue
        parsed: DataElement = dataset[tag]
        if parsed.VR == "SQ":
            for item in parsed.value:
                make_explicit(item, big_endian=big_endian, signed=signed)
    dataset.set_original_encoding(False, True, dataset.original_character_set)


def turned(value: bytes, width: int) -> bytes:
    """Numbers of `width` bytes in the other byte order; a rest that is no whole number stays."""
    if width == 1 or not value:
        return value
    whole = len(value) // width * width
    out = bytearray(value)
    for place in range(width):
        out[place:whole:width] = value[width - 1 - place : whole : width]
    return bytes(out)


def _vr(dataset: Dataset, tag: BaseTag, *, signed: bool) -> str:
    """The VR of an element that came without: by dictionary, else UN."""
    try:
        if not tag.is_private:
            vr = dictionary_VR(tag)
        elif tag.is_private_creator:
            vr = "LO"
        else:
            vr = private_dictionary_VR(tag, str(dataset[tag.group, tag.element >> 8].value))
    except KeyError:
        return "UL" if tag.element == 0 else "UN"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return _AMBIGUOUS.get(vr, vr)
