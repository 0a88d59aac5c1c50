"""Who asks, for which exam, what was decided, what is traced: values only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from consent.traits import Traits
from registry import Role, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks: a professional or a PACS node. Home site and role come from the registry."""

    id: str
    name: str = ""
    home: Site | None = None
    role: Role = Role.PRACTITIONER
    #: What let him in, for traces: a token's id (jti), or `session:` and 16 hexadecimal digits; "" for neither. It
    #: makes nobody another requester.
    credential: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One study as one person's, with all that a rule may look at."""

    study_uid: str
    origin: Site
    patient_id: str  # as shown: IPP@EMETTEUR, or the bare IPP with `patient_id = "local"`
    ids: frozenset[tuple[str, str]]  # every (IPP, EMETTEUR) known for it
    holders: tuple[Site, ...]
    main_id: tuple[str, str] = ("", "")  # (IPP, EMETTEUR) of the patient's identity
    accessions: frozenset[tuple[str, str]] = frozenset()  # (AccessionNumber, EMETTEUR), as each holder has it
    traits: tuple[Traits, ...] = ()  # as each holder has them
    ins: frozenset[str] = frozenset()
    patient_name: str = ""  # as it is shown
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""
    #: False where `origin` is a guess: several sites hold it, and nothing in their data names who made it.
    origin_named: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMatch:
    """An exam's patient who may be the person of an opposition: for the queue of the site's correspondent."""

    opposition: int
    emetteur: str
    ipp: str
    traits: Traits
    name: str  # as the site spells it
    difference: str
    study_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reason` is for traces and correspondents, never for the requester. `emergency` is the id of the emergency access
    that alone makes it permitted."""

    permitted: bool
    reason: str = ""
    opposition: int | None = None
    by_ins: bool = False  # the opposition names the INS that the exam bears
    emergency: str = ""
    near: tuple[NearMatch, ...] = ()


class Policy(Protocol):
    """May this requester see this exam? Pure, answered from memory, never awaits."""

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision: ...


class EventKind(StrEnum):
    """Kinds of traced events (PS3.15 §A.5.3)."""

    QUERY = "query"  # 110112
    TRANSFER_BEGUN = "transfer-begun"  # 110102
    TRANSFERRED = "transferred"  # 110104
    STORE_BEGUN = "store-begun"  # 110102, towards a member
    STORED = "stored"  # 110104
    ACCESSED = "accessed"  # 110103: metadata, frames, bulk data, rendered
    REFUSED = "refused"
    SIGNED_IN = "signed-in"  # 110122
    SIGNED_OUT = "signed-out"  # 110123
    EMERGENCY_STARTED = "emergency-started"  # 110127
    EMERGENCY_STOPPED = "emergency-stopped"  # 110138
    CONSENT = "consent"  # an opposition, a decision on a near match, an exam withheld or released
    ADMINISTRATION = "administration"  # sites, practitioners, the charter
    TRACES_READ = "traces-read"  # 110101


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
