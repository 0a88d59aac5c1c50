"""From an identifier to a requester, as the registry stands."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.values import BLOIS, ROMORANTIN, SITES

from consent import Requester, Role
from consent.admission import NotAdmitted, Refusal, admit
from registry import Directory, Practitioner

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MARTIN = Practitioner(
    rpps="10001234567", name="MARTIN^CLAIRE", site=BLOIS.emetteur, role=Role.CORRESPONDENT, signatures={"1": NOON}
)
PETIT = Practitioner(rpps="10001234568", name="PETIT^LUC", site=ROMORANTIN.emetteur)
ROUX = Practitioner(
    rpps="10001234569", name="ROUX^EVE", site=BLOIS.emetteur, active=False, signatures={"1": NOON, "2": NOON}
)
DIRECTORY = Directory(SITES, practitioners=[MARTIN, PETIT, ROUX])


@pytest.mark.parametrize("identifier", ["10001234567", "810001234567"])
def test_home_site_and_role_come_from_the_registry(identifier: str) -> None:
    assert admit(identifier, DIRECTORY, "1") == Requester(
        id="10001234567", name="MARTIN^CLAIRE", home=BLOIS, role=Role.CORRESPONDENT
    )


@pytest.mark.parametrize(
    ("identifier", "version", "refusal", "words"),
    [
        ("10009999999", "1", Refusal.UNKNOWN, "imagora practitioners add"),
        ("010001234567", "1", Refusal.UNKNOWN, "not registered"),
        ("me", "1", Refusal.UNKNOWN, "not registered"),
        ("10001234568", "1", Refusal.CHARTER, "imagora practitioners sign"),
        ("10001234567", "2", Refusal.CHARTER, "version 2 of the charter"),  # a new version asks for a new signature
        ("10001234569", "2", Refusal.SUSPENDED, "suspended"),
    ],
)
def test_who_may_not_ask_is_told_what_to_do(identifier: str, version: str, refusal: Refusal, words: str) -> None:
    with pytest.raises(NotAdmitted, match=words) as caught:
        admit(identifier, DIRECTORY, version)
    assert caught.value.refusal is refusal
    assert identifier not in str(caught.value).split()


def test_the_last_signature_is_the_latest() -> None:
    later = datetime(2026, 3, 1, tzinfo=UTC)
    person = Practitioner(rpps="1" * 11, name="A", site="csa", signatures={"2": later, "10": NOON})
    assert person.last_signature == ("2", later)
    assert PETIT.last_signature is None
