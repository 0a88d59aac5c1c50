"""multipart/related (RFC 2387, RFC 2046 §5.1), read incrementally and written with a fresh boundary."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from federation.model import PART_END, Buffer, PartBegin, PartEnd, PartEvent

HEADERS_MAX = 16 * 1024
PREAMBLE_MAX = 64 * 1024
#: RFC 2046 lets anything stand before the first boundary. What looks like one that was damaged, or like a part, is not
#: ignored as it says: the part would be missing, and nobody would know.
_NO_PREAMBLE = re.compile(rb"[^\t\r\n -~\x80-\xff]|(?:^|\n)(?:--|content-[a-z]+[ \t]*:)|dicm", re.IGNORECASE)
#: A Content-Length that counts the line end behind its part is right, too.
_LINE_END = len(b"\r\n")
BOUNDARY_MAX = 200  # RFC 2046 allows 70; servers exceed it
_LENGTH = re.compile("[0-9]{1,18}")


class BadMultipart(Exception):
    """The body is not multipart/related with the boundary that its header names."""


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()  # behind `--boundary`: the rest of its line
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartReader:
    """`feed(chunk)` → events; bodies come out by reference to the chunks that they came in.

    `complete` is True once the closing boundary was read: without it, what came may be cut anywhere. `part_is_whole`
    if the body stops now: the part under way has all of the bytes that its Content-Length announced. `length` of the
    whole body in bytes, None = not known: with it, a part that says how long it is can be seen to be the only one.
    """

    def __init__(self, boundary: bytes, length: int | None = None) -> None:
        if not boundary or len(boundary) > BOUNDARY_MAX:
            raise BadMultipart("no usable boundary")
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"  # the first boundary may stand at the very start
        self._state = _State.PREAMBLE
        self._preamble = bytearray()
        self._length = length
        self._fed = 0
        self._missing: int | None = None  # bytes of the part under way, None if it does not tell

    @property
    def part_is_whole(self) -> bool:
        return self._state is _State.BODY and self._missing == 0 and self._held in (b"", b"\r", b"\r\n")

    @property
    def complete(self) -> bool:
        return self._state is _State.EPILOGUE

    def feed(self, chunk: Buffer) -> list[PartEvent]:
        events: list[PartEvent] = []
        if self._state is _State.EPILOGUE:
            return events
        data: bytes = self._held + bytes(chunk) if self._held else bytes(chunk)
        self._held = b""
        self._fed += len(chunk)
        at = 0
        while at < len(data) or self._state is _State.BODY:
            if self._state in (_State.BODY, _State.PREAMBLE):
                at, more = self._body(data, at, events)
            elif self._state is _State.DELIMITER:
                at, more = self._delimiter_line(data, at)
            else:
                at, more = self._headers(data, at, events)
            if more or self.complete:  # what follows the closing boundary is to be ignored
                break
        return events

    def _body(self, data: bytes, at: int, events: list[PartEvent]) -> tuple[int, bool]:
        found = data.find(self._delimiter, at)
        if found < 0:
            end = self._safe_end(data, at)
            self._emit(data, at, end, events)
            self._held = data[end:]
            return len(data), True
        self._emit(data, at, found, events)
        if self._state is _State.BODY:
            if self._missing not in (None, 0, _LINE_END):
                raise BadMultipart("a part is not as long as it says")
            events.append(PART_END)
        elif _NO_PREAMBLE.search(self._preamble):
            raise BadMultipart("something else than a boundary at the beginning")
        self._state = _State.DELIMITER
        return found + len(self._delimiter), False

    def _safe_end(self, data: bytes, at: int) -> int:
        """Where a delimiter that is cut by the end of the data may begin."""
        start = max(at, len(data) - len(self._delimiter) + 1)
        cr = data.find(b"\r", start)
        while cr >= 0:
            if self._delimiter.startswith(data[cr:]):
                return cr
            cr = data.find(b"\r", cr + 1)
        return len(data)

    def _emit(self, data: bytes, at: int, end: int, events: list[PartEvent]) -> None:
        if self._state is _State.PREAMBLE:
            self._preamble += data[at:end]
            if len(self._preamble) > PREAMBLE_MAX:
                raise BadMultipart("no boundary at the beginning")
        elif end > at:
            if self._missing is not None:
                self._missing -= end - at
            events.append(data if at == 0 and end == len(data) else memoryview(data)[at:end])

    def _delimiter_line(self, data: bytes, at: int) -> tuple[int, bool]:
        """`--` closes; else white space and a line end (RFC 2046: transport padding)."""
        if data.startswith(b"--", at):
            self._state = _State.EPILOGUE
            return len(data), False
        end = data.find(b"\r\n", at)
        if _too_long(at, end + 1 if end >= 0 else len(data)):
            raise BadMultipart("something else than a line end follows a boundary")
        if end < 0:
            if len(data) - at >= 2 and data[at : len(data)].strip(b" \t\r"):
                raise BadMultipart("something else than a line end follows a boundary")
            self._held = data[at:]
            return len(data), True
        if data[at:end].strip(b" \t"):
            raise BadMultipart("something else than a line end follows a boundary")
        self._state = _State.HEADERS
        return end, False  # the line end stays: a part without headers has an empty line at once

    def _headers(self, data: bytes, at: int, events: list[PartEvent]) -> tuple[int, bool]:
        end = data.find(b"\r\n\r\n", at)
        if _too_long(at, end + 3 if end >= 0 else len(data)):
            raise BadMultipart("the headers of a part are too long")
        if end < 0:
            self._held = data[at:]
            return len(data), True
        if len(data) - end - 2 < len(self._delimiter) and self._delimiter.startswith(data[end + 2 :]):
            self._held = data[at:]  # whether the line end belongs to a delimiter can't be told yet
            return len(data), True
        fields = {}
        for line in data[at:end].split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon:
                fields[name.strip().lower()] = value.strip().decode("latin-1")
        events.append(
            PartBegin(
                content_type=fields.get(b"content-type", "application/octet-stream"),
                location=fields.get(b"content-location", ""),
                length=self._only(fields.get(b"content-length", ""), self._fed - len(data) + end + 4),
            )
        )
        length = fields.get(b"content-length", "")
        self._missing = int(length) if _LENGTH.fullmatch(length) else None
        self._state = _State.BODY
        # An empty body's delimiter may use the line end that closes the headers.
        return end + 2 if data.startswith(self._delimiter, end + 2) else end + 4, False

    def _only(self, said: str, begins: int) -> int | None:
        """A part's length, if with it and the closing boundary the whole body ends, with or without a line end."""
        if self._length is None or not _LENGTH.fullmatch(said):
            return None
        behind = self._length - begins - int(said) - len(self._delimiter) - len(b"--")
        return int(said) if behind in (0, len(b"\r\n")) else None


def _too_long(at: int, end: int) -> bool:
    """`end` is the most that was seen before the end was known, so that the limit is the same in any chunking."""
    return end - at > HEADERS_MAX


def fresh_boundary() -> str:
    return secrets.token_hex(24)


class MultipartWriter:
    """Events → bytes of a body. The closing boundary comes from `close()` only: a broken body never has one."""

    def __init__(self, boundary: str) -> None:
        self._boundary = boundary
        self._opened = False

    def write(self, events: Iterable[PartEvent]) -> list[Buffer]:
        out: list[Buffer] = []
        for event in events:
            if isinstance(event, PartBegin):
                location = f"Content-Location: {event.location}\r\n" if event.location else ""
                start = "\r\n" if self._opened else ""
                self._opened = True
                out.append(
                    f"{start}--{self._boundary}\r\nContent-Type: {event.content_type}\r\n{location}\r\n".encode(
                        "latin-1"
                    )
                )
            elif not isinstance(event, PartEnd):
                out.append(event)
        return out

    def close(self) -> bytes:
        end = f"--{self._boundary}--\r\n"
        return (f"\r\n{end}" if self._opened else end).encode()


def write_multipart(boundary: str, parts: Sequence[tuple[str, bytes]]) -> bytes:
    """A whole body of (content type, bytes) parts."""
    writer = MultipartWriter(boundary)
    events: list[PartEvent] = []
    for content_type, body in parts:
        events += [PartBegin(content_type=content_type), body, PART_END]
    return b"".join([*writer.write(events), writer.close()])
