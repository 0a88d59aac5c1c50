"""What Prometheus is told. Labels are routes and EMETTEURs, never anything of a patient's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federation.health import BreakerState, Health

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry for a process; also the engine's observer of calls to members."""

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
        self._under_way = Gauge("imagora_requests_under_way", "Requests being answered", registry=self._registry)
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
        self._registry.register(_MemberHealth(health))

    def called(self, emetteur: str, operation: str, status: str, elapsed_s: float) -> None:
        self._calls.labels(emetteur, operation, status).inc()
        self._call_seconds.labels(emetteur, operation).observe(elapsed_s)

    def began(self) -> None:
        self._under_way.inc()

    def ended(self, method: str, route: str, status: int, elapsed_s: float, sent: int, *, complete: bool) -> None:
        self._under_way.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(elapsed_s)
        self._bytes.labels(route).inc(sent)
        if not complete:
            self._aborted.labels(route).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _MemberHealth(Collector):
    def __init__(self, health: Callable[[], Mapping[str, Health]]) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "imagora_member_breaker", "1 for the state that a member's breaker is in", labels=("emetteur", "state")
        )
        failures = GaugeMetricFamily(
            "imagora_member_failures_in_a_row", "Failed calls since the last good one", labels=("emetteur",)
        )
        for emetteur, health in self._health().items():
            for state in BreakerState:
                states.add_metric((emetteur, state), float(health.state is state))
            failures.add_metric((emetteur,), health.consecutive_failures)
        return states, failures
