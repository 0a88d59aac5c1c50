"""A bounded pool of processes that decode pixels: `await pool.render(…)` and its sisters.

Processes start when first needed and take one job at a time. One that crashes, takes too long or has done its number of
jobs is replaced. None outlives this process. Used from one event loop.

    pool = PixelPool(PoolSettings(processes=2))
    with Spool() as spool:
        async for chunk in member:      # a Part-10 stream, as it arrives
            spool.write(chunk)
        with await pool.render(spool, parse_options(window="40,400,linear")) as result:
            for piece in result.pieces:
                send(piece.media_type, result.chunks(piece))
    await pool.aclose()

An instance may be given as bytes too; what is large is better written into a `Spool` piece by piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from federation.errors import BadRequest
from federation.model import Buffer
from federation.pixels.errors import (
    BY_NAME,
    PixelError,
    PoolBroken,
    PoolBusy,
    PoolClosed,
    SickFile,
    TookTooLong,
    TooLarge,
)
from federation.pixels.limits import Limits
from federation.pixels.options import SMALL, RenderOptions
from federation.pixels.process import NotTaken, PixelProcess, ProcessDied, TooManyParameters
from federation.pixels.spool import Spool

_log = logging.getLogger(__name__)
Source = Buffer | Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """`queue`: jobs that may wait. `wait_s`: how long one may. `memory_bytes`: address space of one process."""

    processes: int = 2
    queue: int = 64
    wait_s: float = 20.0
    deadline_s: float = 30.0
    start_s: float = 60.0
    memory_bytes: int = 2 << 30
    jobs_per_process: int = 500
    niceness: int = 10
    limits: Limits = field(default_factory=Limits)
    spool_directory: Path | None = None  # None: the system's for temporary files
    jobs: str = "federation.pixels.jobs"  # the module that holds JOBS


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a result. `frame` from 1. `about`: of pictures {"size": [w, h]}, else image pixel attributes."""

    offset: int
    length: int
    media_type: str
    transfer_syntax: str
    frame: int | None
    about: Any

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        return cls(
            row["offset"],
            row["length"],
            row["media_type"],
            row.get("transfer_syntax", ""),
            row.get("frame"),
            row.get("about"),
        )


class Result:
    """What a job gave, in a file without a name: read it piece by piece, then close it."""

    def __init__(self, spool: Spool, pieces: Sequence[Piece]) -> None:
        self._spool = spool
        self.pieces = pieces

    def read(self, piece: Piece) -> bytes:
        return b"".join(self.chunks(piece))

    def chunks(self, piece: Piece) -> Iterator[bytes]:
        """A little at a time. From memory in nearly all cases, so that no thread is needed."""
        return self._spool.chunks(piece.offset, piece.length)

    def close(self) -> None:
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PixelPool:
    def __init__(self, settings: PoolSettings | None = None) -> None:
        self.settings = settings or PoolSettings()
        self._turns = asyncio.Semaphore(self.settings.processes)
        self._idle: list[PixelProcess] = []
        self._alive: set[PixelProcess] = set()
        self._running: set[asyncio.Task[Result]] = set()
        self._waiting = 0
        self._closed = False
        self._warned = False

    async def render(self, source: Source, options: RenderOptions, *, deadline_s: float | None = None) -> Result:
        """Pictures (PS3.18 §8.3.5): one piece per frame, or one animated GIF."""
        return await self.submit("render", source, {"options": options.to_json()}, deadline_s=deadline_s)

    async def thumbnail(
        self,
        source: Source,
        options: RenderOptions = SMALL,
        *,
        deadline_s: float | None = None,
    ) -> bytes:
        """One picture: of the first of the frames wanted, else of the middle one."""
        with await self.submit("thumbnail", source, {"options": options.to_json()}, deadline_s=deadline_s) as result:
            return result.read(result.pieces[0])

    async def frames(
        self, source: Source, numbers: Sequence[int] | None, *, as_stored: bool, deadline_s: float | None = None
    ) -> Result:
        """Frames (from 1; None: all), one piece each, in Explicit VR Little Endian or as stored."""
        params = {"frames": list(numbers) if numbers is not None else None, "as_stored": as_stored}
        return await self.submit("frames", source, params, deadline_s=deadline_s)

    async def to_explicit(self, source: Source, *, deadline_s: float | None = None) -> Result:
        """The whole Part-10 file in Explicit VR Little Endian, one piece."""
        return await self.submit("to_explicit", source, {}, deadline_s=deadline_s)

    async def metadata(
        self,
        source: Source,
        *,
        bulk_over: int = 1024,
        uri_of: Callable[[str], str] | None = None,
        deadline_s: float | None = None,
    ) -> dict[str, Any]:
        """The DICOM JSON object. `uri_of`: see `metadata.UriOf`; None leaves bulk data and pixels out."""
        params = {"bulk_over": bulk_over, "uris": uri_of is not None}
        with await self.submit("metadata", source, params, deadline_s=deadline_s) as result:
            piece = result.pieces[0]
            model: dict[str, Any] = orjson.loads(result.read(piece))
        if uri_of is None:
            return model
        for place in piece.about:
            _at(model, place)["BulkDataURI"] = uri_of(place)
        return model

    async def submit(
        self, job: str, source: Source, params: Mapping[str, Any], *, deadline_s: float | None = None
    ) -> Result:
        """PixelError or BadRequest. If the caller is cancelled the job goes on to its end or its deadline: starting a
        process anew would cost more."""
        await self._take_turn()
        try:
            self._check_open()
            with contextlib.ExitStack() as stack:
                spool = source
                if not isinstance(spool, Spool):
                    spool = stack.enter_context(Spool.of(spool, self.settings.spool_directory))
                given = spool.open_to_read()
        except BaseException as error:
            self._turns.release()
            if isinstance(error, OSError):
                raise _no_room(error) from None
            raise
        task = asyncio.create_task(self._run(job, given, params, deadline_s or self.settings.deadline_s))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_throw_away)
            raise

    async def aclose(self) -> None:
        """Jobs under way end in PoolClosed, and no process is left. Safe to call again, and to cancel."""
        self._closed = True
        await asyncio.shield(asyncio.ensure_future(self._end_all()))

    async def _end_all(self) -> None:
        while self._alive or self._running:
            await asyncio.gather(*(process.end() for process in self._alive))
            self._alive.clear()
            await asyncio.gather(*self._running, return_exceptions=True)
        self._idle.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed("the service is stopping")

    async def _take_turn(self) -> None:
        self._check_open()
        if self._turns.locked() and self._waiting >= self.settings.queue:
            raise PoolBusy("too many pictures are asked for at this moment: try again", retry_after_s=2)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.settings.wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise PoolBusy("too many pictures are asked for at this moment: try again", retry_after_s=5) from None
        finally:
            self._waiting -= 1

    async def _run(self, job: str, given: int, params: Mapping[str, Any], deadline_s: float) -> Result:
        """Owns the turn and the descriptor `given`."""
        try:
            try:
                target = Spool(self.settings.spool_directory)
            except OSError as error:
                raise _no_room(error) from None
            try:
                answer = await self._ask(job, given, target.fileno(), params, deadline_s)
                return _result(answer, target)
            except BaseException as error:
                target.close()
                if isinstance(error, PixelError) and not self._closed:
                    _log.warning("pixel job %s: %s %s", job, type(error).__name__, error.detail)
                raise
        finally:
            os.close(given)
            self._turns.release()

    async def _ask(
        self, job: str, given: int, target: int, params: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        while True:
            process = await self._process()
            keep = False
            try:
                async with asyncio.timeout(deadline_s):
                    answer = await process.run(job, params, given, target)
                # After running out of memory a heap is in pieces.
                keep = not str(answer.get("detail", "")).startswith("MemoryError")
                return answer
            except NotTaken:
                continue  # it died while it was idle: that is not this file's fault
            except TimeoutError:
                raise TookTooLong(f"the picture was not ready within {deadline_s:g} seconds") from None
            except ProcessDied as death:
                self._check_open()
                raise _cause(death) from None
            except TooManyParameters:
                keep = True
                raise BadRequest("too many frames are asked for at once") from None
            finally:
                await self._put_back(process, keep=keep)

    async def _process(self) -> PixelProcess:
        """An idle one, else a new one: there are never more than turns."""
        if self._idle:
            return self._idle.pop()
        self._check_open()
        settings = {
            "limits": asdict(self.settings.limits),
            "memory_bytes": self.settings.memory_bytes,
            "niceness": self.settings.niceness,
            "jobs": self.settings.jobs,
        }
        try:
            process = await PixelProcess.spawn(settings, temporary=self.settings.spool_directory)
            self._alive.add(process)
            try:
                self._check_open()
                await process.ready(timeout_s=self.settings.start_s)
            except BaseException:
                await self._put_back(process, keep=False)
                raise
        except (OSError, ProcessDied, TimeoutError) as error:
            self._check_open()
            _log.error("a pixel process can't be started: %s", type(error).__name__)
            raise PoolBroken("pictures can't be made at this moment", retry_after_s=30) from None
        if not process.confined and not self._warned:
            self._warned = True
            _log.warning("this kernel can't keep system calls from pixel processes")
        return process

    async def _put_back(self, process: PixelProcess, *, keep: bool) -> None:
        if keep and not self._closed and process.jobs < self.settings.jobs_per_process:
            self._idle.append(process)
        else:
            await process.end()
            self._alive.discard(process)


def _result(answer: Mapping[str, Any], target: Spool) -> Result:
    if "error" in answer:
        kind = BY_NAME.get(answer["error"])
        if kind is None:
            raise BadRequest(answer["message"])
        error = kind(answer["message"])
        error.detail = answer["detail"]
        raise error
    start, length = answer["table"]
    return Result(target, [Piece.of(row) for row in orjson.loads(b"".join(target.chunks(start, length)))])


def _no_room(error: OSError) -> PoolBroken:
    _log.error("the pixel pool can't write its files: %s", os.strerror(error.errno or 0))
    return PoolBroken("pictures can't be made at this moment", retry_after_s=30)


def _cause(death: ProcessDied) -> PixelError:
    error: PixelError
    if death.signal_number == signal.SIGKILL:  # not by us: the machine's memory was used up
        error = TooLarge("the instance needs more memory than there is")
    else:
        error = SickFile("the instance makes its decoder crash")
    error.detail = death.signal_name
    return error


def _throw_away(task: asyncio.Task[Result]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _at(model: dict[str, Any], place: str) -> dict[str, Any]:
    """The element at a place like "54000100/0/54001010"."""
    *above, tag = place.split("/")
    for sequence, item in zip(above[::2], above[1::2], strict=True):
        model = model[sequence]["Value"][int(item)]
    element: dict[str, Any] = model[tag]
    return element
