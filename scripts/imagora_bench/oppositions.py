"""What oppositions cost a search: servers over three databases and the same members, side by side.

The members answer from memory (`shelf`): a PACS takes longer than Imagora does, and would hide the difference.
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import partial

from imagora_bench import filling, shelf
from imagora_bench.filters import compare_filters
from imagora_bench.parts import JSON, Bench
from imagora_bench.processes import BenchError, cpu_s
from imagora_bench.ratios import Row, compare, interleave
from imagora_bench.servers import START_PATIENCE_S, Guarded, prepare, shelved, started, together

MEMORY_TARGET = 1.2e9
#: An opposition holds everywhere within one second; a search that was asked before may still be under way.
_EFFECT_S = 1.0
_LOOK_S = 0.05


def measure(bench: Bench) -> list[Row]:
    plan = bench.plan
    few, many = plan.oppositions
    with ExitStack() as stack:
        sites = stack.enter_context(shelved(bench.folder, plan.rows))
        servers = {count: prepare(bench, f"opposed-{count}", sites) for count in (0, few, many)}
        # Before anything is measured: it takes this process some seconds.
        spared = asyncio.run(filling.alike(bench.database_url, max(few, many), shelf.all_rows(plan.rows)))
        bench.tell(f"oppositions, {len(spared)} of them like a patient of the members: spared")
        asyncio.run(filling.oppose(servers[few].database, few, emetteurs=shelf.NAMES, spared=spared))
        with started(bench, servers[many]) as server:
            imported = _import(bench, server, many, spared)
        # Anew: what it takes to load them all at the start.
        loaded = {}
        for count in (0, many):
            with started(bench, servers[count]) as server:
                loaded[count] = replace(server)  # as it was then
        stack.enter_context(together(bench, "opposed", [*servers.values()]))
        rows = _compare(bench, servers)
        by_filter = compare_filters(bench, servers[0].studies)
    return [*rows, *by_filter, _loading(loaded[0], loaded[many], many), *imported]


def _compare(bench: Bench, servers: dict[int, Guarded]) -> list[Row]:
    plan = bench.plan
    none, few, many = servers
    bench.tell(f"search, {plan.rows:,} rows, with {few:,} and {many:,} oppositions")
    found = {count: bench.searched(server.studies, 1)[1] for count, server in servers.items()}
    if any(f != found[none] for f in found.values()) or set(found[none]) != set(shelf.all_uids(plan.rows)):
        raise BenchError(f"not the same {plan.rows} rows: {[len(f) for f in found.values()]}")
    spent = dict.fromkeys(servers, 0.0)

    def timed(count: int) -> float:
        before = cpu_s(servers[count].pid)
        seconds = bench.search_time(servers[count].studies, plan.searches_opposed)
        spent[count] += cpu_s(servers[count].pid) - before
        return seconds

    in_turn = interleave({str(count): partial(timed, count) for count in servers}, plan.rounds)
    seconds = {count: in_turn[str(count)] for count in servers}
    times = plan.searches_opposed * (plan.rounds + 1)
    used = {f"{count:,} oppositions": cpu / times for count, cpu in spent.items()}
    rows = [
        compare(
            f"QIDO, {plan.rows:,} rows, with {count:,} oppositions, against {other:,}",
            seconds[count],
            seconds[other],
            most=1.05,
            unit=plan.searches_opposed,
        )
        for count, other in ((few, none), (many, none), (many, few))
    ]
    rows[0].measured["cpu_s"] = used
    return rows


def _loading(none: Guarded, many: Guarded, count: int) -> Row:
    return Row(
        what=f"Server with {count:,} oppositions in memory, a whole process",
        value=f"{many.rss / 1e6:.0f} MB",
        spread="",
        target=f"≤ {MEMORY_TARGET / 1e6:.0f} MB",
        met=many.rss <= MEMORY_TARGET,
        absolute=f"ready after {many.started_s:.1f} s / {none.started_s:.1f} s, {none.rss / 1e6:.0f} MB without",
        measured={"rss": many.rss, "rss_without": none.rss, "s": many.started_s, "s_without": none.started_s},
    )


# While it serves ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Watched:
    """Searches while oppositions are imported, one after the other. Times in seconds."""

    answers: int = 0
    longest: float = 0.0
    refused_from: float | None = None
    refused_until: float = 0.0
    stalled: float = 0.0  # the longest that the server took to say that it is alive
    faults: list[str] = field(default_factory=list)


def _import(bench: Bench, server: Guarded, count: int, spared: Collection[int]) -> list[Row]:
    """Import all in one transaction while the server answers searches."""
    bench.tell(f"import of {count:,} oppositions while serving")
    committed: list[float] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(
                filling.oppose(
                    server.database,
                    count,
                    emetteurs=shelf.NAMES,
                    spared=spared,
                    more_studies=[shelf.PROBE_UID],
                    committed=lambda: committed.append(time.monotonic()),
                )
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="import")
    thread.start()
    watched = _Watched()
    try:
        _watch(server, committed, failures, watched)
    finally:
        thread.join()
    if failures or watched.faults:
        raise BenchError(f"import while serving: {[*map(repr, failures), *watched.faults]}")
    refused = watched.refused_until - watched.refused_from if watched.refused_from is not None else 0.0
    return [
        Row(
            what=f"Searches refused (503, Retry-After) while {count:,} oppositions come at once",
            value=f"{refused:.1f} s",
            spread="",
            absolute=f"slowest answer {watched.longest:.2f} s, slowest /healthz {watched.stalled * 1000:.0f} ms",
            measured={"refused_s": refused, "longest_s": watched.longest, "stalled_s": watched.stalled},
        )
    ]


def _watch(server: Guarded, committed: list[float], failures: list[BaseException], watched: _Watched) -> None:
    """Until the server shows that it knows all. What breaks a rule is told in `faults`."""
    url = f"{server.studies}?StudyInstanceUID={shelf.PROBE_UID}"
    limit = time.monotonic() + START_PATIENCE_S
    while not failures and not watched.faults:
        began = time.monotonic()
        status, headers, body = _get(url)
        ended = time.monotonic()
        watched.answers += 1
        watched.longest = max(watched.longest, ended - began)
        if status == 503:
            if "Retry-After" not in headers or "Imagora-Sources" in headers:
                watched.faults.append(f"a refusal of another kind: {body!r}")
            watched.refused_from = watched.refused_from if watched.refused_from is not None else began
            watched.refused_until = ended
        elif status == 204 or (status == 200 and body.strip() == b"[]"):
            if not committed:
                watched.faults.append("an exam vanished before anybody opposed")
            return
        elif status != 200:
            watched.faults.append(f"status {status}")
        elif committed and began > committed[0] + _EFFECT_S:
            watched.faults.append(f"an exam is shown {began - committed[0]:.1f} s after it was opposed")
        began = time.monotonic()
        _get(f"http://127.0.0.1:{server.port}/healthz")
        watched.stalled = max(watched.stalled, time.monotonic() - began)
        if time.monotonic() > limit:
            watched.faults.append("the server does not come to know the oppositions")
        time.sleep(_LOOK_S)


def _get(url: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, headers={"Accept": JSON})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
