"""What Prometheus is told. Labels are routes and EMETTEURs, never anything of a patient's.

Of several workers (`imagora.workers`) whichever answers tells of all: each keeps its numbers in files that the others
read, in the folder PROMETHEUS_MULTIPROC_DIR. What is counted is the sum, and goes on where a worker that died left off.
Each has circuit breakers of its own: `imagora_member_breaker` is then the number of workers whose breaker is in that
state, `imagora_member_failures_in_a_row` the highest of all. Both are of living workers, and at most a second old.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from consent import Event
from federation.health import BreakerState, Health
from registry.profiles import Profile

#: Workers write their view of the members this often.
_RECORD_S = 1.0
_TRACE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What one process counts; also the engine's observer of calls to members."""

    def __init__(self, health: Callable[[], Mapping[str, Health]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "imagora_requests", "HTTP requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "imagora_request_seconds",
            "Time to the end of an answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._bytes = Counter("imagora_sent_bytes", "Bytes of bodies sent", ("route",), registry=self._registry)
        self._under_way = Gauge(
            "imagora_requests_under_way",
            "Requests being answered",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._aborted = Counter("imagora_aborted", "Answers broken off", ("route",), registry=self._registry)
        self._calls = Counter(
            "imagora_member_calls",
            "Calls to members by outcome",
            ("emetteur", "operation", "status"),
            registry=self._registry,
        )
        self._call_seconds = Histogram(
            "imagora_member_call_seconds",
            "Time that members take",
            ("emetteur", "operation"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._traces = Counter(
            "imagora_traces", "Traces by what became of them", ("kind", "outcome"), registry=self._registry
        )
        self._trace_seconds = Histogram(
            "imagora_trace_seconds",
            "Time until a trace is durable, which every access waits for",
            buckets=_TRACE_SECONDS,
            registry=self._registry,
        )
        self._shared = _Shared(health) if os.environ.get("PROMETHEUS_MULTIPROC_DIR") else None
        if self._shared is None:
            self._registry.register(_MemberHealth(health))
            self._registry.register(_Tasks())

    def called(self, emetteur: str, operation: str, status: str, elapsed_s: float) -> None:
        self._calls.labels(emetteur, operation, status).inc()
        self._call_seconds.labels(emetteur, operation).observe(elapsed_s)

    def traced(self, write: Callable[[Event], Awaitable[None]]) -> Callable[[Event], Awaitable[None]]:
        """`write`, counted: "written", or "failed" if it raises or nobody waited for its end."""

        async def counted(event: Event) -> None:
            began = time.perf_counter()
            outcome = "failed"
            try:
                await write(event)
                outcome = "written"
                self._trace_seconds.observe(time.perf_counter() - began)
            finally:
                self._traces.labels(event.kind, outcome).inc()

        return counted

    def began(self) -> None:
        self._under_way.inc()

    def ended(self, method: str, route: str, status: int, elapsed_s: float, sent: int, *, complete: bool) -> None:
        self._under_way.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(elapsed_s)
        self._bytes.labels(route).inc(sent)
        if not complete:
            self._aborted.labels(route).inc()

    @contextlib.asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """While it lasts, the other workers know how this one finds the members. Nothing to do where there is one."""
        if self._shared is None:
            yield
            return
        task = asyncio.create_task(_repeat(self._shared.record), name="metrics")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    def text(self) -> bytes:
        if self._shared is None:
            return generate_latest(self._registry)
        self._shared.record()
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
        return generate_latest(of_all)


def profile_text(profiles: Sequence[Profile], now: datetime) -> bytes:
    """What checks found of members, as it stands in the database: the same whichever worker answers. What a check could
    not tell has no sample."""
    features = GaugeMetricFamily(
        "imagora_member_feature", "Whether a member's PACS has it: 1 or 0", labels=("emetteur", "feature")
    )
    usable = GaugeMetricFamily("imagora_member_usable", "Whether it can be used as it is: 1 or 0", labels=("emetteur",))
    age = GaugeMetricFamily("imagora_member_profile_age_seconds", "Time since it was checked", labels=("emetteur",))
    for profile in profiles:
        for feature, value in profile.features.items():
            features.add_metric((profile.emetteur, feature), float(value))
        usable.add_metric((profile.emetteur,), float(profile.usable))
        if profile.checked_at is not None:
            age.add_metric((profile.emetteur,), max(0.0, (now - profile.checked_at).total_seconds()))
    registry = CollectorRegistry()
    registry.register(_Families([features, usable, age]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


_BREAKER = ("imagora_member_breaker", "How many processes have a member's breaker in that state", ("emetteur", "state"))
_TASKS = ("imagora_tasks", "Tasks of the event loop that are not done")
_FAILURES = ("imagora_member_failures_in_a_row", "Failed calls since the last good one", ("emetteur",))


class _MemberHealth(Collector):
    def __init__(self, health: Callable[[], Mapping[str, Health]]) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(_BREAKER[0], _BREAKER[1], labels=_BREAKER[2])
        failures = GaugeMetricFamily(_FAILURES[0], _FAILURES[1], labels=_FAILURES[2])
        for emetteur, health in self._health().items():
            for state in BreakerState:
                states.add_metric((emetteur, state), float(health.state is state))
            failures.add_metric((emetteur,), health.consecutive_failures)
        return states, failures


class _Tasks(Collector):
    """What would grow for ever if something that was begun never ended."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(*_TASKS, value=len(asyncio.all_tasks()))


class _Shared:
    """The same, written down for all to read. A member that is registered no more stays, with zeros."""

    def __init__(self, health: Callable[[], Mapping[str, Health]]) -> None:
        self._health = health
        self._known: set[str] = set()
        self._states = Gauge(*_BREAKER, registry=None, multiprocess_mode="livesum")
        self._failures = Gauge(*_FAILURES, registry=None, multiprocess_mode="livemax")
        self._tasks = Gauge(*_TASKS, registry=None, multiprocess_mode="livesum")

    def record(self) -> None:
        self._tasks.set(len(asyncio.all_tasks()))
        seen = self._health()
        self._known |= seen.keys()
        for emetteur in self._known:
            health = seen.get(emetteur)
            for state in BreakerState:
                self._states.labels(emetteur, state).set(health is not None and health.state is state)
            self._failures.labels(emetteur).set(health.consecutive_failures if health is not None else 0)


async def _repeat(work: Callable[[], object]) -> None:
    while True:
        work()
        await asyncio.sleep(_RECORD_S)
