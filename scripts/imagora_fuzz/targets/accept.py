"""Media types: what is chosen was asked for, is not forbidden, and is the same when it is asked for in other words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from decimal import Decimal

from dicomweb import negotiate
from dicomweb.wire.media import (
    FORBIDDEN_SYNTAXES,
    MediaRange,
    gzip_wanted,
    parse_accept,
    parse_content_type,
)
from dicomweb.wire.multipart import BadMultipart, MultipartReader
from federation.errors import BadRequest, MemberCannot, NotAcceptable
from federation.part10 import BIG_ENDIAN
from federation.relay import PART_TYPES, part_type
from imagora_fuzz.oracles import expect

LONGEST = 300
SEEDS = [
    b"multipart/related; type=application/octet-stream; transfer-syntax=*",
    b'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90; q=0.5,application/*;q=.2',
    b'multipart/related; type="application/dicom;transfer-syntax=1.2.840.10008.1.2.1", */*;q=0',
    b"multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.2",
    b'image/jpeg, image/png;q=0.9, image/*;q=0.8, multipart/related; type="image/jp2"',
    b'application/dicom+json; charset="utf-8", application/json;charset=iso-8859-1;q=0.1',
    b'multipart/related; type="application/dicom+xml"; boundary="a\\"b", text/html',
    b"gzip;q=0.5, identity;q=0.1, *;q=0",
]
WORDS = [
    *(b"multipart/related", b"application/dicom", b"application/dicom+json", b"application/octet-stream", b"*/*"),
    *(b"*", b"; type=", b'; type="', b"; transfer-syntax=", b"; q=", b"q=0", b"q=.5", b"; charset=utf-8"),
    *(b"; boundary=", b"image/jpeg", b"image/*", b"multipart/*", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"),
    *(b"gzip", b"identity"),
]

_Chooser = Callable[[tuple[MediaRange, ...]], object]


def check(data: bytes) -> None:
    value = data.decode("latin-1")  # as header fields come
    gzip_wanted(value)
    _content_type(value)
    try:
        ranges = parse_accept(value)
    except BadRequest as error:
        error.message.encode()
        return
    expect(all(0 <= r.quality <= 1 for r in ranges), "a quality is from 0 to 1")
    expect(list(ranges) == sorted(ranges, key=lambda r: -r.quality), "the best comes first")
    written = ", ".join(map(_written, ranges))
    expect(parse_accept(written) == ranges, "what was read says the same when it is written and read again")
    _attributes(ranges)
    for chooser in (
        lambda r: negotiate.dicom(r, single_instance=True),
        lambda r: negotiate.dicom(r, single_instance=False),
        lambda r: negotiate.frames(r, single=True),
        lambda r: negotiate.frames(r, single=False),
        negotiate.bulkdata,
        negotiate.rendered,
    ):
        try:
            accept = chooser(ranges)
        except (NotAcceptable, BadRequest):
            continue
        expect(accept.choices, "something is chosen")
        for media_type, syntax in accept.choices:
            expect(syntax not in FORBIDDEN_SYNTAXES, "Implicit VR and Big Endian are never asked for")
            named = [r for r in ranges if r.quality > 0 and _names(r, media_type)]
            expect(named or not ranges, "what is chosen was asked for")


def _attributes(ranges: tuple[MediaRange, ...]) -> None:
    for chooser in (negotiate.attributes, negotiate.stored):
        try:
            offer = chooser(ranges)
        except NotAcceptable:
            continue
        named = any(r.quality > 0 and _names(r, offer.media_type) for r in ranges)
        expect(named or not ranges, "what is chosen was asked for")


def _names(wanted: MediaRange, media_type: str) -> bool:
    """Written out here once more, as RFC 9110 §12.5.1 has it."""
    if wanted.media_type == "*/*":
        return True
    said = (wanted.type or "*/*") if wanted.media_type in ("multipart/related", "multipart/*") else wanted.media_type
    return said in ("*/*", media_type, media_type.partition("/")[0] + "/*")


def _written(wanted: MediaRange) -> str:
    parameters = {
        "type": wanted.type,
        "transfer-syntax": wanted.transfer_syntax,
        "charset": wanted.charset,
        "q": format(Decimal(wanted.quality), "f") if wanted.quality < 1 else "",
    }
    quoted = {n: v.replace("\\", "\\\\").replace('"', '\\"') for n, v in parameters.items() if v}
    return "".join([wanted.media_type, *(f'; {name}="{value}"' for name, value in quoted.items())])


def _content_type(value: str) -> None:
    read = parse_content_type(value)
    expect(read.media_type == read.media_type.lower(), "media types are in lower case")
    try:
        shown = part_type(value)
    except MemberCannot:
        expect(BIG_ENDIAN in value, "what must not go on is big endian, and nothing else")
        return
    media_type, _, syntax = shown.partition("; transfer-syntax=")
    expect(media_type in PART_TYPES, "parts call themselves what is known to be harmless")
    expect(set(syntax) <= set("0123456789."), "a transfer syntax is a UID")
    with contextlib.suppress(BadMultipart):
        MultipartReader(read.parameters.get("boundary", "").encode("latin-1", "replace"))
