"""Part-10 streams with heads of all kinds, and what the rewriter makes of them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile
from support.elements import (
    ITEM,
    ITEM_END,
    PATIENT_ID,
    SEQUENCE_END,
    deflated,
    element,
    implicit,
    item,
    meta,
    sequence,
)

from federation.elements import BadPart10, Changes, Head, encode_element
from federation.part10 import DEFLATED, HeadRewriter

EXPLICIT, DEFLATE, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"


def file(data: bytes, syntax: str = EXPLICIT) -> bytes:
    return meta(syntax) + (deflated(data) if syntax in DEFLATED else data)


ID = element(PATIENT_ID, "LO", b"4547")
UID = element(0x0008_0018, "UI", b"1.2.3\0")
PIXELS = element(0x7FE0_0010, "OW", bytes(range(256)) * 8)
FRAGMENTS = element(
    0x7FE0_0010,
    "OB",
    item(b"") + item(b"\xff\xd8" * 40) + item(b"\x10\0\x20\0" * 9) + implicit(SEQUENCE_END, b""),
    undefined=True,
)
NESTED = sequence(
    0x0008_1140,
    item(
        sequence(0x0008_1199, item(UID, undefined=True), item(b""), undefined=True) + element(0x0010_0020, "LO", b"no")
    ),
    item(sequence(0x0008_1199, item(UID)), undefined=True),
    undefined=True,
)
UNKNOWN = sequence(
    0x0009_1001,
    item(implicit(0x0009_1002, item(implicit(0x0008_0018, b"1.2.3\0")) + implicit(SEQUENCE_END, b""), undefined=True)),
    item(implicit(0x0009_1003, b"LO\4\0four"), undefined=True),
    vr="UN",
    undefined=True,
)
PRIVATE = element(0x0009_0010, "LO", b"IMAGO 1 ") + UNKNOWN + element(0x000B_0010, "LO", b"ODD ")
HEADS = {
    "plain": UID + ID,
    "no PatientID": UID + element(0x0010_0010, "PN", b"LEVY"),
    "empty": b"",
    "empty PatientID": UID + element(PATIENT_ID, "LO", b""),
    "nested": UID + NESTED + ID,
    "unknown and private": UID + PRIVATE + ID + element(0x0010_1001, "PN", b""),
    "long value": UID + element(0x0009_1001, "UN", b"\x10\0\x20\0LO\4\0" * 2000) + ID,
    "looks like a head in a value": UID + element(0x0009_1001, "OB", UID + ID + PIXELS) + ID,
    "after": UID + ID + element(0x0010_4000, "LT", b"x" * 500) + element(0x0011_0010, "LO", b"NOT HEAD"),
}


def tag_it(head: Head) -> Changes:
    return {
        PATIENT_ID: encode_element(PATIENT_ID, "LO", head.value(PATIENT_ID).strip() + b"@csrom41200"),
        0x0008_0080: encode_element(0x0008_0080, "LO", b"Romorantin"),
        0x0010_1001: None,
    }


def rewritten(chunks: Iterable[bytes]) -> bytes | None:
    """None = refused."""
    rewriter = HeadRewriter(tag_it)
    out = []
    try:
        for chunk in chunks:
            new = rewriter.feed(chunk)
            assert new == [] or rewriter.head is not None
            out += [bytes(b) for b in new]
        out += [bytes(b) for b in rewriter.finish()]
    except BadPart10:
        return None
    return b"".join(out)


def inflated(stream: bytes | None, syntax: str) -> bytes | None:
    """A rewritten stream with its data set inflated: deflaters differ with the chunking, what they say must not."""
    if stream is None or syntax not in DEFLATED:
        return stream
    at = len(meta(syntax))
    unpacker = zlib.decompressobj(-15)
    data = unpacker.decompress(stream[at:])
    assert unpacker.eof
    assert unpacker.unused_data in (b"", b"\0")
    assert len(stream[at:]) % 2 == 0  # PS3.5 §A.5
    return stream[:at] + data


def singly(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({p % (len(data) + 1) for p in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def expected(head: bytes, rest: bytes) -> bytes:
    """What `tag_it` makes of the heads above, by hand."""
    pid = element(PATIENT_ID, "LO", b"4547@csrom41200 " if ID in head else b"@csrom41200 ")
    name = element(0x0008_0080, "LO", b"Romorantin")
    without = head.replace(element(0x0010_1001, "PN", b""), b"")
    standing = ID if ID in without else element(PATIENT_ID, "LO", b"")
    at = without.rfind(standing) if standing in without else -1
    tagged = without[:at] + pid + without[at + len(standing) :] if at >= 0 else without + pid
    uid_end = len(UID) if tagged.startswith(UID) else 0
    return tagged[:uid_end] + name + tagged[uid_end:] + rest


#: Pieces that may stand anywhere.
SCRAPS = st.sampled_from(
    [
        *(UID, ID, NESTED[:20], NESTED, PRIVATE, PIXELS[:30], b"SQ\0\0", b"\x08\0", b"\xff\xff\xff\xff", b"\0"),
        *(implicit(ITEM, b"", undefined=True), implicit(ITEM_END, b""), implicit(SEQUENCE_END, b"")),
        *(sequence(0x0008_1140, undefined=True)[:12], element(0x0002_0010, "UI", b"1.2 ")),
        *(meta(EXPLICIT), meta(DEFLATE), meta(EXPLICIT)[132:]),
        *(element(0x0002_0000, "UL", b"\x10\0\0\0"), element(0x0002_0000, "UI", b"\xff" * 6)),
    ]
)
