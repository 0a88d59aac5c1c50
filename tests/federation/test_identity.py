"""Whose exam it is: origins, ids, and who is the same person."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, SITES, TOURS, record

from federation.identity import (
    PATIENT_ID_MAX,
    Id,
    Identity,
    Naming,
    Record,
    first_of,
    group,
    instance_identity,
    nobody,
    origin_code,
    other_ids,
    qualify,
    record_of,
    resolve,
    same_person,
    text_of,
)
from federation.long_ids import LongPatientIDs
from registry import Site

QUALIFIED = Naming(qualified=True, issuer="IMAGORA", oid="1.2.250.1.999")
LOCAL = Naming(qualified=False, issuer="IMAGORA")
MARIE = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}


@pytest.mark.parametrize(
    ("raw", "holder", "options", "expected"),
    [
        ("4547", ROMORANTIN, {}, ("4547", ROMORANTIN, ROMORANTIN)),
        ("4547@csrom41200", BLOIS, {}, ("4547", ROMORANTIN, ROMORANTIN)),
        ("4547@CSROM41200", BLOIS, {}, ("4547", ROMORANTIN, ROMORANTIN)),
        ("a@b@csrom41200", BLOIS, {}, ("a@b", ROMORANTIN, ROMORANTIN)),
        ("a@b", BLOIS, {}, ("a@b", BLOIS, BLOIS)),
        ("@csrom41200", BLOIS, {}, ("@csrom41200", BLOIS, BLOIS)),
        ("4547@", BLOIS, {}, ("4547@", BLOIS, BLOIS)),
        ("", BLOIS, {}, ("", BLOIS, BLOIS)),
        # Padding says nothing, wherever it stands.
        ("4547 @csrom41200", BLOIS, {}, ("4547", ROMORANTIN, ROMORANTIN)),
        (" 4547\0@csrom41200", BLOIS, {"coded_origin": TOURS}, ("4547", ROMORANTIN, TOURS)),
        (" @csrom41200", BLOIS, {}, (" @csrom41200", BLOIS, BLOIS)),
        # The coded origin comes first; the id is its own.
        ("4547@csrom41200", BLOIS, {"coded_origin": TOURS}, ("4547", ROMORANTIN, TOURS)),
        ("4547", ROMORANTIN, {"coded_origin": ROMORANTIN}, ("4547", ROMORANTIN, ROMORANTIN)),
        # A copy filed under the holder's own id is never that id of the origin.
        ("B99", BLOIS, {"coded_origin": ROMORANTIN}, ("B99", BLOIS, ROMORANTIN)),
        ("B99", BLOIS, {"coded_origin": ROMORANTIN, "issuer": "BLOIS"}, ("B99", BLOIS, ROMORANTIN)),
        ("B99", BLOIS, {"coded_origin": ROMORANTIN, "others": [("7", "csblo41000")]}, ("B99", BLOIS, ROMORANTIN)),
        ("B99", BLOIS, {"coded_origin": ROMORANTIN, "others": [("", "csrom41200")]}, ("B99", BLOIS, ROMORANTIN)),
        ("B99", BLOIS, {"issuer": "csrom41200"}, ("B99", BLOIS, BLOIS)),
        ("B99", BLOIS, {"others": [("4547", "csrom41200")]}, ("B99", BLOIS, BLOIS)),
        # Unless the data say whose it is.
        ("4547", BLOIS, {"coded_origin": ROMORANTIN, "issuer": "CSROM41200"}, ("4547", ROMORANTIN, ROMORANTIN)),
        ("", BLOIS, {"coded_origin": ROMORANTIN, "issuer": "csrom41200"}, ("", BLOIS, ROMORANTIN)),
        (
            "B99",
            BLOIS,
            {"coded_origin": ROMORANTIN, "others": [("7", "x"), ("4547", "CSROM41200")]},
            ("4547", ROMORANTIN, ROMORANTIN),
        ),
    ],
)
def test_origins_and_ids(raw: str, holder: Site, options: dict[str, Any], expected: tuple[str, Site, Site]) -> None:
    assert resolve(raw, holder, DIRECTORY, **options) == expected


def test_a_row_is_read() -> None:
    row: dict[str, dict[str, Any]] = {
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00080082": {
            "vr": "SQ",
            "Value": [
                None,
                {"00080100": {"Value": ["410"]}, "00080102": {"Value": ["FINESS"]}},
                {"00080100": {"Value": ["423"]}, "00080102": {"Value": ["99IMAGORA"]}},
            ],
        },
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Dupont^Marie", "Ideographic": "x"}]},
        "00100020": {"vr": "LO", "Value": [" B99 \0"]},
        "00100030": {"vr": "DA", "Value": ["19600512"]},
        "00100040": {"vr": "CS", "Value": ["f"]},
        "00101002": {"vr": "SQ", "Value": [{"00100020": {"Value": ["4547"]}, "00100021": {"Value": ["csrom41200"]}}]},
    }
    found = record_of(row, BLOIS, DIRECTORY)
    assert (found.raw_patient_id, found.ipp, found.authority, found.origin) == ("B99", "4547", ROMORANTIN, ROMORANTIN)
    assert found.traits == ("dupont^marie", "19600512", "F")
    assert (found.shown_name, found.study_uid) == ("Dupont^Marie", "1.2.3")
    assert found.own_id == ("B99", "csblo41000")
    assert origin_code(row, DIRECTORY) == ROMORANTIN
    assert other_ids(row) == [("4547", "csrom41200")]
    empty = record_of({}, BLOIS, DIRECTORY)
    assert (empty.ipp, empty.origin, empty.traits) == ("", BLOIS, None)


@pytest.mark.parametrize("code", ["", "999", "423x", "４２３", "-1", "9" * 40, "²"])
def test_codes_of_no_site_are_no_origin(code: str) -> None:
    row = {"00080082": {"Value": [{"00080100": {"Value": [code]}, "00080102": {"Value": ["99IMAGORA"]}}]}}
    if code == "４２３":  # digits, though of another width
        assert origin_code(row, DIRECTORY) in (None, ROMORANTIN)
    else:
        assert origin_code(row, DIRECTORY) is None


def test_values_of_any_type_are_read_as_text() -> None:
    assert text_of({"00200011": {"Value": [3]}}, "00200011") == "3"
    assert text_of({"00200011": {"Value": [None]}}, "00200011") == ""
    assert text_of({"00200011": {}}, "00200011") == ""
    assert first_of({"00200011": {"Value": []}}, "00200011") is None


# How patients are named -----------------------------------------------------------------------------------------------

_ipps = st.text(
    st.characters(codec="utf-8", exclude_characters="\\\0", exclude_categories=["Cc", "Zs"]), min_size=1, max_size=64
)


@given(_ipps, st.sampled_from(SITES), st.sampled_from(SITES))
def test_a_qualified_id_is_qualified_once_wherever_it_goes(ipp: str, origin: Site, holder: Site) -> None:
    known: dict[str, Id] = {}
    naming = Naming(qualified=True, issuer="IMAGORA", long_ids=known.get, note=known.__setitem__)
    mine = record(ipp, origin)
    shown = naming.patient_id(mine)
    assert len(shown) <= PATIENT_ID_MAX
    copy_ipp, authority, copy_origin = resolve(shown, holder, DIRECTORY, long_ids=known.get)
    assert (copy_ipp, authority, copy_origin) == (mine.ipp, mine.authority, mine.origin)
    copy = Record(holder=holder, raw_patient_id=shown, ipp=copy_ipp, authority=authority, origin=copy_origin)
    assert naming.patient_id(copy) == shown
    # A process that has not heard of the hashed form yet shows the same, and spoils nothing.
    fresh: dict[str, Id] = {}
    deaf = Naming(qualified=True, issuer="IMAGORA", long_ids=fresh.get, note=fresh.__setitem__)
    assert deaf.patient_id(record(shown, holder)) == shown
    assert fresh == {}


def test_ids_over_64_characters_are_hashed_and_noted() -> None:
    ids = LongPatientIDs()
    woken = []
    ids.wake = lambda: woken.append(1)
    naming = Naming(qualified=True, issuer="IMAGORA", long_ids=ids.get, note=ids.note)
    fits, over = "x" * (PATIENT_ID_MAX - len("@csrom41200")), "x" * (PATIENT_ID_MAX - len("@csrom41200") + 1)
    assert naming.patient_id(record(fits, ROMORANTIN)) == f"{fits}@csrom41200"
    assert not woken
    shown = naming.patient_id(record(over, ROMORANTIN))
    assert shown.endswith("@csrom41200")
    assert len(shown) < PATIENT_ID_MAX
    assert shown != naming.patient_id(record(over, BLOIS))
    assert ids.get(shown) == (over, "csrom41200")
    assert len(ids.take_pending()) == 2
    assert ids.take_pending() == []
    naming.patient_id(record(over, ROMORANTIN))
    assert ids.take_pending() == []
    assert len(woken) == 2
    assert LongPatientIDs({shown: (over, "csrom41200")}).get(shown) == (over, "csrom41200")


def test_ids_that_would_be_read_as_several_are_hashed() -> None:
    known: dict[str, tuple[str, str]] = {}
    naming = Naming(qualified=True, issuer="IMAGORA", long_ids=known.get, note=known.__setitem__)
    shown = naming.patient_id(record("4547\\A", TOURS))
    assert shown != naming.patient_id(record("4547\\B", TOURS))
    assert "\\" not in shown
    assert known[shown] == ("4547\\A", "CHUTours")


def test_exams_without_patient_id_are_never_one_patient_s() -> None:
    """Viewers group exams by PatientID, an empty one too."""
    first, second = (replace(record("", BLOIS), study_uid=uid) for uid in ("1.2", "1.3"))
    assert QUALIFIED.patient_id(first) == nobody("1.2", BLOIS)
    assert QUALIFIED.patient_id(first) != QUALIFIED.patient_id(second)
    assert len(QUALIFIED.patient_id(first)) <= PATIENT_ID_MAX
    assert not same_person(first, second)
    assert Identity(records=(first,)).ids == ()


def test_issuers() -> None:
    mine = record("4547", ROMORANTIN)
    assert (QUALIFIED.patient_id(mine), QUALIFIED.issuer_of(mine)) == ("4547@csrom41200", "IMAGORA")
    assert QUALIFIED.issuer_oid(mine) == "1.2.250.1.999"
    assert (LOCAL.patient_id(mine), LOCAL.issuer_of(mine)) == ("4547", "csrom41200")
    assert LOCAL.issuer_oid(mine) == ROMORANTIN.oid
    assert LOCAL.issuer_oid(record("1", BLOIS)) == ""
    assert qualify("4547", TOURS) == "4547@CHUTours"


# Who is one person ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (record("4547", ROMORANTIN), record("4547@csrom41200", BLOIS), True),
        (record("4547", ROMORANTIN), record("4547", BLOIS), False),  # two people who share an IPP
        (record("4547", ROMORANTIN, **MARIE), record("B99", BLOIS, **MARIE | {"name": "Dupont^Märie"}), True),
        (record("4547", ROMORANTIN, **MARIE), record("4547", BLOIS, **MARIE | {"birth_date": "19600513"}), False),
        (record("4547", ROMORANTIN, **MARIE), record("B99", BLOIS, **MARIE | {"birth_date": ""}), False),
        (record("1", ROMORANTIN, **MARIE | {"sex": ""}), record("2", BLOIS, **MARIE | {"sex": ""}), False),
        (record("", ROMORANTIN), record("", BLOIS), False),
        (record("", ROMORANTIN, **MARIE), record("", BLOIS, **MARIE), True),
        (record("B99", BLOIS, coded=ROMORANTIN, others=[("4547", "csrom41200")]), record("4547", ROMORANTIN), True),
        (record("4547", BLOIS, coded=ROMORANTIN), record("4547", ROMORANTIN), False),
    ],
)
def test_same_person(a: Record, b: Record, same: bool) -> None:
    assert same_person(a, b) is same
    assert same_person(b, a) is same
    assert len(group([a, b], DIRECTORY)) == (1 if same else 2)


def test_the_origin_s_own_record_comes_first_whatever_the_registry_order() -> None:
    tours, copy = record("T1", TOURS), record("T1@CHUTours", ROMORANTIN)
    (identity,) = group([copy, tours], DIRECTORY)
    assert identity.main == tours
    assert identity.ids == (("T1", "CHUTours"),)


def test_a_copy_that_names_its_origin_comes_before_the_others() -> None:
    """So that the patient's id is the same while the origin is down."""
    own = record("R1", ROMORANTIN, **MARIE)
    copy = record("T1@CHUTours", BLOIS, **MARIE)
    tours = record("T1", TOURS, **MARIE)
    for present in ([own, copy, tours], [own, copy]):
        (identity,) = group(present, DIRECTORY)
        assert QUALIFIED.patient_id(identity.main) == "T1@CHUTours"
        assert identity.origin == TOURS
    (identity,) = group([own, tours], DIRECTORY)
    assert identity.main == own  # nobody says who made it: registry order


def test_an_origin_that_a_holder_s_data_bear_is_the_study_s() -> None:
    """Blois took it in under its own IPP; Romorantin, first in the registry, has a copy that says nothing."""
    silent, coerced = record("R1", ROMORANTIN, **MARIE), record("B99", BLOIS, coded=TOURS, **MARIE)
    (identity,) = group([silent, coerced], DIRECTORY)
    assert identity.origin == TOURS
    assert QUALIFIED.patient_id(identity.main) == "R1@csrom41200"
    assert Identity(records=(coerced,)).origin == TOURS
    assert Identity(records=(silent,)).origin == ROMORANTIN


def test_who_is_one_person_with_one_of_them_is_with_all() -> None:
    a = record("4547", ROMORANTIN)
    b = record("4547@csrom41200", BLOIS, **MARIE)
    c = record("T1", TOURS, **MARIE)
    d = record("4547", ORLEANS)
    for order in itertools.permutations([a, b, c, d]):
        one, other = group(order, DIRECTORY)
        assert set(one.records) == {a, b, c}
        assert one.main == a
        assert other.records == (d,)


_records = st.builds(
    record,
    st.sampled_from(["", "1", "2", "1@csrom41200", "2@CHUTours", "1@csblo41000"]),
    st.sampled_from(SITES),
    name=st.sampled_from(["", "DUPONT^MARIE", "Dupont^Marié"]),
    birth_date=st.sampled_from(["", "19600512"]),
    sex=st.sampled_from(["", "F"]),
    coded=st.sampled_from([None, None, ROMORANTIN, TOURS]),
)


@given(st.lists(_records, max_size=7, unique_by=lambda r: (r.holder.emetteur, r.raw_patient_id)), st.randoms())
def test_grouping_is_that_of_a_plain_slow_model(records: list[Record], random: Any) -> None:
    found = group(records, DIRECTORY)
    shuffled = list(records)
    random.shuffle(shuffled)
    assert group(shuffled, DIRECTORY) == found
    # The model: two are one person if a chain of pairs leads from one to the other.
    linked = {(i, j) for i, a in enumerate(records) for j, b in enumerate(records) if i == j or same_person(a, b)}
    for k, i, j in itertools.product(range(len(records)), repeat=3):
        if (i, k) in linked and (k, j) in linked:
            linked.add((i, j))
    model = {frozenset(records[j] for j in range(len(records)) if (i, j) in linked) for i in range(len(records))}
    assert {frozenset(i.records) for i in found} == model
    assert sum(len(i.records) for i in found) == len(records)
    firsts = [min(DIRECTORY.position(r.holder) for r in i.records) for i in found]
    assert firsts == sorted(firsts)


def test_an_instance_is_the_study_s_only_if_it_bears_an_id_of_it() -> None:
    located = Identity(records=(record("4547", ROMORANTIN), record("B99", BLOIS)))
    assert instance_identity(located, record("4547", ROMORANTIN), coded=False) is located
    assert instance_identity(located, record("B99", BLOIS), coded=False) is located
    assert instance_identity(located, record("4547@csrom41200", TOURS), coded=False) is located
    for stranger in (record("666", ROMORANTIN), record("", ROMORANTIN), record("4547", BLOIS), record("B99", TOURS)):
        found = instance_identity(located, stranger, coded=False)
        assert found.records == (stranger,)
    coded = record("B99", BLOIS, coded=TOURS)  # it names an origin that is not the study's
    assert instance_identity(located, coded, coded=True).records == (coded,)
    mine = record("4547", ROMORANTIN, coded=ROMORANTIN)
    assert instance_identity(located, mine, coded=True) is located


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ([record("1", BLOIS, **MARIE)], True),
        ([record("1", BLOIS, **MARIE), record("2", BLOIS, **MARIE)], True),  # one holder
        ([record("1", BLOIS, **MARIE), record("2", TOURS, **MARIE)], False),
        ([record("1", BLOIS, **MARIE), record("2", TOURS, **MARIE, coded=BLOIS)], True),
        ([record("1", BLOIS, **MARIE), record("1@csblo41000", TOURS, **MARIE)], True),
        ([record("1", BLOIS, **MARIE), record("2", TOURS, **MARIE, coded=TOURS)], False),
    ],
)
def test_origin_that_nothing_names_is_a_guess(records: list[Record], named: bool) -> None:
    (identity,) = group(records, DIRECTORY)
    assert identity.origin_named is named
