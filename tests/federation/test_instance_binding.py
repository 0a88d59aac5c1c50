"""What one instance says binds its study to an opposition only by whose it says that it is."""

from __future__ import annotations

from typing import Any

import pytest
from support.values import BLOIS, ROMORANTIN

from consent import Access, Event, Requester
from consent.book import Book, Opposition
from consent.findings import Findings
from consent.policy import Rules
from consent.traits import Traits
from federation.gate import Gate
from federation.identity import Identity, Naming, Record

UID, INS = "1.2.3", "255081416802538"
MARIE = Traits("dupont^marie", "19600512", "F")
JEAN = Traits("martin^jean", "19710203", "M")
DOCTOR = Requester(id="10001234567")


class Confirmed:
    version = 1

    def is_fresh(self) -> bool:
        return True

    async def fresh(self, patience_s: float = 0) -> bool:
        return True


async def write(_: Event) -> None:
    raise AssertionError("nothing is traced here")


def record(who: Traits | None, ipp: str = "4547", **more: Any) -> Record:
    """As csrom41200 files it."""
    name, born, sex = who or ("", "", "")
    return Record(
        **{
            "holder": ROMORANTIN,
            "raw_patient_id": ipp,
            "ipp": ipp,
            "authority": ROMORANTIN,
            "origin": ROMORANTIN,
            "name": name,
            "birth_date": born,
            "sex": sex,
            "study_uid": UID,
            **more,
        }
    )


LOCATED = Identity(records=(record(JEAN),))


def seen(opposition: Opposition, own: Record) -> tuple[bool, dict[int, list[str]]]:
    """→ (whether an instance passes, which studies are bound by it)."""
    book, findings = Book(), Findings()
    book.put(opposition)
    gate = Gate(Access(Rules(book), write, Confirmed(), findings), Naming(qualified=True, issuer="IMAGORA"))
    assert gate.permits(DOCTOR, UID, LOCATED)
    permitted = gate.permits_instance(DOCTOR, UID, LOCATED, Identity(records=(own,)))
    return permitted, findings.take_bound()


def opposition(**binds: Any) -> Opposition:
    return Opposition(number=7, active=True, **binds)


@pytest.mark.parametrize(
    ("binds", "own"),
    [
        (opposition(traits=MARIE), record(MARIE)),
        (opposition(ins=INS), record(JEAN, ins=(INS,))),
        (opposition(patient=("77", BLOIS.emetteur)), record(JEAN, ipp="77", authority=BLOIS, raw_patient_id="4547")),
    ],
    ids=["strict traits", "INS", "id"],
)
def test_an_instance_filed_as_its_study_binds_it_by_whose_it_says_it_is(binds: Opposition, own: Record) -> None:
    assert seen(binds, own) == (False, {7: [UID]})


@pytest.mark.parametrize(
    ("binds", "own"),
    [
        (opposition(found=((UID, MARIE),)), record(None)),
        (opposition(accession=("A1", ROMORANTIN.emetteur)), record(None, accession="A1")),
        (opposition(accession=("A1", ROMORANTIN.emetteur)), record(JEAN, accession="A1")),
    ],
    ids=["another person's study of this UID", "an accession number", "an accession number, his traits"],
)
def test_what_says_nothing_of_whose_it_is_is_withheld_and_binds_nothing(binds: Opposition, own: Record) -> None:
    assert seen(binds, own) == (False, {})


def test_an_instance_of_another_patient_binds_nothing_by_traits() -> None:
    assert seen(opposition(traits=MARIE), record(MARIE, ipp="9999")) == (False, {})


def test_a_near_match_in_an_instance_is_withheld_and_binds_nothing() -> None:
    near = Traits("dupond^marie", "19600512", "F")
    assert seen(opposition(traits=MARIE), record(near)) == (False, {})
