"""A member that does what a test tells it to, down to the bytes on the connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from support.threads import LoopThread


@dataclass
class Request:
    method: str
    path: str  # below the peer's root, decoded
    query: list[tuple[str, str]]
    headers: dict[str, str]  # names in lower case

    def values(self, name: str) -> list[str]:
        return [v for k, v in self.query if k == name]


Behaviour = Callable[[Request, "Connection"], Awaitable[None]]


class Connection:
    """What a behaviour answers with. Left open unless `close` or `abort` is called, or the behaviour returns."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        """A whole answer with a length."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        await self.head(status, {"Content-Type": content_type, "Content-Length": str(len(body)), **named})
        await self.send(body)

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        await self.answer(status, orjson.dumps(value), "application/dicom+json", **headers)

    def abort(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


@dataclass
class Peer:
    """Listens on `host` (any loopback address) under `root`; `behave` may be replaced at any time."""

    behave: Behaviour
    host: str = "127.0.0.1"
    root: str = "/dicom-web"
    requests: list[Request] = field(default_factory=list)
    closed_at: list[float] = field(default_factory=list)  # time.monotonic() when the other side left
    _port: int = 0

    def __enter__(self) -> Peer:
        self._thread = LoopThread("scripted-peer")
        self._server = self._thread.run(self._start())
        return self

    async def _start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, self.host, self._port)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _stop(self) -> None:
        self._server.close()

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._stop())  # in its loop: a connection that ends at this moment counts there
        self._thread.close()

    def go_down(self) -> None:
        """Refuse connections from now on; those that stand go on."""
        self._thread.run(self._stop())

    def come_back(self) -> None:
        """At the same address."""
        self._server = self._thread.run(self._start())

    @property
    def dicomweb_url(self) -> str:
        return f"http://{self.host}:{self._port}{self.root}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await self._read(reader)) is not None:
                self.requests.append(request)
                work = asyncio.ensure_future(self.behave(request, Connection(reader, writer)))
                left = asyncio.ensure_future(self._left(reader, writer))
                await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    self.closed_at.append(time.monotonic())
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    return
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
                work.result()
                if writer.transport.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_at.append(time.monotonic())
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    @staticmethod
    async def _left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Returns when the other side has closed (it never sends a second request before our answer)."""
        while not reader.at_eof() and not writer.transport.is_closing():
            await asyncio.sleep(0.02)

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
        if not head:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k}
        path = unquote(parts.path).removeprefix(self.root)
        return Request(method, path, parse_qsl(parts.query, keep_blank_values=True), headers)


# Behaviours that misbehave ------------------------------------------------------------------------------------


async def silent(_: Request, connection: Connection) -> None:
    """Accepts and never answers."""
    await asyncio.sleep(3600)


async def dripping(_: Request, connection: Connection) -> None:
    """A byte a second."""
    await connection.head(200, {"Content-Type": "application/dicom+json", "Content-Length": "1000"})
    while True:
        await connection.send(b" ")
        await asyncio.sleep(1)


async def garbage(_: Request, connection: Connection) -> None:
    await connection.answer(200, b"<html>it works!</html>", "text/html")


async def redirecting(_: Request, connection: Connection) -> None:
    await connection.answer(302, b"", "text/plain", Location="http://127.0.0.1:1/elsewhere")


def flooding(megabytes: int = 200) -> Behaviour:
    """So much JSON, without a length."""

    async def behave(_: Request, connection: Connection) -> None:
        await connection.head(200, {"Content-Type": "application/dicom+json", "Connection": "close"})
        await connection.send(b"[")
        block = (b'{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A"}]}},' * 20_000)[: 1 << 20]
        for _number in range(megabytes):
            await connection.send(block)
        connection.writer.close()

    return behave


def rows(
    found: list[dict[str, Any]], *, honours_paging: bool = True, shuffle: Callable[[list[Any]], None] | None = None
) -> Behaviour:
    """Answers every search with `found` (filters ignored), every other request with 404."""

    async def behave(request: Request, connection: Connection) -> None:
        if not request.path.endswith(("/studies", "/series", "/instances")):
            await connection.answer(404, b"", "text/plain")
            return
        answer = list(found)
        if shuffle is not None:
            shuffle(answer)
        if honours_paging:
            offset = int((request.values("offset") or ["0"])[0])
            limit = int((request.values("limit") or [str(len(answer))])[0])
            answer = answer[offset : offset + limit]
        await connection.json(answer)

    return behave
