"""What stands behind the head of an instance: it names no patient once more, and else passes as it is."""

from __future__ import annotations

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
from support.elements import (
    ITEM_END,
    PATIENT_ID,
    element,
    implicit,
    meta,
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
