"""The embedded PostgreSQL and its supervisor, with real processes and real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest

from registry.embedded import EmbeddedError, Lease, embedded

Processes = Callable[[Path], list[psutil.Process]]
Supervisor = Callable[[Path], psutil.Process]

#: Holds the server until it is told to end, or is killed.
HOLDER = """
import sys
from pathlib import Path
from registry.embedded import Lease
lease = Lease(Path(sys.argv[1]))
print(lease.acquire(), flush=True)
sys.stdin.read()
lease.release()
"""


@contextmanager
def holder(state: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    try:
        return bool(await connection.fetchval("SELECT true"))
    finally:
        await connection.close()


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    limit = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        await asyncio.sleep(0.02)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_its_user_can_reach_it(tmp_path: Path, server_processes: Processes) -> None:
    state = tmp_path / "state"
    async with embedded(state) as url:
        parts = urlsplit(url)
        socket_dir = Path(parse_qs(parts.query)["host"][0])
        assert mode(socket_dir) == mode(state / "postgres") == mode(state / "postgres-run") == 0o700
        assert mode(socket_dir / ".s.PGSQL.5432") == 0o700
        for name in ("password", "connection.json", "server.lock"):
            assert mode(state / "postgres-run" / name) == 0o600
        assert mode(state / "postgres.log") == 0o600
        postmaster = server_processes(state)[0]
        assert not [c for c in postmaster.net_connections() if c.status == psutil.CONN_LISTEN and c.laddr]
        assert postmaster.uids().effective != 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(parts.password or "", "wrong"))
    assert server_processes(state) == []


async def test_a_second_start_finds_the_data_again(state: Path) -> None:
    async with embedded(state) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept (x integer)")
        await connection.close()
    begin = time.monotonic()
    async with embedded(state) as again:
        assert time.monotonic() - begin < 3
        connection = await asyncpg.connect(again)
        assert await connection.fetch("SELECT * FROM kept") == []
        await connection.close()


async def test_statements_and_values_stay_out_of_the_log(state: Path) -> None:
    async with embedded(state) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE t (x text PRIMARY KEY)")
        await connection.execute("INSERT INTO t VALUES ($1)", "SECRET")
        for statement in (
            "INSERT INTO t VALUES ($1)",
            "SELECT $1::text::integer",
            "SELECT 'SECRET' || $1 FROM nowhere",
        ):
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement, "SECRET")
        await connection.close()
    log = (state / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert "SECRET" not in log
    assert "INSERT" not in log


async def test_whoever_leaves_last_stops_it(state: Path, server_processes: Processes) -> None:
    first, second = Lease(state), Lease(state)
    url = await asyncio.to_thread(first.acquire)
    assert await asyncio.to_thread(second.acquire) == url
    await asyncio.to_thread(first.release)  # who started it leaves first
    await asyncio.sleep(0.3)
    assert await answers(url)
    await asyncio.to_thread(second.release)
    assert server_processes(state) == []
    await asyncio.to_thread(second.release)


async def test_commands_that_start_at_once_share_one(state: Path, server_processes: Processes) -> None:
    with holder(state) as one, holder(state) as two, holder(state) as three:
        urls = {await asyncio.to_thread(url_of, process) for process in (one, two, three)}
        assert len(urls) == 1
        assert sum(str(state / "postgres") in process.cmdline() for process in server_processes(state)) == 1
        one.kill()
        one.wait()
        two.kill()
        two.wait()
        await asyncio.sleep(0.3)
        assert await answers(urls.pop())
    await eventually(lambda: server_processes(state) == [])


async def test_it_ends_when_its_user_is_killed(state: Path, server_processes: Processes) -> None:
    with holder(state) as process:
        assert await answers(await asyncio.to_thread(url_of, process))
        process.kill()
    await eventually(lambda: server_processes(state) == [])
    assert not (state / "postgres" / "postmaster.pid").exists()  # it was shut down, not cut off


async def test_it_ends_when_its_supervisor_is_killed(
    state: Path, server_processes: Processes, supervisor_process: Supervisor
) -> None:
    async with embedded(state) as url:
        supervisor_process(state).kill()
        await eventually(lambda: server_processes(state) == [])
        # The next command starts it again where the others look for it.
        async with embedded(state) as again:
            assert again == url
            assert await answers(url)
    assert server_processes(state) == []


async def test_it_ends_when_user_and_supervisor_are_killed_at_once(
    state: Path, server_processes: Processes, supervisor_process: Supervisor
) -> None:
    with holder(state) as process:
        await asyncio.to_thread(url_of, process)
        supervisor = supervisor_process(state)
        for victim in (supervisor.pid, process.pid):
            os.kill(victim, signal.SIGKILL)
    await eventually(lambda: server_processes(state) == [])


async def test_a_server_left_over_is_stopped_first(
    state: Path, server_processes: Processes, supervisor_process: Supervisor
) -> None:
    with holder(state) as process:
        await asyncio.to_thread(url_of, process)
        old = server_processes(state)
        old[0].suspend()  # it cannot obey the signal that the supervisor's death sends
        supervisor = supervisor_process(state)
        supervisor.kill()
        await asyncio.to_thread(supervisor.wait, 10)  # while it dies it still stands for its server
    async with embedded(state) as url:
        assert await answers(url)
        assert old[0].pid not in {p.pid for p in server_processes(state)}
    assert server_processes(state) == []


async def test_a_server_that_crashes_is_started_again(state: Path, server_processes: Processes) -> None:
    async with embedded(state) as url:
        server_processes(state)[0].kill()
        await asyncio.sleep(0.2)
        limit = time.monotonic() + 10
        while not await answers(url):
            assert time.monotonic() < limit
            await asyncio.sleep(0.05)


async def test_a_stop_of_the_whole_service_waits_for_its_users(state: Path, supervisor_process: Supervisor) -> None:
    async with embedded(state) as url:
        supervisor_process(state).terminate()
        await asyncio.sleep(0.2)
        assert await answers(url)


async def test_a_state_folder_with_a_long_path_gets_a_short_socket(tmp_path: Path, state: Path) -> None:
    (tmp_path / ("x" * 100)).mkdir()
    moved = state.rename(tmp_path / ("x" * 100) / "state")
    async with embedded(moved) as url:
        socket_dir = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert not socket_dir.is_relative_to(tmp_path)
        assert mode(socket_dir) == 0o700
        assert await answers(url)
    assert not socket_dir.exists()


async def test_a_state_folder_with_commas_and_spaces_works(tmp_path: Path, state: Path) -> None:
    moved = state.rename(tmp_path / "état, du 3 %40 'mars'")
    async with embedded(moved) as url:
        assert await answers(url)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter folders that are closed to PostgreSQL's user")
async def test_root_may_work_in_a_folder_closed_to_others(tmp_path: Path, state: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    moved = state.rename(private / "state")
    async with embedded(moved) as url:
        assert await answers(url)
    assert mode(private) == 0o700


async def test_cancelling_a_start_leaves_nothing_running(tmp_path: Path, server_processes: Processes) -> None:
    state = tmp_path / "state"

    async def use() -> None:
        async with embedded(state):
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server_processes(state) == []


async def test_a_state_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(EmbeddedError, match=r"server\.state_dir"):
        async with embedded(tmp_path / "state"):
            pass


async def test_data_of_another_version_is_told(state: Path) -> None:
    async with embedded(state):
        pass
    (state / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedError, match=r"not compatible|incompatible"):
        async with embedded(state):
            pass
