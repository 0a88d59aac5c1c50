"""What a client can take, for each form of a resource."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb import negotiate
from dicomweb.wire.media import MediaRange, Offer, parse_accept
from federation.errors import BadRequest, NotAcceptable, RequestError

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
DICOM, OCTETS, DICOM_XML = "application/dicom", "application/octet-stream", "application/dicom+xml"
Choices = Sequence[tuple[str, str | None]]


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/*", "application/dicom+json"),
        ("application/json", "application/json"),
        ("application/json, application/dicom+json;q=0.9", "application/json"),
        ("text/html, application/dicom+json;q=0.1", "application/dicom+json"),
        ('multipart/related; type="application/dicom+xml", */*;q=0.1', DICOM_XML),
        ("multipart/related; type=application/dicom+xml, application/json", DICOM_XML),
        ("multipart/related; type=application/dicom+xml;q=0.9, application/json", "application/json"),
        ("multipart/related", DICOM_XML),
        ("application/dicom+xml", None),  # there may be several: the form is that of parts
        ('multipart/related; type="application/dicom+json"', None),
        ("text/html", None),
        ("application/dicom+json;q=0", None),
        ("*/*, application/dicom+json;q=0", "application/json"),
        ("application/json;q=0.5, application/*;q=0.9", "application/dicom+json"),
        ("application/*;q=0.5, application/json;q=0.4", "application/dicom+json"),
        ("*/*;q=1.0, application/json", "application/json"),  # as much wanted, but named
        ("application/dicom+json; charset=UTF-8", "application/dicom+json"),
        ('application/dicom+json; charset="iso-8859-1", application/json;q=0.1', "application/json"),
        ("application/json; charset=latin1", None),
    ],
)
def test_json(header: str, answer: str | None) -> None:
    if answer is None:
        with pytest.raises(NotAcceptable, match=r"application/dicom\+json.* or .*in UTF-8"):
            negotiate.attributes(parse_accept(header))
    else:
        assert negotiate.attributes(parse_accept(header)).media_type == answer


@pytest.mark.parametrize(
    ("header", "choices"),
    [
        ("", [(DICOM, EXPLICIT)]),
        ("*/*", [(DICOM, EXPLICIT)]),
        ("multipart/related", [(DICOM, EXPLICIT)]),
        ("multipart/related; type=application/dicom", [(DICOM, EXPLICIT)]),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', [(DICOM, "*")]),
        ("application/dicom; transfer-syntax=*", [(DICOM, "*")]),
        (f'multipart/related; type="application/dicom;transfer-syntax={JPEG_LS}"', [(DICOM, JPEG_LS)]),
        (
            f'*/*, multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}',
            [(DICOM, JPEG_LS), (DICOM, EXPLICIT)],
        ),
        ('*/*, multipart/related; type="application/dicom"; q=0, application/dicom; q=0', None),
        (f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}; q=0', None),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}; q=0.5, '
            f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_2000}, '
            f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_2000}',
            [(DICOM, JPEG_2000), (DICOM, JPEG_LS)],
        ),
        (f'multipart/related; type="application/dicom"; transfer-syntax={IMPLICIT}, */*;q=0.1', [(DICOM, EXPLICIT)]),
        (f'multipart/related; type="application/dicom"; transfer-syntax={IMPLICIT}', None),
        (f'multipart/related; type="application/dicom"; transfer-syntax={BIG_ENDIAN}', None),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", None),
        ("image/jpeg", None),
    ],
)
def test_instances(header: str, choices: Choices | None) -> None:
    if choices is None:
        with pytest.raises(NotAcceptable):
            negotiate.dicom(parse_accept(header), single_instance=False)
    else:
        accept = negotiate.dicom(parse_accept(header), single_instance=False)
        assert list(accept.choices) == choices
        assert accept.multipart


def test_one_instance_comes_as_a_single_part_when_asked_for_by_name() -> None:
    for header, multipart in [
        ("application/dicom", False),
        ("application/dicom;q=0.5, multipart/related; type=application/dicom", True),
        ("*/*", True),
        ("", True),
    ]:
        assert negotiate.dicom(parse_accept(header), single_instance=True).multipart is multipart
        assert negotiate.dicom(parse_accept(header), single_instance=False).multipart


@pytest.mark.parametrize(
    ("header", "choices", "multipart"),
    [
        ("", [(OCTETS, EXPLICIT)], True),
        ("*/*", [(OCTETS, EXPLICIT)], True),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", [(OCTETS, "*")], True),  # OHIF
        ("multipart/related; type=image/jls; transfer-syntax=*", [("image/jls", "*")], True),
        ('multipart/related; type="image/jp2"', [("image/jp2", None)], True),
        ("application/octet-stream", [(OCTETS, EXPLICIT)], False),
        ("image/jpeg", [("image/jpeg", None)], False),
        ("image/*", [("image/jpeg", None)], False),
        ("image/*, image/jpeg;q=0", [("image/jls", None)], False),
        ("multipart/related; type=image/jp2;q=0.1, */*; transfer-syntax=*", [(OCTETS, "*"), ("image/jp2", None)], True),
        (f"multipart/related; type=application/octet-stream; transfer-syntax={IMPLICIT}", None, True),
        ("text/html", None, True),
        (DICOM, None, True),
    ],
)
def test_frames(header: str, choices: Choices | None, multipart: bool) -> None:
    if choices is None:
        with pytest.raises(NotAcceptable):
            negotiate.frames(parse_accept(header), single=True)
    else:
        accept = negotiate.frames(parse_accept(header), single=True)
        assert (list(accept.choices), accept.multipart) == (choices, multipart)
        assert negotiate.frames(parse_accept(header), single=False).multipart


def test_the_parameter_ranks_above_the_header_which_serves_where_it_names_nothing_that_can_be_had() -> None:
    """PS3.18 §8.7.8.1."""
    png, jpeg, html = parse_accept("image/png;q=0.1"), parse_accept("image/jpeg"), parse_accept("text/html")
    assert [c for c, _ in negotiate.rendered(png, jpeg).choices] == ["image/png", "image/jpeg"]
    assert [c for c, _ in negotiate.rendered(html, jpeg).choices] == ["image/jpeg"]
    assert [c for c, _ in negotiate.rendered(html, parse_accept("*/*")).choices] == ["image/jpeg"]
    with pytest.raises(NotAcceptable):
        negotiate.rendered(html)
    assert negotiate.rendered(png, parse_accept("application/dicom")).choices == (("image/png", None),)
    with pytest.raises(BadRequest):
        negotiate.rendered(parse_accept("image/png, application/dicom"), jpeg)


@pytest.mark.parametrize(
    ("refused", "named"),
    [
        (negotiate.attributes, negotiate.ATTRIBUTES),
        (lambda none: negotiate.dicom(none, single_instance=True), negotiate.INSTANCES),
        (lambda none: negotiate.frames(none, single=True), negotiate.FRAMES),
        (negotiate.bulkdata, negotiate.BULKDATA),
        (negotiate.rendered, negotiate.RENDERED),
    ],
)
def test_a_refusal_names_all_that_can_be_had(
    refused: Callable[[tuple[MediaRange, ...]], object], named: Sequence[Offer]
) -> None:
    with pytest.raises(NotAcceptable) as refusal:
        refused(parse_accept("text/html"))
    assert all(str(offer) in refusal.value.message for offer in named)


@pytest.mark.parametrize(
    ("header", "multipart"),
    [
        ("", True),
        ("*/*", True),
        ("multipart/related; type=application/octet-stream", True),
        ('multipart/related; type="*/*"', True),
        ("application/octet-stream", False),
        ("application/json", None),
    ],
)
def test_bulk_data(header: str, multipart: bool | None) -> None:
    if multipart is None:
        with pytest.raises(NotAcceptable):
            negotiate.bulkdata(parse_accept(header))
    else:
        accept = negotiate.bulkdata(parse_accept(header))
        assert (accept.choices, accept.multipart) == (((OCTETS, None),), multipart)


@pytest.mark.parametrize(
    ("header", "first"),
    [
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png, image/jpeg;q=0.5", "image/png"),
        ("image/gif", "image/gif"),
        ('multipart/related; type="image/png", image/jpeg;q=0.5', "image/png"),
        ('multipart/related; type="application/dicom"', NotAcceptable),
        ("text/html, image/webp, */*;q=0.1", "image/jpeg"),
        ("video/mp4", "video/mp4"),
        ("text/html", NotAcceptable),
        ("image/jpeg, application/dicom", BadRequest),
        ('image/jpeg, multipart/related; type="application/dicom"', BadRequest),
    ],
)
def test_rendered(header: str, first: str | type[RequestError]) -> None:
    if isinstance(first, str):
        accept = negotiate.rendered(parse_accept(header))
        assert accept.choices[0] == (first, None)
        assert not accept.multipart
    else:
        with pytest.raises(first):
            negotiate.rendered(parse_accept(header))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("quality", ["1", "50", "100"], ["0", "101", "-1", "", "x", "1.5", "00109999", "٣"]),
        (
            "window",
            ["40,400", "40.5,400,linear", "-600,1500,LINEAR-EXACT", "0,1,sigmoid"],
            ["40", "40,400,", "40,400,cubic", "a,b", "1e3,4", "40,400,linear,1", "٣,1"],
        ),
        (
            "viewport",
            ["512,512", "512,256,0,0,512,512", "512,256,,,10,10", "9,9,-10,0,1,1"],
            ["512", "0,512", "-1,5", "512,512,1,2,3,4,5", "512.5,10", "100000,1", ""],
        ),
        ("annotation", ["patient", "technique", "patient,technique"], ["", "all", "patient;technique"]),
        ("iccprofile", ["no", "yes", "srgb", "DisplayP3"], ["", "maybe"]),
    ],
)
def test_render_parameters(name: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert negotiate.render_parameters({name: value}) == ({name: value}, [])
    for value in bad:
        with pytest.raises(BadRequest, match=name):
            negotiate.render_parameters({name: value})


def test_unknown_render_parameters_are_named() -> None:
    assert negotiate.render_parameters({"accept": "image/png", "zoom": "2", "quality": "5"}) == (
        {"quality": "5"},
        ["zoom"],
    )


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("1", (1,)),
        ("1,2,5", (1, 2, 5)),
        ("7,3", (7, 3)),
        ("0", None),
        ("", None),
        ("1,", None),
        ("1,,2", None),
        ("-1", None),
        ("01", None),
        ("1;2", None),
        ("1,1", None),
        ("12345678", None),
        ("1٣", None),
        (",".join(map(str, range(1, 1001))), tuple(range(1, 1001))),
        (",".join(map(str, range(1, 1002))), None),
    ],
)
def test_frame_lists(text: str, frames: tuple[int, ...] | None) -> None:
    if frames is None:
        with pytest.raises(BadRequest):
            negotiate.frame_list(text)
    else:
        assert negotiate.frame_list(text) == frames


_types = st.sampled_from(
    ["*/*", "image/*", "image/png", "image/jpeg", DICOM, OCTETS, "application/json", "text/html", "multipart/related"]
)
_parameters = st.lists(
    st.sampled_from(
        [
            "type=application/dicom",
            'type="image/jls"',
            "transfer-syntax=*",
            f"transfer-syntax={IMPLICIT}",
            "q=0.4",
            "q=0",
        ]
    ),
    max_size=3,
)


@given(st.lists(st.tuples(_types, _parameters), max_size=4))
def test_any_list_is_answered_or_refused(ranges: list[tuple[str, list[str]]]) -> None:
    header = ", ".join("; ".join([t, *p]) for t, p in ranges)
    accepted = parse_accept(header)
    for form in (
        lambda: negotiate.dicom(accepted, single_instance=True),
        lambda: negotiate.frames(accepted, single=True),
        lambda: negotiate.bulkdata(accepted),
        lambda: negotiate.rendered(accepted),
    ):
        try:
            accept = form()
        except RequestError as refusal:
            if refusal.http_status not in (400, 406):
                raise
        else:
            assert accept.choices
            assert len(set(accept.choices)) == len(accept.choices)
            assert not any(s in (IMPLICIT, BIG_ENDIAN) for _, s in accept.choices)
