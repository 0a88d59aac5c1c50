"""Pictures of an instance (PS3.18 §8.3.5, §10.4.1.1.5): JPEG, PNG, GIF. Pure, on an opened file; runs in the pool.

Overlays, shutters and presentation states are not applied.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from federation.pixels.annotate import annotate
from federation.pixels.errors import SickFile, TooLarge
from federation.pixels.frame_attributes import aspect, frame_attributes
from federation.pixels.geometry import Layout, lay_out
from federation.pixels.limits import Limits
from federation.pixels.options import MediaType, RenderOptions
from federation.pixels.source import Array, Source
from federation.pixels.voi import Presentation

#: Milliseconds between the frames of an animated picture if the instance says nothing, and at least.
_PAUSE, _PAUSE_MIN = 100, 20
_YBR = {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}


@dataclass(frozen=True, slots=True)
class Picture:
    """`frame` from 1; None: all of them, in one animated picture. `size`: width, height in pixels."""

    media_type: MediaType
    data: bytes
    size: tuple[int, int]
    frame: int | None


def render(file: IO[bytes], options: RenderOptions, limits: Limits) -> Iterator[Picture]:
    """One picture per frame wanted, or one animated GIF."""
    with Source(file, limits) as source:
        _ = source.element
        indices = source.indices(options.frames)
        if options.media_type is MediaType.GIF and len(indices) > 1:
            yield _animated(source, indices, options)
            return
        frames = source.decoded(indices)
        for index, (pixels, described) in zip(indices, frames, strict=True):
            image = _show(source, index, pixels, described, options)
            yield Picture(options.media_type, _encode(image, source.dataset, options), image.size, index + 1)


def thumbnail(file: IO[bytes], options: RenderOptions, limits: Limits) -> Picture:
    """One picture of the first of the frames wanted, else of the middle one: it represents the instance best."""
    with Source(file, limits) as source:
        _ = source.element
        number = options.frames[0] if options.frames else source.frame_count // 2 + 1
        [index] = source.indices([number])
        pixels, described = next(source.decoded([index]))
        image = _show(source, index, pixels, described, options)
        return Picture(options.media_type, _encode(image, source.dataset, options), image.size, number)


def _show(source: Source, index: int, pixels: Array, described: dict[str, Any], options: RenderOptions) -> Image.Image:
    attributes = frame_attributes(source.dataset, index)
    # Where the picture can't be laid out nothing needs to be computed
    layout = lay_out(pixels.shape[1], pixels.shape[0], options.viewport, aspect=aspect(attributes))
    if described["samples_per_pixel"] == 1 and described["photometric_interpretation"] != "PALETTE COLOR":
        presentation = Presentation(attributes, described, window=options.window, big_endian=source.big_endian)
        image = Image.fromarray(presentation.grey(pixels))
    else:
        image = Image.fromarray(colour(pixels, described, source.dataset))
    image = _lay(image, layout)
    if options.annotation:
        annotate(image, source.dataset, options.annotation, frame=index + 1)
    return image


def colour(pixels: Array, described: dict[str, Any], dataset: Dataset) -> Array:
    """Stored colour or palette values → (rows, columns, 3), RGB, 8 bits (PS3.3 §C.7.6.3.1.2)."""
    photometric, bits = str(described["photometric_interpretation"]), described.get("bits_stored", 8)
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        if pixels.dtype.itemsize == 1:
            bits = 8
    elif photometric not in _YBR | {"RGB", "YBR_ICT", "YBR_RCT"} or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise SickFile("the image has a photometric interpretation that can't be shown")
    if pixels.dtype.kind != "u":
        raise SickFile("colours of the image are signed or no whole numbers")
    if pixels.dtype != np.uint8:
        pixels = np.minimum(pixels >> max(0, bits - 8), 255).astype(np.uint8)
    elif bits < 8 and photometric != "PALETTE COLOR":
        pixels = (np.minimum(pixels, (1 << bits) - 1) * (255 / ((1 << bits) - 1))).astype(np.uint8)
    if photometric in _YBR:
        pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
    return np.ascontiguousarray(pixels)


def _lay(image: Image.Image, layout: Layout) -> Image.Image:
    box = layout.box
    if layout.size != image.size or box != (0, 0, *image.size):
        image = image.resize(layout.size, Image.Resampling.BILINEAR, box=box)
    if layout.flip_horizontally:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if layout.flip_vertically:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def _encode(image: Image.Image, dataset: Dataset, options: RenderOptions) -> bytes:
    out = io.BytesIO()
    profile = _icc_profile(dataset) if options.icc_profile and image.mode == "RGB" else None
    match options.media_type:
        case MediaType.JPEG:
            image.save(out, "JPEG", quality=options.quality, icc_profile=profile)
        case MediaType.PNG:
            image.save(out, "PNG", icc_profile=profile)
        case MediaType.GIF:
            image.save(out, "GIF")
    return out.getvalue()


def _icc_profile(dataset: Dataset) -> bytes | None:
    profile = dataset.get("ICCProfile")
    for item in (dataset.get("OpticalPathSequence") or [])[:1]:
        profile = profile or item.get("ICCProfile")
    return profile if isinstance(profile, bytes) and profile else None


def _animated(source: Source, indices: Sequence[int], options: RenderOptions) -> Picture:
    rows, columns = source.options()["rows"], source.options()["columns"]
    first = lay_out(columns, rows, options.viewport, aspect=aspect(frame_attributes(source.dataset, indices[0])))
    # Pillow holds all frames of an animated picture until it is written.
    if first.size[0] * first.size[1] * len(indices) > source.limits.animation_pixels:
        raise TooLarge("the animated picture would be too large: ask for fewer frames or a smaller viewport")
    still = replace(options, media_type=MediaType.GIF)
    frames = source.decoded(indices)
    images = (
        _show(source, index, pixels, described, still)
        for index, (pixels, described) in zip(indices, frames, strict=True)
    )
    start = next(images)
    out = io.BytesIO()
    # Pillow joins frames that are equal; the viewer's clock is kept by their durations, which it then adds up.
    start.save(out, "GIF", save_all=True, append_images=images, duration=_pause(source.dataset), loop=0)
    return Picture(MediaType.GIF, out.getvalue(), start.size, None)


def _pause(dataset: Dataset) -> int:
    """Milliseconds between frames (PS3.3 §C.7.6.5)."""
    for keyword, per_second in (("FrameTime", False), ("RecommendedDisplayFrameRate", True), ("CineRate", True)):
        try:
            value = float(dataset.get(keyword) or 0)
        except (TypeError, ValueError):
            continue
        if 0 < value < 1e5:
            return min(10_000, max(_PAUSE_MIN, round(1000 / value if per_second else value)))
    return _PAUSE
