"""What is counted of traces."""

from __future__ import annotations

import asyncio
import re

import pytest

from consent import Event, EventKind, Requester, Unavailable, utc_now
from imagora.metrics import Metrics


def event(kind: EventKind) -> Event:
    return Event(kind=kind, requester=Requester(id="10001234567"), at=utc_now())


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    found = re.findall(r'imagora_traces_total\{kind="([^"]+)",outcome="([^"]+)"\} (\S+)', metrics.text().decode())
    return {(kind, outcome): float(value) for kind, outcome, value in found}


async def test_traces_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics(dict)
    lost = asyncio.Event()

    async def write(traced: Event) -> None:
        if traced.kind is EventKind.QUERY and lost.is_set():
            raise Unavailable("no trace can be made")
        await asyncio.sleep(60 if traced.kind is EventKind.REFUSED else 0)

    trace = metrics.traced(write)
    await trace(event(EventKind.QUERY))
    await trace(event(EventKind.ACCESSED))
    lost.set()
    with pytest.raises(Unavailable):
        await trace(event(EventKind.QUERY))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(trace(event(EventKind.REFUSED)), 0.01)
    assert counted(metrics) == {
        ("query", "written"): 1,
        ("query", "failed"): 1,
        ("accessed", "written"): 1,
        ("refused", "failed"): 1,
    }
    assert "imagora_trace_seconds_count 2.0" in metrics.text().decode()
