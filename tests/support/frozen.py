"""A PostgreSQL that stops answering without closing a connection, as one does on a machine that hangs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def server_processes(state: Path) -> list[psutil.Process]:
    """PostgreSQL's processes on a state folder, the postmaster first."""
    data = str(state / "postgres")
    found: list[tuple[bool, int, psutil.Process]] = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == data and process.status() != psutil.STATUS_ZOMBIE:
                found.append((data not in process.cmdline(), process.pid, process))
        except psutil.Error:
            continue
    return [process for _, _, process in sorted(found, key=lambda one: one[:2])]


@contextmanager
def frozen(state: Path) -> Iterator[None]:
    """The server of this state folder, one of the test's own, does not answer meanwhile."""
    stopped = server_processes(state)
    assert stopped
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(stopped):
            process.send_signal(signal.SIGCONT)
