"""What the check of a chain says of each way to tamper with it. Values only."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.chain import START, Fault, Head, HeadKind, Link, Record, RunCheck, RunReport, Tip, append, digest

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
RECORD = Record(
    at=AT,
    kind="query",
    outcome="success",
    requester_id="10001234567",
    requester_name="MARTIN^CLAIRE",
    request_id="r-1",
    scope="all",
    query="PatientName=LÉVY*",
    study_uid="1.2.3",
    patient_id="4547@csa",
    origin="csa",
    holders=("csa", "csb"),
    detail='{"bytes":12}',
)


def chain(length: int, writer: str = "w", tip: Tip | None = None) -> list[Link]:
    links = []
    tip = tip or Tip(writer)
    for number in range(length):
        link, tip = append(tip, replace(RECORD, request_id=f"r-{number}"), AT + timedelta(seconds=number))
        links.append(link)
    return links


def head(link: Link, kind: HeadKind = HeadKind.HEAD) -> Head:
    return Head(writer=link.writer, sequence=link.sequence, hash=link.hash, kind=kind, signed_at=AT)


def check(links: list[Link], heads: list[Head]) -> RunReport:
    run = RunCheck("w", heads)
    for link in sorted(links, key=lambda one: one.sequence):
        run.feed(link)
    return run.finish()


def found(links: list[Link], heads: list[Head]) -> list[tuple[Fault, int, int]]:
    return [(f.fault, f.first, f.last) for f in check(links, heads).findings]


def test_a_chain_as_it_was_written_is_whole() -> None:
    links = chain(20)
    report = check(links, [head(links[9]), head(links[14])])
    assert report.findings == []
    assert (report.rows, report.last_sequence, report.unsealed) == (20, 20, 5)
    assert report.first_at == AT
    assert report.last_at == AT + timedelta(seconds=19)
    assert links[0].previous == START


def test_a_clock_that_goes_back_does_not_take_the_chain_along() -> None:
    first, tip = append(Tip("w"), RECORD, AT)
    second, _ = append(tip, RECORD, AT - timedelta(hours=1))
    assert second.recorded_at == first.recorded_at
    assert found([first, second], []) == []


@pytest.mark.parametrize("name", [f.name for f in fields(Record)])
def test_a_change_of_any_value_is_found(name: str) -> None:
    links = chain(5)
    other: dict[str, Any] = {"at": AT + timedelta(microseconds=1), "holders": ("csa",)}
    links[2] = replace(links[2], record=replace(links[2].record, **{name: other.get(name, "x")}))
    assert found(links, [head(links[4])]) == [(Fault.CHANGED, 3, 3)]


@pytest.mark.parametrize("change", [{"recorded_at": AT + timedelta(days=9)}, {"previous": START}, {"hash": START}])
def test_a_change_of_what_holds_the_chain_together_is_found(change: dict[str, Any]) -> None:
    links = chain(5)
    links[2] = replace(links[2], **change)
    assert found(links, []) == [(Fault.CHANGED, 3, 3)]


def test_moving_text_from_one_value_to_the_next_is_a_change() -> None:
    one = digest("w", 1, AT, START, replace(RECORD, scope="ab", query="c"))
    assert one != digest("w", 1, AT, START, replace(RECORD, scope="a", query="bc"))
    assert digest("w", 1, AT, START, replace(RECORD, holders=("a", "b"))) != digest(
        "w", 1, AT, START, replace(RECORD, holders=("ab",))
    )


def test_a_changed_row_with_its_hash_made_anew_does_not_fit_the_next() -> None:
    links = chain(5)
    record = replace(links[2].record, patient_id="other")
    own = digest("w", 3, links[2].recorded_at, links[2].previous, record)
    links[2] = replace(links[2], record=record, hash=own)
    assert found(links, []) == [(Fault.CHANGED, 3, 3)]


def test_a_chain_that_was_rewritten_to_its_end_does_not_fit_its_heads() -> None:
    links = chain(9)
    heads = [head(links[2]), head(links[8])]
    rewritten = links[:4]
    tip = Tip("w", 4, links[3].hash, links[3].recorded_at)
    for link in links[4:]:
        again, tip = append(tip, replace(link.record, requester_id="nobody"), link.recorded_at)
        rewritten.append(again)
    report = check(rewritten, heads)
    assert [(f.fault, f.first) for f in report.findings] == [(Fault.CHANGED, 9)]
    assert "rows from 4 up to it" in report.findings[0].text
    assert found(rewritten, heads[:1]) == []  # control: without the later head nobody could tell


@pytest.mark.parametrize(("removed", "named"), [((1,), (1, 1)), ((3,), (3, 3)), ((2, 3, 4), (2, 4))])
def test_removed_rows_are_named(removed: tuple[int, ...], named: tuple[int, int]) -> None:
    links = chain(6)
    assert found([link for link in links if link.sequence not in removed], [head(links[5])]) == [
        (Fault.REMOVED, *named)
    ]


def test_a_cut_tail_shows_by_a_head_only() -> None:
    links = chain(6)
    assert found(links[:4], [head(links[5])]) == [(Fault.CUT_OFF, 5, 6)]
    assert found([], [head(links[5])]) == [(Fault.CUT_OFF, 1, 6)]
    assert found(links[:4], [head(links[3])]) == []


def test_rows_that_changed_places_are_named() -> None:
    links = chain(6)
    links[2], links[3] = replace(links[3], sequence=3), replace(links[2], sequence=4)
    report = check(links, [])
    assert [(f.fault, f.first, f.last) for f in report.findings] == [(Fault.REORDERED, 3, 4)]
    assert "as row 4" in report.findings[0].text


def test_a_row_that_stands_twice_is_named() -> None:
    links = chain(4)
    assert found([*links, replace(links[1], recorded_at=AT + timedelta(days=40))], []) == [(Fault.ADDED, 2, 2)]


def test_what_retention_dropped_is_not_missing() -> None:
    links = chain(8)
    dropped = head(links[3], HeadKind.DROPPED)
    assert found(links[4:], [dropped, head(links[7])]) == []
    assert found(links, [dropped]) == []  # signed, but not dropped yet
    assert found(links[5:], [dropped]) == [(Fault.REMOVED, 5, 5)]
    assert found([], [dropped]) == []
    assert found([], [dropped, head(links[7])]) == [(Fault.CUT_OFF, 5, 8)]
    assert found(chain(4, tip=Tip("w", 4, bytes(32), AT)), [dropped]) == [(Fault.CHANGED, 5, 5)]


texts = st.text(max_size=8)


@given(st.data())
def test_whatever_one_row_is_changed_to_is_found(data: st.DataObject) -> None:
    links = chain(5)
    place = data.draw(st.integers(0, 4))
    name = data.draw(st.sampled_from(["kind", "requester_id", "query", "study_uid", "patient_id", "detail"]))
    value = data.draw(texts)
    if value == getattr(links[place].record, name):
        return
    links[place] = replace(links[place], record=replace(links[place].record, **{name: value}))
    assert found(links, []) == [(Fault.CHANGED, place + 1, place + 1)]
