"""The whole engine against the slow model of the rules: what is shown, what can be noticed, what is traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from scripted_region import Seen, answers, nameless
from slow_region import BLOIS, ROMO, TOURS, Ask, Get, Habits, Held, Refusal, Region, Who
from slow_rules import Exam, Row, asked_sites, is_hidden, may_see, metadata, rows
from slow_strategies import STUDIES, asks, gets, habits, regions, requests, whos

from consent import Event, EventKind

IPP, OTHER = "00100020", Who(id="10001234568", home=ROMO)


@given(region=regions(habits(fails_on_uids=False)), asked=st.lists(requests, min_size=1, max_size=3))
@example(  # who is told that there are several is traced
    region=Region(held=(Held(site=ROMO, patient_id="9", person=2), Held(site=BLOIS))), asked=[(Who(), Get())]
)
@example(  # under one id a holder has another name, which is an opposition's
    region=Region(
        held=(Held(site=ROMO, person=7), Held(site=BLOIS, patient_id=f"1@{ROMO}")),
        refusals=(Refusal(number=1, person=0),),
    ),
    asked=[(Who(), Ask(filters={"00100010": "MARTIN^PAUL"}))],
)
@example(  # whose patient it is does not depend on what was searched for
    region=Region(
        held=(
            Held(site=ROMO),
            Held(site=BLOIS, patient_id=f"1@{ROMO}", person=3),
            Held(site=TOURS, patient_id=f"1@{BLOIS}"),
        )
    ),
    asked=[(Who(), Ask(filters={"00100030": "19600412"}))],
)
@example(  # a member that is cut says nothing of the copy that is opposed
    region=Region(
        held=(
            Held(site=ROMO, patient_id="8"),
            Held(site=BLOIS, study="1.2", patient_id="5"),
            Held(site=BLOIS, study="1.3", patient_id="5"),
            Held(site=BLOIS, patient_id="2", ins="rows"),
        ),
        refusals=(Refusal(number=1, patient=("2", BLOIS)),),
    ),
    asked=[(Who(), Ask())],
)
@example(  # one that is not cut says that the copy is opposed, another does not
    region=Region(
        held=(
            Held(site=ROMO, study="1.2", patient_id="5"),
            Held(site=ROMO),
            Held(site=BLOIS, patient_id=f"1@{ROMO}"),
            Held(site=TOURS, patient_id=f"1@{ROMO}"),
        ),
        refusals=(Refusal(number=1, patient=(f"1@{ROMO}", BLOIS)),),
    ),
    asked=[(Who(), Ask())],
)
@example(  # rows below the study don't tell the person
    region=Region(
        held=(Held(site=ROMO),), habits={ROMO: Habits(nameless=True)}, refusals=(Refusal(number=1, person=0),)
    ),
    asked=[(Who(), Ask(level="series")), (Who(), Ask(level="series", study="1.1")), (Who(), Ask(level="instance"))],
)
@example(  # who made it is a guess, and the opposition names the other one
    region=Region(
        held=(Held(site=ROMO), Held(site=BLOIS, patient_id="2")),
        refusals=(Refusal(number=1, patient=("2", BLOIS), studies=("1.1",)),),
    ),
    asked=[(Who(home=site), request) for site in (ROMO, BLOIS) for request in (Ask(own_site=True), Get())],
)
@example(  # two oppositions name both
    region=Region(
        held=(Held(site=ROMO), Held(site=BLOIS, patient_id="2")),
        refusals=(Refusal(number=1, patient=("2", BLOIS)), Refusal(number=2, patient=("1", ROMO))),
    ),
    asked=[(Who(home=site), request) for site in (ROMO, BLOIS) for request in (Ask(own_site=True), Get())],
)
@example(  # only the instances tell
    region=Region(held=(Held(site=ROMO, ins="instances"),), refusals=(Refusal(number=1, ins=True),)),
    asked=[(Who(), Get())],
)
@settings(max_examples=300)
def test_they_get_what_the_slow_model_allows(region: Region, asked: Sequence[tuple[Who, Ask | Get]]) -> None:
    for who, request in asked:
        (seen, events), again = answers(region, [(who, request)] * 2)
        assert events, request
        assert all(e.requester.id == who.id for e in events)
        if isinstance(request, Ask):
            check_search(region, who, request, seen)
            check_query_traces(region, request, events)
            assert replace(again[0], questions={}) == replace(seen, questions={})
        else:
            check_metadata(region, who, request, seen, events)


def check_search(region: Region, who: Who, ask: Ask, seen: Seen) -> None:
    asked = asked_sites(ask, who)
    expected = rows(region, who, ask)
    down = [s for s in asked if region.habits_of(s).down]
    if seen.error:
        if seen.error[0] == "Conflict":
            assert ask.study
            people = rows(region, who, replace(ask, filters={}, series="")).may
            assert len({row.patient_id for row in people}) > 1
        else:
            assert seen.error[0] == "SourcesUnavailable"
            assert down == asked != []
        return
    assert asked == [] or down != asked
    ((whole, _),) = answers(region, [(who, replace(ask, limit=None, offset=0))])
    everything = [Row(*r) for r in whole.uids(ask.level)]
    assert len(everything) == len({*everything})
    assert expected.must <= {*everything} <= expected.may, (expected, everything)
    if ask.level == "study":
        dates = [r["00080020"]["Value"][0] for r in whole.rows]
        assert dates == sorted(dates, reverse=True)
    end = len(everything) if ask.limit is None else ask.offset + ask.limit
    assert seen.uids(ask.level) == everything[ask.offset : end]
    assert seen.remaining == len(everything[max(end, ask.offset) :])
    assert seen.flags == (False, bool(asked))
    ((cut, _),) = answers(region, [(who, replace(ask, limit=None, offset=0))], member_cap=1)
    assert {Row(*r) for r in cut.uids(ask.level)} <= expected.may
    assert len(cut.rows) >= len(expected.must) or cut.flags[0]
    assert {name for name, status, _ in seen.sources if status != "ok"} == {*down}


def check_query_traces(region: Region, ask: Ask, events: Sequence[Event]) -> None:
    """Once, or once for each patient whose exam has the UID in the path, whoever may see it."""
    named = ask.study or ask.filters.get("0020000D", "")
    assert {(e.kind, e.study_uid) for e in events} == {(EventKind.QUERY, "" if "," in named else named)}
    asked = [s for s in asked_sites(ask, Who()) if not region.habits_of(s).down]
    held = [c for c in region.held if c.study == ask.study and c.site in asked]
    assert all(bool(e.origin) == bool(held) for e in events)
    if not held:
        assert [(e.patient_id, e.holders) for e in events] == [("", ())]
        return
    assert {site for e in events for site in e.holders} == {c.site for c in held}
    assert len({(e.patient_id, e.origin, e.holders) for e in events}) == len(events) <= len(held)


def check_metadata(region: Region, who: Who, get: Get, seen: Seen, events: Sequence[Event]) -> None:
    expected = metadata(region, who, get)
    status = int(seen.error[1]) if seen.error else 200
    exam = expected.exam
    failing = any(h.fails_at_metadata for h in region.habits.values())
    if status != 200:
        allowed = {expected.status} if not expected.or_refused else {200, 404}
        assert status in allowed or (failing and status == 502 and expected.status != 409), (status, expected)
        return
    assert expected.status == 200, expected
    assert exam is not None
    given = [Row(*r) for r in seen.uids("instance")]
    assert len(given) == len({*given})
    complete = seen.flags[0]
    assert {r.uid for r in given} == {r.uid for r in expected.rows} or (failing and not complete)
    for row in given:
        if row not in expected.rows:
            own = [c for c in exam.copies if Exam((c,)).patient_id == row.patient_id]
            assert expected.or_refused
            assert any(may_see(region, who, Exam((c,)), instances=True) for c in own)
    accessed = [e for e in events if e.kind is EventKind.ACCESSED]
    assert (nameless(accessed[0].patient_id), accessed[0].origin) == (exam.patient_id, exam.origin)
    # Each patient whose instances were given is traced, once.
    traced = [nameless(e.patient_id) for e in accessed]
    assert {row.patient_id for row in given} <= {*traced}
    assert len({(e.patient_id, e.origin) for e in accessed}) == len(accessed)
    assert {e.study_uid for e in accessed} == {get.study}


OPPOSED = (Refusal(number=1, studies=("1.1",)),)


@given(
    region=regions(habits(fails_on_uids=True)),
    who=whos,
    asked=st.lists(asks() | gets(), min_size=1, max_size=3),
    before=st.lists(requests, max_size=1),
    cap=st.sampled_from([1, 2, 3, 1000]),
    which=st.integers(0, 2),
    gone=st.integers(0, 6),
)
@example(  # hidden rows take places, and tell whose the others are
    region=Region(
        held=(
            Held(site=ROMO),
            Held(site=BLOIS, patient_id="2", code=ROMO, other=("1", ROMO)),
            Held(site=ROMO, study="1.2"),
            Held(site=BLOIS, study="1.2", patient_id=f"1@{ROMO}"),
        ),
        refusals=(Refusal(number=1, studies=("1.2",)), Refusal(number=2, patient=("2", BLOIS))),
    ),
    who=Who(),
    asked=[Ask()],
    before=[],
    cap=1,
    which=1,
    gone=2,
)
@example(  # a member that fails when it is asked whether it has one too
    region=Region(
        held=(Held(site=ROMO), Held(site=BLOIS, study="1.2", patient_id="2")),
        habits={BLOIS: Habits(fails_on_uids=True)},
        holds={("1.1", ROMO): True},
    ),
    who=Who(),
    asked=[Ask(filters={IPP: "1"})],
    before=[],
    cap=1000,
    which=0,
    gone=0,
)
@example(  # copies that are remembered
    region=Region(
        held=(Held(site=ROMO), Held(site=BLOIS, patient_id=f"1@{ROMO}"), Held(site=TOURS, study="1.2")),
        refusals=OPPOSED,
    ),
    who=Who(),
    asked=[Ask(filters={IPP: "1"}), Ask(level="series", filters={IPP: f"1@{ROMO}"})],
    before=[(OTHER, Ask(own_site=True))],
    cap=1000,
    which=0,
    gone=2,
)
@example(  # what is remembered of it since somebody else looked at it
    region=Region(held=(Held(site=ROMO),), refusals=OPPOSED),
    who=Who(),
    asked=[Get()],
    before=[(OTHER, Get())],
    cap=1000,
    which=0,
    gone=0,
)
@settings(max_examples=400)
def test_nothing_tells_of_an_exam_that_may_not_be_seen(region, who, asked, before, cap, which, gone) -> None:
    """Whichever of its copies are there. `before`: what somebody else asked, and the engine may remember."""
    held = [c.study for c in region.held]
    if not any(is_hidden(region, who, s) for s in held):
        region = replace(region, refusals=(*region.refusals, Refusal(number=9, studies=(held[0],))))
    hidden = [s for s in STUDIES if s in held and is_hidden(region, who, s)]
    if not hidden:
        return  # he works where it was made
    study = hidden[which % len(hidden)]
    its = [c for c in region.held if c.study == study]
    taken = [c for n, c in enumerate(its) if (gone % (2 ** len(its) - 1) + 1) >> n & 1]
    without = replace(region, held=tuple(c for c in region.held if c not in taken))
    unclear = any(h.terse or h.nameless for h in region.habits.values())
    if unclear:
        cap = 1000  # whose a row is that does not say so is found out after it has taken its place
    all_asked = [*before, *((who, request) for request in asked)]
    first, second = ([s for s, _ in answers(r, all_asked, member_cap=cap)][len(before) :] for r in (region, without))
    # Who is cut is asked for more; who holds it himself may look there.
    as_often = cap == 1000 and not unclear and who.home not in {c.site for c in its}
    for request, seen, other in zip(asked, first, second, strict=True):
        if as_often or request.study:
            assert seen == other
        else:
            assert replace(seen, questions={}) == replace(other, questions={})


@given(region=regions(habits(fails_on_uids=False)), asked=requests)
@settings(max_examples=100)
def test_nothing_is_shown_where_no_trace_can_be_made(region: Region, asked: tuple[Who, Ask | Get]) -> None:
    ((seen, _),) = answers(region, [asked], traces=False)
    assert seen.rows == []
    assert seen.error
