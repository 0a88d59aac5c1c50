"""Several processes that serve as one (`server.workers` > 1): kept up by their parent, which serves nothing itself.

The parent holds the listening socket, which all accept from: who is free takes the next connection. Each worker is tied
to it by a pair of sockets. One way goes its work, a JSON object: no secret stands on a command line. The other way it
says that it serves. When the parent ends, however it does, the kernel closes its end, and the workers stop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from imagora.settings import Settings

_log = logging.getLogger("imagora.serve")

READY = b"ready\n"
#: Beyond the time that transfers get to end, a worker gets this long to write its last traces and close all.
CLOSE_S = 20.0
#: A worker that dies soon after its start is started again after a pause, which doubles each time.
STEADY_S = 30.0
PAUSE_S = 0.5
PAUSE_MAX_S = 30.0
_METRICS = "metrics-"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is told."""

    place: int  # its number, which its successor takes over
    listener: int  # file descriptor, bound
    settings: dict[str, Any]  # the parent's, so that a file that was edited meanwhile does not make workers differ


class Overdue(Exception):
    """Workers had to be killed, since they did not end in time."""


class Workers:
    """Runs `settings.server.workers` processes until SIGINT or SIGTERM. Closes the listener."""

    def __init__(self, settings: Settings, listener: socket.socket, serving: Callable[[], object]) -> None:
        self._settings = settings
        self._listener = listener
        self._serving = serving
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._first: list[asyncio.Future[bool]] = []
        self._stop = asyncio.Event()

    async def run(self) -> bool:
        """True after an orderly stop; False if a worker could not start at first: the log says why. Raises `Overdue`.

        `serving` is called once all workers serve.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._told_to_stop, number)
        self._first = [loop.create_future() for _ in range(self._settings.server.workers)]
        keepers: list[asyncio.Task[None]] = []
        try:
            with _metrics_folder(self._settings.server.state_dir) as metrics:
                started = await self._start(keepers, metrics)
                told = self._stop.is_set()
                if started and not told:
                    self._serving()
                    await self._stop.wait()
                self._end()
                await self._ended(keepers)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
        return started or told

    async def _start(self, keepers: list[asyncio.Task[None]], metrics: Path) -> bool:
        """One first, so that what is wrong is said once; then the others together."""
        for places in (range(1), range(1, len(self._first))):
            keepers += [asyncio.create_task(self._keep(place, metrics), name=f"worker-{place}") for place in places]
            if not all(await asyncio.gather(*(self._first[place] for place in places))):
                return False
        return True

    def _told_to_stop(self, number: signal.Signals) -> None:
        again = self._stop.is_set()
        self._end()
        if again and number is signal.SIGINT:
            self._send(signal.SIGINT)  # Ctrl-C once more: without waiting for transfers

    def _end(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._listener.close()  # nobody new is let in once the workers have closed theirs
            self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _ended(self, keepers: list[asyncio.Task[None]]) -> None:
        limit = self._settings.server.drain_s + CLOSE_S
        _, late = await asyncio.wait(keepers, timeout=limit)
        if late:
            pids = ", ".join(str(process.pid) for process in self._running.values())
            self._send(signal.SIGKILL)
            await asyncio.wait(keepers)
            raise Overdue(f"workers that did not end within {limit:.0f} s were killed (processes {pids})")

    async def _keep(self, place: int, metrics: Path) -> None:
        """Keep one place filled until the stop."""
        first = self._first[place]
        pause = 0.0
        while not self._stop.is_set():
            try:
                lived = await self._one(place, metrics)
            except Exception:
                _log.exception("worker %d cannot be kept up", place)
                lived = 0.0
            if not first.done():
                first.set_result(False)
                return
            if self._stop.is_set():
                return
            pause = 0.0 if lived > STEADY_S else min(PAUSE_MAX_S, max(PAUSE_S, pause * 2))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    async def _one(self, place: int, metrics: Path) -> float:
        """Run one process to its end; for how long it served."""
        ours, theirs = socket.socketpair()
        with closing(ours), theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "imagora.worker"),
                    stdin=theirs.fileno(),
                    pass_fds=[self._listener.fileno()],
                    env=_environment(metrics),
                    process_group=0,  # Ctrl-C in the terminal is for the parent, which passes it on
                )
            except OSError as error:
                _log.error("worker %d cannot be started: %s", place, error.strerror)
                return 0.0
            theirs.close()
            self._running[place] = process
            if self._stop.is_set():
                self._send(signal.SIGTERM)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            since: float | None = None
            try:
                with suppress(ConnectionError):
                    writer.write(self._job(place))
                    await writer.drain()
                    if await reader.readline() == READY:
                        since = time.monotonic()
                        self._serves(place, process.pid)
                status = await process.wait()
            finally:
                writer.close()
                self._running.pop(place)
                mark_process_dead(place, str(metrics))  # type: ignore[no-untyped-call]
        if not self._stop.is_set():
            _log.error("worker %d (process %d) ended: %s", place, process.pid, _said(status))
        return 0.0 if since is None else time.monotonic() - since

    def _serves(self, place: int, pid: int) -> None:
        first = self._first[place]
        if first.done():
            _log.warning("worker %d is back (process %d)", place, pid)
        else:
            first.set_result(True)

    def _job(self, place: int) -> bytes:
        job = Job(place=place, listener=self._listener.fileno(), settings=self._settings.model_dump(mode="json"))
        return json.dumps(dataclasses.asdict(job)).encode() + b"\n"


def _environment(metrics: Path) -> dict[str, str]:
    """This process's own, its module path included: a worker finds the same program, from whatever folder."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}


def _said(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


@contextmanager
def _metrics_folder(state_dir: Path) -> Iterator[Path]:
    """A fresh folder for the workers' counters, removed at the end; and those removed that killed parents left."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _locked(state_dir):  # one at a time: a folder that is not locked yet would be taken for a left one
            for old in state_dir.glob(f"{_METRICS}*"):
                with suppress(OSError), _locked(old, fcntl.LOCK_NB):
                    shutil.rmtree(old)
            folder = Path(tempfile.mkdtemp(prefix=_METRICS, dir=state_dir))  # mode 0700
            stack.enter_context(_locked(folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)
