"""What stands behind the head of an instance: it names no patient once more, and else passes as it is."""

from __future__ import annotations

import io
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from part10_streams import (
    DEFLATE,
    EXPLICIT,
    FRAGMENTS,
    ID,
    NESTED,
    PIXELS,
    UID,
    UNKNOWN,
    cut,
    expected,
    file,
    inflated,
    rewritten,
    singly,
)
from pydicom import dcmread
from support.elements import (
    ITEM,
    ITEM_END,
    PATIENT_ID,
    SEQUENCE_END,
    element,
    implicit,
    meta,
    sequence,
    tag_bytes,
)

from federation import part10

LATER = element(0x0041_0010, "LO", b"LATER ") + UNKNOWN.replace(tag_bytes(0x0009_1001), tag_bytes(0x0041_1001))
TAILS = {
    "pixels": PIXELS,
    "fragments": FRAGMENTS,
    "nested": NESTED.replace(tag_bytes(0x0008_1140), tag_bytes(0x0040_1140)) + PIXELS,
    "unknown": LATER + PIXELS,
    "none": b"",
}


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATE])
@pytest.mark.parametrize("name", TAILS)
def test_no_instance_names_its_patient_again_behind_its_head(name: str, syntax: str) -> None:
    """Readers that take the last of two values would show it under an id that was not given to it here."""
    begin = UID + ID + element(0x0020_000D, "UI", b"1.2 ") + TAILS[name]
    for end in (ID, element(0x0010_0010, "PN", b"LEVY"), element(0x0008_0018, "UI", b"1.2.4\0")):
        stream = file(begin + end, syntax)
        for chunks in ([stream], singly(stream), cut(stream, range(0, len(stream), 7))):
            assert rewritten(chunks) is None
    for end in (b"", element(0xFFFC_FFFC, "OB", ID * 3)):
        stream = file(begin + end, syntax)
        assert inflated(rewritten([stream]), syntax) == inflated(rewritten(singly(stream)), syntax)
        assert (inflated(rewritten([stream]), syntax) or b"").endswith(begin[len(UID + ID) :] + end)


@pytest.mark.parametrize("strange", [b"\x28\0\x10\0\0\0\0\0", b"\x28\0\x10\0lo\2\0\1\0", b"\xfe\xff\0\xe0" + bytes(4)])
def test_what_stands_strangely_behind_the_head_passes_as_it_is(strange: bytes) -> None:
    stream = file(UID + ID + element(0x0020_000D, "UI", b"1.2 ") + strange + PIXELS)
    passed = rewritten([stream])
    assert passed is not None
    assert passed.endswith(strange + PIXELS)
    assert rewritten(singly(stream)) == passed


@given(
    st.lists(
        st.sampled_from([b"\xfe\xff\0\xe0", b"UI\2\0", b"SQ\0\0\xff\xff\xff\xff", ID, PIXELS[:12], b"\0"]), max_size=8
    )
)
@example([b"\xfe\xff\0\xe0", b"UI\2\0", b"\0", b"\0", ID])
def test_what_stands_behind_the_head_is_judged_alike_in_any_chunking(tail: list[bytes]) -> None:
    stream = file(UID + element(0x0020_000D, "UI", b"1.2 ") + b"".join(tail))
    assert rewritten(singly(stream)) == rewritten([stream])


@pytest.mark.parametrize("short", range(0, 24, 2))
def test_what_is_strange_where_an_inflated_piece_ends_loses_nothing(short: int) -> None:
    """The series is looked for behind the head, up to what can't be read."""
    misplaced = element(0x0020_0000, "UN", implicit(ITEM_END, b""), undefined=True)
    long = part10._INFLATE_STEP - len(UID + ID + misplaced) - 12 - short
    head = UID + element(0x0009_1001, "UN", bytes(long)) + ID
    stream = file(head + misplaced + PIXELS, DEFLATE)
    assert inflated(rewritten([stream]), DEFLATE) == meta(DEFLATE) + expected(head, misplaced + PIXELS)


def test_an_element_without_a_vr_hides_no_patient() -> None:
    """Some readers take it for one of implicit VR, and go on behind it."""
    begin = file(UID + ID + element(0x0020_000D, "UI", b"1.2 ")) + implicit(0x0028_0010, b"\1\0")
    for end in (ID, implicit(PATIENT_ID, b"4547")):
        assert rewritten([begin + end]) is None
        assert rewritten(singly(begin + end)) is None


SERIES = element(0x0020_000D, "UI", b"1.2 ")
#: What some readers go on behind, in ways of their own.
UNREADABLE = {
    "zeros": bytes(16),
    "an element of the command group": element(0x0000_0010, "LO", b"LEVY"),
    "no VR": implicit(0x0028_0010, b"\1\0"),
    "a VR that is none": element(0x0028_0010, "ZZ", b"\1\0"),
    "a VR in small letters": element(0x0028_0010, "lo", b"\1\0"),
    "an item outside of a sequence": implicit(ITEM, b"\1\0"),
    "the end of no sequence": implicit(SEQUENCE_END, b""),
    "no item in a sequence": sequence(0x0040_1140, element(0x0028_0010, "LO", b"\1\0"), undefined=True),
    "an end within an item": element(
        0x0040_1140, "SQ", implicit(ITEM, implicit(SEQUENCE_END, b""), undefined=True), undefined=True
    ),
    "an item in an item": sequence(
        0x0040_1140, implicit(ITEM, implicit(ITEM, b"", undefined=True), undefined=True), undefined=True
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("hidden", [ID, implicit(PATIENT_ID, b"4548"), element(0x0010_0010, "PN", b"LEVY")])
@pytest.mark.parametrize("between", [b"", b"\0", bytes(7), PIXELS])
def test_nothing_behind_what_can_not_be_read_may_name_a_patient(name: str, hidden: bytes, between: bytes) -> None:
    begin = UID + ID + SERIES + UNREADABLE[name]
    assert rewritten([file(begin + between)]) is not None
    for syntax in (EXPLICIT, DEFLATE):
        stream = file(begin + between + hidden + PIXELS, syntax)
        for chunks in ([stream], singly(stream), cut(stream, range(0, len(stream), 5))):
            assert rewritten(chunks) is None


@pytest.mark.parametrize("line_end", [b"\r\n--", b"\rX--", b"X\n--", b"\r\n-X"])
def test_a_part_that_runs_on_into_the_next_is_refused(line_end: bytes) -> None:
    """The boundary between them was damaged."""
    one = file(UID + ID + SERIES + PIXELS)
    between = line_end + b"5f1e3a\r\nContent-Type: application/dicom\r\n\r\n"
    for next_one in (file(element(0x0008_0018, "UI", b"1.2.4\0") + SERIES), one):
        stream = one + between + next_one
        assert rewritten([stream]) is None
        assert rewritten(singly(stream)) is None


_PIECES = [
    *UNREADABLE.values(),
    *(ID, SERIES, PIXELS[:12], LATER, b"\0", b"\0\0", b"LO\4\0", b"\x10\0\x20\0", tag_bytes(0x0040_1140) + b"SQ\0\0"),
    *(b"\xff\xff\xff\xff", implicit(ITEM, b"", undefined=True), implicit(ITEM_END, b""), implicit(SEQUENCE_END, b"")),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=8))
def test_a_reader_finds_no_other_patient_than_the_one_that_was_written(tail: list[bytes]) -> None:
    stream = rewritten([file(UID + ID + b"".join(tail))])
    if stream is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = dcmread(io.BytesIO(stream))
    except Exception:  # it can't be read by this one
        return
    assert found.get("PatientID") in ("4547@csrom41200", None)
