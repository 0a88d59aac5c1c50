"""Servers beside the one that all parts share: each with its own sites and a database of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from imagora_demo.orthanc import free_port

from imagora_bench import filling, shelf
from imagora_bench.parts import Bench
from imagora_bench.processes import Child, python, start_imagora, write_settings

START_PATIENCE_S = 300.0


@dataclass(slots=True, kw_only=True)
class Guarded:
    """A server and its database. `started_s` until it was ready, `rss` bytes then."""

    name: str
    port: int
    settings: Path
    database: str
    started_s: float = 0.0
    rss: int = 0
    pid: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def studies(self) -> str:
        return f"{self.url}/dicom-web/studies"


@contextmanager
def shelved(folder: Path, count: int) -> Iterator[dict[str, str]]:
    """Members with `count` rows together → EMETTEUR → DICOMweb URL, and one more site, which has nothing."""
    port = free_port()
    with Child("shelf", python("shelf", port, count), folder) as child:
        child.wait_ready(port)
        yield {name: f"http://127.0.0.1:{port}/{name}/dicom-web" for name in (*shelf.NAMES, filling.HOME)}


def prepare(
    bench: Bench,
    name: str,
    sites: Mapping[str, str],
    *,
    auth: str = "local",
    folder_of: Mapping[str, str] | None = None,
    database: str | None = None,
) -> Guarded:
    """Settings and a database, a new one unless it is given, for a server that is yet to be started."""
    port = free_port()
    settings = bench.folder / f"{name}.toml"
    state = bench.folder / f"state-{name}"
    write_settings(settings, port=port, state=state, sites=sites, folder_of=folder_of, auth=auth)
    if database is None:
        database = asyncio.run(filling.create(bench.database_url, name.replace("-", "_"), settings))
    return Guarded(name=name, port=port, settings=settings, database=database)


@contextmanager
def together(bench: Bench, name: str, servers: Sequence[Guarded], unguarded: Collection[Guarded] = ()) -> Iterator[int]:
    """Start all of them in one process → its id. Those that are `unguarded` show every exam."""
    given = [
        {"settings": str(s.settings), "database": s.database, "unguarded": any(s is u for u in unguarded)}
        for s in servers
    ]
    listed = bench.folder / f"{name}.json"
    listed.write_text(json.dumps(given), encoding="utf-8")
    with Child(name, python("together", listed), bench.folder) as child:
        for server in servers:
            wait(child, server)
        yield child.process.pid


def wait(child: Child, server: Guarded) -> None:
    child.wait_ready(server.port, "/readyz", START_PATIENCE_S)
    server.pid = child.process.pid


@contextmanager
def started(bench: Bench, server: Guarded) -> Iterator[Guarded]:
    began = time.perf_counter()
    with start_imagora(bench.folder, server.settings, name=server.name, database=server.database) as child:
        wait(child, server)
        server.started_s = time.perf_counter() - began
        server.rss = psutil.Process(server.pid).memory_info().rss
        yield server
