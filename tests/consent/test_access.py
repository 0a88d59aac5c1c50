"""The one door: deciding, and tracing until it is durable."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.values import BLOIS, ROMORANTIN

from consent import Access, Event, EventKind, Exam, Open, Requester
from consent.access import COVER_S, utc_now
from consent.findings import Findings
from consent.model import Decision, NearMatch, Unavailable
from consent.traits import Traits

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DOCTOR = Requester(id="10001234567", home=BLOIS)
EXAM = Exam(study_uid="1.2", origin=ROMORANTIN, patient_id="4547@csrom41200", ids=frozenset(), holders=(ROMORANTIN,))


class Journal:
    """Takes events; `down` as long as nothing can be made durable."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = False
        self.slow: asyncio.Event | None = None

    async def write(self, event: Event) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.down:
            raise Unavailable
        self.events.append(event)


class Heart:
    """The watch's word; `stopped` as long as the database is lost."""

    version = 1

    def __init__(self) -> None:
        self.stopped = False

    def is_fresh(self) -> bool:
        return not self.stopped

    async def fresh(self, patience_s: float = 0.5) -> bool:
        return not self.stopped


def accessed(at: datetime = NOON, **more: object) -> Event:
    event = Event(kind=EventKind.ACCESSED, requester=DOCTOR, at=at, study_uid="1.2", patient_id="4547@csrom41200")
    return replace(event, **more)  # type: ignore[arg-type]


def test_the_policy_decides() -> None:
    class Deny:
        def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
            assert (requester, exam, at) == (DOCTOR, EXAM, NOON)
            return Decision(permitted=False, reason="opposed")

    assert Access(Open(), Journal().write, Heart()).decide(DOCTOR, EXAM, NOON).permitted
    assert Access(Deny(), Journal().write, Heart()).decide(DOCTOR, EXAM, NOON) == Decision(
        permitted=False, reason="opposed"
    )


async def test_a_trace_returns_once_it_is_durable() -> None:
    journal = Journal()
    journal.slow = asyncio.Event()
    trace = asyncio.ensure_future(Access(Open(), journal.write, Heart()).trace(accessed()))
    await asyncio.sleep(0.01)
    assert not trace.done()
    journal.slow.set()
    await trace
    assert journal.events == [accessed()]


async def test_no_trace_no_access() -> None:
    journal = Journal()
    journal.down = True
    access = Access(Open(), journal.write, Heart())
    with pytest.raises(Unavailable):
        await access.trace(accessed())
    with pytest.raises(Unavailable):
        await access.cover(accessed())
    journal.down = False
    await access.cover(accessed())  # what failed covers nothing
    assert len(journal.events) == 1


async def test_a_quarter_of_an_hour_of_one_requester_and_study_is_covered_by_one_trace() -> None:
    journal = Journal()
    access = Access(Open(), journal.write, Heart())
    for seconds in (0, 1, COVER_S - 1, COVER_S, COVER_S + 1, 2 * COVER_S - 1, 5 * COVER_S):
        await access.cover(accessed(NOON + timedelta(seconds=seconds)))
    assert [(e.at - NOON).total_seconds() for e in journal.events] == [0, COVER_S, 5 * COVER_S]


async def test_nobody_else_and_nothing_else_is_covered() -> None:
    journal = Journal()
    access = Access(Open(), journal.write, Heart())
    events = [
        accessed(),
        accessed(requester=Requester(id="other")),
        accessed(study_uid="1.3"),
        accessed(patient_id="4547@csblo41000"),
    ]
    for event in [*events, *events]:
        await access.cover(event)
    assert journal.events == events
    for _ in range(2):
        await access.trace(replace(accessed(), kind=EventKind.TRANSFER_BEGUN))  # each transfer by itself
    assert len(journal.events) == 6


async def test_requests_that_come_together_wait_for_a_trace() -> None:
    """None of them may go on because another one's trace is under way."""
    journal = Journal()
    journal.slow = asyncio.Event()
    access = Access(Open(), journal.write, Heart())
    under_way = [asyncio.ensure_future(access.cover(accessed())) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not any(t.done() for t in under_way)
    journal.slow.set()
    await asyncio.gather(*under_way)
    assert journal.events


async def test_what_is_remembered_is_bounded_and_costs_traces_at_most() -> None:
    journal = Journal()
    access = Access(Open(), journal.write, Heart(), covered_max=10)
    for n in range(35):
        await access.cover(accessed(study_uid=f"1.{n}"))
        await access.cover(accessed(study_uid=f"1.{n}"))
    assert [e.study_uid for e in journal.events] == [f"1.{n}" for n in range(35)]
    assert len(access._covered) <= 10
    late = NOON + timedelta(seconds=COVER_S)
    await access.cover(accessed(late, study_uid="1.34"))
    assert len(journal.events) == 36


def test_times_are_in_utc() -> None:
    assert utc_now().tzinfo is UTC


async def test_a_trace_is_given_up_at_once_when_the_database_is_lost() -> None:
    journal, heart = Journal(), Heart()
    journal.slow = asyncio.Event()
    writing = asyncio.ensure_future(Access(Open(), journal.write, heart).trace(accessed()))
    await asyncio.sleep(0.3)
    assert not writing.done()
    heart.stopped = True
    with pytest.raises(Unavailable):
        await asyncio.wait_for(writing, 5)
    journal.slow.set()
    await asyncio.sleep(0)
    assert journal.events == []


async def test_nothing_is_answered_on_rules_that_are_not_confirmed() -> None:
    heart = Heart()
    access = Access(Open(), Journal().write, heart)
    await access.confirm()
    heart.stopped = True
    with pytest.raises(Unavailable):
        await access.confirm()


async def test_near_matches_and_found_studies_go_to_the_findings_once() -> None:
    near = NearMatch(
        opposition=7,
        emetteur="csrom41200",
        ipp="4547",
        traits=Traits("dupond^marie", "19600101", "F"),
        name="DUPOND^MARIE",
        difference="one letter of the name differs",
        study_uid="1.2",
    )
    said = [Decision(permitted=False, near=(near,)), Decision(permitted=False, opposition=8, by_ins=True)]

    class Rules:
        def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
            return said[0]

    findings = Findings()
    woken: list[int] = []
    findings.wake = lambda: woken.append(1)
    access = Access(Rules(), Journal().write, Heart(), findings)
    exam = replace(EXAM, ins=frozenset({"160127512345613"}))
    for _ in range(3):
        access.decide(DOCTOR, exam, NOON)
    said.pop(0)
    for _ in range(3):
        access.decide(DOCTOR, exam, NOON)
    assert findings.take_near() == [near]
    assert findings.take_near() == []
    assert findings.take_bound() == {8: ["1.2"]}
    assert len(woken) == 2
    findings.put_back([near], {8: ["1.2"]})
    assert (findings.take_near(), findings.take_bound()) == ([near], {8: ["1.2"]})
