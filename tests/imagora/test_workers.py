"""`server.workers` > 1 as people run it: processes that end, are killed, and come back."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
import requests
from imagora_demo import exams
from retrieve import retrieve_wire as wire
from retrieve.retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type, multipart
from support.peer import Connection, Request
from support.workers import WorkersProcess, until

MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
STUDY = exams.study(seed="workers", n_instances=2, rows=64, columns=64)
UID = exams.uid("workers", "study")
ROUTE = "/dicom-web/studies"


class Slowly:
    """A delivery that gives its first half at once, and the rest after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, _: Request, connection: Connection, held: list[Held]) -> None:
        body = multipart([i.data for i in held], "b")
        half = len(body) // 2
        await connection.send(answer_head(Framing.LENGTH, len(body), content_type("b")) + body[:half])
        await asyncio.sleep(self.seconds)
        await connection.send(body[half:])


def search(server: WorkersProcess) -> requests.Response:
    """On a connection of its own, so that any worker may take it."""
    return requests.get(f"{server.dicomweb}/studies?PatientID=4547", timeout=20)


def transfer_under_way(server: WorkersProcess, holder: Holder) -> tuple[threading.Thread, list[wire.Seen]]:
    seen: list[wire.Seen] = []
    thread = threading.Thread(target=lambda: seen.append(wire.get(server.dicomweb, f"/studies/{UID}", MULTIPART)))
    thread.start()
    until(holder.retrieves)
    time.sleep(0.3)  # its first half is through
    return thread, seen


async def _execute(url: str, command: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


def execute(url: str, command: str) -> None:
    asyncio.run(_execute(url, command))


@pytest.mark.slow
def test_killed_worker_is_replaced_and_the_others_answer_meanwhile(tmp_path: Path) -> None:
    with Holder(STUDY) as holder, WorkersProcess(tmp_path, {"csrom41200": holder.url}) as server:
        first, second = server.pids()
        for pid in (first, second):
            with server.asking(pid) as get:
                assert [get(f"{server.dicomweb}/studies").status_code for _ in range(3)] == [200] * 3
        assert {server.answered_by(search(server)) for _ in range(20)} <= {first, second}
        # Whichever answers tells of both.
        until(lambda: server.metric("imagora_requests_total", route=ROUTE, status="200") == 26)  # counted once ended
        until(lambda: server.metric("imagora_request_seconds_count", route=ROUTE) == 26)
        assert server.metric("imagora_member_calls_total", operation="search") == 26
        until(lambda: server.metric("imagora_requests_under_way") == 1)  # this one: the last may still be ending
        until(lambda: server.metric("imagora_member_breaker", emetteur="csrom41200", state="closed") == 2)
        assert server.metric("imagora_member_breaker", state="open") == 0

        dead = psutil.Process(second)
        dead.kill()
        dead.wait(10)  # while it dies it may still take a connection
        answers = [search(server)]
        while len(server.pids()) < 2 or not any("is back" in line for line in server.log()):
            answers.append(search(server))
        assert {a.status_code for a in answers} == {200}
        assert {server.answered_by(a) for a in answers} <= set(server.pids())
        (third,) = set(server.pids()) - {first}
        assert third != second
        with server.asking(third) as get:
            assert get(f"{server.dicomweb}/studies").status_code == 200
        # What the dead one counted still counts.
        until(lambda: server.metric("imagora_requests_total", route=ROUTE, status="200") == 27 + len(answers))
        until(lambda: server.metric("imagora_requests_under_way") == 1)  # this one: the last may still be ending
        said = [e for e in server.entries() if e["logger"] == "imagora.serve"]
        assert f"worker 1 (process {second}) ended: SIGKILL" in [e["message"] for e in said]
        assert {e["pid"] for e in said} == {server.process.pid}

        assert server.stop() == 0
        assert server.left() == []
        assert list(server.state.glob("metrics-*")) == []


@pytest.mark.slow
def test_no_secret_stands_on_a_command_line_and_a_killed_parent_leaves_nothing(
    tmp_path: Path, postgres: Callable[[], str]
) -> None:
    url = postgres()
    password = url.partition("@")[0].rpartition(":")[2]
    with WorkersProcess(tmp_path, {}, database=url) as server:
        assert len(password) > 20
        for pid in [server.process.pid, *server.pids()]:
            assert password not in " ".join(psutil.Process(pid).cmdline())
        assert server.stop() == 0
    with WorkersProcess(tmp_path, {}) as server:
        assert len(server.pids()) == 2
        assert any("postgres" in line for line in server.companions())
        server.process.kill()
        server.process.wait()
        until(lambda: server.left() == [])
        (left,) = server.state.glob("metrics-*")
    with server:  # the port is free again, and what was left is cleared away
        assert search(server).status_code == 200
        assert not left.exists()
        assert len(list(server.state.glob("metrics-*"))) == 1


@pytest.mark.slow
def test_termination_lets_a_transfer_end_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        Holder(STUDY, deliver=Slowly(2.0)) as holder,
        WorkersProcess(tmp_path, {"csrom41200": holder.url}, server={"drain_s": 15}) as server,
    ):
        thread, seen = transfer_under_way(server, holder)
        server.pids()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        with pytest.raises(requests.ConnectionError):
            search(server)  # nobody new is let in
        thread.join(20)
        assert server.process.wait(60) == 0
        assert (seen[0].ended, len(seen[0].parts)) == (True, len(STUDY))
        assert server.left() == []


@pytest.mark.slow
def test_second_interrupt_does_not_wait_for_transfers(tmp_path: Path) -> None:
    with (
        Holder(STUDY, deliver=Slowly(600.0)) as holder,
        WorkersProcess(tmp_path, {"csrom41200": holder.url}, server={"drain_s": 600}) as server,
    ):
        thread, seen = transfer_under_way(server, holder)
        server.pids()
        server.process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        thread.join(5)
        assert not seen[0].ended
        assert server.left() == []
        broken = [e for e in server.entries() if e["message"] == "broken off"]
        assert len(broken) == 1
        # Its end could be traced all the same.
        assert [e for e in server.entries() if e["logger"].startswith(("federation", "consent"))] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_server_that_cannot_start_says_so(workers: int, tmp_path: Path, postgres: Callable[[], str]) -> None:
    url = postgres()
    execute(url, "DROP TABLE study_copy")
    server = WorkersProcess(tmp_path, {}, workers=workers, database=url)
    with pytest.raises(AssertionError, match="could not start"):
        server.__enter__()
    assert server.process.wait(20) == 1
    *log, last = server.errors.read_text().splitlines()
    assert last == "Error: the server could not start; the log above says why"
    why = [line for line in log if "study_copy" in line]
    assert len(why) == 1  # said once, by the first worker
    assert server.left() == []
    assert list(server.state.glob("metrics-*")) == []


@pytest.mark.slow
def test_worker_that_cannot_start_again_is_tried_until_it_can(tmp_path: Path, postgres: Callable[[], str]) -> None:
    url = postgres()
    with WorkersProcess(tmp_path, {}, database=url) as server:
        first, second = server.pids()
        execute(url, "ALTER TABLE study_copy RENAME TO away")
        psutil.Process(first).kill()

        def failures() -> list[str]:
            return re.findall(r"worker 0 \(process \d+\) ended: exit status 1", server.errors.read_text())

        until(lambda: len(failures()) >= 2)
        assert server.answered_by(search(server)) == second
        execute(url, "ALTER TABLE away RENAME TO study_copy")
        until(lambda: any("worker 0 is back" in line for line in server.log()))
        assert len(failures()) < 5  # the pauses grow
        assert server.stop() == 0


def test_stop_while_workers_start_is_orderly(tmp_path: Path, postgres: Callable[[], str]) -> None:
    server = WorkersProcess(tmp_path, {}, workers=4, database=postgres())
    with server.errors.open("wb") as errors:
        server.process = subprocess.Popen(server.command, env=server._environment, stderr=errors)
    until(server.pids)
    assert server.stop() == 0
    assert len(server.seen) == 1  # the others were not started any more
    assert server.left() == []
    assert "could not start" not in server.errors.read_text()


def test_help_says_what_workers_are_for_and_how_many() -> None:
    said = subprocess.run(
        [str(Path(sys.executable).with_name("imagora")), "serve", "--help"], capture_output=True, text=True, timeout=60
    )
    text = " ".join(said.stdout.split())
    assert "server.workers says how many processes serve: 1 to 256, best one for each processor core." in text
