"""A member's open answer to a retrieve: one body or several parts, the whole or a range, and whether it ends well."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import blake2b

import aiohttp

from dicomweb.streams import FULL
from dicomweb.wire.media import parse_content_type
from dicomweb.wire.multipart import BadMultipart, MultipartReader
from dicomweb.wire.ranges import parse_content_range, strong_tag
from federation.errors import MemberCannot, MemberGarbage, MemberUnreachable
from federation.model import PART_END, Buffer, PartBegin, PartEvent, Span


class HttpDelivery:
    """An open body. `events` must be read to its end or the context left, which closes the connection.

    `ranges` = it is the whole in one, and the member says that it gives ranges of it.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        translated: Callable[[], contextlib.AbstractContextManager[None]],
        emetteur: str,
        path: str,
        span: Span | None = None,
        *,
        batch: int,
    ) -> None:
        """`span` was asked for. A 206 that is not exactly that is `partial`. `batch` = bytes of one batch, about."""
        content_type = parse_content_type(response.headers.get("Content-Type", ""))
        self.multipart = content_type.media_type == "multipart/related"
        self._content_type = response.headers.get("Content-Type", "application/octet-stream")
        named = content_type.parameters.get("type", "").lower() if self.multipart else content_type.media_type
        self.media_type = named.partition(";")[0].strip()  # Orthanc puts the transfer syntax into the type
        # What is compressed on the way has another length, other ranges and other tags than what comes out here.
        plain = "Content-Encoding" not in response.headers
        self._length = response.content_length if plain else None
        self._at: range | None = None
        self.partial = response.status == 206
        tag = _tag(response, emetteur, path) if plain else None
        self.tag = None if self.partial else tag
        if self.partial and span is not None and plain and not self.multipart:
            self._take_range(response, span, tag)
        self.ranges = (
            response.status == 200
            and not self.multipart
            and self._length is not None
            and response.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        )
        self._boundary = content_type.parameters.get("boundary", "").encode("latin-1", "replace")
        self._response = response
        self._translated = translated
        self._batch = batch

    def _take_range(self, response: aiohttp.ClientResponse, span: Span, tag: str | None) -> None:
        given = parse_content_range(response.headers.get("Content-Range", ""))
        if given is None or given[0] != span.of(given[1]) or self._length not in (None, len(given[0])):
            return
        if span.only_if is None or span.only_if == tag:
            self._at, self._length = given
            self.partial, self.tag = False, tag

    async def events(self) -> AsyncIterator[Sequence[PartEvent]]:
        if not self.multipart:
            if self._response.content_length is None and "Transfer-Encoding" not in self._response.headers:
                # RFC 9112 §6.3: it ends where the connection does, so one that is cut looks whole.
                raise MemberCannot("a single body without a length: whether it is whole can't be told")
            length = None if self.partial else self._length
            yield [PartBegin(content_type=self._content_type, length=length, at=self._at)]
            async for chunks in self._chunks():
                yield chunks
            yield [PART_END]
            return
        try:
            reader = MultipartReader(self._boundary, None if self.partial else self._length)
            try:
                async for chunks in self._chunks():
                    events = [event for chunk in chunks for event in reader.feed(chunk)]
                    if events:
                        yield events
                    if reader.complete:
                        return
                # Some servers send neither a length nor chunks: only the closing boundary proves completeness.
                raise MemberUnreachable("the body ended without its closing boundary")
            except MemberUnreachable:
                if reader.part_is_whole:
                    yield [PART_END]  # so that whoever goes on need not begin with this part again
                raise
        except BadMultipart as error:
            raise MemberGarbage(str(error)) from None

    async def _chunks(self) -> AsyncIterator[list[Buffer]]:
        """What has come, in the pieces that the network made: copying them into one takes longer than relaying. More
        than a batch stays with the connection, which takes in no more while it waits there."""
        content = self._response.content
        if self._batch < FULL:
            # Whatever came at once (uvloop reads a quarter of a megabyte), no more than this of it is taken.
            while True:
                with self._translated():
                    chunk = await content.read(self._batch)
                if not chunk:
                    return
                yield [chunk]
        # HTTP chunks may be tiny. They are better copied than handled one by one.
        framed = "Transfer-Encoding" in self._response.headers
        taken = 0
        while True:
            chunks: list[Buffer] = []
            size = 0
            with self._translated():
                while not chunks or (size < self._batch and taken < content.total_bytes):
                    chunk = await content.readany() if framed else (await content.readchunk())[0]
                    if not chunk:
                        break
                    chunks.append(chunk)
                    size += len(chunk)
                    taken += len(chunk)
            if not chunks:
                return
            yield chunks


def _tag(response: aiohttp.ClientResponse, emetteur: str, path: str) -> str | None:
    """A name for a body where the member has a strong one (RFC 9110 §8.8.1). It tells nothing of the member's."""
    own = strong_tag(response.headers.get("ETag", ""))
    return None if own is None else blake2b(f"{emetteur}\n{path}\n{own}".encode(), digest_size=16).hexdigest()
