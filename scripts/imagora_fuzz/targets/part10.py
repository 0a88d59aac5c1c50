"""Heads of instances rewritten: the same in any chunking, twice as once, nothing changed but what was to change."""

from __future__ import annotations

import io
import re
import warnings
import zlib

from pydicom import dcmread
from pydicom.dataset import Dataset
from support.elements import deflated, element, implicit, item, meta, sequence
from support.instances import SHAPES, bytes_of, dataset

from federation import part10
from federation.elements import BadPart10, Changes, Head, encode_element
from federation.part10 import DEFLATED, HeadRewriter
from imagora_fuzz.oracles import chunks, expect

LONGEST = 1600
_EXPLICIT, _DEFLATE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
#: Limits and steps so low that inputs meet them.
part10.HEAD_MAX, part10.AHEAD_MAX, part10._HEAD_STEP, part10._INFLATE_STEP = 700, 300, 96, 64
_PATIENT_ID, _INSTITUTION, _DROPPED = 0x0010_0020, 0x0008_0080, 0x0010_1001
_CHANGED = frozenset({_PATIENT_ID, _INSTITUTION, _DROPPED})


def _seeds() -> list[bytes]:
    made = []
    for shape in SHAPES:
        ds = dataset()
        shape(ds)
        made.append(bytes_of(ds))
    heads = [m[m.index(b"\x08\0\x05\0CS") :] for m in made]
    uid, named = element(0x0008_0018, "UI", b"1.2.3\0"), element(_PATIENT_ID, "LO", b"4547")
    heads += [
        uid
        + sequence(0x0008_1140, item(uid, undefined=True), undefined=True)
        + named
        + element(0x7FE0_0010, "OW", b"xy"),
        element(0x0008_0000, "UL", b"\x0c\0\0\0") + uid + element(0x0010_0000, "UL", b"\x0c\0\0\0") + named,
        uid + sequence(0x0009_1001, item(implicit(0x0009_1003, b"LO\4\0")), vr="UN", undefined=True) + named,
    ]
    # How it is cut, whether it is deflated, whether it is file meta too that follows.
    plain = [bytes([i * 7 % 256, i % 2]) + head for i, head in enumerate(heads)]
    return [*plain, b"\x05\x02" + made[0][132:], b"\x06\x02" + meta(_EXPLICIT, length=None)[132:] + named]


SEEDS = _seeds()
WORDS = [
    *(b"\x08\0\x18\0UI", b"\x08\0\x80\0LO", b"\x10\0\x20\0LO", b"\x10\0\x02\x10SQ\0\0", b"\x20\0\x0e\0UI"),
    *(b"\x09\0\x10\0LO", b"\xfe\xff\0\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"),
    *(b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"\x02\0\x10\0UI\x14\0", b"\x02\0\0\0UL\4\0"),
    *(b"\x08\0\0\0UL\4\0", b"\xe0\x7f\x10\0OW\0\0"),
]


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    how, kind, rest = data[0], data[1] % 3, data[2:]
    if kind == 2:
        stream, syntax = bytes(128) + b"DICM" + rest, ""
    else:
        syntax = _DEFLATE if kind else _EXPLICIT
        stream = meta(syntax) + (deflated(rest, 1) if kind else rest)
    whole = _rewritten(stream, None)
    again = _rewritten(stream, how if how % 16 else 0)
    expect(_plain(again, syntax) == _plain(whole, syntax), "a stream is rewritten alike, or refused, in any chunking")
    if whole is None or (kind == 2 and _deflates(stream)):
        return
    expect(whole != stream or not rest, "what passes is tagged")
    twice = _rewritten(whole, None)
    grown = len(_plain(whole, syntax) or b"") + 64 > part10.HEAD_MAX
    expect(grown or _plain(twice, syntax) == _plain(whole, syntax), "what was rewritten is rewritten to the same")
    _as_pydicom_reads(stream, whole)


def _deflates(stream: bytes) -> bool:
    return any(syntax.encode() in stream for syntax in DEFLATED)


def _change(head: Head) -> Changes:
    return {
        _PATIENT_ID: encode_element(_PATIENT_ID, "LO", b"4547@csrom41200"),
        _INSTITUTION: encode_element(_INSTITUTION, "LO", b"Romorantin"),
        _DROPPED: None,
    }


def _rewritten(stream: bytes, how: int | None) -> bytes | None:
    """None = refused."""
    rewriter = HeadRewriter(_change, own_titles=frozenset({"pacs"}))
    out: list[bytes] = []
    try:
        for chunk in [stream] if how is None else chunks(stream, how):
            passed = rewriter.feed(chunk)
            expect(not passed or rewriter.head is not None, "nothing passes before its head is known")
            out += map(bytes, passed)
            held = len(rewriter._buffer) + len(rewriter._meta)
            most = 3 * part10.HEAD_MAX + part10.AHEAD_MAX + 2 * len(chunk) + part10._INFLATE_STEP
            expect(rewriter.head is not None or held <= most, "no more than a head is held")
        out += map(bytes, rewriter.finish())
        expect(re.fullmatch("[0-9.]{1,64}", rewriter.transfer_syntax), "a transfer syntax is fit for a header")
    except BadPart10 as error:
        expect(str(error).isascii(), "an error repeats nothing of an instance")
        return None
    return b"".join(out)


def _plain(stream: bytes | None, syntax: str) -> bytes | None:
    """Its data set inflated: deflaters differ with the chunking, what they say must not."""
    if stream is None or syntax != _DEFLATE:
        return stream
    at = len(meta(syntax))
    unpacker = zlib.decompressobj(-15)
    found = unpacker.decompress(stream[at:])
    expect(unpacker.eof, "a deflated stream ends in order")
    expect(len(stream[at:]) % 2 == 0, "a deflated stream is of even length")
    return stream[:at] + found


def _as_pydicom_reads(before: bytes, after: bytes) -> None:
    """What it could read it still can, and finds nothing changed but what was to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            was = dcmread(io.BytesIO(before))
            kept = _values(was)
        except Exception:  # it is no judge of what it can't read
            return
        if not any(tag >> 16 <= 0x10 for tag in kept):
            return  # how it is encoded was guessed from what is not head, and would be guessed otherwise
        now = dcmread(io.BytesIO(after))
        expect(_values(now) == kept, "nothing is changed but what was to change")
        if not _in_order(before):
            return  # a reader that finds its way again behind what can't be read may find anything there
        expect(now[_PATIENT_ID].value == "4547@csrom41200", "what was to change is changed")
        expect(now[_INSTITUTION].value == "Romorantin", "what was to be added is there")
        expect(_DROPPED not in now, "what was to go is gone")


def _in_order(stream: bytes) -> bool:
    """Elements up to the very end of it, as they should be."""
    rewriter = HeadRewriter(_change)
    rewriter.feed(stream)
    tail = rewriter._tail
    return not (tail._skip or tail._partial or tail._open)


def _values(ds: Dataset) -> dict[int, object]:
    """Elements but those that are changed, and group lengths; as they stand, or whole where they are sequences."""
    found: dict[int, object] = {}
    for tag in ds:  # decodes
        if tag.tag not in _CHANGED and tag.tag & 0xFFFF:
            found[int(tag.tag)] = (tag.VR, str(tag.value))
    return found
