"""Answers on the wire: JSON, errors, relayed bodies; the headers that say what an answer is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

import orjson
from starlette.types import Message, Receive, Scope, Send

from consent import Unavailable
from dicomweb.links import FacadeLinks
from dicomweb.wire.media import related
from dicomweb.wire.multipart import MultipartWriter, fresh_boundary
from dicomweb.wire.ranges import content_range
from federation.errors import BrokenTransfer, Conflict, RequestError, SourcesUnavailable, Withdrawn
from federation.model import Buffer, PartBegin, PartEvent
from federation.report import Report
from federation.retrieve import Retrieval

_log = logging.getLogger(__name__)
HEADER_MAX = 3 * 1024
#: What a single body hangs on beside its address: its form, and who asks.
_VARY = (b"vary", b"accept, authorization, cookie")
#: Pieces of a body are put together up to this size.
_TOGETHER = 64 * 1024
#: How often an answer is decided anew that was withdrawn before any of it left.
_ANEW = 8
Headers = list[tuple[bytes, bytes]]


def warning_headers(sentences: Iterable[str]) -> Headers:
    """`Warning: 299 imagora: …`, one header each, ASCII, bounded."""
    headers: Headers = []
    room = HEADER_MAX
    for sentence in sentences:
        text = f"299 imagora: {sentence}".encode("ascii", "replace")[:1024]
        room -= len(text)
        if room < 0:
            break
        headers.append((b"warning", text))
    return headers


def source_header(report: Report) -> Headers:
    """`Imagora-Sources: emetteur;status;rows;ms, …`, failures first, cut at 3 KB between items."""
    if not report.sources:
        return []
    items: list[str] = []
    size = 0
    for source in sorted(report.sources.values(), key=lambda s: not s.status.failed):
        item = f"{source.emetteur};{source.status};{source.rows};{round(source.elapsed_s * 1000)}"
        size += len(item) + 2
        if size > HEADER_MAX:
            break
        items.append(item)
    return [(b"imagora-sources", ", ".join(items).encode("ascii", "replace"))]


def report_headers(report: Report, extra: Sequence[str] = ()) -> Headers:
    return [*warning_headers([*report.sentences(), *extra]), *source_header(report)]


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: object, headers: Headers, media_type: str) -> None:
    await send_body(
        send,
        status,
        [(b"content-type", media_type.encode()), *headers],
        orjson.dumps(value, option=orjson.OPT_SORT_KEYS),
    )


async def send_nothing(send: Send, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [*headers, (b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})


async def send_error(send: Send, error: RequestError, links: FacadeLinks | None = None) -> None:
    """A plain, quick answer that says what to do: viewers spin for ever on anything else."""
    body: dict[str, object] = {"error": error.message}
    headers = report_headers(error.report) if error.report is not None else []
    if isinstance(error, Conflict) and links is not None:
        body["urls"] = [
            f"{links.base}/sites/{emetteur}/dicom-web/studies/{error.study_uid}" for emetteur in error.emetteurs
        ]
    if isinstance(error, SourcesUnavailable):
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    await send_json(send, error.http_status, body, headers, "application/json")


def unavailable() -> SourcesUnavailable:
    return SourcesUnavailable(
        "What may be shown can't be confirmed, or the access can't be traced now, so nothing is shown or stored.",
        retry_after_s=5,
    )


async def answer(
    send: Send, receive: Receive, links: FacadeLinks | None, work: Callable[[Send], Awaitable[None]]
) -> None:
    """Run `work` unless the client leaves; refusals become answers, a broken transfer an aborted connection.

    Returning without the end of a body makes the server close the connection: the client sees a cut transfer.
    """
    started = finished = False

    async def watched(message: Message) -> None:
        nonlocal started, finished
        started = True
        finished = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    async def run() -> None:
        try:
            await _decided(work, watched, lambda: started)
        except RequestError as error:
            if started:
                raise
            await send_error(send, error, links)
        except Unavailable:
            if started:
                raise
            await send_error(send, unavailable())
        except Withdrawn as error:
            _log.info("transfer aborted", extra={"why": str(error)})
        except BrokenTransfer as error:
            _log.warning("transfer aborted", extra={"why": str(error)})

    task = asyncio.ensure_future(run())
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not finished:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        else:
            await task
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(gone, task, return_exceptions=True)


async def _decided(work: Callable[[Send], Awaitable[None]], send: Send, started: Callable[[], bool]) -> None:
    """What must not be shown any more before a byte of it left is answered anew: as if it had been asked for now."""
    for _ in range(_ANEW):
        try:
            await work(send)
            return
        except Withdrawn:
            if started():
                raise
    raise Unavailable("the rules change faster than an answer can be sent")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def relay(
    send: Send,
    opened: AbstractAsyncContextManager[Retrieval],
    part_type: str,
    *,
    multipart: bool | None,
    notices: Sequence[str] = (),
    known: Callable[[str], bool] = lambda _: False,
) -> None:
    """Stream an open retrieval at the client's pace. Nothing is sent before its first part is in hand.

    `multipart` None = as the member sends it. `notices` are sentences for the Warning header. `known` tells whether the
    client has already what bears a tag (304).
    """
    async with opened as retrieval:
        if multipart is None:
            multipart = retrieval.multipart
        status = 200 if retrieval.complete else 206
        events = aiter(retrieval.events)
        first = await anext(events)
        begin = first[0]
        assert isinstance(begin, PartBegin)
        headers = report_headers(retrieval.report, notices)
        if retrieval.tag is not None:
            headers += [(b"etag", f'"{retrieval.tag}"'.encode()), _VARY]
            if known(retrieval.tag):  # before any range is looked at: RFC 9110 §13.2.2
                headers.append((b"cache-control", b"no-store"))
                await send({"type": "http.response.start", "status": 304, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
        extent = retrieval.extent
        if extent is not None:
            headers.append((b"accept-ranges", b"bytes"))
            if extent.ranged:
                status = 206
                headers.append((b"content-range", content_range(extent).encode()))
            if extent.at is None:
                error = {"error": f"Here are {extent.total} bytes, none of them where the Range header asks for some."}
                await send_json(send, 416, error, headers, "application/json")
                return
            headers.append((b"content-length", str(len(extent.at)).encode()))
        headers.append((b"cache-control", b"no-store"))
        writer: MultipartWriter | None = None
        if multipart:
            boundary = fresh_boundary()
            writer = MultipartWriter(boundary)
            headers.append((b"content-type", related(part_type, boundary).encode("latin-1")))
        else:
            headers.append((b"content-type", begin.content_type.encode("latin-1")))
            headers.append((b"content-location", begin.location.encode("latin-1")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = _Body(send)
        await body.add(_pieces(writer, first))
        async for batch in events:
            await body.add(_pieces(writer, batch))
        await body.end(writer.close() if writer is not None else b"")


def _pieces(writer: MultipartWriter | None, batch: Sequence[PartEvent]) -> list[Buffer]:
    if writer is not None:
        return writer.write(batch)
    return [e for e in batch if isinstance(e, (bytes, bytearray, memoryview))]


class _Body:
    """A body under way. Small pieces go together, since each costs a system call; a large one by reference.

    A small one is held back until more comes, so that a frame goes out as one with what closes it.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Buffer] = []
        self._size = 0

    async def add(self, pieces: Sequence[Buffer]) -> None:
        for piece in pieces:
            if self._held and self._size + len(piece) > _TOGETHER:
                await self._flush()
            self._held.append(piece)
            self._size += len(piece)
            if self._size >= _TOGETHER:
                await self._flush()

    async def _flush(self) -> None:
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._size = [], 0
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, last: bytes) -> None:
        if self._held and self._size + len(last) > _TOGETHER:
            await self._flush()
        body = b"".join([*self._held, last])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class Handler:
    """An ASGI endpoint from a coroutine that is given a `Send`."""

    def __init__(self, links: FacadeLinks | None, work: Callable[[Send], Awaitable[None]]) -> None:
        self._links = links
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, receive, self._links, self._work)
