"""Does a row match, and are members asked for all that does?"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, SITES, TOURS, record, site

from federation.identity import Id, Identity, Naming, Record, qualify, resolve
from federation.matching import (
    filters_for,
    matches_exact_or_wild,
    matches_patient_id,
    matches_row,
    matches_tagged,
    matches_text,
    matches_value,
    patient_ids_to_ask,
    split_qualified,
    vr_of,
)
from registry import Directory, Site

QUALIFIED = Naming(qualified=True, issuer="IMAGORA")
LOCAL = Naming(qualified=False, issuer="IMAGORA")
LONG = "x" * 60


@pytest.mark.parametrize(
    ("tag", "wanted", "values", "yes"),
    [
        ("0020000D", "1.2,1.3", ["1.3"], True),
        ("0020000D", "1.2\\1.3", ["1.2"], True),
        ("0020000D", "1.2", ["1.2.3"], False),
        ("00080061", "CT", ["CT", "SR"], True),
        ("00080061", "CT\\MR", ["MR"], True),
        ("00080061", "C*", ["MR", "CR"], True),
        ("00080061", "US", ["CT"], False),
        ("00081030", "*thorax*", ["TDM Thorax"], True),
        ("00081030", "scanner cérébral", ["SCANNER CEREBRAL"], True),
        ("00081030", "thorax", ["TDM Thorax"], False),
        ("00100040", "f", ["F"], True),
        ("00200011", "3", [3], True),
        ("00200011", "3", [30], False),
        ("00080050", "A?1", ["A11"], True),
        ("00080050", "A.1", ["A11"], False),
        ("00100010", "dupont", [{"Alphabetic": "DUPONT^MARIE"}], True),
        ("00080020", "2020", ["20200101", None], True),
        ("00081030", "x", [None], False),
        ("00091001", "x", ["X"], True),  # of unknown VR
    ],
)
def test_values(tag: str, wanted: str, values: list[Any], yes: bool) -> None:
    assert matches_value(tag, wanted, values) is yes


def test_identifiers_tell_cases_apart_and_texts_do_not() -> None:
    assert matches_exact_or_wild("ab*", "abc")
    assert not matches_exact_or_wild("ab*", "ABC")
    assert matches_exact_or_wild("a\n*", "a\nb\nc")
    assert not matches_exact_or_wild("a.c", "abc")
    assert matches_text("É*", "eab")
    assert vr_of("00100010") == "PN"
    assert vr_of("00091001") == "UN"


def test_wildcards_take_linear_time() -> None:
    started = time.process_time()
    for pattern in ("*a" * 500, "?*" * 500, "*a?" * 300 + "b"):
        matches_text(pattern, "a" * 5000)
        matches_exact_or_wild(pattern, "a" * 5000)
    assert time.process_time() - started < 2.0


def slow_wildcard(pattern: str, value: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(slow_wildcard(pattern[1:], value[i:]) for i in range(len(value) + 1))
    return bool(value) and pattern[0] in ("?", value[0]) and slow_wildcard(pattern[1:], value[1:])


@given(st.text(st.sampled_from("ab*?"), max_size=8), st.text(st.sampled_from("ab"), max_size=8))
@settings(max_examples=400)
def test_wildcards_match_as_a_plain_slow_matcher_does(pattern: str, value: str) -> None:
    assert matches_exact_or_wild(pattern, value) is slow_wildcard(pattern, value)
    assert matches_text(pattern, value) is slow_wildcard(pattern, value)


# Rows -----------------------------------------------------------------------------------------------------------------


def row(**more: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT^MARIE"}]},
        "00100020": {"vr": "LO", "Value": ["4547"]},
        "00080050": {"vr": "SH"},
        "00101002": {"vr": "SQ", "Value": [{"00100020": {"vr": "LO", "Value": ["99"]}}, {}]},
    }
    return found | more


@pytest.mark.parametrize(
    ("filters", "yes"),
    [
        ({}, True),
        ({"00100010": "dupont"}, True),
        ({"00100010": "durand"}, False),
        ({"00100020": "4547"}, True),
        ({"00100020": "4547@csrom41200", "00100010": "D*"}, True),
        ({"00100020": "4547@csblo41000"}, False),
        ({"00100030": "1960"}, True),  # of the record, where the row has none
        ({"00100030": "1961"}, False),
        ({"00080050": "A1"}, False),  # present and empty
        ({"00080050": "*"}, True),
        ({"00081030": "thorax"}, True),  # not given: the member matched it, we can't tell
        ({"00101002.00100020": "99"}, True),
        ({"00101002.00100020": "9?"}, True),
        ({"00101002.00100021": "x"}, True),
        ({"00400275.00400009": "x"}, True),
        ({"00100021": "elsewhere"}, True),  # ours: matched once the row is tagged
        ({"00080082.00080100": "elsewhere"}, True),
    ],
)
def test_rows(filters: dict[str, str], yes: bool) -> None:
    mine = record("4547", ROMORANTIN, birth_date="19600512")
    assert matches_row(row(), filters, mine, QUALIFIED, DIRECTORY) is yes


def test_an_item_must_have_what_is_asked() -> None:
    mine = record("4547", ROMORANTIN)
    items = {"vr": "SQ", "Value": [{"00100020": {"vr": "LO", "Value": ["99"]}}]}
    assert not matches_row(row(**{"00101002": items}), {"00101002.00100020": "98"}, mine, QUALIFIED, DIRECTORY)
    assert not matches_row(row(**{"00101002": {"vr": "SQ"}}), {"00101002.00100020": "98"}, mine, QUALIFIED, DIRECTORY)


@pytest.mark.parametrize(
    ("filters", "yes"),
    [
        ({}, True),
        ({"00100021": "IMAGORA"}, True),
        ({"00100021": "CSROM*"}, True),
        ({"00100021": "csblo41000"}, False),
        ({"00080054": "CSROM41200"}, True),
        ({"00080054": "chutours"}, True),
        ({"00080054": "csblo41000"}, False),
        ({"00080080": "Romorantin*"}, True),
        ({"00080082.00080100": "423"}, True),
        ({"00080082.00080100": "424"}, False),
        ({"00081030": "whatever"}, True),
    ],
)
def test_tagged_rows(filters: dict[str, str], yes: bool) -> None:
    tagged = {
        "00100021": {"vr": "LO", "Value": ["IMAGORA"]},
        "00080054": {"vr": "AE", "Value": ["csrom41200", "CHUTours"]},
        "00080080": {"vr": "LO", "Value": ["Romorantin (CH)"]},
        "00080082": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["423"]}}]},
    }
    assert matches_tagged(tagged, filters, Identity(records=(record("4547", ROMORANTIN),))) is yes


# PatientID ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "split"),
    [
        ("4547@csrom41200", ("4547", ROMORANTIN)),
        ("4547@CSROM41200", ("4547", ROMORANTIN)),
        ("a@b@chutours", ("a@b", TOURS)),
        ("4547", None),
        ("4547@nowhere", None),
        ("@csrom41200", None),
        ("4547@", None),
    ],
)
def test_splitting_qualified_ids(value: str, split: tuple[str, Site] | None) -> None:
    assert split_qualified(value, DIRECTORY) == split


COPY = record("4547@csrom41200", BLOIS)
COERCED = record("B99", BLOIS, coded=ROMORANTIN, others=[("4547", "csrom41200")])


@pytest.mark.parametrize(
    ("wanted", "mine", "yes"),
    [
        ("4547", record("4547", ROMORANTIN), True),
        ("4547", record("4547", BLOIS), True),  # bare: everywhere
        ("4547", COPY, True),
        ("4547", COERCED, True),
        ("454", record("4547", ROMORANTIN), False),
        ("45*", record("4547", ROMORANTIN), True),
        ("45*", COPY, True),
        ("4547@csrom41200", record("4547", ROMORANTIN), True),
        ("4547@CSROM41200", record("4547", ROMORANTIN), True),
        ("4547@csrom41200", record("4547", BLOIS), False),
        ("4547@csrom41200", COPY, True),
        ("4547@csrom41200", COERCED, True),
        ("45?7@csrom41200", COPY, True),
        ("4547@csblo41000", COPY, False),
        ("B99", COERCED, True),  # every holder's own id matches
        ("B99@csblo41000", COERCED, True),
        ("b99@csblo41000", COERCED, False),
        ("B99@csrom41200", COERCED, False),
        ("*@csblo41000", record("1", BLOIS), True),
        ("4547@nowhere", record("4547@nowhere", BLOIS), True),
        ("4547@nowhere@csblo41000", record("4547@nowhere", BLOIS), True),
        ("", record("", BLOIS), False),
        ("*", record("", BLOIS), False),
        (qualify(LONG, BLOIS), record(LONG, BLOIS), True),
        (f"{LONG}@csblo41000", record(LONG, BLOIS), True),
    ],
)
def test_patient_ids(wanted: str, mine: Record, yes: bool) -> None:
    assert matches_patient_id(wanted, mine, QUALIFIED, DIRECTORY) is yes


def test_an_exam_without_patient_id_is_found_by_the_one_that_it_is_shown_under() -> None:
    mine = Record(holder=BLOIS, raw_patient_id="", ipp="", authority=BLOIS, origin=BLOIS, study_uid="1.2.3")
    shown = QUALIFIED.patient_id(mine)
    assert shown
    assert matches_patient_id(shown, mine, QUALIFIED, DIRECTORY)


_ipps = st.one_of(
    st.sampled_from(["4547", "B99", "a@b", "É1", "x y", LONG, "@csrom41200", "~1"]),
    st.text(st.sampled_from("ab1@"), min_size=1, max_size=4),
)


@given(_ipps, st.sampled_from(SITES), st.sampled_from(SITES), st.data())
@settings(max_examples=400)
def test_members_are_asked_for_every_row_that_matches(
    ipp: str, origin: Site, holder: Site, data: st.DataObject
) -> None:
    """Of the origin's own records and of copies as they leave through us, in any member."""
    qualified = data.draw(st.booleans())
    known: dict[str, Id] = {}
    naming = Naming(qualified=qualified, issuer="IMAGORA", long_ids=known.get, note=known.__setitem__)
    at_home = record(ipp, origin)
    shown = Naming(qualified=True, issuer="IMAGORA", note=known.__setitem__).patient_id(at_home)
    candidates = [at_home.raw_patient_id, shown]
    raw = data.draw(st.sampled_from(candidates))
    mine_ipp, authority, found_origin = resolve(raw, holder, DIRECTORY, long_ids=known.get)
    mine = Record(holder=holder, raw_patient_id=raw, ipp=mine_ipp, authority=authority, origin=found_origin)
    wanted = data.draw(
        st.sampled_from(
            [
                ipp,
                shown,
                f"{ipp}@{origin.emetteur}",
                f"{ipp}@{origin.emetteur.swapcase()}",
                raw,
                f"{raw}@{holder.emetteur}",
            ]
        )
    )
    if len(ipp) < 40 and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(ipp)))
        wanted = ipp[:at] + data.draw(st.sampled_from(["*", "?"])) + ipp[at + 1 :] + wanted[len(ipp) :]
    if not matches_patient_id(wanted, mine, naming, DIRECTORY):
        return
    asked = patient_ids_to_ask(wanted, holder, naming, DIRECTORY)
    assert any(strictly(pattern, raw) for pattern in asked), (wanted, raw, holder.emetteur, asked)


def strictly(pattern: str, value: str) -> bool:
    regex = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(regex, value, re.DOTALL) is not None


def test_what_a_member_is_asked_for() -> None:
    assert patient_ids_to_ask("4547", BLOIS, QUALIFIED, DIRECTORY) == ["4547", "4547@*"]
    assert patient_ids_to_ask("45*", BLOIS, QUALIFIED, DIRECTORY) == ["45*"]
    assert patient_ids_to_ask("4547@CSROM41200", BLOIS, QUALIFIED, DIRECTORY) == ["4547@csrom41200"]
    assert patient_ids_to_ask("4547@CSROM41200", ROMORANTIN, QUALIFIED, DIRECTORY) == ["4547", "4547@csrom41200"]
    assert patient_ids_to_ask("4547@CSROM41200", BLOIS, LOCAL, DIRECTORY) == ["4547@csrom41200", "4547"]
    known = {qualify(LONG, BLOIS): (LONG, "csblo41000")}
    naming = Naming(qualified=True, issuer="IMAGORA", long_ids=known.get)
    assert patient_ids_to_ask(qualify(LONG, BLOIS), BLOIS, naming, DIRECTORY)[0] == LONG
    assert patient_ids_to_ask(f"{LONG}@csblo41000", ORLEANS, naming, DIRECTORY) == [qualify(LONG, BLOIS)]


def test_filters_of_ours_are_not_asked_of_members() -> None:
    filters = {
        "00080054": "x",
        "00080082.00080100": "423",
        "00100021": "IMAGORA",
        "00080080": "y",
        "00080020": "20200131",
    }
    assert filters_for(filters, BLOIS, QUALIFIED, DIRECTORY) == [{"00080020": "20200131"}]


def test_names_and_ids_do_not_multiply() -> None:
    """One patient's rows are few, and his name is compared here."""
    asked = filters_for({"00100010": "DUPONT", "00100020": "4547"}, BLOIS, QUALIFIED, DIRECTORY)
    assert asked == [{"00100020": "4547"}, {"00100020": "4547@*"}]
    asked = filters_for({"00100010": "DUPONT", "00100020": "45*"}, BLOIS, QUALIFIED, DIRECTORY)
    assert [(f["00100010"], f["00100020"]) for f in asked] == [("D*", "45*"), ("d*", "45*")]


def test_hashes_of_many_sites_are_one_search() -> None:
    few = patient_ids_to_ask("9" * 60, BLOIS, QUALIFIED, DIRECTORY)
    assert few[2:] == [qualify("9" * 60, site) for site in SITES]
    many = Directory([site(f"s{n}", n) for n in range(40)], [])
    assert patient_ids_to_ask("9" * 63, BLOIS, QUALIFIED, many) == ["9" * 63, f"{'9' * 63}@*", "~*"]


def test_names_are_asked_as_the_member_compares_them() -> None:
    filters = {"00100010": "DUPONT"}
    assert filters_for(filters, TOURS, QUALIFIED, DIRECTORY) == filters_for(filters, BLOIS, QUALIFIED, DIRECTORY)
    assert filters_for(filters, TOURS, QUALIFIED, DIRECTORY, ignores_case=True)[0]["00100010"] == "D*P*T*"
    assert filters_for({"00100010": "É"}, BLOIS, QUALIFIED, DIRECTORY) == [{}]  # nothing can be named
