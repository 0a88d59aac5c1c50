"""`imagora serve` with several workers as people run it, and ways to ask one worker in particular."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from retrieve.retrieve_process import ServeProcess

METRICS_TOKEN = "s3cret-of-the-collector"


class WorkersProcess(ServeProcess):
    """A server that is entered once all its workers serve. Its database is embedded, unless one is given."""

    def __init__(
        self,
        folder: Path,
        members: dict[str, str],
        *,
        workers: int = 2,
        database: str = "",
        environment: dict[str, str] | None = None,
        server: dict[str, Any] | None = None,
        **tables: dict[str, Any],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        secrets = {"IMAGORA_METRICS_TOKEN": METRICS_TOKEN, **(environment or {})}
        if database:
            secrets["IMAGORA_DATABASE__URL"] = database
        super().__init__(
            folder, members, environment=secrets, server={"workers": workers, "drain_s": 5, **(server or {})}, **tables
        )
        self.workers = workers
        self.seen: set[int] = set()  # processes of ours that ever served

    def _ready(self) -> bool:
        return any("serving on" in line for line in self.log()) and super()._ready()

    # Processes --------------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Processes of the workers that live now."""
        children = psutil.Process(self.process.pid).children()
        pids = [c.pid for c in children if c.status() != psutil.STATUS_ZOMBIE and "imagora.worker" in command(c)]
        self.seen.update(pids)
        return sorted(pids)

    def left(self) -> list[str]:
        """What is left of the server once it has ended: workers, PostgreSQL."""
        alive = [
            pid for pid in self.seen if psutil.pid_exists(pid) and "imagora.worker" in command(psutil.Process(pid))
        ]
        return [*map(str, alive), *self.companions()]

    def stop(self) -> int:
        """An orderly stop; its exit status."""
        self.pids()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    # Asking -----------------------------------------------------------------------------------------------------

    def answered_by(self, answer: requests.Response) -> int:
        """The process that gave an answer: its log line names both."""
        request_id = answer.headers["x-request-id"]
        return int(until(lambda: next((e for e in self.entries() if e.get("request_id") == request_id), None))["pid"])

    def entries(self) -> list[dict[str, Any]]:
        whole, _, _ = self.errors.read_text(encoding="utf-8").rpartition("\n")  # the last line may be on its way
        return [json.loads(line) for line in whole.splitlines()]

    @contextmanager
    def asking(self, pid: int) -> Iterator[Callable[..., requests.Response]]:
        """A function like `requests.get` that this worker answers."""
        for _ in range(200):
            with requests.Session() as session:
                if self.answered_by(session.get(f"{self.url}/healthz", timeout=20)) != pid:
                    continue

                def get(url: str, session: requests.Session = session, **options: Any) -> requests.Response:
                    answer = session.get(url, **{"timeout": 20, **options})
                    assert self.answered_by(answer) == pid
                    return answer

                yield get
                return
        raise AssertionError(f"process {pid} took no connection of 200")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that bear these labels."""
        answer = requests.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}, timeout=20)
        assert answer.status_code == 200
        total = 0.0
        for line in answer.text.splitlines():
            sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if sample is None or sample[1] != name:
                continue
            found = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
            if labels.items() <= found.items():
                total += float(sample[3])
        return total


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def until(look: Callable[[], Any], within_s: float = 60.0) -> Any:
    """What `look` finds, once it is true."""
    limit = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)
    return found
