"""The measurements against doing without Imagora, and what all measurements share."""

from __future__ import annotations

import json
import pstats
import signal
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
from imagora_demo.orthanc import OrthancServer, free_port

from imagora_bench import member, nginx
from imagora_bench.data import CT_UID, HEAVY, LIGHT
from imagora_bench.processes import (
    BenchError,
    Child,
    cpu_s,
    python,
    start_imagora,
    write_settings,
)
from imagora_bench.ratios import Row, compare, interleave
from registry.embedded import Lease

JSON = "application/dicom+json"
#: The same string as Imagora sends to a member for it, so that all routes ask Orthanc the same.
DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FOLDER, SLUG = "Bench", "bench"
RELAY = "bench-relay"
MEMORY_TARGET = 32 << 20
#: Parts that `profile` knows.
PROFILED = ("search", "study", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything. `relay_bytes` is the size of the study whose relaying must not take memory."""

    rounds: int = 21
    studies: int = 401
    instances: int = 300
    relay_bytes: int = 2 << 30
    searches: int = 1  # requests of one timed run
    slow_s: float = 8.0
    slow_rate: float = 16e6  # bytes a second
    rows: int = 1000  # of a search with oppositions
    oppositions: tuple[int, int] = (10_000, 1_000_000)
    searches_opposed: int = 5  # requests of one timed run
    frames: int = 500  # requests of one timed run
    members: tuple[int, int, int] = (3, 21, 210)
    member_rows: int = 5  # of each of these, in a search
    clients: int = 200  # that read a study at once
    clients_s: float = 20.0  # how long each reads
    client_members: int = 8  # that these read from: each gives Imagora so many connections only
    openings: int = 5  # of a study in OHIF: rounds of their own, for each takes seconds


class Bench:
    """What all parts share: a folder, the Orthancs, the member that makes things up, the sink."""

    def __init__(
        self, plan: Plan, folder: Path, orthancs: dict[str, OrthancServer], tell: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.orthancs = orthancs
        self.tell = tell
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = folder / "imagora.toml"
        self._stack = ExitStack()

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            port = free_port()
            relayed = self.plan.relay_bytes // member.INSTANCE_BYTES
            lease = Lease(self.folder / "state")
            stack.callback(lease.release)
            self._member = stack.enter_context(
                Child("member", python("member", port, relayed, self.plan.instances), self.folder)
            )
            self.sink = stack.enter_context(Child("sink", python("sink"), self.folder, talks=True))
            self.database_url = lease.acquire()  # one PostgreSQL for all the servers that come and go
            self._member.wait_ready(port)
            self.member_url = f"http://127.0.0.1:{port}"
            sites = {name: server.dicomweb_url for name, server in self.orthancs.items()}
            write_settings(
                self._settings,
                port=self.port,
                state=self.folder / "state",
                sites={**sites, RELAY: f"{self.member_url}/dicom-web"},
                folder_of=dict.fromkeys((name for name in LIGHT if name in sites), FOLDER),
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def imagora(self, *, profile: Path | None = None) -> Iterator[int]:
        """A fresh server process → its pid."""
        with start_imagora(self.folder, self._settings, profile=profile) as server:
            server.wait_ready(self.port, "/readyz")
            yield server.process.pid

    # Searches ---------------------------------------------------------------------------------------------------

    def search(self) -> list[Row]:
        total = self.plan.studies * len(LIGHT)
        rows = []
        with self.imagora() as pid:
            for what, query in (("25 rows", "?limit=25"), (f"all {total:,} rows", "")):
                with self.bare(self.url, query, [self.orthancs[name].dicomweb_url for name in LIGHT]) as bare:
                    rows.append(self._compare_searches(what, query, bare, pid))
        return rows

    @contextmanager
    def bare(self, server: str, query: str, members: Sequence[str]) -> Iterator[str]:
        """The yardstick's URL. It asks its members (DICOMweb URLs) what Imagora, at `server`, asks its own: that is
        looked at, not assumed. `RELAY` must be among the server's sites."""
        with urllib.request.urlopen(f"{server}/sites/{RELAY}/dicom-web/studies{query}", timeout=20):
            pass
        with urllib.request.urlopen(f"{self.member_url}/asked", timeout=20) as answer:
            asked = json.load(answer)
        below = asked["target"].removeprefix("/dicom-web")
        source = self.folder / "bare.json"
        headers = {k: v for k, v in asked["headers"].items() if k not in ("host", "connection")}
        urls = [url + below for url in members]
        source.write_text(json.dumps({"urls": urls, "headers": headers}), encoding="utf-8")
        port = free_port()
        with Child("bare", python("bare", port, source), self.folder) as bare:
            bare.wait_ready(port)
            yield f"http://127.0.0.1:{port}/studies"

    def _compare_searches(self, what: str, query: str, bare: str, pid: int) -> Row:
        urls = {"imagora": f"{self.url}/folders/{SLUG}/dicom-web/studies{query}", "bare": f"{bare}{query}"}
        found = {name: self.searched(url, 1)[1] for name, url in urls.items()}
        wanted = min(25, self.plan.studies * len(LIGHT)) if query else self.plan.studies * len(LIGHT)
        # The newest first in both, but only Imagora orders what was made in the same second.
        if len(set(found["imagora"])) != wanted or len(found["bare"]) != wanted:
            raise BenchError(f"{what}: {len(found['imagora'])} and {len(found['bare'])} rows, {wanted} expected")
        if not query and set(found["imagora"]) != set(found["bare"]):
            raise BenchError(f"{what}: Imagora and the yardstick do not answer the same studies")
        times = self.plan.searches
        self.tell(f"search, {what}")
        spent = cpu_s(pid)
        runs = {name: partial(self.search_time, url, times) for name, url in urls.items()}
        seconds = interleave(runs, self.plan.rounds)
        spent = (cpu_s(pid) - spent) / (times * (self.plan.rounds + 1))
        row = compare(
            f"QIDO, {what} over {len(LIGHT)} Orthancs, against a bare gather",
            seconds["imagora"],
            seconds["bare"],
            most=1.3,
            unit=times,
        )
        row.measured["cpu_s"] = {"Imagora": spent}
        return row

    def search_time(self, url: str, times: int) -> float:
        return self.searched(url, times)[0]

    def searched(self, url: str, times: int) -> tuple[float, list[str]]:
        answer = self.sink.ask({"do": "search", "url": url, "accept": JSON, "times": times})
        return answer["seconds"], answer["rows"]

    # A study ----------------------------------------------------------------------------------------------------

    def study(self) -> list[Row]:
        orthanc = self.orthancs[HEAVY]
        with ExitStack() as stack:
            ours = {
                "Imagora": stack.enter_context(self.imagora()),
                "Orthanc": orthanc.pid,
                "client": self.sink.process.pid,
            }
            path = f"/dicom-web/studies/{CT_UID}"
            urls = {"imagora": self.url + path, "direct": orthanc.url + path}
            if nginx.nginx_program() is not None:
                port = free_port()
                proxy = stack.enter_context(nginx.proxy(self.folder, port=port, upstream=orthanc.url))
                proxy.wait_ready(port)
                urls["nginx"] = f"http://127.0.0.1:{port}{path}"
            self.same_pixels(urls)
            megabytes = self.plan.instances * member.INSTANCE_BYTES / 1e6
            self.tell(f"study retrieve, {megabytes:.0f} MB")
            runs = {name: partial(self._retrieve, url) for name, url in urls.items()}
            spent: dict[str, list[float]] = {name: [] for name in ours}
            runs["imagora"] = partial(self._counted, runs["imagora"], ours, spent)
            seconds = interleave(runs, self.plan.rounds)
        what = f"Study retrieve, {self.plan.instances} CT, {megabytes:.0f} MB, re-tagged"
        rows = [compare(f"{what}, against Orthanc directly", seconds["imagora"], seconds["direct"], most=1.1)]
        if "nginx" in seconds:
            rows.append(
                compare(f"{what}, against nginx before Orthanc", seconds["imagora"], seconds["nginx"], most=0.9)
            )
            rows.append(
                compare(
                    "nginx before Orthanc, against Orthanc directly", seconds["nginx"], seconds["direct"], most=None
                )
            )
        rows[0].measured["cpu_s"] = {name: statistics.median(values) for name, values in spent.items()}
        return rows

    def same_pixels(self, urls: dict[str, str]) -> None:
        """All routes must bring the same as the one called "direct", or their times say nothing."""
        found = {
            name: self.sink.ask({"do": "inspect", "url": url, "accept": DICOM, "tail": member.INSTANCE_BYTES})
            for name, url in urls.items()
        }
        if any(f != found["direct"] or f["parts"] != self.plan.instances for f in found.values()):
            raise BenchError(f"the routes do not bring the same pixels: {found}")

    def _retrieve(self, url: str) -> float:
        seconds: float = self.sink.ask({"do": "stream", "url": url, "accept": DICOM})["seconds"]
        return seconds

    def _counted(self, run: Callable[[], float], pids: Mapping[str, int], spent: Mapping[str, list[float]]) -> float:
        """`run`; `spent` is told the processor seconds of `pids` meanwhile."""
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        seconds = run()
        for name, pid in pids.items():
            spent[name].append(cpu_s(pid) - before[name])
        return seconds

    # Memory -----------------------------------------------------------------------------------------------------

    def memory(self) -> list[Row]:
        size = _size(self.plan.relay_bytes)
        rows = []
        slow = {"slow_s": self.plan.slow_s, "slow_rate": self.plan.slow_rate}
        rate = f"{self.plan.slow_rate / 1e6:.0f} MB/s for {self.plan.slow_s:g} s"
        clients: list[tuple[str, dict[str, float]]] = [("fast client", {}), (f"client that reads {rate}", slow)]
        for client, pace in clients:
            self.tell(f"memory, {size} to a {client}")
            with self.imagora() as pid:
                base = f"{self.url}/dicom-web/studies/"
                question: dict[str, Any] = {"do": "stream", "accept": DICOM}
                # What is loaded on first use is no growth.
                self.sink.ask({**question, "url": base + member.SMALL_STUDY_UID})
                with Sampler(pid) as sampler:
                    answer = self.sink.ask({**question, "url": base + member.STUDY_UID, **pace})
            if answer["bytes"] < self.plan.relay_bytes // member.INSTANCE_BYTES * member.INSTANCE_BYTES:
                raise BenchError(f"only {answer['bytes']} bytes came")
            rows.append(
                Row(
                    what=f"Peak memory growth, {size} relayed to a {client}",
                    value=f"{sampler.growth / 2**20:.1f} MiB",
                    spread="",
                    target=f"≤ {MEMORY_TARGET >> 20} MiB",
                    met=sampler.growth <= MEMORY_TARGET,
                    absolute=f"{answer['seconds']:.1f} s, {answer['bytes'] / answer['seconds'] / 1e6:.0f} MB/s",
                    measured={"growth_bytes": sampler.growth, "rss_before": sampler.before, **answer},
                )
            )
        return rows

    # Why --------------------------------------------------------------------------------------------------------

    def profile(self, part: str, times: int = 3) -> str:
        """Where the server's own time goes while what `part` measures is done `times` times."""
        target = self.folder / f"{part}.prof"
        questions: dict[str, dict[str, Any]] = {
            "search": {
                "do": "search",
                "url": f"{self.url}/folders/{SLUG}/dicom-web/studies",
                "accept": JSON,
                "times": 1,
            },
            "study": {"do": "stream", "url": f"{self.url}/dicom-web/studies/{CT_UID}", "accept": DICOM},
            "memory": {"do": "stream", "url": f"{self.url}/dicom-web/studies/{member.STUDY_UID}", "accept": DICOM},
        }
        question = questions[part]
        with self.imagora(profile=target) as pid:
            self.sink.ask(dict(question))
            psutil.Process(pid).send_signal(signal.SIGUSR1)
            for _ in range(times):
                self.sink.ask(dict(question))
            psutil.Process(pid).send_signal(signal.SIGUSR1)
        text = StringIO()
        pstats.Stats(str(target), stream=text).strip_dirs().sort_stats("tottime").print_stats(30)
        return text.getvalue()


def _size(count: int) -> str:
    return f"{count / 2**30:g} GiB" if count >= 2**30 else f"{count / 2**20:g} MiB"


class Sampler:
    """Resident memory of a process, looked at every 10 ms. `growth` in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self._peak = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._peak = max(self._peak, self._process.memory_info().rss)
            time.sleep(0.01)

    @property
    def growth(self) -> int:
        return self._peak - self.before
