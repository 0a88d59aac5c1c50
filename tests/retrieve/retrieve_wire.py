"""What a client sees on the wire, read here without the product's own parsers."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Seen:
    """One answer as it came. `ended` = its framing says that it is whole (last chunk, or all of its length)."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    ended: bool = False
    reset: bool = False

    @property
    def boundary(self) -> bytes:
        return self.headers.get("content-type", "").partition("boundary=")[2].strip('"').encode()

    @property
    def closed(self) -> bool:
        """The body bears its closing boundary."""
        return bool(self.boundary) and b"--" + self.boundary + b"--" in self.body

    @property
    def parts(self) -> list[Part]:
        return parts_of(self.body, self.boundary)


@dataclass
class Part:
    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def location(self) -> str:
        return self.headers.get("content-location", "")


def parts_of(body: bytes, boundary: bytes) -> list[Part]:
    """The parts of a whole body (RFC 2046 §5.1.1). Fails if it is not whole."""
    assert boundary
    delimiter = b"--" + boundary
    assert body.startswith(delimiter + b"\r\n"), body[:200]
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n", pieces[-1][:100]
    parts = []
    for piece in pieces[1:-1]:
        head, separator, content = piece.partition(b"\r\n\r\n")
        assert separator
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n") if line]
        parts.append(Part({name.strip().lower(): value.strip() for name, _, value in lines}, content))
    return parts


def json_of(seen: Seen) -> Any:
    assert seen.ended
    return json.loads(seen.body)


def connect(url: str, path: str, headers: dict[str, str] | None = None, *, version: str = "1.1") -> socket.socket:
    """Send a GET and leave the answer to be read."""
    address = urlsplit(url)
    assert address.hostname is not None
    link = socket.create_connection((address.hostname, address.port or 80), timeout=20)
    lines = [f"GET {address.path}{path} HTTP/{version}", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    link.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    return link


def get(url: str, path: str, headers: dict[str, str] | None = None, *, version: str = "1.1") -> Seen:
    """The answer until the server closes the connection, however it does that."""
    with connect(url, path, headers, version=version) as link:
        return read_to_end(link)


def read_to_end(link: socket.socket, begun: bytes = b"") -> Seen:
    """The rest of an answer of which `begun` was read."""
    chunks = [begun]
    reset = False
    try:
        while chunk := link.recv(1 << 20):
            chunks.append(chunk)
    except ConnectionResetError:
        reset = True
    seen = read_answer(b"".join(chunks))
    seen.reset = reset
    return seen


def read_answer(raw: bytes) -> Seen:
    head, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        return Seen()
    first, *lines = head.decode("latin-1").split("\r\n")
    seen = Seen(status=int(first.split(" ")[1]))
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        seen.headers[name] = ", ".join(filter(None, (seen.headers.get(name), value.strip())))
    if seen.headers.get("transfer-encoding") == "chunked":
        seen.body, seen.ended = _unchunked(rest)
    elif "content-length" in seen.headers:
        seen.body, seen.ended = rest, len(rest) == int(seen.headers["content-length"])
    else:
        seen.body, seen.ended = rest, seen.status == 204
    return seen


def _unchunked(raw: bytes) -> tuple[bytes, bool]:
    """→ (the body as far as it came, whether its last chunk came)."""
    pieces: list[bytes] = []
    at = 0
    while True:
        line = raw.find(b"\r\n", at)
        if line < 0:
            return b"".join(pieces), False
        size = int(raw[at:line].partition(b";")[0], 16)
        if size == 0:
            return b"".join(pieces), raw[line : line + 4] == b"\r\n\r\n"
        pieces.append(raw[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
        if at > len(raw):
            return b"".join(pieces), False
