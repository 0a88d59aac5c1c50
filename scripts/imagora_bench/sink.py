"""The client, in a process of its own: as lean as Python can be, the same for whatever is measured.

Reads one JSON object per line, writes one per line:
    {"do": "stream", "url": …, "accept": …, "slow_s": 0, "slow_rate": 0}
        → {"seconds", "bytes"}: time to the closing boundary, bytes of body as they came (with chunk framing)
    {"do": "search", "url": …, "accept": …, "times": N} → {"seconds", "rows"}: N requests on one connection
    {"do": "inspect", "url": …, "accept": …, "tail": N} → {"parts", "digest"}: of the last N bytes of every part
What is cut, refused or not what it says to be is answered with {"error": …}.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson

from dicomweb.wire.media import parse_content_type
from dicomweb.wire.multipart import MultipartReader
from federation.model import PartBegin, PartEnd

_BUFFER = 1 << 20
_TAIL = 512
_PIECE = 1 << 16  # read at once while slow
_FRAMING = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")


class Connection:
    """One TCP connection. `head` leaves what came of the body in `rest`."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self.socket = socket.create_connection((self.parts.hostname or "", self.parts.port or 80), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def ask(self, accept: str, *, keep: bool) -> None:
        target = self.parts.path + (f"?{self.parts.query}" if self.parts.query else "")
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {self.parts.netloc}\r\nAccept: {accept}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
        )

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


def stream(url: str, accept: str, slow_s: float = 0.0, slow_rate: float = 0.0) -> dict[str, Any]:
    """`slow_rate` bytes a second in the first `slow_s` seconds, then as fast as it comes."""
    began = time.perf_counter()
    connection = Connection(url)
    connection.ask(accept, keep=False)
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


_ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"stream": stream, "search": search, "inspect": inspect}


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _ACTIONS[question.pop("do")](**question)
        except (OSError, ValueError, KeyError) as error:
            answer = {"error": f"{question['url']}: {type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
