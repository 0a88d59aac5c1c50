"""May this requester see this exam, and the durable record that he did."""

from consent.access import Access, Open, utc_now
from consent.model import (
    Decision,
    Event,
    EventKind,
    EventOutcome,
    Exam,
    Policy,
    Requester,
    Unavailable,
)
from registry import Role

__all__ = [
    "Access",
    "Decision",
    "Event",
    "EventKind",
    "EventOutcome",
    "Exam",
    "Open",
    "Policy",
    "Requester",
    "Role",
    "Unavailable",
    "utc_now",
]
