"""From an identifier to a requester: what the registry knows of a professional decides, never his token. Pure."""

from __future__ import annotations

from enum import StrEnum

from consent.model import Requester
from registry import Directory, Practitioner
from registry.people import rpps_of


class Refusal(StrEnum):
    UNKNOWN = "unknown"
    SUSPENDED = "suspended"
    CHARTER = "charter"


class NotAdmitted(Exception):
    """This professional may not ask. The text says what to do about it."""

    def __init__(self, refusal: Refusal, charter_version: str) -> None:
        super().__init__(_ADVICE[refusal].format(version=charter_version))
        self.refusal = refusal


_ADVICE = {
    Refusal.UNKNOWN: (
        "You are not registered in this federation. Ask the MIRC correspondent of your site to register you and your "
        "signature of the charter, version {version} (imagora practitioners add, then imagora practitioners sign)."
    ),
    Refusal.SUSPENDED: "Your access is suspended. Ask the MIRC correspondent of your site.",
    Refusal.CHARTER: (
        "You have not signed version {version} of the charter. Sign it with the MIRC correspondent of your site, who "
        "records the signature (imagora practitioners sign --rpps YOUR-RPPS)."
    ),
}


def admit(identifier: str, directory: Directory, charter_version: str) -> Requester:
    """The requester of this identifier (RPPS, or 8 and the RPPS). Raises `NotAdmitted`."""
    rpps = rpps_of(identifier)
    practitioner = directory.practitioners.get(rpps) if rpps is not None else None
    if practitioner is None:
        raise NotAdmitted(Refusal.UNKNOWN, charter_version)
    if (refusal := standing(practitioner, charter_version)) is not None:
        raise NotAdmitted(refusal, charter_version)
    return requester_of(practitioner, directory)


def standing(practitioner: Practitioner, charter_version: str) -> Refusal | None:
    """Why a registered practitioner may not ask; None if he may."""
    if not practitioner.active:
        return Refusal.SUSPENDED
    return None if practitioner.has_signed(charter_version) else Refusal.CHARTER


def requester_of(practitioner: Practitioner, directory: Directory) -> Requester:
    return Requester(
        id=practitioner.rpps,
        name=practitioner.name,
        home=directory.site(practitioner.site),
        role=practitioner.role,
    )
