"""What pictures of an instance should show, by pydicom's own decoding, lookup tables and windowing."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from federation.pixels.frame_attributes import aspect, frame_attributes

Array = np.ndarray[Any, Any]


def frames_of(dataset: Dataset) -> Array | None:
    """Stored values as pydicom decodes them: (frames, rows, columns[, 3]). None where it can't."""
    try:
        pixels = pixel_array(dataset, raw=True)
    except Exception:
        return None
    if pixels.ndim == (2 if dataset.SamplesPerPixel == 1 else 3):
        pixels = pixels[None]
    return pixels[: int(dataset.get("NumberOfFrames") or 1)]


def is_grey(dataset: Dataset) -> bool:
    return bool(dataset.SamplesPerPixel == 1 and dataset.PhotometricInterpretation != "PALETTE COLOR")


def shown_size(dataset: Dataset) -> tuple[int, int]:
    """Rows and columns, stretched where pixels aren't square."""
    ratio = aspect(frame_attributes(dataset, 0))
    return round(dataset.Columns * max(1, 1 / ratio)), round(dataset.Rows * max(1, ratio))


def expected_grey(dataset: Dataset, stored: Array, everywhere: Array) -> Array:
    """Modality LUT, VOI LUT or window by pydicom, which gives values in the range of possible outputs: → 0…255."""
    flat = frame_attributes(dataset, 0)
    for keyword in ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
        if keyword in dataset:
            setattr(flat, keyword, dataset[keyword].value)
    flat.file_meta = dataset.file_meta
    flat.set_original_encoding(*dataset.original_encoding)
    values = apply_modality_lut(stored, flat)
    if flat.get("VOILUTSequence"):
        bits = flat.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(values.astype(np.int32), flat).astype(float) / (2**bits - 1)
    elif flat.get("WindowWidth") and stored.dtype.kind in "iu":
        bits = dataset.BitsStored
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if dataset.PixelRepresentation else [0, 2**bits - 1])
        low, high = sorted(apply_modality_lut(ends, flat))
        shown = (apply_voi_lut(values, flat).astype(float) - low) / (high - low)
    else:
        bits = dataset.get("BitsStored", 64)
        if bits <= 8 and not dataset.PixelRepresentation:
            low, high = apply_modality_lut(np.array([0, 2**bits - 1]), flat)
        else:
            kept = stored[stored != flat.PixelPaddingValue] if "PixelPaddingValue" in flat else stored
            values_kept = apply_modality_lut(kept, flat)
            low, high = values_kept.min(), values_kept.max()
        shown = np.clip((values.astype(float) - low) / (high - low or 1), 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if "PixelPaddingValue" in flat:
        shown[stored == flat.PixelPaddingValue] = 0
    scaled: Array = shown * 255
    return scaled


def expected_colour(dataset: Dataset, stored: Array, frame: int = 0) -> Array:
    """`frame` from 0."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        mapped = apply_color_lut(stored, dataset)[..., :3]
        return mapped if mapped.dtype == np.uint8 else mapped >> (dataset.RedPaletteColorLookupTableDescriptor[2] - 8)
    shown = pixel_array(dataset, index=frame)  # RGB
    return shown if shown.dtype == np.uint8 else shown >> (dataset.BitsStored - 8)
