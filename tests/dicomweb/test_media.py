"""Media types: `Accept` as clients send it, content types as members send them."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.wire.media import (
    MediaRange,
    Offer,
    covers,
    gzip_wanted,
    parse_accept,
    parse_content_type,
    part_content_type,
    ranked,
    related,
)
from federation.errors import BadRequest

RELATED = "multipart/related"
OCTETS = "application/octet-stream"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("", []),
        (" , ,", []),
        ("*/*", [MediaRange(media_type="*/*")]),
        ("*", [MediaRange(media_type="*/*")]),  # java's HttpURLConnection: `*; q=.2`
        ("text/html, *; q=.2", [MediaRange(media_type="text/html"), MediaRange(media_type="*/*", quality=0.2)]),
        ("Application/DICOM+JSON", [MediaRange(media_type="application/dicom+json")]),
        (  # OHIF: the type unquoted
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            [MediaRange(media_type=RELATED, type=OCTETS, transfer_syntax="*")],
        ),
        (
            'multipart/related;type="application/dicom";transfer-syntax=1.2.840.10008.1.2.1 ;q=0.5,'
            'multipart/related; type="image/jls"',
            [
                MediaRange(media_type=RELATED, type="image/jls"),
                MediaRange(media_type=RELATED, type="application/dicom", transfer_syntax=EXPLICIT, quality=0.5),
            ],
        ),
        ("a/b;q=2", [MediaRange(media_type="a/b")]),
        ("a/b;q=-1", [MediaRange(media_type="a/b", quality=0)]),
        ("a/b;q=0.000", [MediaRange(media_type="a/b", quality=0)]),
        ('a/b;charset="UTF-8"', [MediaRange(media_type="a/b", charset="utf-8")]),
        (  # the part's parameters written into its type, as some clients do
            f'multipart/related; type="application/dicom; transfer-syntax={EXPLICIT}"',
            [MediaRange(media_type=RELATED, type="application/dicom", transfer_syntax=EXPLICIT)],
        ),
        ('a/b;type="c\\/\\d"', [MediaRange(media_type="a/b", type="c/d")]),
        (
            'a/b; title="x, y; \\" z"; type="c/d", e/f',
            [MediaRange(media_type="a/b", type="c/d"), MediaRange(media_type="e/f")],
        ),
        ("a/b;", [MediaRange(media_type="a/b")]),
    ],
)
def test_accept_headers_are_read(header: str, ranges: list[MediaRange]) -> None:
    assert list(parse_accept(header)) == ranges


def test_ranges_are_ranked_by_quality_then_as_listed() -> None:
    found = parse_accept("a/1;q=0.3, a/2, a/3;q=0.3, a/4;q=0, a/5;q=1.0")
    assert [r.media_type for r in found] == ["a/2", "a/5", "a/1", "a/3", "a/4"]


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        "a/b c/d",
        "a/b; q=high",
        "a/b; q=nan",
        "a/b; q=1e0",
        "a/b; q=٣",
        "a/b; transfer-syntax=explicit",
        "a/b; transfer-syntax=1..2",
        "/b",
    ],
)
def test_unreadable_accept_headers_are_bad_requests(header: str) -> None:
    with pytest.raises(BadRequest):
        parse_accept(header)


@pytest.mark.parametrize(
    ("wanted", "offered", "yes"),
    [
        ("*/*", "image/png", True),
        ("image/*", "image/png", True),
        ("image/png", "image/png", True),
        ("image/*", "imagex/png", False),
        ("image/jpeg", "image/png", False),
        ("application/*", "application/dicom+json", True),
    ],
)
def test_a_range_covers_types(wanted: str, offered: str, yes: bool) -> None:
    assert covers(wanted, offered) is yes


@pytest.mark.parametrize(
    ("value", "media_type", "parameters"),
    [
        ("", "", {}),
        ("nonsense", "", {}),
        (
            "multipart/related; boundary=abc; type=application/dicom",
            RELATED,
            {"boundary": "abc", "type": "application/dicom"},
        ),
        (
            'Multipart/Related;Type="application/dicom";BOUNDARY="a b\\"c"',
            RELATED,
            {"type": "application/dicom", "boundary": 'a b"c'},
        ),
        ("application/dicom+json; charset=iso-8859-1", "application/dicom+json", {"charset": "iso-8859-1"}),
        ("multipart/related; boundary==_x=1; type=a/b", RELATED, {"boundary": "=_x=1", "type": "a/b"}),
    ],
)
def test_content_types_are_read(value: str, media_type: str, parameters: dict[str, str]) -> None:
    found = parse_content_type(value)
    assert (found.media_type, found.parameters) == (media_type, parameters)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", False),
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("GZIP;q=0.5", True),
        ("x-gzip", True),
        ("br, *;q=0.1", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.5, identity", False),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity, gzip", True),
        ("br, deflate", False),
        ("identity", False),
        ("gzip;q=high", False),
        ("gzip;q=nan", False),
        ("gzipx, notgzip", False),
    ],
)
def test_compression_is_for_who_asks_for_it(header: str, wanted: bool) -> None:
    assert gzip_wanted(header) is wanted


@given(st.lists(st.sampled_from([*"gzip*;q=01.,é \0", "identity", "gzip", ";q="])).map("".join) | st.text(max_size=30))
def test_any_accept_encoding_is_read(header: str) -> None:
    assert gzip_wanted(header) in (True, False)


def test_what_is_written_is_read() -> None:
    value = related("application/dicom", "abc", EXPLICIT)
    found = parse_content_type(value)
    assert found.parameters == {"type": "application/dicom", "boundary": "abc", "transfer-syntax": EXPLICIT}
    assert "transfer-syntax" not in related("application/dicom", "abc")
    assert part_content_type("application/dicom", EXPLICIT) == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert part_content_type("application/dicom", "") == "application/dicom"


_alphabet = st.sampled_from([*'ab/;,="\\ *.1q', "multipart/related", "; type=", "; q=0.", "transfer-syntax=", "é"])


@given(st.lists(_alphabet, max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused(header: str) -> None:
    parse_content_type(header)
    try:
        ranges = parse_accept(header)
    except BadRequest:
        return
    assert all(0 <= r.quality <= 1 and r.media_type == r.media_type.lower() for r in ranges)
    assert [r.quality for r in ranges] == sorted((r.quality for r in ranges), reverse=True)


def test_mutilated_headers_are_read_or_refused() -> None:
    """Real headers with bytes changed, cut, doubled and joined: nothing but `BadRequest` comes out of the reader."""
    corpus = (
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90; q=0.5',
        "multipart/related; type=application/octet-stream; transfer-syntax=*, */*;q=0.1",
        'text/html,application/xhtml+xml,image/apng;q=0.8;v="b3\\";,",*/*;q=.5',
        'multipart/related; type="application/dicom;transfer-syntax=*"; charset=utf-8, *; q=.2',
    )
    random = Random(18)
    read = refused = 0
    for _ in range(20_000):
        text = list(random.choice(corpus))
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(text) or 1)
            match random.randrange(4):
                case 0:
                    text[at : at + random.randrange(1, 9)] = []
                case 1:
                    text[at:at] = random.choice(['"', "\\", ";", ",", "/", "=", "*", "\0", "\r\n", "é", "q=", " "])
                case 2:
                    text[at:at] = text[at : at + 20]
                case _:
                    text += [", ", *random.choice(corpus)]
        try:
            ranges = parse_accept("".join(text))
            read += 1
        except BadRequest:
            refused += 1
        else:
            assert all(0 <= r.quality <= 1 for r in ranges)
            assert all("\r" not in r.media_type and "\0" not in r.media_type for r in ranges)
        parse_content_type("".join(text))
    assert read > 500
    assert refused > 500


# Ranking, against a slow model of RFC 9110 §12.5.1 ----------------------------------------------------------------


def model_covers(wanted: MediaRange, offer: Offer) -> bool:
    if wanted.media_type == "*/*":
        content = "*/*"
    elif wanted.media_type in (RELATED, "multipart/*"):
        if not offer.multipart:
            return False
        content = wanted.type or "*/*"
    else:
        if offer.multipart:
            return False
        content = wanted.media_type
    kind, subtype = content.split("/")
    offered_kind, offered_subtype = offer.media_type.split("/")
    if kind not in ("*", offered_kind) or subtype not in ("*", offered_subtype):
        return False
    syntax = wanted.transfer_syntax or offer.default_syntax
    return syntax == offer.transfer_syntax and (not offer.text or wanted.charset in ("", "*", "utf-8", "utf8"))


def model_more_specific(one: MediaRange, other: MediaRange) -> bool:
    """Both cover one offer: is `one` the narrower of them?"""

    def narrowness(r: MediaRange) -> tuple[int, int, int, int]:
        content = (r.type or "*/*") if r.media_type in (RELATED, "multipart/*") else r.media_type
        stars = content.count("*")
        parts = r.media_type in (RELATED, "multipart/*")
        return (2 - stars, int(parts), int(r.transfer_syntax != ""), int(r.charset != ""))

    return narrowness(one) > narrowness(other)


def model_quality(wanted: list[MediaRange], offer: Offer) -> float:
    covering = [r for r in wanted if model_covers(r, offer)]
    narrowest = [r for r in covering if not any(model_more_specific(o, r) for o in covering)]
    return max((r.quality for r in narrowest), default=0.0)


_media_ranges = st.builds(
    MediaRange,
    media_type=st.sampled_from(
        ["*/*", "image/*", "image/png", "application/dicom", RELATED, "multipart/*", "text/html"]
    ),
    type=st.sampled_from(["", "", "image/*", "image/png", "application/dicom", "*/*"]),
    transfer_syntax=st.sampled_from(["", "", "*", EXPLICIT]),
    charset=st.sampled_from(["", "", "utf-8", "iso-8859-1"]),
    quality=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
_offers = st.builds(
    Offer,
    media_type=st.sampled_from(["image/png", "image/jpeg", "application/dicom", "application/json"]),
    multipart=st.booleans(),
    transfer_syntax=st.sampled_from([None, "*", EXPLICIT]),
    default_syntax=st.sampled_from([None, EXPLICIT]),
    text=st.booleans(),
)


@settings(max_examples=600)
@given(st.lists(_media_ranges, max_size=6), st.lists(_offers, min_size=1, max_size=8, unique=True))
def test_ranking_is_that_of_the_model(wanted: list[MediaRange], offers: list[Offer]) -> None:
    quality = {offer: model_quality(wanted, offer) for offer in offers}
    found = ranked(wanted, offers)
    assert all(quality[offer] > 0 for offer in found)
    assert [quality[o] for o in found] == sorted((quality[o] for o in found), reverse=True)
    best = max(quality.values())
    assert bool(found) == (best > 0)
    if found:
        assert quality[found[0]] == best
        # Of what is wanted as much, nothing that is named more narrowly is passed over.
        rivals = [o for o in offers if quality[o] == best]
        first = deciding(wanted, found[0])
        assert not any(model_more_specific(deciding(wanted, rival), first) for rival in rivals)
    # What is left out is covered by a range that brought something better placed.
    for offer in set(offers) - set(found):
        assert quality[offer] == 0 or any(deciding(wanted, offer) == deciding(wanted, o) for o in found)


def deciding(wanted: list[MediaRange], offer: Offer) -> MediaRange:
    covering = [r for r in wanted if model_covers(r, offer)]
    narrowest = [r for r in covering if not any(model_more_specific(o, r) for o in covering)]
    return max(narrowest, key=lambda r: r.quality)


def test_long_headers_take_linear_time() -> None:
    started = time.process_time()
    for header in (
        "a/b," * 16_000,
        "a/b" + ";x=1" * 16_000,
        'a/b;x="' + "\\a" * 30_000,
        "a/b" + ";" * 60_000,
        " " * 60_000,
    ):
        try:
            parse_accept(header)
        except BadRequest:
            continue
        finally:
            parse_content_type(header)
    assert time.process_time() - started < 2.0
