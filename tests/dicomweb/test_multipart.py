"""The multipart reader: the same events whole, byte by byte and in any chunking; complete only if it is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.wire.multipart import (
    HEADERS_MAX,
    PREAMBLE_MAX,
    BadMultipart,
    MultipartReader,
    MultipartWriter,
    fresh_boundary,
    write_multipart,
)
from federation.model import PART_END, PartBegin, PartEnd, PartEvent

BOUNDARY = b"b0und"
Part = tuple[str, str, bytes]  # content type, location, body

WHOLE = (
    b"\r\n--b0und\r\nContent-Type: application/dicom\r\nContent-Location: /a\r\n\r\none\r\n--b0und-- tail"
    b"\r\n--b0und--\r\n"
)
#: What a reader must read alike however it is cut: body → what comes out, or "bad".
PINNED: list[tuple[bytes, list[Part], bool]] = [
    (b"--b0und\r\nContent-Type: a/b\r\n\r\nbody\r\n--b0und--", [("a/b", "", b"body")], True),
    (b"\r\n--b0und\r\nContent-Type: a/b\r\n\r\nbody\r\n--b0und--\r\n", [("a/b", "", b"body")], True),
    (b"preamble\r\n--b0und\r\n\r\nx\r\n--b0und--\r\nepilogue", [("application/octet-stream", "", b"x")], True),
    (b"--b0und  \t\r\nContent-Type:a/b\r\n\r\n\r\n--b0und--", [("a/b", "", b"")], True),
    (b"--b0und\r\nContent-Type: a/b\r\n\r\n--b0und--", [("a/b", "", b"")], True),  # the delimiter takes the line end
    (b"--b0und\r\n\r\n\r\n--b0und\r\n\r\n--b0und--", [("application/octet-stream", "", b"")] * 2, True),
    (
        b"--b0und\r\nCONTENT-type: a/b; x=y\r\ncontent-location:  /studies/1 \r\nX-Other: z\r\nno colon\r\n\r\n"
        b"\r\n--b0un\r\n--b0un d\r\r\n\r\n--b0und--",
        [("a/b; x=y", "/studies/1", b"\r\n--b0un\r\n--b0un d\r\r\n")],
        True,
    ),
    (WHOLE, [("application/dicom", "/a", b"one")], True),
    (b"--b0und--", [], True),
    (b"\r\n--b0und--\r\n", [], True),
    (b"", [], False),
    (b"--b0und", [], False),
    (b"--b0und\r\nContent-Type: a/b\r\n\r\nbody\r\n--b0und", [("a/b", "", b"body")], False),
    (b"--b0und\r\nContent-Type: a/b\r\n\r\nbody\r\n--b0und-", [("a/b", "", b"body")], False),
    (b"--b0und\r\nContent-Type: a/b\r\n\r\nbody\r\n--b0und\r\n", [("a/b", "", b"body")], False),
]
BAD = [
    b"--b0undary\r\n\r\nx\r\n--b0undary--",
    b"--b0und\rContent-Type: a/b\r\n\r\nx",
    b"--b0und \r \r\n\r\nx\r\n--b0und--",
    b"--b0und\r\n\r\nx\r\n--b0und-x\r\n",
    b"\0" * (PREAMBLE_MAX + 100),
    b"--b0und" + b" " * (HEADERS_MAX + 10) + b"\r\n\r\nx\r\n--b0und--",
    b"--b0und\r\nX: " + b"y" * HEADERS_MAX + b"\r\n\r\nx\r\n--b0und--",
    # boundaries that were damaged: a part would be missing
    *(
        begin + b"\r\nContent-Type: a/b\r\n\r\nx\r\n--b0und\r\n\r\ny\r\n--b0und--"
        for begin in (b"--b0xnd", b"-xb0und", b"")
    ),
    b"--b0xnd\r\n\r\nx\r\n--b0und\r\n\r\ny\r\n--b0und--",
    b"a\r\ncontent-location : /x\r\n--b0und\r\n\r\ny\r\n--b0und--",
    b"\0\1\r\n--b0und\r\n\r\ny\r\n--b0und--",
    b"--b0und\r\nContent-Length: 1\r\n\r\nx\r\n--b0xnd\r\nContent-Length: 1\r\n\r\ny\r\n--b0und--",
    b"--b0und\r\nContent-Length: 5\r\n\r\nx\r\n--b0und--",
]


def read(chunks: Iterable[bytes], boundary: bytes = BOUNDARY) -> tuple[list[PartEvent], bool, bool]:
    """→ (events with neighbouring pieces of a body joined, complete, bad)."""
    reader = MultipartReader(boundary)
    events: list[PartEvent] = []
    for chunk in chunks:
        try:
            new = reader.feed(chunk)
        except BadMultipart:
            return events, False, True
        for event in new:
            if isinstance(event, (PartBegin, PartEnd)):
                events.append(event)
            elif events and isinstance(events[-1], bytes):
                events[-1] += bytes(event)
            else:
                events.append(bytes(event))
    return events, reader.complete, False


def parts_of(events: Sequence[PartEvent]) -> list[Part]:
    """Complete parts only; checks that the events are well nested."""
    parts: list[Part] = []
    open_part: Part | None = None
    for event in events:
        if isinstance(event, PartBegin):
            assert open_part is None
            open_part = (event.content_type, event.location, b"")
        elif isinstance(event, PartEnd):
            assert open_part is not None
            parts.append(open_part)
            open_part = None
        else:
            assert open_part is not None
            assert len(event)
            open_part = (*open_part[:2], open_part[2] + bytes(event))
    return parts


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({p % (len(body) + 1) for p in places}), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


def singly(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


@pytest.mark.parametrize(("body", "parts", "complete"), PINNED)
def test_pinned_bodies_read_whole_and_byte_by_byte(body: bytes, parts: list[Part], complete: bool) -> None:
    for chunks in ([body], singly(body), [b"", body, b""]):
        events, ended, bad = read(chunks)
        assert (parts_of(events), ended, bad) == (parts, complete, False)


@pytest.mark.parametrize("body", PINNED, ids=lambda p: repr(p[0][:40]))
def test_cut_into_any_two_chunks(body: tuple[bytes, list[Part], bool]) -> None:
    whole = read([body[0]])
    for at in range(len(body[0])):
        assert read([body[0][:at], body[0][at:]]) == whole


@pytest.mark.parametrize("body", BAD, ids=lambda b: repr(b[:24]))
def test_what_is_no_multipart_is_refused_in_any_chunking(body: bytes) -> None:
    assert read([body])[2]
    assert read(singly(body))[2]


@pytest.mark.parametrize("length", range(HEADERS_MAX - 12, HEADERS_MAX + 4))
def test_the_limits_do_not_depend_on_the_chunking(length: int) -> None:
    headers = b"--b0und\r\nX: " + b"y" * (length - 3) + b"\r\n\r\nx\r\n--b0und--"
    padding = b"--b0und" + b" " * length + b"\r\n\r\nx\r\n--b0und--"
    for body in (headers, padding):
        assert read([body]) == read(cut(body, range(length - 40, len(body))))


@pytest.mark.parametrize("boundary", [b"", b"x" * 201])
def test_a_body_without_a_usable_boundary_is_refused(boundary: bytes) -> None:
    with pytest.raises(BadMultipart):
        MultipartReader(boundary)


@pytest.mark.parametrize("body", [p[0] for p in PINNED if p[2]])
def test_truncated_anywhere_is_never_complete(body: bytes) -> None:
    needed = body.rindex(b"--b0und--") if body is not WHOLE else body.index(b"--b0und--")
    for end in range(needed + len(b"--b0und--")):
        for chunks in ([body[:end]], singly(body[:end])):
            _, complete, bad = read(chunks)
            assert not complete
            assert not bad


# Bodies that look like boundaries, so that delimiters are found at every wrong place.
_pieces = st.sampled_from([b"\r\n--", b"--", b"b0und", b"b0un", b"\r", b"\n", b"\r\n", b"-", b"x", b"\xff", b" "])
_bodies = st.lists(_pieces, max_size=12).map(b"".join).filter(lambda b: b"\r\n--b0und" not in b"\r\n" + b)
_types = st.sampled_from(["application/dicom", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", "a/b"])
_parts = st.lists(st.tuples(_types, st.sampled_from(["", "/studies/1"]), _bodies), max_size=4)
_places = st.lists(st.integers(0, 10_000), max_size=12)


def written(parts: Sequence[Part], boundary: str = BOUNDARY.decode()) -> bytes:
    writer = MultipartWriter(boundary)
    events: list[PartEvent] = []
    for content_type, location, body in parts:
        events += [PartBegin(content_type=content_type, location=location), body, PART_END]
    return b"".join(bytes(b) for b in writer.write(events)) + writer.close()


@given(_parts, _places, st.sampled_from([b"", b"\r\n", b"tail\r\n--b0und--\r\n", b"\r\n--b0und\r\n\r\nmore"]))
def test_what_was_written_is_read_in_any_chunking(parts: list[Part], places: list[int], trailing: bytes) -> None:
    body = written(parts) + trailing
    events, complete, bad = read(cut(body, places))
    assert (parts_of(events), complete, bad) == (parts, True, False)
    assert read(singly(body)) == (events, complete, bad)


@given(_parts, _places, st.integers(0, 10_000))
def test_truncated_bodies_never_look_complete(parts: list[Part], places: list[int], end: int) -> None:
    body = written(parts)
    short = body[: end % (len(body) - 3)]  # the closing boundary ends with `--`, CR, LF
    events, complete, bad = read(cut(short, places))
    assert not complete
    assert not bad
    assert parts_of(events) == parts[: len(parts_of(events))]


@given(st.lists(st.one_of(_pieces, st.binary(max_size=6)), max_size=20).map(b"".join), _places)
@example(b"--b0und\r\n\r\n\r\n--b0und", [11])
@example(b"--b0und\r\n\r\n\r", [])
def test_any_bytes_give_the_same_in_any_chunking(body: bytes, places: list[int]) -> None:
    whole_events, whole_complete, whole_bad = read([body])
    for chunks in (cut(body, places), singly(body)):
        events, complete, bad = read(chunks)
        assert (complete, bad) == (whole_complete, whole_bad)
        if not bad:
            assert events == whole_events
    parts_of(whole_events)


@given(st.binary(min_size=1, max_size=70).filter(lambda b: b"\r" not in b and b"\n" not in b), st.binary(max_size=300))
def test_any_boundary_works(boundary: bytes, body: bytes) -> None:
    if b"\r\n--" + boundary in b"\r\n" + body + b"\r\n--":
        body = b""
    whole = b"--" + boundary + b"\r\n\r\n" + body + b"\r\n--" + boundary + b"--"
    for chunks in ([whole], singly(whole)):
        events, complete, _ = read(chunks, boundary)
        assert complete
        assert parts_of(events) == [("application/octet-stream", "", body)]


@given(body=st.binary(max_size=40), places=st.lists(st.integers(0, 120), max_size=6), end=st.integers(0, 120))
def test_a_part_that_tells_its_length_is_known_to_be_whole(body: bytes, places: list[int], end: int) -> None:
    """Never before all of it came, and always once the line end behind it came, or nothing of it yet."""
    head = b"--b0und\r\nContent-Length: %d\r\n\r\n" % len(body)
    sent = (head + body + b"\r\n--b0und--")[:end]
    reader = MultipartReader(BOUNDARY)
    for chunk in cut(sent, [p for p in places if p < len(sent)]):
        reader.feed(chunk)
    if reader.part_is_whole:
        assert len(head) + len(body) <= end <= len(head) + len(body) + 2
    elif end == len(head) + len(body) + 2 and body:
        raise AssertionError("it has come, and it is not known")
    # Without a length nothing is known.
    reader = MultipartReader(BOUNDARY)
    reader.feed(b"--b0und\r\n\r\n" + body + b"\r\n")
    assert not reader.part_is_whole


def test_bodies_come_out_by_reference() -> None:
    reader = MultipartReader(BOUNDARY)
    reader.feed(b"--b0und\r\n\r\nx")
    chunk = bytes(1 << 16)
    (event,) = reader.feed(chunk)
    assert event is chunk
    cut_off = chunk + b"\r\n--b0und--"
    (event, end) = reader.feed(cut_off)
    assert isinstance(event, memoryview)
    assert event.obj is cut_off
    assert end is PART_END
    assert reader.complete


def test_long_bodies_and_headers_take_linear_time() -> None:
    body = written([("a/b", "", b"\r\n--b0un" * 20_000)])
    started = time.process_time()
    events, complete, _ = read(singly(body)[:0] + [body[i : i + 3] for i in range(0, len(body), 3)])
    assert complete
    assert time.process_time() - started < 5.0
    started = time.process_time()
    read(singly(b"--b0und\r\nX: " + b"y" * (HEADERS_MAX - 10)))
    assert time.process_time() - started < 5.0
    assert parts_of(events)[0][2] == b"\r\n--b0un" * 20_000


def test_a_broken_body_has_no_closing_boundary() -> None:
    writer = MultipartWriter("b0und")
    begun = b"".join(bytes(b) for b in writer.write([PartBegin(content_type="a/b"), b"half"]))
    assert read([begun]) == ([PartBegin(content_type="a/b"), b"half"], False, False)
    assert writer.close() == b"\r\n--b0und--\r\n"


def test_boundaries_are_fresh() -> None:
    assert len({fresh_boundary() for _ in range(50)}) == 50
    whole = write_multipart("b0und", [("application/dicom", b"1"), ("application/dicom", b"")])
    events, complete, _ = read([whole])
    assert parts_of(events) == [("application/dicom", "", b"1"), ("application/dicom", "", b"")]
    assert complete


lengths = st.lists(st.tuples(st.binary(max_size=8), st.sampled_from([-1, 0, 0, 0, 2, None])), min_size=1, max_size=3)


@given(lengths, st.sampled_from([b"", b"\r\n", b"\r\nepilogue", b"--b0und--"]), st.booleans(), st.integers(1, 40))
@example([(b"\r\n--b0und\r\n\r\n", 0)], b"", True, 9)  # a boundary within what was announced
def test_length_of_a_part_is_told_only_if_it_is_the_only_one(
    parts: list[tuple[bytes, int | None]], tail: bytes, known: bool, step: int
) -> None:
    """What it says of itself is believed only where the whole body's length bears it out, else refused."""
    body = b""
    for content, off in parts:
        said = b"" if off is None else b"Content-Length: %d\r\n" % (len(content) + off)
        body += b"--b0und\r\nContent-Type: a/b\r\n" + said + b"\r\n" + content + b"\r\n"
    body += b"--b0und--" + tail
    reader = MultipartReader(BOUNDARY, len(body) if known else None)
    events: list[PartEvent] = []
    try:
        for at in range(0, len(body), step):
            events += reader.feed(body[at : at + step])
    except BadMultipart:
        assert any(off == -1 or (off is not None and b"\r\n--b0und" in content) for content, off in parts)
        return
    assert not any(off == -1 and content for content, off in parts)
    begun = [e for e in events if isinstance(e, PartBegin)]
    size = sum(len(e) for e in events if not isinstance(e, (PartBegin, PartEnd)))
    told = [b.length for b in begun if b.length is not None]
    if len(parts) == len(begun) == 1 and parts[0][1] == 0 and known and tail in (b"", b"\r\n"):
        assert told == [size]
    if told and len(begun) == 1:
        assert told[0] == size
    if not known:
        assert not told
