"""Multipart bodies: alike in any chunking, nothing invented, nothing held, and the same when written again."""

from __future__ import annotations

from typing import NamedTuple

from dicomweb.wire import multipart
from dicomweb.wire.multipart import BadMultipart, MultipartReader, MultipartWriter
from federation.model import PART_END, PartBegin, PartEnd, PartEvent
from imagora_fuzz.oracles import chunks, expect

LONGEST = 1200
_BOUNDARIES = (b"b", b"a1b2c3", b"--", b"-", b"\r", b"=_x'()+_,-./:=?")
#: Limits so low that inputs meet them.
multipart.HEADERS_MAX = 200
multipart.PREAMBLE_MAX = 100


def _body(boundary: bytes, *parts: bytes) -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + p + b"\r\n" for p in parts) + b"--" + boundary + b"--\r\n"


SEEDS = [
    b"\x00\x01" + _body(b"b", b"Content-Type: application/dicom\r\n\r\nDICM", b"\r\n"),
    b"\x01\x07" + b"preamble\r\n" + _body(b"a1b2c3", b"Content-Type: image/gif\r\nContent-Location: /x\r\n\r\n\xff"),
    b"\x02\x03" + _body(b"--", b"\r\n\r\n--", b"A: b\r\n\r\n----x") + b"epilogue",
    b"\x03\x00" + _body(b"-", b"\r\n\r\n\r\n-", b"\r\n"),
    b"\x04\x05" + _body(b"\r", b"x\r\n\r\n\r\n\r"),
    b"\x05\x09" + b"--=_x'()+_,-./:=?  \t\r\nContent-Type: a/b\r\n\r\n\r\n--=_x'()+_,-./:=?--",
]
WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"--", b"\r\n--b\r\n", b"\r\n--b--", b"--a1b2c3", b"\r\n----\r\n", b"\r\n--\r\r\n"),
    *(b"Content-Type: application/dicom\r\n", b"Content-Location: /a\r\n", b"\r\n\r\n--b--"),
]


class Seen(NamedTuple):
    """Parts as (content type, location, body, whole); `bad` = refused."""

    parts: list[tuple[str, str, bytes, bool]]
    complete: bool
    bad: bool


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    boundary, how, body = _BOUNDARIES[data[0] % len(_BOUNDARIES)], data[1], data[2:]
    whole = _read([body], boundary)
    for cut in {0, how}:
        again = _read(chunks(body, cut), boundary)
        expect(again.bad == whole.bad, "a body is refused or not, whatever its chunking")
        expect(whole.bad or again == whole, "a body says the same in any chunking")
    for *_, content, _ in whole.parts:
        expect(content in body, "a part's body stands in what came")
        expect(b"\r\n--" + boundary not in content, "a part ends at its boundary")
    expect(sum(len(p[2]) for p in whole.parts) <= len(body), "no byte is given twice")
    expect(not whole.complete or b"--" + boundary + b"--" in body, "what is complete was closed")
    if whole.complete and not whole.bad:
        _written_again(whole)


def _read(pieces: object, boundary: bytes) -> Seen:
    assert hasattr(pieces, "__iter__")
    reader = MultipartReader(boundary)
    events: list[PartEvent] = []
    bad = False
    try:
        for piece in pieces:
            events += reader.feed(piece)
            held = len(reader._held)
            expect(held <= multipart.HEADERS_MAX + len(boundary) + 8, "no more than a part's headers is held")
    except BadMultipart:
        bad = True
    parts: list[tuple[str, str, bytes, bool]] = []
    for event in events:
        if isinstance(event, PartBegin):
            expect(not parts or parts[-1][3], "a part begins when the one before has ended")
            parts.append((event.content_type, event.location, b"", False))
        elif isinstance(event, PartEnd):
            expect(parts and not parts[-1][3], "what ends has begun")
            parts[-1] = (*parts[-1][:3], True)
        else:
            expect(parts and not parts[-1][3], "bytes stand in parts")
            expect(len(event) > 0, "there are no empty pieces")
            kind, location, content, _ = parts[-1]
            parts[-1] = (kind, location, content + bytes(event), False)
    complete = reader.complete
    expect(not complete or all(p[3] for p in parts), "in a complete body all parts are whole")
    return Seen(parts, complete, bad)


def _written_again(seen: Seen) -> None:
    """As it is sent on: under a boundary that stands in no body, without what headers can't hold."""
    fresh = "imagora-fuzz-3a9c"
    if any(fresh.encode() in content for *_, content, _ in seen.parts):
        return
    events: list[PartEvent] = []
    for kind, location, content, _ in seen.parts:
        events += [PartBegin(content_type=kind, location=location), *([content] if content else []), PART_END]
    if any("\n" in text or "\r" in text for part in seen.parts for text in part[:2]):
        return
    writer = MultipartWriter(fresh)
    body = b"".join(map(bytes, [*writer.write(events), writer.close()]))
    headers_max, multipart.HEADERS_MAX = multipart.HEADERS_MAX, 1 << 14
    again = _read([body], fresh.encode())
    multipart.HEADERS_MAX = headers_max
    expect(again == seen, "what is written is what was read")
