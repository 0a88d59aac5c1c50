"""Practitioners: who may ask, from where, in which role, bound by which charter. Values only, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

_RPPS = re.compile(r"[0-9]{11}")
#: The national identifier of a professional is the kind of directory before the number in it: 8 is the RPPS.
_NATIONAL_ID = re.compile(r"8([0-9]{11})")


class Role(StrEnum):
    PRACTITIONER = "practitioner"
    CORRESPONDENT = "correspondent"  # of a site
    REFERENT = "referent"  # of the region


@dataclass(frozen=True, slots=True, kw_only=True)
class Practitioner:
    """One professional as the registry knows him."""

    rpps: str  # 11 digits
    name: str  # as DICOM writes names: MARTIN^CLAIRE
    site: str  # EMETTEUR of the home site
    role: Role = Role.PRACTITIONER
    active: bool = True
    signatures: Mapping[str, datetime] = field(default_factory=dict)  # charter version → when it was signed

    def has_signed(self, charter_version: str) -> bool:
        return charter_version in self.signatures

    @property
    def last_signature(self) -> tuple[str, datetime] | None:
        """The charter version that was signed last, and when."""
        return max(self.signatures.items(), key=lambda signature: signature[1], default=None)


def rpps_of(identifier: str) -> str | None:
    """The RPPS in an identifier: 11 digits, or `SubjectNameID`'s form of it (8 and the RPPS). None if it holds none."""
    if match := _NATIONAL_ID.fullmatch(identifier):
        return match[1]
    return identifier if _RPPS.fullmatch(identifier) else None


def check_rpps(value: str) -> str:
    """The RPPS as it is stored. Raises `ValueError` with one sentence that says what to do."""
    rpps = rpps_of(value.strip())
    if rpps is None:
        raise ValueError(f"{value!r} is not an RPPS: use its 11 digits, as in 10001234567")
    return rpps
