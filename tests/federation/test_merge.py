"""Merging, ordering and paging, against a plain slow model."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, SITES, TOURS, record

from federation.identity import same_person
from federation.merge import COUNTS, UID_OF, Hit, Merged, merge, ordered, page
from federation.model import Level
from federation.tagging import element

NUMBER = {Level.SERIES: "00200011", Level.INSTANCE: "00200013"}


def hit(uid: str, holder: Any, patient_id: str = "4547", level: Level = Level.STUDY, **more: Any) -> Hit:
    study = more.pop("study", "1.1")
    tags = {UID_OF[level]: uid} | more.pop("tags", {})
    row = {t: element("LO", v) if v is not None else element("LO") for t, v in tags.items()}
    matched = more.pop("matched", True)
    return Hit(
        record=record(patient_id, holder, **more),
        row=row,
        study_uid=uid if level is Level.STUDY else study,
        matched=matched,
    )


# The model: one row per UID and person; holders in the identity's order; a plain comparison of two rows.


def model(level: Level, hits: list[Hit]) -> list[tuple[str, list[tuple[str, str]]]]:
    rows: list[list[Hit]] = []
    for study in {h.study_uid for h in hits}:
        people: list[list[Hit]] = []
        for h in (h for h in hits if h.study_uid == study):
            mine = [p for p in people if any(same_person(h.record, o.record) or _one(h, o) for o in p)]
            people = [p for p in people if p not in mine] + [[h, *(o for p in mine for o in p)]]
        for person in people:
            for uid in {_text(h, UID_OF[level]) for h in person}:
                here = [h for h in person if _text(h, UID_OF[level]) == uid]
                if any(h.matched for h in here):
                    rows.append(here)
    return [(_text(r[0], UID_OF[level]), who(r)) for r in rows]


def who(hits: list[Hit]) -> list[tuple[str, str]]:
    return sorted((h.holder.emetteur, h.record.raw_patient_id) for h in hits)


def _one(a: Hit, b: Hit) -> bool:
    return (a.holder.emetteur, a.record.raw_patient_id) == (b.holder.emetteur, b.record.raw_patient_id)


def _text(h: Hit, tag: str) -> str:
    return str((h.row.get(tag, {}).get("Value") or [""])[0])


def value(m: Merged, tag: str) -> str:
    return str((m.row.get(tag, {}).get("Value") or [""])[0])


def before(level: Level, a: Merged, b: Merged) -> int:
    """-1 if `a` comes before `b` in the order of the specification."""
    keys: list[tuple[Any, Any, bool]] = []  # (of a, of b, descending)
    if level is Level.STUDY:
        keys += [(value(a, tag), value(b, tag), True) for tag in ("00080020", "00080030")]
    else:
        na, nb = value(a, NUMBER[level]), value(b, NUMBER[level])
        keys.append((na == "", nb == "", False))
        keys.append((int(na or 0), int(nb or 0), False))
    keys += [(a.uid, b.uid, False), (a.holders[0].emetteur, b.holders[0].emetteur, False)]
    for x, y, descending in keys:
        if x != y:
            return -1 if (x < y) != descending else 1
    return 0


_dates = st.sampled_from([None, "20200101", "20200101", "20210315", "19991231"])
_times = st.sampled_from([None, "090000", "0930", "235959.5"])
_ids = st.sampled_from(["4547", "B99", "", "4547@csrom41200"])
_traits = st.sampled_from([{}, {"name": "DUPONT", "birth_date": "19600512", "sex": "F"}])


@st.composite
def _hits(draw: st.DrawFn, level: Level) -> list[Hit]:
    count = draw(st.integers(0, 14))
    found: dict[tuple[str, str, str, str], Hit] = {}
    for _ in range(count):
        uid = f"1.{draw(st.integers(1, 4))}"
        tags = {"00080020": draw(_dates), "00080030": draw(_times)}
        if level is not Level.STUDY:
            tags = {NUMBER[level]: draw(st.sampled_from([None, "1", "2", "10", "-1"]))}
        new = hit(
            uid,
            draw(st.sampled_from(SITES)),
            draw(_ids),
            level,
            tags=tags,
            study=f"1.{draw(st.integers(1, 2))}",
            matched=draw(st.integers(0, 5)) > 0,
            **draw(_traits),
        )
        # One row per UID and patient from one member, and one word of it on who that is: the search sees to that.
        key = (new.holder.emetteur, new.record.raw_patient_id, new.study_uid)
        same = next((h for k, h in found.items() if k[:3] == key), None)
        if same is not None:
            new = Hit(record=same.record, row=new.row, study_uid=new.study_uid, matched=new.matched)
        found[(*key, uid)] = new
    return list(found.values())


@pytest.mark.parametrize("level", Level)
@given(data=st.data(), limit=st.integers(1, 5))
@settings(max_examples=150)
def test_walking_the_pages_gives_each_row_once_in_order(level: Level, data: st.DataObject, limit: int) -> None:
    hits = data.draw(_hits(level))
    rows = ordered(level, merge(level, hits, DIRECTORY))
    found = [(m.uid, who(m.hits)) for m in rows]
    expected = model(level, hits)
    assert sorted(found) == sorted(expected)
    assert all(before(level, a, b) <= 0 for a, b in itertools.pairwise(rows))
    assert rows == sorted(rows, key=functools.cmp_to_key(lambda a, b: before(level, a, b)))
    # Whoever answers first.
    shuffled = data.draw(st.permutations(hits))
    again = ordered(level, merge(level, shuffled, DIRECTORY))
    assert [(m.uid, m.study_uid, m.row, m.holders, m.identity) for m in again] == [
        (m.uid, m.study_uid, m.row, m.holders, m.identity) for m in rows
    ]
    # The pages.
    walked: list[Merged] = []
    while True:
        cut, remaining = page(rows, len(walked), limit)
        walked += cut
        assert remaining == len(rows) - len(walked)
        if not remaining:
            break
        assert len(cut) == limit
    assert walked == rows


def test_pages() -> None:
    rows = list(range(10))
    assert page(rows, 0, None) == (rows, 0)
    assert page(rows, 3, None) == (rows[3:], 0)
    assert page(rows, 0, 0) == ([], 10)
    assert page(rows, 8, 5) == ([8, 9], 0)
    assert page(rows, 20, 5) == ([], 0)
    assert page([], 0, 5) == ([], 0)


def test_studies_newest_first_undated_last() -> None:
    rows = [
        hit("1.1", BLOIS, tags={"00080020": "20200101", "00080030": "0930"}),
        hit("1.2", BLOIS, tags={"00080020": "20200101", "00080030": "10:00:00"}),
        hit("1.3", BLOIS, tags={"00080020": "20210101"}),
        hit("1.4", BLOIS),
        hit("1.5", BLOIS, tags={"00080020": None, "00080030": "235959"}),
        hit("1.6", BLOIS, tags={"00080020": "20200101", "00080030": None}),
        hit("1.7", TOURS, tags={"00080020": "20210101"}),
    ]
    found = [m.uid for m in ordered(Level.STUDY, merge(Level.STUDY, rows, DIRECTORY))]
    assert found == ["1.3", "1.7", "1.2", "1.1", "1.6", "1.5", "1.4"]


def test_series_and_instances_by_number_unnumbered_last() -> None:
    for level in (Level.SERIES, Level.INSTANCE):
        numbers: list[Any] = ["10", "9", None, "-1", "x", 2, "9"]
        rows = [hit(f"1.{i}", BLOIS, level=level, tags={NUMBER[level]: n}) for i, n in enumerate(numbers)]
        found = [m.uid for m in ordered(level, merge(level, rows, DIRECTORY))]
        assert found == ["1.3", "1.5", "1.1", "1.6", "1.0", "1.2", "1.4"]


def test_holders_of_one_person_s_study_are_one_row() -> None:
    marie = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
    first = hit("1.1", ROMORANTIN, "4547", tags={"00081030": None, "00080050": "A1", "00080061": "SR"}, **marie)
    second = hit("1.1", BLOIS, "B99", tags={"00081030": "Thorax", "00080050": "B1", "00080061": "CT"}, **marie)
    (row,) = merge(Level.STUDY, [second, first], DIRECTORY)
    assert row.holders == (ROMORANTIN, BLOIS)
    assert row.identity.ids == (("4547", "csrom41200"), ("B99", "csblo41000"))
    assert row.row["00081030"]["Value"] == ["Thorax"]  # what the preferred holder lacks
    assert row.row["00080050"]["Value"] == ["A1"]
    assert row.row["00080061"]["Value"] == ["CT", "SR"]
    assert first.row["00080061"]["Value"] == ["SR"]  # a member's row is not written into


def test_counts_are_no_sums() -> None:
    for tag in COUNTS:
        rows = [hit("1.1", ROMORANTIN, tags={tag: 3}), hit("1.1", BLOIS, "4547@csrom41200", tags={tag: "5"})]
        (row,) = merge(Level.STUDY, rows, DIRECTORY)
        assert row.row[tag]["Value"] == [5]


def test_different_people_are_never_one_row() -> None:
    rows = merge(Level.STUDY, [hit("1.1", ROMORANTIN), hit("1.1", BLOIS)], DIRECTORY)
    assert [(m.holders, m.identity.ids) for m in ordered(Level.STUDY, rows)] == [
        ((BLOIS,), (("4547", "csblo41000"),)),
        ((ROMORANTIN,), (("4547", "csrom41200"),)),
    ]


def test_a_row_that_only_completes_another_is_none_by_itself() -> None:
    alone = hit("1.1", BLOIS, "4547@csrom41200", matched=False)
    assert merge(Level.STUDY, [alone], DIRECTORY) == []
    (row,) = merge(Level.STUDY, [alone, hit("1.1", ROMORANTIN)], DIRECTORY)
    assert row.holders == (ROMORANTIN, BLOIS)


def test_known_holders_count_for_the_identity_but_are_none() -> None:
    """Romorantin is down: the exam keeps its patient's id."""
    marie = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
    known = {"1.1": [record("4547", ROMORANTIN, **marie)]}
    (row,) = merge(Level.STUDY, [hit("1.1", ORLEANS, "O1", **marie)], DIRECTORY, known)
    assert row.holders == (ORLEANS,)
    assert row.identity.main.id == ("4547", "csrom41200")
    assert row.identity.ids == (("4547", "csrom41200"), ("O1", "ch-orleans_45"))
