"""Metadata and search results on the wire: one JSON array, or one XML document for each data set (PS3.18 §8.7.3.2);
compressed, and told apart by a tag, for clients that ask for that."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson
from starlette.requests import Request
from starlette.types import Send

from dicomweb.respond import Headers
from dicomweb.wire.media import Offer, gzip_wanted, related
from dicomweb.wire.multipart import MultipartWriter, fresh_boundary
from dicomweb.wire.xml import PIECE, native_model
from federation.model import Attributes, PartBegin, PartEvent

#: Shorter bodies gain nothing from compression.
_GZIP_FROM = 1024
#: What the tag of a compressed body ends in: to one tag, one sequence of bytes.
_GZIPPED = "-gzip"
_TAG = re.compile(r'(?:W/)?"([^"]*)"')
#: What an answer hangs on beside its address. Who asks is in it, so that a cache never offers one what another got.
_VARY = (b"vary", b"accept, accept-encoding, authorization, cookie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a client wants a body: `known` are the tags of what it has already (If-None-Match)."""

    gzip: bool = False
    known: str = ""

    @classmethod
    def of(cls, request: Request) -> Wishes:
        return cls(
            gzip=gzip_wanted(",".join(request.headers.getlist("accept-encoding"))),
            known=",".join(request.headers.getlist("if-none-match")),
        )

    def has(self, tag: str) -> bool:
        """RFC 9110 §13.1.2: weak comparison."""
        if self.known.strip() == "*":
            return True
        return any(known.removesuffix(_GZIPPED) == tag for known in _TAG.findall(self.known))


async def send_rows(
    send: Send,
    status: int,
    rows: Sequence[Attributes],
    headers: Headers,
    form: Offer,
    wishes: Wishes,
    *,
    complete: bool,
) -> None:
    """A body in pieces, between which others have their turn: metadata of a long study are tens of megabytes.

    `complete`: nothing is missing, so a client that keeps it may ask whether it still holds. Whoever asks is told (304)
    only after the same search, consent and trace as for the body itself. Browsers keep none of it: what is written to
    the disk of a machine that many use stays there.
    """
    body = [piece async for piece in _in_turn(json_pieces(rows))] if complete or not form.multipart else []
    # Safe against BREACH, which needs a secret and an attacker's text in one body: what a client sends is not repeated
    # in rows and metadata, and no token or session is in them.
    size = sum(map(len, body))
    gzip = wishes.gzip and (form.multipart or size >= _GZIP_FROM)
    headers = [*headers, _VARY, (b"cache-control", b"no-store")]
    if complete:
        tag = _tag(body, form, headers)
        headers.append((b"etag", _written(tag, form, gzip=gzip)))
        if wishes.has(tag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
    pieces: Iterator[bytes] = iter(body if size > 2 * PIECE else [b"".join(body)])
    content_type = form.media_type
    if form.multipart:
        boundary = fresh_boundary()
        content_type, pieces = related(form.media_type, boundary), xml_pieces(rows, boundary, form.media_type)
    headers.append((b"content-type", content_type.encode()))
    if gzip:
        headers.append((b"content-encoding", b"gzip"))
        pieces = _gzipped(pieces)
    waiting, following = next(pieces), next(pieces, None)
    if following is None or not (gzip or form.multipart):
        headers.append((b"content-length", str(len(waiting) if following is None else size).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while following is not None:
        await send({"type": "http.response.body", "body": waiting, "more_body": True})
        await asyncio.sleep(0)
        waiting, following = following, next(pieces, None)
    await send({"type": "http.response.body", "body": waiting})


def _tag(body: Iterable[bytes], form: Offer, headers: Headers) -> str:
    """Of what is said in the body, in whatever form, and beside it: what a cache merges must not outlive its body."""
    digest = blake2b(form.media_type.encode(), digest_size=16)
    for name, value in headers:
        if name == b"warning":
            digest.update(value + b"\n")
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _written(tag: str, form: Offer, *, gzip: bool) -> bytes:
    """Weak where the bytes differ each time: the boundary of a multipart body is fresh (RFC 9110 §8.8.1)."""
    weak = "W/" if form.multipart else ""
    return f'{weak}"{tag}{_GZIPPED if gzip else ""}"'.encode()


async def _in_turn(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(0)
        yield piece


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Level 1: most of what can be gained, in the least time."""
    packer = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def json_pieces(rows: Sequence[Attributes]) -> Iterator[bytes]:
    """What `orjson.dumps(rows)` gives, in pieces of about `PIECE` bytes that end between rows."""
    at, number = 0, 1  # one row of an enhanced multi-frame image may be megabytes
    while True:
        text = orjson.dumps(rows[at : at + number], option=orjson.OPT_SORT_KEYS)
        begin = b"," + text[1:-1] if at else text[:-1]
        at += number
        if at >= len(rows):
            yield begin + b"]"
            return
        yield begin
        number = max(1, number * PIECE // len(text))


def xml_pieces(rows: Sequence[Attributes], boundary: str, part_type: str) -> Iterator[bytes]:
    """A multipart body with one document for each row."""
    writer = MultipartWriter(boundary)
    waiting: list[bytes] = []
    size = 0
    for row in rows:
        for event in _part(row, part_type):
            waiting += map(bytes, writer.write([event]))
            size += len(waiting[-1])
            if size >= PIECE:
                yield b"".join(waiting)
                waiting, size = [], 0
    yield b"".join([*waiting, writer.close()])


def _part(row: Attributes, part_type: str) -> Iterator[PartEvent]:
    yield PartBegin(content_type=part_type)
    yield from native_model(row)
