"""A search whose client leaves is traced, and asks members no longer."""

from __future__ import annotations

import asyncio

import pytest

from consent import Access, Event, EventKind, Requester
from consent.book import Book
from consent.policy import Rules
from federation.gate import Gate
from federation.identity import Naming
from federation.locate import Location
from federation.model import Level, Query, Scope


class Confirmed:
    version = 1

    def is_fresh(self) -> bool:
        return True

    async def fresh(self, patience_s: float = 0) -> bool:
        return True


async def test_a_client_that_leaves_ends_the_questions_of_its_trace() -> None:
    written: list[Event] = []
    asked = asyncio.Event()
    ended = asyncio.Event()

    async def write(event: Event) -> None:
        written.append(event)

    async def locate(study_uid: str) -> Location:
        asked.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        raise AssertionError("it never answers")

    gate = Gate(Access(Rules(Book()), write, Confirmed()), Naming(qualified=True, issuer="IMAGORA"))
    query = Query(level=Level.SERIES, scope=Scope(), study_uid="1.2.3")

    async def search() -> None:
        trace = gate.trace_query(Requester(id="10001234567"), query, "/studies/1.2.3/series", "r", locate)
        try:
            await asyncio.sleep(3600)
        except BaseException:
            await asyncio.gather(trace, return_exceptions=True)
            raise

    task = asyncio.create_task(search())
    await asked.wait()
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()
    assert [(e.kind, e.study_uid, e.origin) for e in written] == [(EventKind.QUERY, "1.2.3", "")]
