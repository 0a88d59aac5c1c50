"""What is said of one frame, wherever it stands: in the data set or in functional groups (PS3.3 §C.7.6.16). Pure."""

from __future__ import annotations

from pydicom.dataset import Dataset

_LUTS = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept")
_VOI = ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_GROUPS = {
    "PixelValueTransformationSequence": _LUTS,
    "FrameVOILUTSequence": _VOI,
    "PixelMeasuresSequence": _SPACINGS[:1],
}
_PADDING = tuple(
    f"{prefix}Padding{suffix}"
    for prefix in ("Pixel", "FloatPixel", "DoubleFloatPixel")
    for suffix in ("Value", "RangeLimit")
)
_TOP = (*_LUTS, *_VOI, *_SPACINGS, *_PADDING, "PixelAspectRatio", "PixelRepresentation")


def frame_attributes(dataset: Dataset, index: int) -> Dataset:
    """The attributes of presentation that hold for the frame at `index`, flat."""
    found = Dataset()
    for keyword in _TOP:
        if keyword in dataset:
            found[keyword] = dataset[keyword]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = dataset.get(sequence) or []
        place = 0 if sequence.startswith("Shared") else index
        if place >= len(items):
            continue
        for group, keywords in _GROUPS.items():
            for item in (items[place].get(group) or [])[:1]:
                for keyword in keywords:
                    if keyword in item:
                        found[keyword] = item[keyword]
    return found


def aspect(attributes: Dataset) -> float:
    """Height of a pixel over its width; 1 if nothing sensible is said (PS3.3 §C.7.6.3.1.7, §10.7.1.3)."""
    for keyword in (*_SPACINGS, "PixelAspectRatio"):
        value = attributes.get(keyword)
        if value is None or not hasattr(value, "__len__") or len(value) != 2:
            continue
        try:
            vertical, horizontal = (float(v) for v in value)
        except (TypeError, ValueError):
            continue
        if vertical > 0 and horizontal > 0 and 0.05 <= vertical / horizontal <= 20:
            return vertical / horizontal
    return 1.0
