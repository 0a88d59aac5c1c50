"""Rows that don't say whose they are."""

from __future__ import annotations

from typing import Any

import pytest
from support.values import BLOIS, DIRECTORY, ROMORANTIN

from federation.identity import Naming, record_of
from federation.merge import Hit
from federation.model import Attributes, Level
from federation.tagging import element
from federation.whose import Whose, is_told

NAMING = Naming(qualified=True, issuer="IMAGORA")
UID = "1.2.3"
TELLING = ("00100020", "00100010", "00100030", "00100040")


def row(patient_id: str = "1", name: str = "DUPONT^MARIE", **more: Any) -> Attributes:
    return {
        "0020000D": element("UI", UID),
        "00100020": element("LO", patient_id),
        "00100010": element("PN", {"Alphabetic": name}),
        "00100030": element("DA", "19600512"),
        "00100040": element("CS", "F"),
        **more,
    }


def whose(*rows: Attributes) -> Whose:
    return Whose(Hit(record=record_of(r, ROMORANTIN, DIRECTORY), row=r, study_uid=UID) for r in rows)


def without(attributes: Attributes, *tags: str) -> Attributes:
    return {tag: content for tag, content in attributes.items() if tag not in tags}


@pytest.mark.parametrize("tag", TELLING)
def test_absent_element_is_no_answer_and_an_empty_one_is(tag: str) -> None:
    assert is_told(row())
    assert is_told({**row(), tag: {"vr": "LO"}})
    assert not is_told(without(row(), tag))


@pytest.mark.parametrize("tag", TELLING)
def test_a_study_that_is_named_says_all_that_its_member_has(tag: str) -> None:
    """Its member was asked for all of it; many leave out what is empty, and would leave it out again."""
    assert is_told(without(row(), tag), Level.STUDY) is (tag in ("00100030", "00100040"))


@pytest.mark.parametrize("tag", TELLING)
def test_what_a_row_lacks_is_its_study_s(tag: str) -> None:
    known = whose(row("2", "MARTIN^PAUL"), row("1"))
    record = known.record(without(row("1"), tag), ROMORANTIN, DIRECTORY, NAMING)
    if tag == "00100020":
        assert record is None  # one of two people
        record = whose(row("1")).record(without(row("1"), tag), ROMORANTIN, DIRECTORY, NAMING)
    assert record == record_of(row("1"), ROMORANTIN, DIRECTORY)


def test_what_a_row_says_itself_goes_before() -> None:
    told = row(**{"00080050": element("SH", "X1"), "00101002": element("SQ")})
    found = without(row(name="DUPOND^MARIE", **{"00080050": element("SH")}), "00100030")
    record = whose(told).record(found, ROMORANTIN, DIRECTORY, NAMING)
    assert record is not None
    assert (record.name, record.birth_date, record.accession) == ("dupond^marie", "19600512", "X1")


def test_row_of_a_study_that_the_member_does_not_name_is_nobody_s() -> None:
    assert whose().record(without(row(), "00100040"), ROMORANTIN, DIRECTORY, NAMING) is None
    assert whose(row("2")).record(without(row("1"), "00100040"), ROMORANTIN, DIRECTORY, NAMING) is None
    assert whose().record(row(), BLOIS, DIRECTORY, NAMING) == record_of(row(), BLOIS, DIRECTORY)


def test_one_person_under_two_numbers_is_one_person() -> None:
    record = whose(row("1"), row("2")).record(without(row(), "00100020"), ROMORANTIN, DIRECTORY, NAMING)
    assert record is not None
    assert record.name == "dupont^marie"
