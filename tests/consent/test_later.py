"""Traces that nobody waits for: none is missing because the database was away, and their number is bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import pytest

from consent.access import utc_now
from consent.later import Later
from consent.model import Event, EventKind, Requester, Unavailable

DOCTOR = Requester(id="10001234567")
BEGAN = utc_now()
EVENTS = [
    Event(
        kind=EventKind.TRANSFERRED,
        requester=DOCTOR,
        at=BEGAN + timedelta(seconds=n),
        request_id=str(n),
        patient_id="4547@csrom41200",
    )
    for n in range(6)
]


class Journal:
    """Takes what comes while it is `there`; refuses `bad` always."""

    def __init__(self) -> None:
        self.there = True
        self.bad: list[Event] = []
        self.written: list[Event] = []
        self.asked = 0

    async def write(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.asked += 1
        if not self.there or event in self.bad:
            raise Unavailable("no trace can be made")
        self.written.append(event)

    def later(self, **options: float) -> Later:
        return Later(self.write, lambda: self.there, **{"every_s": 0.01, **options})  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_happened_while_the_database_was_away_is_written_once_it_is_back() -> None:
    journal = Journal()
    later = journal.later()
    later.put(EVENTS[0])
    await until(lambda: len(journal.written) == 1)
    journal.there = False
    for event in EVENTS[1:]:
        later.put(event)
    await until(lambda: later.kept == 5)
    asked = journal.asked
    await asyncio.sleep(0.1)
    assert journal.asked == asked  # it is not asked in vain
    journal.there = True
    await until(lambda: len(journal.written) == 6)
    assert journal.written == EVENTS  # each once, with its own time
    assert later.kept == 0
    journal.there = False  # and again
    later.put(EVENTS[0])
    await until(lambda: later.kept == 1)
    journal.there = True
    await until(lambda: len(journal.written) == 7)
    await later.aclose()


async def test_more_than_can_be_kept_gives_up_the_oldest_and_names_no_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal()
    later = journal.later(most=4)
    journal.there = False
    for event in EVENTS:
        later.put(event)
    await until(lambda: journal.asked == 6)
    assert later.kept == 4
    journal.there = True
    await until(lambda: len(journal.written) == 4)
    assert journal.written == EVENTS[2:]
    await until(lambda: "2 were given up" in caplog.text)
    assert [r.levelno for r in caplog.records if "given up untraced" in r.message] == [logging.ERROR]
    assert "4547" not in caplog.text
    await later.aclose()


@pytest.mark.parametrize("back", [True, False])
async def test_closing_tries_once_more(back: bool, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    later = journal.later(every_s=3600)
    journal.there = False
    for event in EVENTS:
        later.put(event)
    await until(lambda: later.kept == 6)
    journal.there = back
    await later.aclose()
    assert journal.asked == 12
    assert journal.written == (EVENTS if back else [])
    assert ("6 ends of transfers, or refusals, could not be traced and are given up" in caplog.text) is not back


async def test_closing_waits_for_what_is_being_written() -> None:
    journal = Journal()
    later = journal.later()
    for event in EVENTS:
        later.put(event)
    await later.aclose()
    assert journal.written == EVENTS


async def test_what_the_database_refuses_for_good_is_given_up_and_holds_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal()
    journal.bad = EVENTS[:1]
    later = journal.later()
    for event in EVENTS[:3]:
        later.put(event)
    await until(lambda: "given up" in caplog.text)
    assert journal.written == EVENTS[1:3]
    assert later.kept == 0
    await later.aclose()
