"""The pool with its real processes: what a sick file may do to it, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from pixels_files import test_file as file_bytes

from federation.pixels.errors import PixelError, PoolBroken, PoolBusy, PoolClosed, SickFile, TookTooLong, TooLarge
from federation.pixels.options import RenderOptions
from federation.pixels.pool import PixelPool, PoolSettings
from federation.pixels.spool import Spool

CT = file_bytes("CT_small.dcm")


@contextlib.asynccontextmanager
async def pool_of(**settings: Any) -> AsyncIterator[PixelPool]:
    pool = PixelPool(PoolSettings(**{"jobs": "pixels_jobs", "processes": 1, "niceness": 0} | settings))
    try:
        yield pool
    finally:
        await pool.aclose()


async def about(pool: PixelPool) -> dict[str, Any]:
    with await pool.submit("look_around", b"", {}) as result:
        seen: dict[str, Any] = result.pieces[0].about
        return seen


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "federation.pixels.worker" in " ".join(p.cmdline())]


async def test_process_starts_when_first_needed_and_is_used_again() -> None:
    before = len(children())
    async with pool_of() as pool:
        assert len(children()) == before
        assert (await about(pool))["pid"] == (await about(pool))["pid"]
    assert len(children()) == before


async def test_process_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGORA_MEMBER_CSROM41200_PASSWORD", "secret")
    with socket.socket() as listening, Path("/etc/passwd").open() as open_file:
        for ours in (listening, open_file):
            os.set_inheritable(ours.fileno(), True)
        async with pool_of(niceness=3) as pool:
            seen = await about(pool)
    assert not [name for name in seen["environment"] if "IMAGORA" in name]
    assert seen["niceness"] >= 3
    assert seen["socket"] == seen["program"] == seen["kill"] == "PermissionError"
    assert seen["write to what is read"] == "OSError"
    descriptors = seen["descriptors"]
    assert not [target for target in descriptors.values() if "passwd" in target]
    # standard input, and the same socket once more
    assert len([target for target in descriptors.values() if target.startswith("socket")]) == 2


@pytest.mark.parametrize(("job", "cause"), [("abort", "SIGABRT"), ("read_nowhere", "SIGSEGV"), ("killed", "SIGKILL")])
async def test_crash_is_told_and_disturbs_nobody(job: str, cause: str) -> None:
    async with pool_of(processes=2) as pool:
        others = [asyncio.create_task(pool.thumbnail(CT)) for _ in range(6)]
        crashes = [asyncio.create_task(pool.submit(job, CT, {})) for _ in range(2)]
        others += [asyncio.create_task(pool.thumbnail(CT)) for _ in range(6)]
        for crash in crashes:
            with pytest.raises(TooLarge if cause == "SIGKILL" else SickFile) as raised:
                await crash
            assert raised.value.detail == cause
        assert {(await other)[:2] for other in others} == {b"\xff\xd8"}


@pytest.mark.parametrize("job", ["sleep", "spin"])
async def test_job_that_takes_for_ever_is_killed_at_its_deadline(job: str) -> None:
    async with pool_of(processes=2) as pool:
        await asyncio.gather(pool.thumbnail(CT), pool.thumbnail(CT))
        endless = asyncio.create_task(pool.submit(job, CT, {"seconds": 1e6}, deadline_s=0.4))
        others = await asyncio.gather(*(pool.thumbnail(CT) for _ in range(8)))
        assert len(others) == 8
        with pytest.raises(TookTooLong):
            await endless
        assert await pool.thumbnail(CT) == others[0]


async def test_job_that_takes_too_much_memory_is_told() -> None:
    async with pool_of(memory_bytes=1 << 30) as pool:
        with pytest.raises(TooLarge, match="memory"):
            await pool.submit("take", b"", {"bytes": 2 << 30})
        assert await pool.thumbnail(CT)


async def test_process_is_replaced_after_its_jobs() -> None:
    async with pool_of(jobs_per_process=2) as pool:
        pids = [(await about(pool))["pid"] for _ in range(4)]
        assert pids[0] == pids[1]
        assert len(set(pids)) == 2


async def test_process_that_died_while_idle_is_nobodys_fault() -> None:
    async with pool_of() as pool:
        idle = psutil.Process((await about(pool))["pid"])
        os.kill(idle.pid, signal.SIGKILL)
        while idle.is_running() and idle.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
        assert await pool.thumbnail(CT)


async def test_no_more_jobs_wait_than_the_queue_holds() -> None:
    async with pool_of(queue=1) as pool:
        first = asyncio.create_task(pool.submit("sleep", b"", {"seconds": 0.3}))
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.thumbnail(CT))
        await asyncio.sleep(0)
        with pytest.raises(PoolBusy) as raised:
            await pool.thumbnail(CT)
        assert raised.value.http_status == 503
        assert raised.value.retry_after_s > 0
        (await first).close()
        assert await second


async def test_job_does_not_wait_longer_than_it_may() -> None:
    async with pool_of(wait_s=0.1) as pool:
        first = asyncio.create_task(pool.submit("sleep", b"", {"seconds": 0.6}))
        await asyncio.sleep(0)
        with pytest.raises(PoolBusy):
            await pool.thumbnail(CT)
        (await first).close()
        assert await pool.thumbnail(CT)


async def test_caller_that_leaves_costs_no_process() -> None:
    async with pool_of() as pool:
        pid = (await about(pool))["pid"]
        leaving = asyncio.create_task(pool.submit("sleep", b"", {"seconds": 0.2}))
        waiting = asyncio.create_task(pool.thumbnail(CT))
        await asyncio.sleep(0.05)
        leaving.cancel()
        waiting.cancel()
        await asyncio.wait([leaving, waiting])
        assert leaving.cancelled()
        assert waiting.cancelled()
        assert (await about(pool))["pid"] == pid


async def test_nothing_is_left_open() -> None:
    async with pool_of(processes=2) as pool:
        await asyncio.gather(pool.thumbnail(CT), pool.thumbnail(CT))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2):
            (await pool.render(CT, RenderOptions())).close()
            with pytest.raises(PixelError):
                await pool.thumbnail(CT[:3000])
            with pytest.raises(SickFile):
                await pool.submit("abort", CT, {})
        await asyncio.gather(pool.thumbnail(CT), pool.thumbnail(CT))
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_closing_ends_jobs_and_processes() -> None:
    before = len(children())
    pool = PixelPool(PoolSettings(jobs="pixels_jobs", processes=2))
    jobs = [asyncio.create_task(pool.submit("spin", b"", {})) for _ in range(4)]
    await asyncio.sleep(1.0)
    await pool.aclose()
    await pool.aclose()
    for job in jobs:
        with pytest.raises(PoolClosed):
            await job
    with pytest.raises(PoolClosed):
        await pool.thumbnail(CT)
    assert len(children()) == before


async def test_what_a_library_says_of_a_file_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with pool_of() as pool:
        with pytest.raises(SickFile) as raised:
            await pool.submit("tell_all", b"MARTIN^CLAIRE", {})
    assert "ValueError at pixels_jobs.py" in raised.value.detail
    assert "SickFile" in caplog.text
    for text in (str(raised.value), raised.value.detail, caplog.text):
        assert "MARTIN" not in text


async def test_pool_that_cannot_write_or_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_of(spool_directory=tmp_path / "missing") as pool:
        for _ in range(3):
            with pytest.raises(PoolBroken):
                await pool.thumbnail(CT)
    async with pool_of(jobs="no_such_module") as pool:
        for _ in range(2):
            with pytest.raises(PoolBroken):
                await pool.thumbnail(CT)
    monkeypatch.setattr(sys, "executable", "/no/such/interpreter")
    async with pool_of() as pool:
        with pytest.raises(PoolBroken):
            await pool.thumbnail(CT)


async def test_one_spool_serves_many_jobs_at_once() -> None:
    with Spool() as spool:
        for at in range(0, len(CT), 1000):
            spool.write(CT[at : at + 1000])
        async with pool_of(processes=2) as pool:
            pictures = await asyncio.gather(*(pool.thumbnail(spool) for _ in range(8)))
            with await pool.to_explicit(spool) as result:
                assert result.read(result.pieces[0]) == CT
    assert len(set(pictures)) == 1


def test_works_on_uvloop_in_a_thread_and_inherits_nothing_there() -> None:
    outcome: list[Any] = []

    async def work() -> None:
        with Path("/etc/passwd").open() as ours:
            os.set_inheritable(ours.fileno(), True)
            async with pool_of(processes=2) as pool:
                outcome.append(await pool.thumbnail(CT))
                outcome.append(await about(pool))
                with pytest.raises(SickFile):
                    await pool.submit("abort", b"", {})
                with pytest.raises(TookTooLong):
                    await pool.submit("spin", b"", {}, deadline_s=0.2)
                outcome.append(await pool.thumbnail(CT))

    thread = threading.Thread(target=lambda: uvloop.run(work()))
    thread.start()
    thread.join()
    assert outcome[0] == outcome[2]
    assert not [target for target in outcome[1]["descriptors"].values() if "passwd" in target]


SERVICE = """
import asyncio, sys, uvloop
from federation.pixels.pool import PixelPool, PoolSettings
async def main():
    pool = PixelPool(PoolSettings(jobs="pixels_jobs", processes=2, deadline_s=1e6))
    async def pid():
        with await pool.submit("look_around", b"", {}) as result:
            return result.pieces[0].about["pid"]
    busy, idle = await asyncio.gather(pid(), pid())
    working = asyncio.create_task(pool.submit("spin", b"", {}))
    await asyncio.sleep(0.2)
    print(busy, idle, flush=True)
    await working
uvloop.run(main()) if sys.argv[1] == "uvloop" else asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_process_outlives_a_service_that_is_killed(loop: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, loop], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert service.stdout is not None
    with service.stdout as out:
        pids = [int(pid) for pid in out.readline().split()]
        alive = [psutil.Process(pid) for pid in pids]
        assert len(set(pids)) == 2
        service.kill()
        service.wait()
    _, left = psutil.wait_procs(alive, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def test_result_that_is_shorter_than_announced_is_an_error() -> None:
    with Spool.of(b"abc") as spool, pytest.raises(EOFError):
        list(spool.chunks(1, 3))
