"""The jobs of the pool, and some that no real file can be trusted to bring about."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path
from typing import IO, Any

from federation.pixels.jobs import JOBS as REAL
from federation.pixels.jobs import Output, prepare, run
from federation.pixels.limits import Limits

__all__ = ["JOBS", "Output", "prepare", "run"]


def _abort(*_: object) -> None:
    os.abort()


def _read_nowhere(*_: object) -> None:
    ctypes.string_at(1)


def _sleep(file: IO[bytes], out: Output, params: dict[str, Any], limits: Limits) -> None:
    time.sleep(params["seconds"])
    out.add(b"done", media_type="text/plain")


def _spin(*_: object) -> None:
    """For ever, in C, with the interpreter held: nothing in this process can interrupt it."""
    while True:
        pow(3, 10_000_000)


def _take(file: IO[bytes], out: Output, params: dict[str, Any], limits: Limits) -> None:
    out.add(bytes(params["bytes"])[:1], media_type="text/plain")


def _killed(*_: object) -> None:
    signal.raise_signal(signal.SIGKILL)


def _tell_all(file: IO[bytes], *_: object) -> None:
    raise ValueError(file.read())


def _look_around(file: IO[bytes], out: Output, params: dict[str, Any], limits: Limits) -> None:
    seen: dict[str, Any] = {
        "pid": os.getpid(),
        "environment": sorted(os.environ),
        "descriptors": {fd.name: str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()},
        "niceness": os.nice(0),
    }
    for name, attempt in {
        "socket": lambda: socket.socket().close(),
        "program": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(os.getppid(), 0),
        "write to what is read": lambda: os.write(file.fileno(), b"x"),
    }.items():
        try:
            attempt()
            seen[name] = "allowed"
        except OSError as error:
            seen[name] = type(error).__name__
    out.add(b"", media_type="text/plain", about=seen)


JOBS = {
    **REAL,
    "abort": _abort,
    "read_nowhere": _read_nowhere,
    "sleep": _sleep,
    "spin": _spin,
    "take": _take,
    "killed": _killed,
    "tell_all": _tell_all,
    "look_around": _look_around,
}
