"""Who asks, for which exam, what was decided, what is traced: values only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from registry import Role, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks: a professional or a PACS node. Home site and role come from the registry."""

    id: str
    name: str = ""
    home: Site | None = None
    role: Role = Role.PRACTITIONER


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One study as one person's, with all that a rule may look at."""

    study_uid: str
    origin: Site
    patient_id: str  # as shown: IPP@EMETTEUR, or the bare IPP with `patient_id = "local"`
    ids: frozenset[tuple[str, str]]  # every (IPP, EMETTEUR) known for it
    holders: tuple[Site, ...]
    patient_name: str = ""  # alphabetic group
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    permitted: bool
    reason: str = ""


class Policy(Protocol):
    """May this requester see this exam? Pure, answered from memory, never awaits."""

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision: ...


class EventKind(StrEnum):
    """Kinds of traced events (PS3.15 §A.5.3)."""

    QUERY = "query"  # 110112
    TRANSFER_BEGUN = "transfer-begun"  # 110102
    TRANSFERRED = "transferred"  # 110104
    ACCESSED = "accessed"  # 110103: metadata, frames, bulk data, rendered
    REFUSED = "refused"
    SIGNED_IN = "signed-in"  # 110122
    SIGNED_OUT = "signed-out"  # 110123


class EventOutcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One trace: who, what, which patient and study, from where, when, how it ended."""

    kind: EventKind
    requester: Requester
    at: datetime
    outcome: EventOutcome = EventOutcome.SUCCESS
    request_id: str = ""
    scope: str = ""  # "all", "folder:SLUG", "site:EMETTEUR"
    query: str = ""  # what was asked, in QIDO form
    study_uid: str = ""
    patient_id: str = ""
    origin: str = ""  # EMETTEUR
    holders: tuple[str, ...] = ()
    detail: dict[str, str | int | float] = field(default_factory=dict)


class Unavailable(Exception):
    """No trace can be made durable now, so nothing may be shown. Becomes 503 with Retry-After."""
