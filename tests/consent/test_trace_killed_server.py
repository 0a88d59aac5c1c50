"""A serving process that is killed in the middle of its work leaves whole chains, and a trace of each answer."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
import requests
from retrieve.retrieve_process import ServeProcess
from support.peer import Connection, Peer, Request

from registry.embedded import Lease

STUDY = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT^MARIE"}]},
    "00100020": {"vr": "LO", "Value": ["4547"]},
}
REQUESTS = 200
QUERY = "studies?PatientName=DUPONT*"  # with a limit of its own each, to tell one from the other


async def behave(request: Request, connection: Connection) -> None:
    await connection.json([STUDY])


@pytest.fixture
def member() -> Iterator[Peer]:
    with Peer(behave) as peer:
        yield peer


def verified(server: ServeProcess) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("imagora"))
    command = [program, "traces", "verify", "--config", str(server.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


async def fetch(url: str, *commands: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        for command in commands[:-1]:
            await connection.execute(command)
        return list(await connection.fetch(commands[-1]))
    finally:
        await connection.close()


async def test_kill_in_the_middle_of_parallel_requests(tmp_path: Path, member: Peer) -> None:
    lease = Lease(tmp_path / "state")  # the database goes on when its user is killed
    url = lease.acquire()
    try:
        with ServeProcess(tmp_path, {"csrom41200": member.dicomweb_url}) as server:
            answered = ask_and_kill(server)
        assert 5 < len(answered) < REQUESTS
        rows = await fetch(url, "SELECT query FROM trace WHERE kind = 'query'")
        traced = {number for row in rows for number in re.findall(r"limit=(\d+)", row["query"])}
        assert answered <= traced
        result = verified(server)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"{len(rows)} rows in 1 chain checked" in result.stdout

        with server:  # another run, which also ends
            assert requests.get(f"{server.dicomweb}/{QUERY}&limit=999", timeout=20).status_code == 200
        result = verified(server)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"{len(rows) + 2} rows in 3 chains checked" in result.stdout  # one is the first check's own trace

        await fetch(
            url,
            "SET session_replication_role = replica",
            "UPDATE trace SET requester_id = 'nobody' WHERE query LIKE '%limit=999%'",
            "SELECT 1",
        )
        result = verified(server)
        assert result.returncode == 1
        assert re.search(r"^changed: row 1 of \S+ \(recorded 20", result.stdout)
        assert "1 finding" in result.stderr
    finally:
        lease.release()


def ask_and_kill(server: ServeProcess) -> set[str]:
    """Numbers of the requests that got an answer."""
    answered: set[str] = set()
    enough = threading.Event()

    def ask(number: int) -> None:
        try:
            with requests.get(f"{server.dicomweb}/{QUERY}&limit={number + 1}", timeout=20) as response:
                assert response.status_code == 200
        except requests.RequestException:
            return
        answered.add(str(number + 1))
        if len(answered) > 20:
            enough.set()

    def kill() -> None:
        enough.wait(20)
        server.process.send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(26) as pool:
        killing = pool.submit(kill)
        time.sleep(0)
        list(pool.map(ask, range(REQUESTS)))
        killing.result()
    server.process.wait()
    return answered
