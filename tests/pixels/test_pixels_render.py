"""Pictures of images made to measure: each step from stored values to what is seen."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms
from pixels_files import instance
from pixels_files import test_file as file_bytes
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import EncapsulatedPDFStorage

from federation.pixels.annotate import drawable
from federation.pixels.errors import NoPixels, NoSuchFrame, SickFile, TooLarge
from federation.pixels.limits import Limits
from federation.pixels.options import SMALL, MediaType, RenderOptions, Viewport, VoiFunction, Window
from federation.pixels.render import render, thumbnail
from federation.pixels.voi import windowed

LIMITS = Limits()
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
Array = np.ndarray[Any, Any]


def pictures(data: bytes, **options: Any) -> list[Image.Image]:
    found = render(io.BytesIO(data), RenderOptions(**{"media_type": MediaType.PNG} | options), LIMITS)
    return [Image.open(io.BytesIO(picture.data)) for picture in found]


def shown(data: bytes, **options: Any) -> Array:
    [image] = pictures(data, **options)
    return np.asarray(image)


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_eight_bits_without_a_window_are_shown_as_they_are() -> None:
    assert np.array_equal(shown(instance(RAMP)), RAMP)
    assert np.array_equal(shown(instance(RAMP, PhotometricInterpretation="MONOCHROME1")), 255 - RAMP)


def test_more_bits_without_a_window_span_what_occurs() -> None:
    for pixels in (np.array([[-500, 0], [500, 1500]], "i2"), np.array([[100, 600], [1100, 2100]], "u2")):
        assert shown(instance(pixels)).tolist() == [[0, 64], [128, 255]]


@given(
    arrays(np.int16, (4, 6), elements=st.integers(-2048, 2047)),
    st.floats(-3000, 3000),
    st.floats(1, 5000),
    st.sampled_from(VoiFunction),
    st.sampled_from([1.0, 0.5, 2.0]),
    st.integers(-1024, 1024),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_window_is_the_standards_formula(
    pixels: Array, center: float, width: float, function: VoiFunction, slope: float, intercept: int, asked: bool
) -> None:
    """PS3.3 §C.11.2.1.2 and §C.11.2.1.3, value by value; asked for, or in the data set."""
    center, width = float(f"{center:.6g}"), max(1.0, float(f"{width:.6g}"))
    attributes: dict[str, Any] = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    window = None
    if asked:
        attributes |= {"WindowCenter": 1, "WindowWidth": 2}
        window = Window(center=center, width=width, function=function)
    else:
        names = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
        attributes |= {
            "WindowCenter": f"{center:.6g}",
            "WindowWidth": f"{width:.6g}",
            "VOILUTFunction": names[function],
        }
    seen = shown(instance(pixels, **attributes), window=window)
    for stored, grey in zip(pixels.flat, seen.flat, strict=True):
        expected = by_formula(float(stored) * slope + intercept, center, width, function)
        assert abs(float(grey) - expected) <= 0.5 + 1e-6


def by_formula(x: float, c: float, w: float, function: VoiFunction) -> float:
    if function is VoiFunction.SIGMOID:
        return float(255 / (1 + np.exp(np.clip(-4 * (x - c) / w, -700, 700))))
    if function is VoiFunction.LINEAR_EXACT:
        return 0 if x <= c - w / 2 else 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    return 255 if x > c - 0.5 + (w - 1) / 2 else ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


@given(st.floats(-3000, 3000), st.floats(1.01, 5000), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
@settings(max_examples=50, deadline=None)
def test_window_agrees_with_pydicom(center: float, width: float, function: str) -> None:
    values = np.arange(4096, dtype=np.uint16)
    dataset = item(BitsStored=12, PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2")
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = f"{center:.6g}", f"{width:.6g}", function
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, dataset) / 4095
    window = Window(
        center=float(f"{center:.6g}"),
        width=float(f"{width:.6g}"),
        function=VoiFunction(function.lower().replace("_", "-")),
    )
    assert np.allclose(windowed(values.astype(float), window), expected, atol=1e-9)


@given(arrays(np.uint16, (3, 3)), st.floats(-1e5, 1e5), st.floats(1, 1e5), st.sampled_from(VoiFunction))
@settings(max_examples=30, deadline=None)
def test_window_never_turns_brighter_into_darker(
    pixels: Array, center: float, width: float, function: VoiFunction
) -> None:
    seen = shown(instance(pixels), window=Window(center=center, width=width, function=function))
    order = np.argsort(pixels, axis=None)
    assert (np.diff(seen.flat[order].astype(int)) >= 0).all()


def test_window_of_the_request_beats_the_lut_of_the_data_set() -> None:
    lut = item(LUTDescriptor=[256, 0, 16], LUTData=[65535 - 257 * n for n in range(256)])
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    data = instance(RAMP, VOILUTSequence=[lut], WindowCenter=10, WindowWidth=5)
    assert np.array_equal(shown(data), 255 - RAMP)
    exact = Window(center=127.5, width=255, function=VoiFunction.LINEAR_EXACT)
    assert np.array_equal(shown(data, window=exact), RAMP)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_modality_lut_comes_first(bits: int) -> None:
    lut = item(LUTDescriptor=[4, 2, bits], LUTData=[10, 30, 20, 40], ModalityLUTType="US")
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    pixels = np.array([[0, 2, 3, 4, 5, 6, 60000]], "u2")
    seen = shown(instance(pixels, ModalityLUTSequence=[lut]), window=Window(center=25.5, width=51))
    assert np.allclose(seen[0], np.array([10, 10, 30, 20, 40, 40, 40]) / 50 * 255, atol=0.51)


def test_first_window_that_means_anything_is_used() -> None:
    wide = instance(RAMP, WindowCenter=[128, 40], WindowWidth=[256, 80])
    assert np.abs(shown(wide).astype(int) - RAMP).max() <= 1
    assert np.array_equal(shown(instance(RAMP, WindowCenter=128, WindowWidth=0)), RAMP)


def test_windows_of_functional_groups_hold_for_their_frame() -> None:
    frames = np.stack([RAMP, RAMP, RAMP])
    groups = [
        item(
            FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=1)],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=0, RescaleType="US")],
        )
        for c in (50.5, 100.5, 200.5)
    ]
    data = instance(frames, frames=3, PerFrameFunctionalGroupsSequence=groups)
    for image, threshold in zip(pictures(data), (50, 100, 200), strict=True):
        assert np.array_equal(np.asarray(image), np.where(threshold < RAMP, 255, 0))


def test_padding_is_background_and_has_no_part_in_the_range() -> None:
    pixels = np.array([[-2000, 0], [100, 50]], "i2")
    for photometric, expected in (("MONOCHROME2", [[0, 0], [255, 128]]), ("MONOCHROME1", [[0, 255], [0, 128]])):
        data = instance(pixels, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
        assert np.abs(shown(data).astype(int) - expected).max() <= 1
    ranged = instance(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=0)
    assert shown(ranged).tolist() == [[0, 0], [255, 0]]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_float_pixels_are_shown_and_what_is_no_number_is_background(dtype: str) -> None:
    pixels = np.array([[-1.5, 0], [np.nan, 1.5], [np.inf, -np.inf]], dtype)
    seen = shown(instance(pixels))
    assert seen.tolist() == [[0, 128], [0, 255], [0, 0]]


def test_image_of_one_value_is_shown() -> None:
    for pixels in (np.full((2, 2), 7, "u2"), np.full((2, 2), np.nan, "f4"), np.full((2, 2), 7, "i4")):
        assert shown(instance(pixels)).shape == (2, 2)


def test_colours_are_shown_as_they_are() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(shown(instance(colours)), colours)
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1)).tobytes() + b"\0"
    assert np.array_equal(shown(instance(colours, PlanarConfiguration=1, PixelData=planes)), colours)
    deep = colours.astype("u2") << 4 | 5
    assert np.array_equal(shown(instance(deep, BitsStored=12, HighBit=11)), colours)


def test_palette_gives_colours() -> None:
    tables = {
        f"{name}PaletteColorLookupTable{what}": value
        for name, factor in (("Red", 1), ("Green", 2), ("Blue", 3))
        for what, value in (
            ("Descriptor", [4, 0, 16]),
            ("Data", np.array([0, 20, 40, 60], "<u2").__mul__(factor * 256).astype("<u2").tobytes()),
        )
    }
    pixels = np.array([[0, 1], [2, 3]], "u1")
    seen = shown(instance(pixels, PhotometricInterpretation="PALETTE COLOR", **tables))
    assert seen.tolist() == [[[0, 0, 0], [20, 40, 60]], [[40, 80, 120], [60, 120, 180]]]


def test_viewport_shows_the_region_scaled_and_flipped() -> None:
    data = instance(RAMP)
    assert np.array_equal(shown(data, viewport=Viewport(width=4, height=3, x=2, y=5, w=4, h=3)), RAMP[5:8, 2:6])
    flipped = shown(data, viewport=Viewport(width=4, height=3, x=2, y=5, w=-4, h=3))
    assert np.array_equal(flipped, RAMP[5:8, 2:6][:, ::-1])
    upside_down = shown(data, viewport=Viewport(width=16, height=16, h=-16))
    assert np.array_equal(upside_down, RAMP[::-1])
    assert shown(data, viewport=Viewport(width=64, height=32)).shape == (32, 32)


def test_pixels_that_are_not_square_are_stretched() -> None:
    assert shown(instance(RAMP, PixelAspectRatio=[2, 1])).shape == (32, 16)
    assert shown(instance(RAMP, PixelSpacing=[0.5, 1.0])).shape == (16, 32)


def test_quality_matters() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    sizes = [
        len(next(render(io.BytesIO(instance(noise)), RenderOptions(quality=quality), LIMITS)).data)
        for quality in (1, 50, 100)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_frames_come_in_the_order_wanted() -> None:
    frames = np.stack([np.full((4, 4), 10 * n, np.uint8) for n in range(1, 6)])
    seen = [int(np.asarray(image)[0, 0]) for image in pictures(instance(frames, frames=5), frames=(4, 1, 4, 5))]
    assert seen == [40, 10, 40, 50]
    assert len(pictures(instance(frames, frames=5))) == 5
    for wrong in ((6,), (1, 99)):
        with pytest.raises(NoSuchFrame):
            pictures(instance(frames, frames=5), frames=wrong)


def test_frames_become_one_animated_gif_at_their_pace() -> None:
    frames = np.stack([np.full((4, 4), 40 * n, np.uint8) for n in range(5)])
    [image] = pictures(instance(frames, frames=5, FrameTime="250"), media_type=MediaType.GIF)
    assert image.n_frames == 5
    for n in range(5):
        image.seek(n)
        assert image.info["duration"] == 250
        assert image.convert("L").getpixel((0, 0)) == 40 * n


def test_animation_that_would_be_too_large_is_refused() -> None:
    frames = np.zeros((5, 16, 16), np.uint8)
    with pytest.raises(TooLarge):
        list(
            render(
                io.BytesIO(instance(frames, frames=5)),
                RenderOptions(media_type=MediaType.GIF),
                Limits(animation_pixels=1000),
            )
        )


def test_thumbnail_is_of_the_middle_and_small() -> None:
    frames = np.stack([np.full((300, 200), 40 * n, np.uint8) for n in range(5)])
    data = instance(frames, frames=5)
    picture = thumbnail(io.BytesIO(data), SMALL, LIMITS)
    assert picture.frame == 3
    assert picture.size == (85, 128)
    assert abs(Image.open(io.BytesIO(picture.data)).getpixel((40, 60)) - 80) <= 2
    wished = replace(SMALL, viewport=Viewport(width=10, height=30), frames=(1,), media_type=MediaType.PNG)
    picture = thumbnail(io.BytesIO(data), wished, LIMITS)
    assert (picture.media_type, picture.frame, picture.size) == ("image/png", 1, (10, 15))


def test_annotation_is_burnt_in_where_it_belongs() -> None:
    black = np.zeros((400, 400), np.uint8)
    data = instance(black, Modality="CT", KVP="120")
    plain = shown(data)
    patient = shown(data, annotation=frozenset({"patient"}))
    technique = shown(data, annotation=frozenset({"technique"}))
    assert plain.max() == 0
    assert patient[:200].max() == 255
    assert patient[200:].max() == 0
    assert technique[:200].max() == 0
    assert technique[200:].max() == 255
    assert shown(instance(np.zeros((3, 3, 3), np.uint8)), annotation=frozenset({"patient"})).shape == (3, 3, 3)


@given(st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_text_can_be_drawn(text: str) -> None:
    assert drawable(text).isascii()
    assert drawable(text).isprintable()


def test_letters_that_the_font_lacks_are_told_by_others() -> None:
    assert drawable("HÉLÈNE Œuvré ’山") == "HELENE OEuvre '?"


def test_profile_is_embedded_when_asked_for() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = instance(np.zeros((4, 4, 3), np.uint8), ICCProfile=profile + b"\0" * (len(profile) % 2))
    assert "icc_profile" not in pictures(data)[0].info
    assert pictures(data, icc_profile=True)[0].info["icc_profile"][: len(profile)] == profile


def test_what_is_no_image_is_told() -> None:
    for data in (file_bytes("test-SR.dcm"), instance(None, SOPClassUID=EncapsulatedPDFStorage)):
        with pytest.raises(NoPixels):
            pictures(data)
    with pytest.raises(SickFile, match="pixels are missing"):
        pictures(instance(RAMP, PixelData=None))
