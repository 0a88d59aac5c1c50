"""Many clients in one process, each reading at its own slow pace. See `sink`."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

_TICK_S = 0.05
_PIECE = 1 << 18
_TAIL = 512
_PATIENCE_S = 60.0  # until every client has its first byte
_RETRY_S = 1.0
_OK = b"HTTP/1.1 200 "
_BUSY = b"HTTP/1.1 503 "


def crowd(urls: list[str], accept: str, clients: int, read_s: float, rate: float) -> dict[str, Any]:
    """All read until the last of them has read for `read_s`, so that for so long they are all there at once."""
    began = time.monotonic()
    readers = [_Reader(url, accept) for url in itertools.islice(itertools.cycle(urls), clients)]
    buffer = memoryview(bytearray(_PIECE))
    while True:
        now = time.monotonic()
        for reader in readers:
            reader.read(now, rate, read_s, buffer)
        waiting = [r for r in readers if r.in_time is None]
        if not waiting or (now - began > _PATIENCE_S and all(r.since is None for r in waiting)):
            break
        time.sleep(max(0.0, now + _TICK_S - time.monotonic()))
    ended = time.monotonic()
    for reader in readers:
        reader.socket.close()
    faults = [fault for reader in readers if (fault := reader.fault()) is not None]
    first = [reader.since - began for reader in readers if reader.since is not None]
    return {
        "bytes_a_second": sum(r.size / (ended - r.since) for r in readers if r.since is not None),
        "least": min(reader.in_time or 0 for reader in readers),
        "first_s": min(first, default=0.0),
        "last_s": max(first, default=0.0),
        "again": sum(1 for reader in readers if reader.again),
        "refused": len(faults),
        "why": ", ".join(f"{count} × {fault}" for fault, count in Counter(faults).most_common()),
    }


class _Reader:
    def __init__(self, url: str, accept: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._request = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        ).encode()
        self.again = 0  # how often it was told to come again
        self.since: float | None = None  # when the first byte of the answer came
        self._not_before = 0.0
        self._ask()

    def _ask(self) -> None:
        self.socket = socket.create_connection(self._address, timeout=30)
        self.socket.sendall(self._request)
        self.socket.setblocking(False)
        self.size = 0
        self.in_time: int | None = None  # what it had when its time was over, or all there was
        self._head = b""
        self._tail = b""
        self._ended = False  # the other side closed

    def read(self, now: float, rate: float, read_s: float, buffer: memoryview) -> None:
        """What has come, up to what this client would have read by now at its rate."""
        if self._not_before:
            if now < self._not_before:
                return
            self._not_before = 0.0
            self._ask()
        may = _PIECE if self.since is None else int(rate * (now - self.since)) - self.size
        while may > 0 and not self._ended:
            try:
                got = self.socket.recv_into(buffer[: min(may, _PIECE)])
            except BlockingIOError:
                break
            except ConnectionError:
                got = 0
            if not got:
                self._ended = True
                break
            if self.since is None:
                self._head = bytes(buffer[: min(got, 1000)])
                if self._head.startswith(_BUSY) and b"\r\nretry-after:" in self._head.lower():
                    self.again += 1
                    self.socket.close()
                    self._not_before = now + _RETRY_S
                    return
                self.since = now
                may = got
            self._tail = (self._tail + bytes(buffer[max(0, got - _TAIL) : got]))[-_TAIL:]
            self.size += got
            may -= got
        if self.in_time is None and (self._ended or (self.since is not None and now - self.since >= read_s)):
            self.in_time = self.size

    def fault(self) -> str | None:
        """Why what came is no answer, or not a whole one."""
        if self.since is None:
            return "no answer"
        if not self._head.startswith(_OK):
            return self._head.partition(b"\r\n")[0].decode("latin-1")
        if self._ended and not self._tail.rstrip(b"\r\n0").endswith(b"--"):
            return "cut"
        return None
