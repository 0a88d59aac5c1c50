"""One process of the pool, seen from the service: started, given a job at a time, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from federation.pixels.limits import PACKET_MAX

_EXIT_TIMEOUT_S = 10.0


class ProcessDied(Exception):
    """`signal_number` 0: it ended by itself."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def signal_name(self) -> str:
        return signal.Signals(self.signal_number).name if self.signal_number else "exit"


class NotTaken(Exception):
    """The job did not reach it: it died before."""


class TooManyParameters(Exception):
    """The job does not fit into one packet."""


class PixelProcess:
    """Not by `multiprocessing`: its helper processes and pickles would have to be kept in check as well."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self.jobs = 0
        self.confined = False

    @classmethod
    async def spawn(cls, settings: Mapping[str, Any], *, temporary: Path | None = None) -> Self:
        """It does not take jobs yet: await `ready` next."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "federation.pixels.worker",
                orjson.dumps({**settings, "parent": os.getpid()}).decode(),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,  # what codecs print may hold data of the file
                env=_environment(temporary),
                close_fds=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    async def ready(self, *, timeout_s: float) -> None:
        """Returns when it takes jobs. ProcessDied or TimeoutError if it does not come up."""
        async with asyncio.timeout(timeout_s):
            self.confined = bool((await self._receive())["ready"])

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, job: str, params: Mapping[str, Any], source: int, target: int) -> dict[str, Any]:
        """Its answer. NotTaken, ProcessDied, TooManyParameters."""
        packet = orjson.dumps({"job": job, "params": params})
        if len(packet) > PACKET_MAX - 1024:
            raise TooManyParameters
        self.jobs += 1
        try:
            # It waits for a packet, and the socket is empty: this does not block.
            socket.send_fds(self._channel, [packet], [source, target])
        except OSError:
            raise NotTaken from None
        return await self._receive()

    async def _receive(self) -> dict[str, Any]:
        try:
            packet = await asyncio.get_running_loop().sock_recv(self._channel, PACKET_MAX)
        except ConnectionError:
            packet = b""
        if not packet:
            raise ProcessDied(await self._exited())
        answer: dict[str, Any] = orjson.loads(packet)
        return answer

    async def _exited(self) -> int:
        """The signal that it died of, 0 if of none. Its end of the socket is closed: it is about to be gone."""
        try:
            async with asyncio.timeout(_EXIT_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            await self.end()
            return int(signal.SIGKILL)
        return max(0, -code)

    async def end(self) -> int:
        """Kills it and waits until it is gone, also if this is cancelled. → the signal that it died of."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        waiting = asyncio.ensure_future(self._process.wait())
        try:
            code = await asyncio.shield(waiting)
        finally:
            self._channel.close()
        return max(0, -code)


def _environment(temporary: Path | None) -> dict[str, str]:
    """Nothing of ours: members' passwords stand in the service's environment."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    if temporary is not None:
        kept["TMPDIR"] = str(temporary)
    # A thread for each core, in each process, would take memory and time from the service.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **kept,
        **threads,
        "MALLOC_ARENA_MAX": "2",
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
