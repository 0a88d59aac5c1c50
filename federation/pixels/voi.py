"""From stored values to grey (PS3.3 §C.11): Modality LUT, VOI LUT or window, polarity. Pure.

Stored values of at most 16 bits are taken through a table of all values that occur, others block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from federation.pixels.errors import SickFile
from federation.pixels.options import VoiFunction, Window
from federation.pixels.source import Array

_BLOCK = 1 << 20
_FUNCTIONS = {
    "LINEAR": VoiFunction.LINEAR,
    "LINEAR_EXACT": VoiFunction.LINEAR_EXACT,
    "SIGMOID": VoiFunction.SIGMOID,
}


def windowed(x: Array, window: Window) -> Array:
    """→ 0…1. PS3.3 §C.11.2.1.2.1 (linear), §C.11.2.1.3.1 (sigmoid), §C.11.2.1.3.2 (linear exact)."""
    c, w = window.center, window.width
    with np.errstate(over="ignore", invalid="ignore"):
        match window.function:
            case VoiFunction.SIGMOID:
                y: Array = 1 / (1 + np.exp(-4 * (x - c) / w))
            case VoiFunction.LINEAR_EXACT:
                y = np.clip((x - c) / w + 0.5, 0, 1)
            case VoiFunction.LINEAR if w == 1:
                y = np.where(x <= c - 0.5, 0.0, 1.0)
            case _:
                y = np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)
    return y


def look_up(x: Array, item: Dataset, *, big_endian: bool) -> tuple[Array, int]:
    """Values through a LUT (PS3.3 §C.11.1.1.1, §C.11.2.1.1) → values, bits per entry."""
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    count = count or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        entries: Array = np.frombuffer(data, dtype=np.dtype(np.uint16).newbyteorder(">" if big_endian else "<"))
        if bits == 8 and len(data) < 2 * count:  # two entries per word
            entries = np.frombuffer(data, dtype=np.uint8)
    else:
        entries = np.asarray(data, dtype=np.int64) & 0xFFFF
    if not 1 <= bits <= 16 or len(entries) < count:
        raise SickFile("a lookup table of the image is not as long as it says")
    if first >= 1 << 15 and x.size and float(np.nanmin(x)) < 0:
        first -= 1 << 16  # a signed value whose VR was written as US
    index = np.clip(np.nan_to_num(x, nan=-np.inf) - first, 0, count - 1).astype(np.int64)
    return entries[index].astype(np.float64), bits


class Presentation:
    """How the stored values of one frame are shown. `attributes` holds what applies to this frame."""

    def __init__(self, attributes: Dataset, options: dict[str, Any], *, window: Window | None, big_endian: bool):
        self._attributes = attributes
        self._big_endian = big_endian
        self._options = options
        self._inverted = options.get("photometric_interpretation") == "MONOCHROME1"
        self._padding = _padding(attributes)
        self._modality = self._modality_lut()
        self._window = window or (None if self._voi_lut() is not None else _own_window(attributes))
        self._use_lut = window is None and self._voi_lut() is not None

    def grey(self, frame: Array) -> Array:
        """(rows, columns) of stored values → the same shape, 8 bits, 0 is black."""
        out = np.empty(frame.shape, dtype=np.uint8)
        flat, target = frame.reshape(-1), out.reshape(-1)
        if frame.dtype.kind in "iub" and frame.dtype.itemsize <= 2:
            low, high = int(frame.min()), int(frame.max())
            tone = self._tone(frame, (low, high))
            table = tone(np.arange(low, high + 1))
            for at in range(0, flat.size, _BLOCK):
                target[at : at + _BLOCK] = table[flat[at : at + _BLOCK].astype(np.int32) - low]
        else:
            tone = self._tone(frame, None)
            for at in range(0, flat.size, _BLOCK):
                target[at : at + _BLOCK] = tone(flat[at : at + _BLOCK])
        return out

    def _tone(self, frame: Array, ends: tuple[int, int] | None) -> Callable[[Array], Array]:
        window = self._window
        if window is None and not self._use_lut:
            window = self._full_range(frame, ends)

        def tone(stored: Array) -> Array:
            values = self._modality(stored.astype(np.float64))
            if self._use_lut:
                item = self._voi_lut()
                assert item is not None
                entries, bits = look_up(np.rint(values), item, big_endian=self._big_endian)
                shown = np.clip(entries / ((1 << bits) - 1), 0, 1)
            elif window is None:
                shown = np.zeros(values.shape)
            else:
                shown = windowed(values, window)
            if self._inverted:
                shown = 1 - shown
            # PS3.3 §C.7.5.1.1.2: padding is no part of the image; it is shown as background
            shown[self._is_padding(stored) | ~np.isfinite(values)] = 0
            grey: Array = np.rint(shown * 255).astype(np.uint8)
            return grey

        return tone

    def _full_range(self, frame: Array, ends: tuple[int, int] | None) -> Window | None:
        """No window is given: all values of up to 8 bits, else those from least to greatest that occur."""
        bits = self._options.get("bits_stored", 64)
        if ends is not None and bits <= 8 and not self._options.get("pixel_representation") and ends[1] < 1 << bits:
            stored = np.array([0, (1 << bits) - 1])
        else:
            stored = self._extremes(frame)
        values = self._modality(stored.astype(np.float64))
        if values.size == 0 or (least := float(values.min())) == (greatest := float(values.max())):
            return None
        return Window(center=least / 2 + greatest / 2, width=greatest - least, function=VoiFunction.LINEAR_EXACT)

    def _extremes(self, frame: Array) -> Array:
        """Of the stored values that are shown. A Modality LUT need not be monotonic: then all that occur."""
        flat, found = frame.reshape(-1), []
        for at in range(0, flat.size, _BLOCK):
            block = flat[at : at + _BLOCK]
            block = block[~self._is_padding(block) & np.isfinite(block)]
            if block.size:
                every = np.unique(block) if self._attributes.get("ModalityLUTSequence") else block
                found.append(every if every is not block else np.array([block.min(), block.max()]))
        return np.unique(np.concatenate(found)) if found else np.zeros(0)

    def _is_padding(self, stored: Array) -> Array:
        if self._padding is None:
            return np.zeros(stored.shape, dtype=bool)
        mask: Array = (stored >= self._padding[0]) & (stored <= self._padding[1])
        return mask

    def _modality_lut(self) -> Callable[[Array], Array]:
        attributes = self._attributes
        if attributes.get("ModalityLUTSequence"):
            item, big = attributes.ModalityLUTSequence[0], self._big_endian
            return lambda x: look_up(x, item, big_endian=big)[0]
        slope = _number(attributes.get("RescaleSlope"), 1.0)
        intercept = _number(attributes.get("RescaleIntercept"), 0.0)
        return lambda x: x * slope + intercept

    def _voi_lut(self) -> Dataset | None:
        sequence = self._attributes.get("VOILUTSequence")
        return sequence[0] if sequence else None


def _own_window(attributes: Dataset) -> Window | None:
    """The first window of the data set; None if there is none that means anything."""
    center = _number(attributes.get("WindowCenter"), None)
    width = _number(attributes.get("WindowWidth"), None)
    function = _FUNCTIONS.get(str(attributes.get("VOILUTFunction") or "LINEAR"), VoiFunction.LINEAR)
    if center is None or width is None or width < (1 if function is VoiFunction.LINEAR else 1e-300):
        return None
    return Window(center=center, width=width, function=function)


def _padding(attributes: Dataset) -> tuple[float, float] | None:
    for prefix in ("FloatPixelPadding", "DoubleFloatPixelPadding", "PixelPadding"):
        value = _number(attributes.get(f"{prefix}Value"), None)
        if value is not None:
            limit = _number(attributes.get(f"{prefix}RangeLimit"), None)
            limit = value if limit is None else limit
            return min(value, limit), max(value, limit)
    return None


def _number(value: Any, otherwise: Any) -> Any:
    """The first value as a finite float, else `otherwise`."""
    if isinstance(value, list | tuple) or hasattr(value, "append"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if np.isfinite(number) else otherwise
