"""The Part-10 head rewriter: the same in any chunking, nothing changed but what was to change, no way to hang it."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from part10_streams import (
    DEFLATE,
    EXPLICIT,
    FRAGMENTS,
    HEADS,
    ID,
    JPEG,
    NESTED,
    PIXELS,
    PRIVATE,
    SCRAPS,
    UID,
    UNKNOWN,
    cut,
    expected,
    file,
    inflated,
    rewritten,
    singly,
    tag_it,
)
from support.elements import (
    ITEM,
    ITEM_END,
    PATIENT_ID,
    deflated,
    element,
    implicit,
    item,
    meta,
    sequence,
    tag_bytes,
)

from federation import part10
from federation.elements import UntaggableSyntax
from federation.part10 import BIG_ENDIAN, HEAD_MAX, IMPLICIT, HeadRewriter


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, DEFLATE])
@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_rewritten_and_the_rest_passes(name: str, syntax: str) -> None:
    head, rest = HEADS[name], FRAGMENTS if syntax == JPEG else PIXELS
    stream = file(head + rest, syntax)
    whole = inflated(rewritten([stream]), syntax)
    assert whole == meta(syntax) + expected(head, rest)
    assert inflated(rewritten(singly(stream)), syntax) == whole
    assert inflated(rewritten([b"", stream, b""]), syntax) == whole


@pytest.mark.parametrize("name", HEADS)
def test_an_instance_may_end_with_its_head(name: str) -> None:
    head = HEADS[name].partition(tag_bytes(0x0011_0010))[0]
    for syntax in (EXPLICIT, DEFLATE):
        for chunks in ([file(head, syntax)], singly(file(head, syntax))):
            assert inflated(rewritten(chunks), syntax) == meta(syntax) + expected(head, b"")


@pytest.mark.parametrize("length", [0, None])
def test_file_meta_with_and_without_its_length(length: int | None) -> None:
    begin = meta(EXPLICIT, length=length, more=element(0x0002_0016, "AE", b"PACS"))
    for chunks in ([begin + ID + PIXELS], singly(begin + ID + PIXELS)):
        assert rewritten(chunks) == begin + expected(ID, PIXELS)


def test_group_lengths_are_set_right_again() -> None:
    def length(group: int, content: bytes) -> bytes:
        return element(group << 16, "UL", struct.pack("<I", len(content)))

    stream = file(length(0x0008, UID) + UID + length(0x0010, ID) + ID + length(0x7FE0, PIXELS) + PIXELS)
    eight = UID + element(0x0008_0080, "LO", b"Romorantin")
    ten = element(PATIENT_ID, "LO", b"4547@csrom41200 ")
    assert (
        rewritten([stream])
        == meta(EXPLICIT) + length(8, eight) + eight + length(16, ten) + ten + length(0x7FE0, PIXELS) + PIXELS
    )


def test_without_changes_nothing_changes() -> None:
    for head in HEADS.values():
        rewriter = HeadRewriter(lambda _: {})
        out = [*rewriter.feed(file(head + PIXELS)), *rewriter.finish()]
        assert b"".join(map(bytes, out)) == file(head + PIXELS)


def test_the_rest_passes_by_reference() -> None:
    rewriter = HeadRewriter(tag_it)
    rewriter.feed(file(UID + ID) + PIXELS[:100])
    chunk = bytes(1 << 16)
    assert rewriter.feed(chunk)[0] is chunk


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, DEFLATE])
@pytest.mark.parametrize("name", HEADS)
def test_a_stream_that_is_cut_is_refused(name: str, syntax: str) -> None:
    """In its head, or anywhere where it is deflated. A cut between two elements can't be told by the stream itself."""
    head = HEADS[name]
    stream = file(head + PIXELS, syntax)
    edges = set()
    if syntax != DEFLATE:
        scanner = HeadRewriter(lambda _: {})
        scanner.feed(stream)
        assert scanner.head is not None
        edges = {len(meta(syntax)), *(len(meta(syntax)) + e.end for e in scanner.head.elements.values())}
        stream = stream[: len(meta(syntax)) + len(scanner.head.data)]
    for end in range(0, len(stream), 1 if len(stream) < 3000 else 37):
        refused = rewritten([stream[:end]])
        assert refused is None or end in edges, end
        assert (refused is None) == (rewritten(cut(stream[:end], range(0, end, 7))) is None)


def test_nothing_comes_out_before_the_head_is_complete() -> None:
    rewriter = HeadRewriter(tag_it)
    stream = file(UID + NESTED + ID + PIXELS)
    needed = stream.index(PIXELS) + 4
    for i, byte in enumerate(singly(stream)):
        out = rewriter.feed(byte)
        assert bool(out) == (i >= needed - 1)


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN])
def test_what_must_not_be_used_on_the_web_is_told_apart(syntax: str) -> None:
    with pytest.raises(UntaggableSyntax):
        HeadRewriter(tag_it).feed(meta(syntax) + b"\x08\0\x18\0\x04\0\0\0" + b"1.2\0")


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"DICM",
        b"\0" * 200,
        b"<html>" * 50,
        meta(EXPLICIT).replace(b"DICM", b"DICN"),
        b"\0" * 128 + b"DICM" + element(0x0002_0001, "OB", b"\0\1") + UID,  # no TransferSyntaxUID
        meta("") + UID + ID,
        meta("1.2\xff") + UID + ID,
        meta("1.2\r\nX: y") + UID + ID,
        meta(EXPLICIT, length=-2) + UID + ID,
        meta(EXPLICIT) + ID + UID,  # out of order
        meta(EXPLICIT) + ID + ID,
        meta(EXPLICIT) + implicit(0x0008_0018, b"1.2.3\0") + PIXELS,
        meta(EXPLICIT) + sequence(0x0008_1140, UID, undefined=True) + PIXELS,  # no item
        meta(EXPLICIT) + sequence(0x0008_1140, implicit(ITEM_END, b""), undefined=True) + PIXELS,
        meta(EXPLICIT) + sequence(0x0008_1140, implicit(ITEM, b"", undefined=True), undefined=True) + PIXELS,
        meta(DEFLATE) + b"\xff" * 50,
        meta(DEFLATE) + deflated(UID + ID + PIXELS)[:-3],
        meta(DEFLATE),
    ],
)
def test_what_is_no_part_10_stream_is_refused(stream: bytes) -> None:
    assert rewritten([stream]) is None
    assert rewritten(singly(stream)) is None


def test_padding_behind_a_deflated_stream_is_no_fault() -> None:
    stream = meta(DEFLATE) + deflated(UID + ID + PIXELS) + b"\0"
    assert inflated(rewritten([stream]), DEFLATE) == meta(DEFLATE) + expected(UID + ID, PIXELS)
    assert inflated(rewritten(singly(stream)), DEFLATE) == meta(DEFLATE) + expected(UID + ID, PIXELS)


@pytest.mark.parametrize("around", [1, 2])
def test_what_inflates_to_just_over_a_step_is_whole(around: int) -> None:
    """zlib may have taken all of its input while it still holds back what the last bits stand for."""
    for off in range(-300, 300, 6):
        pixels = element(0x7FE0_0010, "OW", bytes(around * part10._INFLATE_STEP + off))
        stream = meta(DEFLATE) + deflated(UID + ID + pixels, level=9)
        assert inflated(rewritten([stream]), DEFLATE) == meta(DEFLATE) + expected(UID + ID, pixels)


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATE])
@pytest.mark.parametrize("over", range(-2, 14, 2))
def test_the_limit_of_a_head_does_not_depend_on_the_chunking(over: int, syntax: str) -> None:
    value = bytes(HEAD_MAX - len(UID) - 12 + over)
    stream = file(UID + element(0x0009_1001, "UN", value) + PIXELS, syntax)
    whole = rewritten([stream])
    assert (whole is None) == (over > 0)
    for chunks in (cut(stream, range(0, len(stream), 60_000)), cut(stream, range(len(stream) - 3000, len(stream)))):
        assert inflated(rewritten(chunks), syntax) == inflated(whole, syntax)


def test_file_meta_is_limited_too() -> None:
    stream = meta(EXPLICIT, more=element(0x0002_0102, "OB", bytes(HEAD_MAX))) + UID + PIXELS
    assert rewritten([stream]) is None
    assert rewritten(cut(stream, range(0, len(stream), 100_000))) is None


_nested_data: st.SearchStrategy[bytes] = st.deferred(
    lambda: st.lists(
        st.one_of(
            st.sampled_from(
                [UID, ID, element(0x0008_0005, "CS", b"ISO_IR 192"), element(0x0009_1001, "UN", b"\xfe\xff\0\xe0")]
            ),
            st.builds(
                lambda items, undefined, open_items: sequence(
                    0x0008_1140, *(item(i, undefined=open_items) for i in items), undefined=undefined
                ),
                st.lists(_nested_data, max_size=2),
                st.booleans(),
                st.booleans(),
            ),
        ),
        max_size=3,
    ).map(b"".join)
)
_heads = st.tuples(
    st.sampled_from([b"", UID]),
    st.builds(lambda d, u: sequence(0x0008_1140, item(d), undefined=u), _nested_data, st.booleans()),
    st.sampled_from([b"", PRIVATE]),
    st.sampled_from([b"", ID, element(PATIENT_ID, "LO", b"")]),
    st.sampled_from([b"", element(0x0010_1001, "PN", b"")]),
).map(b"".join)


@given(_heads, st.sampled_from([EXPLICIT, DEFLATE]), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_head_is_rewritten_alike_in_any_chunking(head: bytes, syntax: str, places: list[int]) -> None:
    stream = file(head + PIXELS, syntax)
    whole = inflated(rewritten([stream]), syntax)
    assert whole is not None
    assert whole.endswith(PIXELS)
    assert inflated(rewritten(cut(stream, places)), syntax) == whole
    assert inflated(rewritten(singly(stream)), syntax) == whole


_starts = st.sampled_from([meta(EXPLICIT), meta(EXPLICIT, length=None), meta(EXPLICIT, length=6), meta(DEFLATE), b""])


@given(
    _starts,
    st.lists(st.one_of(SCRAPS, st.binary(max_size=12)), max_size=8).map(b"".join),
    st.lists(st.integers(0, 10_000), max_size=8),
)
@example(meta(EXPLICIT, length=8), UID + ID, [135])
@settings(max_examples=300)
def test_any_bytes_are_rewritten_alike_or_refused(start: bytes, rest: bytes, places: list[int]) -> None:
    stream = start + rest
    syntax = DEFLATE if start == meta(DEFLATE) else EXPLICIT
    whole = rewritten([stream])
    for chunks in (cut(stream, places), singly(stream)):
        again = rewritten(chunks)
        assert (again is None) == (whole is None)
        if syntax == EXPLICIT:
            assert again == whole


OPEN_ITEM = implicit(ITEM, b"", undefined=True)
HEAVY = {
    "long value": UID + element(0x0009_1001, "UN", bytes(HEAD_MAX - 2000)) + ID,
    "nesting": UID + (sequence(0x0008_1140)[:8] + b"\xff" * 4 + OPEN_ITEM) * 45_000,
    "unknown nesting": UID + PRIVATE[:18] + UNKNOWN[:12] + (OPEN_ITEM + implicit(1, b"", undefined=True)) * 60_000,
    "items": UID + element(0x0008_1140, "SQ", item(b"") * 120_000, undefined=True),
    "elements": b"".join(element(0x0009_1000 + i, "LO", b"") for i in range(0xEFF0)),
}


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATE])
@pytest.mark.parametrize("name", HEAVY)
def test_a_head_of_a_mebibyte_byte_by_byte_takes_seconds(name: str, syntax: str) -> None:
    stream = file(HEAVY[name] + PIXELS, syntax)
    started = time.process_time()
    whole = rewritten([stream])
    again = rewritten(singly(stream))
    assert time.process_time() - started < 16.0  # quadratic work takes minutes
    assert (again is None) == (whole is None)


def test_file_meta_does_not_name_the_member() -> None:
    """Its own AE title and addresses go (PS3.10 §7.1); the title of a modality stays."""
    data = UID + ID + PIXELS
    modality = element(0x0002_0016, "AE", b"CT_ROOM_2 ")
    own = element(0x0002_0017, "AE", b"ZQ_MEMBER ") + element(0x0002_0026, "UR", b"dicom://zq-member ")
    rewriter = HeadRewriter(lambda _: {}, own_titles=frozenset({"zq_member"}))
    out = b"".join(map(bytes, [*rewriter.feed(meta(EXPLICIT, more=modality + own) + data), *rewriter.finish()]))
    assert out == meta(EXPLICIT, more=modality) + data
