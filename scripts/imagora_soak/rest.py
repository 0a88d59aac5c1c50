"""What the server holds: memory and descriptors as the kernel counts them, and what it says itself to be doing."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from imagora_soak.held import METRICS_TOKEN, SITES
from registry.database import CONNECTIONS_MAX

#: What is kept open at rest, and may not yet have been before: one connection to each member (a keep-alive that was
#: not over) and the pool of the database at its largest.
DESCRIPTORS = len(SITES) + CONNECTIONS_MAX
#: Tasks that belong to such connections, and the request that asks.
TASKS = DESCRIPTORS + 2
#: MiB between two rests with equal work before each. By the first of them the caches are full, and what the allocator
#: has not given back then it has in hand: what is left is pages of its own order, some MiB here, where 1 KiB lost with
#: each request would be 10 to 20 in ten minutes.
MEMORY_MB = 24


@dataclass(frozen=True, kw_only=True)
class Held:
    """At one moment. `memory` in bytes; of the server's process alone."""

    memory: int
    descriptors: int
    tasks: int
    under_way: int
    children: int

    def __str__(self) -> str:
        return (
            f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.tasks} tasks, "
            f"{self.under_way} requests under way, {self.children} processes of its own"
        )

    def beyond(self, before: Held) -> list[str]:
        """In what it holds more than it may, after the same rest as before."""
        found = []
        if self.descriptors > before.descriptors + DESCRIPTORS:
            found.append(f"{self.descriptors} descriptors open at rest, {before.descriptors} before")
        if self.tasks > before.tasks + TASKS:
            found.append(f"{self.tasks} tasks at rest, {before.tasks} before")
        if self.under_way:
            found.append(f"{self.under_way} requests are still under way")
        return found

    def grown(self, before: Held) -> list[str]:
        more = (self.memory - before.memory) / 2**20
        return [f"memory grew by {more:.1f} MiB between two rests"] if more > MEMORY_MB else []


def held(pid: int, url: str) -> Held:
    asked = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        text = answer.read().decode()
    process = psutil.Process(pid)
    return Held(
        memory=process.memory_info().rss,
        descriptors=process.num_fds(),
        tasks=_metric(text, "imagora_tasks"),
        under_way=_metric(text, "imagora_requests_under_way") - 1,  # this one
        children=len(process.children()),
    )


def rested(pid: int, url: str, before: Held | None, most_s: float, tell: Callable[[str], None]) -> Held:
    """After a rest: until it holds no more than it may, and no longer gets less. `most_s` at most, for members' silence
    and kept connections have their own time."""
    began = time.monotonic()
    last = held(pid, url)
    while time.monotonic() - began < most_s:
        time.sleep(min(3.0, most_s / 4))
        now = held(pid, url)
        settled = (now.descriptors, now.tasks, now.under_way) == (last.descriptors, last.tasks, last.under_way)
        last = now
        if settled and not now.under_way and not (before is not None and now.beyond(before)):
            break
    tell(f"at rest for {time.monotonic() - began:.0f} s: {last}")
    return last


def _metric(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the server does not tell {name}")
    return round(float(found[1]))
