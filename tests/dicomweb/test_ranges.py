"""Range, If-Range and Content-Range as text: what is not understood is ignored, never an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.wire.ranges import content_range, parse, parse_content_range, strong_tag, wanted, written
from federation.model import Span
from federation.ranges import Extent

FAR = (1 << 63) - 1
UNDERSTOOD = {
    "bytes=0-0": (0, 0),
    "bytes=0-499": (0, 499),
    "bytes=9500-": (9500, None),
    "bytes=-500": (None, 500),
    "bytes=-0": (None, 0),
    "Bytes=5-6": (5, 6),
    " bytes=5-6 ": (5, 6),
    "bytes= 5-6": (5, 6),
    "bytes=,5-6, ,": (5, 6),  # RFC 9110 §5.6.1.2: empty elements of a list count for nothing
    "bytes=007-0008": (7, 8),
    f"bytes=0-{'9' * 4000}": (0, FAR),
    f"bytes={'9' * 30}-": (FAR, None),
    f"bytes={'9' * 30}-{'9' * 31}": (FAR, FAR),
    f"bytes=-{'9' * 30}": (None, FAR),
}
IGNORED = [
    *("", "bytes", "bytes=", "bytes=-", "bytes=,", "bytes 0-1", "=0-1", "0-1", "bytes==0-1", "bytes=0-1=", "lines=0-1"),
    *("bytes=a-b", "bytes=1", "bytes=5-4", "bytes=--1", "bytes=1--2", "bytes=1- 2", "bytes=+1-2", "bytes=0x1-2"),
    *("bytes=0-1,3-4", "bytes=0-1,x", "bytes=1.0-2", "bytes=٣-٤", "bytes=0-1;q=1", f"bytes={'9' * 30}-{'9' * 29}"),
    *(f"bytes={'9' * 5000}-", f"bytes=-{'1' * 5000}", "bytes=0-1\0"),
]


@pytest.mark.parametrize(("value", "expected"), UNDERSTOOD.items())
def test_one_range_of_bytes_is_understood(value: str, expected: tuple[int | None, int | None]) -> None:
    assert parse(value) == Span(first=expected[0], last=expected[1])


@pytest.mark.parametrize("value", IGNORED)
def test_anything_else_is_ignored(value: str) -> None:
    assert parse(value) is None
    assert wanted([value], []) is None


def test_several_headers_are_one_list() -> None:
    assert wanted(["bytes=0-1", "bytes=3-4"], []) is None
    assert wanted(["bytes=0-1", ""], []) == Span(first=0, last=1)
    assert wanted([], []) is None
    assert wanted([], ['"a"']) is None


@pytest.mark.parametrize("condition", ['W/"a"', "Wed, 21 Oct 2015 07:28:00 GMT", "a", "", '"a', '"a", "b"', '"a"b'])
def test_a_condition_that_no_tag_of_ours_can_meet_asks_for_the_whole(condition: str) -> None:
    assert wanted(["bytes=0-1"], [condition]) is None
    assert wanted(["bytes=0-1"], ['"a"']) == Span(first=0, last=1, only_if="a")
    assert wanted(["bytes=0-1"], ['"a"', '"b"']) is None


ends = st.none() | st.integers(0, FAR)


@given(ends, ends)
def test_what_is_written_is_read(first: int | None, last: int | None) -> None:
    span = Span(first=first, last=last)
    read = parse(written(span))
    garbage = (first is None and last is None) or (first is not None and last is not None and last < first)
    assert read == (None if garbage else span)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(1, 60))
def test_content_range_is_read_as_it_is_written(first: int, size: int, total: int) -> None:
    at = range(first, first + size + 1)
    read = parse_content_range(content_range(Extent(at=at, total=total, ranged=True)))
    assert read == ((at, total) if at.stop <= total else None)


def test_content_range_of_what_is_not_known() -> None:
    assert content_range(Extent(at=range(2, 5), total=None, ranged=True)) == "bytes 2-4/*"
    assert content_range(Extent(at=None, total=7, ranged=True)) == "bytes */7"
    bad = ("", "bytes", "bytes */7", "bytes 2-4/*", "bytes 4-2/9", "bytes 0-9/9", "items 0-1/9", "bytes 0-1/9, 2-3/9")
    for value in (*bad, "bytes 0-1/" + "9" * 20, "0-1/9", "bytes -1-2/9"):
        assert parse_content_range(value) is None, value


@given(st.text() | st.from_regex(r"bytes=[0-9,\- ]{0,30}"), st.text())
def test_no_text_raises(value: str, other: str) -> None:
    parse(value)
    parse_content_range(value)
    strong_tag(other)
    span = wanted([value], [other])
    assert span is None or span.only_if is not None


def test_only_strong_tags_are_tags() -> None:
    assert strong_tag(' "a-b_\xe9" ') == "a-b_\xe9"
    assert strong_tag('""') == ""
    for value in ("", '"', "a", 'W/"a"', '"a" "b"', '"a b"', '"\n"', '"a"\n"'):
        assert strong_tag(value) is None, value
