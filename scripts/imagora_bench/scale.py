"""What the façade costs a search over many members, and what its second page costs.

The members are files that one nginx gives out whatever it is asked, so that what is measured is Imagora's own time.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import orjson
from imagora_demo.orthanc import free_port

from imagora_bench import nginx, shelf
from imagora_bench.parts import RELAY, Bench
from imagora_bench.processes import BenchError, cpu_s
from imagora_bench.ratios import Row, compare, interleave
from imagora_bench.servers import Guarded, prepare, started

TARGET = 1.25
PAGE_TARGET = 0.2
PAGE = 25
PAGE_ROWS = 50  # of each member whose rows are paged through
_REQUESTS = 60  # to members in one timed run, about
_COUNTED = re.compile(rb"\n\s*[0-9]+ [0-9]+ ([0-9]+)")


class Stubs:
    """Members by folder: as many as are wanted, each with studies of its own."""

    def __init__(self, bench: Bench, wanted: dict[str, tuple[int, int]]) -> None:
        """`wanted`: folder → (members, rows of each)."""
        self.root = bench.folder / "members"
        self.root.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.uids: dict[str, list[str]] = {}
        self.members: dict[str, list[str]] = {}  # DICOMweb URLs
        self.sites: dict[str, str] = {}
        self.folder_of: dict[str, str] = {}
        for folder, (members, count) in wanted.items():
            self.uids[folder], self.members[folder] = [], []
            for _ in range(members):
                name = f"m{len(self.sites) + 1}"
                rows = shelf.rows_of(name, count)
                # The worker of nginx may be another user.
                (self.root / f"{name}.json").write_bytes(orjson.dumps(rows))
                self.uids[folder] += [row["0020000D"]["Value"][0] for row in rows]
                self.sites[name] = f"{self.url}/{name}/dicom-web"
                self.members[folder].append(self.sites[name])
                self.folder_of[name] = folder

    @contextmanager
    def served(self, bench: Bench) -> Iterator[None]:
        with nginx.members(bench.folder, port=self.port, root=self.root) as child:
            child.wait_ready(self.port)
            yield

    def count(self) -> int:
        """Requests so far, this one included."""
        with urllib.request.urlopen(f"{self.url}/count", timeout=20) as answer:
            found = _COUNTED.search(answer.read())
        if found is None:
            raise BenchError("nginx does not say how many requests it had")
        return int(found[1])


def measure(bench: Bench) -> list[Row]:
    plan = bench.plan
    wanted = {f"Scale {number}": (count, plan.member_rows) for number, count in enumerate(plan.members, 1)}
    wanted["Pages"] = (plan.members[1], PAGE_ROWS)
    stubs = Stubs(bench, wanted)
    with ExitStack() as stack:
        stack.enter_context(stubs.served(bench))
        sites = {**stubs.sites, RELAY: f"{bench.member_url}/dicom-web"}
        server = stack.enter_context(started(bench, prepare(bench, "scale", sites, folder_of=stubs.folder_of)))
        rows = [_search(bench, server, stubs, folder) for folder in wanted if folder != "Pages"]
        return [*rows, _pages(bench, server, stubs)]


def _url(server: Guarded, folder: str) -> str:
    return f"{server.url}/folders/{folder.lower().replace(' ', '-')}/dicom-web/studies"


def _search(bench: Bench, server: Guarded, stubs: Stubs, folder: str) -> Row:
    members, uids = stubs.members[folder], stubs.uids[folder]
    with bench.bare(server.url, "", members) as bare:
        urls = {"imagora": _url(server, folder), "bare": bare}
        for name, url in urls.items():
            before = stubs.count()
            found = bench.searched(url, 1)[1]
            asked = stubs.count() - before - 1
            if sorted(found) != sorted(uids) or asked != len(members):
                raise BenchError(f"{name}: {len(found)} rows after {asked} requests, {len(uids)} after {len(members)}")
        bench.tell(f"search, {len(uids):,} rows of {len(members)} members")
        times = max(1, _REQUESTS // len(members))
        spent = cpu_s(server.pid)
        seconds = interleave(
            {name: partial(bench.search_time, url, times) for name, url in urls.items()}, bench.plan.rounds
        )
        spent = (cpu_s(server.pid) - spent) / (times * (bench.plan.rounds + 1))
    row = compare(
        f"QIDO, {len(uids):,} rows of {len(members)} members, against a bare gather",
        seconds["imagora"],
        seconds["bare"],
        most=TARGET,
        unit=times,
    )
    row.measured["cpu_s"] = {"Imagora": spent}
    return row


def _pages(bench: Bench, server: Guarded, stubs: Stubs) -> Row:
    """A person turns the page: one search, and on."""
    members, uids = stubs.members["Pages"], stubs.uids["Pages"]
    url = _url(server, "Pages")
    urls = {"first": f"{url}?limit={PAGE}", "second": f"{url}?limit={PAGE}&offset={PAGE}"}
    whole = bench.searched(url, 1)[1]
    if sorted(whole) != sorted(uids):
        raise BenchError(f"{len(whole)} rows, {len(uids)} expected")
    asked = {}
    for _ in range(2):  # the second time, the first page was read before
        for at, name in enumerate(urls):
            before = stubs.count()
            found = bench.searched(urls[name], 1)[1]
            asked[name] = stubs.count() - before - 1
            if found != whole[at * PAGE : (at + 1) * PAGE]:
                raise BenchError(f"the {name} page does not hold the rows that it should")
    if asked["first"] != len(members):
        raise BenchError(f"the first page asks {asked['first']} of {len(members)} members: it says nothing")
    bench.tell(f"second page of {len(uids):,} rows of {len(members)} members")
    seconds = interleave({name: partial(bench.search_time, u, 1) for name, u in urls.items()}, bench.plan.rounds)
    row = compare(
        f"QIDO, second page of {len(uids):,} rows of {len(members)} members, against the first",
        seconds["second"],
        seconds["first"],
        most=PAGE_TARGET,
    )
    row.measured["members_asked"] = asked
    return row
