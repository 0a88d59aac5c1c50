"""Notation of the parameters of rendered pictures, and the layout that follows from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import BadRequest
from federation.pixels.geometry import lay_out
from federation.pixels.options import MediaType, RenderOptions, Viewport, VoiFunction, Window, parse_options

sides = st.integers(1, 8192)
finite = st.floats(-1e6, 1e6)


def test_window_is_read() -> None:
    assert Window.parse("40,400,linear") == Window(center=40, width=400)
    assert Window.parse("-0.5,1e2,sigmoid").function is VoiFunction.SIGMOID
    assert Window.parse("1,.25,linear-exact").width == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "40",
        "40,400",
        "40,400,",
        "40,400,LINEAR",
        "a,400,linear",
        "40,0,linear",
        "40,0.5,linear",
        "40,-1,sigmoid",
        "40,0,sigmoid",
        "nan,1,linear",
        "1,inf,linear",
        "1,1e400,linear",
        "1, 2,linear",
        "1,2,linear,3",
        "１,2,linear",
    ],
)
def test_bad_window_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="window"):
        Window.parse(text)


def test_viewport_is_read() -> None:
    assert Viewport.parse("512,256") == Viewport(width=512, height=256)
    assert Viewport.parse("512,256,,,,") == Viewport(width=512, height=256)
    assert Viewport.parse("9,8,1,2.5,-3,4") == Viewport(width=9, height=8, x=1, y=2.5, w=-3, h=4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1,2,3",
        "1,2,3,4,5",
        "1,2,3,4,5,6,7",
        "0,1",
        "-1,1",
        "1.5,1",
        "9000,1",
        "1,2,-1,0,1,1",
        "1,2,0,0,0,1",
        "1,2,a,0,1,1",
        "1,2,nan,0,1,1",
        "1,2,0,0,inf,1",
        "99999999999,1",
    ],
)
def test_bad_viewport_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="viewport"):
        Viewport.parse(text)


@pytest.mark.parametrize(
    "parameters",
    [
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "high"},
        {"quality": ""},
        {"annotation": "everything"},
        {"annotation": ""},
        {"iccprofile": "maybe"},
        {"media_type": "image/bmp"},
        {"frames": []},
        {"frames": [0]},
    ],
)
def test_bad_parameter_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        parse_options(**parameters)


def test_all_parameters_are_read() -> None:
    options = parse_options(
        media_type="image/png",
        frames=[3, 1],
        window="1,2,sigmoid",
        viewport="4,5",
        quality="6",
        annotation="technique,patient",
        iccprofile="no",
    )
    assert options == RenderOptions(
        media_type=MediaType.PNG,
        frames=(3, 1),
        window=Window(center=1, width=2, function=VoiFunction.SIGMOID),
        viewport=Viewport(width=4, height=5),
        quality=6,
        annotation=frozenset({"patient", "technique"}),
    )
    assert parse_options() == RenderOptions()


@given(
    st.builds(
        RenderOptions,
        media_type=st.sampled_from(MediaType),
        frames=st.none() | st.lists(st.integers(1, 99), min_size=1).map(tuple),
        window=st.none()
        | st.builds(Window, center=finite, width=st.floats(1, 1e6), function=st.sampled_from(VoiFunction)),
        viewport=st.none()
        | st.builds(Viewport, width=sides, height=sides, x=st.floats(0, 9), w=st.none() | st.just(-2.5)),
        quality=st.integers(1, 100),
        annotation=st.frozensets(st.sampled_from(["patient", "technique"])),
        icc_profile=st.booleans(),
    )
)
def test_options_survive_the_way_to_a_process(options: RenderOptions) -> None:
    assert RenderOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@given(st.integers(1, 5000), st.integers(1, 5000), st.builds(Viewport, width=sides, height=sides), st.floats(0.05, 20))
def test_picture_fits_into_the_viewport_and_keeps_its_aspect(
    columns: int, rows: int, viewport: Viewport, aspect: float
) -> None:
    width, height = lay_out(columns, rows, viewport, aspect=aspect).size
    assert 1 <= width <= viewport.width
    assert 1 <= height <= viewport.height
    assert width == viewport.width or height == viewport.height
    scale = min(viewport.width / columns, viewport.height / (rows * aspect))
    assert abs(width - columns * scale) <= 1
    assert abs(height - rows * aspect * scale) <= 1


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_region_is_the_one_asked_for(columns: int, rows: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    w, h = data.draw(st.integers(1, columns - x)), data.draw(st.integers(1, rows - y))
    viewport = Viewport(width=100, height=100, x=x, y=y, w=w, h=h)
    plain = lay_out(columns, rows, viewport)
    assert plain.box == (x, y, x + w, y + h)
    flipped = lay_out(columns, rows, replace(viewport, w=-w, h=-h))
    assert (flipped.box, flipped.size) == (plain.box, plain.size)
    assert (plain.flip_horizontally, plain.flip_vertically) == (False, False)
    assert (flipped.flip_horizontally, flipped.flip_vertically) == (True, True)


@pytest.mark.parametrize("region", [{"x": 10.0}, {"y": 8.0}, {"w": 11.0}, {"h": -9.0}, {"x": 5.0, "w": 6.0}])
def test_region_beyond_the_image_is_refused(region: dict[str, float]) -> None:
    with pytest.raises(BadRequest, match="10 × 8"):
        lay_out(10, 8, Viewport(width=5, height=5, **region))


def test_pixels_that_are_not_square_are_stretched() -> None:
    assert lay_out(100, 50, None, aspect=2).size == (100, 100)
    assert lay_out(100, 50, None, aspect=0.5).size == (200, 50)
    assert lay_out(100, 50, None).size == (100, 50)
