"""The client, in a process of its own: as lean as Python can be, the same for whatever is measured.

Reads one JSON object per line, writes one per line:
    {"do": "stream", "url": …, "accept": …, "slow_s": 0, "slow_rate": 0}
        → {"seconds", "bytes"}: time to the closing boundary, bytes of body as they came (with chunk framing)
    {"do": "search", "url": …, "accept": …, "times": N} → {"seconds", "rows"}: N requests on one connection
    {"do": "many", "urls": …, "accept": …, "times": N, "at_once": M} → {"seconds", "least"}: N requests, the URLs one
        after the other, on M connections; bytes of the shortest answer
    {"do": "crowd", "urls": …, "accept": …, "clients": N, "read_s": S, "rate": R}
        → {"bytes_a_second", "least", "first_s", "last_s", "again", "refused", "why"}: N clients, the URLs one after the
        other, that each read R bytes a second for S seconds or more, then leave; of all together; bytes of the slowest
        after S seconds; when the first bytes came; how many were told to come again and did (503, Retry-After); how
        many had no whole answer
    {"do": "inspect", "url": …, "accept": …, "tail": N} → {"parts", "digest"}: of the last N bytes of every part
A "token" goes along as a bearer. What is cut, refused or not what it says to be is answered with {"error": …}.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import orjson
import uvloop

from dicomweb.wire.media import parse_content_type
from dicomweb.wire.multipart import MultipartReader
from federation.model import PartBegin, PartEnd
from imagora_bench.crowd import crowd

_BUFFER = 1 << 20
_TAIL = 512
_PIECE = 1 << 16  # read at once while slow
_LENGTH = re.compile(rb"\ncontent-length: *([0-9]+)")
_FRAMING = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")


class Connection:
    """One TCP connection. `head` leaves what came of the body in `rest`."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self.socket = socket.create_connection((self.parts.hostname or "", self.parts.port or 80), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def ask(self, accept: str, *, keep: bool, token: str = "") -> None:
        self.socket.sendall(_request(self.parts, accept, keep=keep, token=token))

    def head(self) -> dict[str, str]:
        """Header fields, names in lower case. Raises `ValueError` unless the status is 200."""
        data = self.rest
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ValueError("the connection closed before an answer")
            data += piece
        head, _, self.rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if first.split(" ")[1] != "200":
            raise ValueError(f"{first}: {self.rest[:300]!r}")
        return {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}


def _request(parts: SplitResult, accept: str, *, keep: bool, token: str) -> bytes:
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n{bearer}"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    ).encode()


def stream(url: str, accept: str, slow_s: float = 0.0, slow_rate: float = 0.0, token: str = "") -> dict[str, Any]:
    """`slow_rate` bytes a second in the first `slow_s` seconds, then as fast as it comes."""
    began = time.perf_counter()
    connection = Connection(url)
    connection.ask(accept, keep=False, token=token)
    fields = connection.head()
    boundary = parse_content_type(fields["content-type"]).parameters["boundary"].encode()
    chunked = fields.get("transfer-encoding", "").lower() == "chunked"
    closing = b"--" + boundary + b"--"
    buffer = memoryview(bytearray(_BUFFER))
    size = len(connection.rest)
    tail = connection.rest[-_TAIL:]
    slow_until = began + slow_s
    while not (tail.endswith(b"\r\n0\r\n\r\n") if chunked else closing in tail):
        piece = buffer
        if slow_s:
            now = time.perf_counter()
            if now < slow_until:
                piece = buffer[:_PIECE]
                time.sleep(max(0.0, size / slow_rate - (now - began)))
            else:
                slow_s = 0.0
        got = connection.socket.recv_into(piece)
        if not got:
            break
        size += got
        tail = bytes(buffer[got - _TAIL : got]) if got >= _TAIL else (tail + bytes(buffer[:got]))[-_TAIL:]
    seconds = time.perf_counter() - began
    connection.socket.close()
    # A chunk may end within the closing boundary.
    if closing not in (_FRAMING.sub(b"", tail) if chunked else tail) and closing not in tail:
        raise ValueError("the answer ended without its closing boundary")
    return {"seconds": seconds, "bytes": size}


def search(url: str, accept: str, times: int) -> dict[str, Any]:
    connection = Connection(url)
    body = b""
    began = time.perf_counter()
    for _ in range(times):
        connection.ask(accept, keep=True)
        length = int(connection.head()["content-length"])
        pieces = [connection.rest]
        missing = length - len(connection.rest)
        while missing > 0:
            piece = connection.socket.recv(min(missing, 1 << 18))
            if not piece:
                raise ValueError("the answer was cut")
            pieces.append(piece)
            missing -= len(piece)
        body = b"".join(pieces)
        connection.rest = b""
    seconds = time.perf_counter() - began
    connection.socket.close()
    return {"seconds": seconds, "rows": [row["0020000D"]["Value"][0] for row in orjson.loads(body)]}


def many(urls: list[str], accept: str, times: int, at_once: int, token: str = "") -> dict[str, Any]:
    """In an event loop: what is measured answers several at a time, so the client must take them as they come."""
    parts = urlsplit(urls[0])
    host, port = parts.hostname or "", parts.port or 80
    requests = [_request(urlsplit(url), accept, keep=True, token=token) for url in urls]
    work = _Work([requests[number % len(requests)] for number in reversed(range(times))], times)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: _Asking(work), host, port) for _ in range(at_once)]
        began = time.perf_counter()
        for _, asking in made:
            asking.next()
        async with asyncio.timeout(120):
            await work.ended
        seconds = time.perf_counter() - began
        for transport, _ in made:
            transport.close()
        return seconds

    seconds = uvloop.run(run())
    return {"seconds": seconds, "least": min(work.sizes)}


class _Work:
    """Requests that wait for a connection, the next one last; sizes in bytes of what came."""

    def __init__(self, waiting: list[bytes], times: int) -> None:
        self.waiting = waiting
        self.left = times
        self.sizes: list[int] = []

    @functools.cached_property
    def ended(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


class _Asking(asyncio.Protocol):
    """One connection that asks for one thing after the other."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._came = bytearray()
        self._length: int | None = None  # of head and body; -1: chunked
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def next(self) -> None:
        if self._work.waiting:
            self._came.clear()
            self._length = None
            self._transport.write(self._work.waiting.pop())

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._length is None:
            at = self._came.find(b"\r\n\r\n")
            if at < 0:
                return
            head = bytes(self._came[:at]).lower()
            if not head.startswith(b"http/1.1 200 "):
                self._fail(f"{bytes(self._came[:300])!r}")
                return
            found = _LENGTH.search(head)
            self._length = at + 4 + int(found[1]) if found is not None else -1
        came = self._came.endswith(b"\r\n0\r\n\r\n") if self._length < 0 else len(self._came) >= self._length
        if came:
            self._work.sizes.append(len(self._came))
            self._work.left -= 1
            if not self._work.left and not self._work.ended.done():
                self._work.ended.set_result(None)
            self.next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail("a connection was lost")

    def _fail(self, why: str) -> None:
        if not self._work.ended.done():
            self._work.ended.set_exception(ValueError(why))


def inspect(url: str, accept: str, tail: int) -> dict[str, Any]:
    """Read the whole answer with care. `digest` does not depend on the order of parts."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    digests = []
    with urllib.request.urlopen(request, timeout=120) as answer:
        content_type = parse_content_type(answer.headers["Content-Type"])
        reader = MultipartReader(content_type.parameters["boundary"].encode())
        part = bytearray()
        while chunk := answer.read(_BUFFER):
            for event in reader.feed(chunk):
                if isinstance(event, PartBegin):
                    part.clear()
                elif isinstance(event, PartEnd):
                    digests.append(hashlib.sha256(part[-tail:]).hexdigest())
                else:
                    part += event
    if not reader.complete:
        raise ValueError("the answer ended without its closing boundary")
    return {"parts": len(digests), "digest": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()}


_ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "stream": stream,
    "search": search,
    "many": many,
    "crowd": crowd,
    "inspect": inspect,
}


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _ACTIONS[question.pop("do")](**question)
        except (OSError, ValueError, KeyError) as error:
            answer = {"error": f"{question.get('url', 'many')[:200]}: {type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
