"""DICOM's audit codes for what is traced (PS3.15 §A.5.3, codes of PS3.16 CID 400 and 401)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consent.model import EventOutcome


@dataclass(frozen=True, slots=True)
class AuditCode:
    """EventID (scheme DCM) with its meaning, EventActionCode, and EventTypeCode where there is one."""

    event_id: str
    meaning: str
    action: str  # C create, R read, U update, D delete, E execute
    event_type: str = ""


#: By kind of event. A refusal is an alert of the kind "object security attributes": access was asked and not given.
CODES: Mapping[str, AuditCode] = {
    "query": AuditCode("110112", "Query", "E"),
    "transfer-begun": AuditCode("110102", "Begin Transferring DICOM Instances", "E"),
    "transferred": AuditCode("110104", "DICOM Instances Transferred", "R"),
    "store-begun": AuditCode("110102", "Begin Transferring DICOM Instances", "E"),
    "stored": AuditCode("110104", "DICOM Instances Transferred", "C"),  # EventAction C: at the receiver
    "accessed": AuditCode("110103", "DICOM Instances Accessed", "R"),
    "refused": AuditCode("110113", "Security Alert", "E"),
    "signed-in": AuditCode("110114", "User Authentication", "E", "110122"),
    "signed-out": AuditCode("110114", "User Authentication", "E", "110123"),
    "emergency-started": AuditCode("110113", "Security Alert", "E", "110127"),
    "emergency-stopped": AuditCode("110113", "Security Alert", "E", "110138"),
    "consent": AuditCode("110113", "Security Alert", "U", "110135"),
    "administration": AuditCode("110113", "Security Alert", "U", "110137"),
    "traces-read": AuditCode("110101", "Audit Log Used", "R"),
}

#: EventOutcomeIndicator (PS3.15 §A.5.1): 0 success, 8 serious failure.
OUTCOMES: Mapping[str, str] = {EventOutcome.SUCCESS: "0", EventOutcome.FAILURE: "8"}

UNCODED = AuditCode("", "", "")
