"""Without its database nobody knows what may be shown: nothing is, and what is under way pauses and breaks off. It goes
on by itself once the database is back."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import enforced
import psutil
import pytest
from enforced import DICOM, ORIGIN, Ask, Exam, Region, until
from slow_reader import LARGE, SIZE, Reader

from registry import migrate
from registry.embedded import Lease

EXAM = Exam(seed="lost", name="LOST^MARIE", more=LARGE)
#: From one second after the loss nothing is shown; for a while every request from the second one on is looked at.
QUIET_S, LOOKED_S = 1.0, 4.0


@dataclass(frozen=True, slots=True)
class Polled:
    ask: str
    began: float  # time.monotonic()
    ended: float
    status: int
    retry_after: str
    request_id: str


class Poll:
    """Asks both servers for everything in turn, from several threads, until the end of the block."""

    def __init__(self, region: Region, asks: list[Ask]) -> None:
        self.answers: list[Polled] = []
        self._region = region
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(ask, server), daemon=True) for ask in asks for server in (0, 1)
        ]

    def __enter__(self) -> Poll:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, ask: Ask, server: int) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            answer = self._region.get_once(ask, server=server)
            headers = answer.headers
            self.answers.append(
                Polled(
                    f"{ask} at {server}",
                    began,
                    time.monotonic(),
                    answer.status_code,
                    headers.get("Retry-After", ""),
                    headers["X-Request-Id"],
                )
            )
            time.sleep(0.1)


class Database:
    """A PostgreSQL of the test's own."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._lease = Lease(state)
        self.url = self._lease.acquire()

    def stop(self) -> None:
        self._lease.release()

    def start(self) -> None:
        assert self._lease.acquire() == self.url

    def freeze(self) -> None:
        for process in self._processes():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in reversed(self._processes()):
            process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(int((self._state / "postgres" / "postmaster.pid").read_text().split()[0]))
        assert postmaster.cwd() == str(self._state / "postgres")
        return [postmaster, *postmaster.children(recursive=True)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(tmp_path_factory.mktemp("lost") / "state")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def lost(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    asyncio.run(migrate.migrate(database.url))
    with enforced.region(database.url, tmp_path_factory.mktemp("region")) as region:
        region.upload(EXAM, ORIGIN)
        yield region


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_nothing_is_shown_without_the_database(how: str, lost: Region, database: Database) -> None:
    lose, restore = (database.stop, database.start) if how == "stopped" else (database.freeze, database.thaw)
    _, instance = enforced.of(EXAM.uid)
    search = Ask("", f"/studies?PatientName={EXAM.name}&own_site=include")
    asks = [search, Ask("", f"{instance}/metadata"), Ask(f"/sites/{ORIGIN}", instance, DICOM)]
    until(lambda: all(lost.get(a, server=s).status_code == 200 for a in asks for s in (0, 1)))
    before = len(lost.ledger.traces())
    with Poll(lost, asks) as poll:
        transfer = Reader(lost, EXAM, "", reads=True)
        time.sleep(0.5)
        lost_on = time.time()
        lose()
        lost_at = time.monotonic()
        try:
            time.sleep(2.0)
            read: list[int] = []  # it pauses once what kernels hold is read
            while time.monotonic() < lost_at + 4.5 and read[-3:] != [transfer.read] * 3:
                read.append(transfer.read)
                time.sleep(0.3)
            assert not transfer.ended
            assert read[-3:] == [transfer.read] * 3
            time.sleep(max(0.0, lost_at + 7.5 - time.monotonic()))
            assert transfer.ended
        finally:
            restored_on = time.time()
            restore()
        restored_at = time.monotonic()
        until(lambda: {a.ask for a in poll.answers if a.began > restored_at and a.status == 200} == all_of(poll), 20)
    seen = transfer.hurry()
    assert not seen.ended
    assert not seen.closed
    assert len(seen.body) < SIZE

    late = [a for a in poll.answers if a.ended > lost_at + QUIET_S and a.ended < restored_at]
    assert {a.ask for a in late} == all_of(poll)
    assert [a for a in late if a.status != 503] == []
    assert [a for a in late if int(a.retry_after) <= 0] == []
    assert len([a for a in late if lost_at + 2 < a.began < lost_at + LOOKED_S]) > 2 * len(asks)

    # No exam was shown untraced.
    traced = {t["request_id"] for t in lost.ledger.traces()[before:]}
    shown = {a.request_id for a in poll.answers if a.status == 200 and str(search) in a.ask}
    assert shown
    assert shown <= traced
    assert transfer.request_id in traced

    # The transfer that was broken off when no trace could be made has its end in the traces, at the time it had.
    def ends() -> list[float]:
        found = lost.ledger.traces(transfer.request_id)
        return [t["at"].timestamp() for t in found if (t["kind"], t["outcome"]) == ("transferred", "failure")]

    until(ends)
    assert all(lost_on < at < restored_on for at in ends())
    # All is as it was.
    assert Reader(lost, EXAM, "", reads=True).hurry().ended


def all_of(poll: Poll) -> set[str]:
    return {a.ask for a in poll.answers}
