"""The DICOM JSON model of an instance (PS3.18 Annex F), without its pixels. Pure; runs in the pool."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import IO, Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from federation.pixels.explicit import WIDTHS, turned
from federation.pixels.limits import Limits
from federation.pixels.source import Source

Json = dict[str, Any]
#: Place of an element: "7FE00010", or "54000100/0/54001010" (tag, item from 0, tag) in a sequence → its URI.
UriOf = Callable[[str], str]

_BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
#: PS3.18 §F.2.6: may stand behind a BulkDataURI.
_BULK = _BINARY | {"LT", "ST", "UC", "UT"}
_ONE_VALUE = {"LT", "ST", "UT", "UR"}
_INTEGERS = {"IS", "SL", "SS", "SV", "UL", "US", "UV"}
_FLOATS = {"DS", "FD", "FL"}
_COMPONENTS = ("Alphabetic", "Ideographic", "Phonetic")
_CHARACTER_SET = 0x0008_0005
_PADDING = 0xFFFC_FFFC


def metadata(file: IO[bytes], limits: Limits, *, bulk_over: int, uri_of: UriOf | None = None) -> Json:
    """The DICOM JSON object, in UTF-8 whatever the instance is in (PS3.18 §F.2).

    Values of more than `bulk_over` bytes, and pixels, get a BulkDataURI, or are left out if there is no `uri_of`.
    """
    with Source(file, limits) as source:
        model = _Model(bulk_over, uri_of, big_endian=source.big_endian).of(source.dataset, "")
        if source.pixels is not None:
            if uri_of is not None:
                key = f"{source.pixels.tag:08X}"
                model[key] = {"vr": source.pixels.vr or "OW", "BulkDataURI": uri_of(key)}
            model |= _Model(bulk_over, uri_of, big_endian=source.big_endian).of(source.trailing(), "")
        return dict(sorted(model.items()))


class _Model:
    def __init__(self, bulk_over: int, uri_of: UriOf | None, *, big_endian: bool) -> None:
        self._bulk_over = bulk_over
        self._uri_of = uri_of
        self._big_endian = big_endian

    def of(self, dataset: Dataset, place: str) -> Json:
        model: Json = {}
        for tag in sorted(dataset.keys()):
            # PS3.18 §F.2.2: no group lengths, no file meta; padding says nothing
            if tag.element == 0 or tag.group in (0, 2) or tag == _PADDING:
                continue
            key = f"{tag:08X}"
            value = self._element(dataset, tag, f"{place}{key}")
            if value is not None:
                model[key] = value
        return model

    def _element(self, dataset: Dataset, tag: BaseTag, place: str) -> Json | None:
        if tag == _CHARACTER_SET:
            return {"vr": "CS", "Value": ["ISO_IR 192"]}
        raw: Any = dataset.get_item(tag)  # as it stands in the file, as long as nobody has asked for its value
        stored: bytes | None = raw.value if isinstance(raw, RawDataElement) else None
        try:
            element: DataElement = dataset[tag]
        except Exception:
            # A value that its VR does not allow is told as it stands, and not left out
            return self._invalid(str(raw.VR), stored or b"", place)
        vr = str(element.VR) if len(str(element.VR)) == 2 else "OW"
        if vr == "SQ":
            return _valued("SQ", [self.of(item, f"{place}/{n}/") for n, item in enumerate(element.value)])
        if vr in _BULK:
            value: bytes | str | None = stored or element.value
            if value and len(value) > self._bulk_over:
                return {"vr": vr, "BulkDataURI": self._uri_of(place)} if self._uri_of is not None else None
        if vr in _BINARY:
            binary = _bytes(element.value)
            return _inline(vr, turned(binary, WIDTHS.get(vr, 1)) if self._big_endian else binary)
        return _valued(vr, self._values(vr, element.value))

    def _invalid(self, vr: str, stored: bytes, place: str) -> Json | None:
        if vr in ("DS", "IS"):
            return _valued(vr, [part.strip() or None for part in stored.decode("latin-1").rstrip("\0 ").split("\\")])
        if len(stored) > self._bulk_over:
            return {"vr": "UN", "BulkDataURI": self._uri_of(place)} if self._uri_of is not None else None
        return _inline("UN", stored)

    def _values(self, vr: str, value: Any) -> list[Any]:
        if value is None or value == "" or (isinstance(value, bytes) and not value):
            return []
        many = isinstance(value, list | tuple | MultiValue)
        return [_value(vr, one) for one in (value if many and vr not in _ONE_VALUE else [value])]


def _value(vr: str, value: Any) -> Any:
    """PS3.18 table F.2.3-1."""
    if vr == "PN":
        groups = {name: text for name, text in zip(_COMPONENTS, str(value).split("="), strict=False) if text}
        return groups or None
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _INTEGERS and not isinstance(value, str):
        number = int(value)
        return number if -(1 << 63) <= number < 1 << 64 else str(number)
    if vr in _FLOATS and not isinstance(value, str):
        real = float(value)
        if math.isfinite(real):
            return int(real) if vr == "DS" and real.is_integer() and abs(real) < 1 << 53 else real
        return "NaN" if math.isnan(real) else "Infinity" if real > 0 else "-Infinity"
    return str(value).rstrip("\0 ") or None


def _valued(vr: str, values: list[Any]) -> Json:
    return {"vr": vr, "Value": values} if values and values != [None] else {"vr": vr}


def _inline(vr: str, value: bytes) -> Json:
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
