"""Chains of traces: what a row's hash covers, how the next one follows, and how a chain is checked. No I/O.

A chain is one run of one writer. Its rows are numbered from 1; each holds the hash of the one before and its own, which
covers all of the row. So a row that was changed, removed or moved does not fit. Who can recompute all later hashes is
found out by signed heads; who cuts rows off the end, too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

START = bytes(32)
_FORM = "imagora-trace-1"
_HEAD_FORM = "imagora-trace-head-1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH = struct.Struct(">I")
_MICROSECOND = timedelta(microseconds=1)
#: How far from its place a row is looked for, to tell that it was moved.
_MOVED_BY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a trace says, as the database keeps it. `detail` is the text of a JSON object."""

    at: datetime
    kind: str
    outcome: str
    requester_id: str
    requester_name: str
    request_id: str
    scope: str
    query: str
    study_uid: str
    patient_id: str
    origin: str
    holders: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One row of the table: a record and its place in a chain."""

    writer: str
    sequence: int
    recorded_at: datetime
    previous: bytes
    hash: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Tip:
    """How far a chain has come. `sequence` 0 = it has no row yet."""

    writer: str
    sequence: int = 0
    hash: bytes = START
    recorded_at: datetime = _EPOCH


class HeadKind(StrEnum):
    HEAD = "head"
    DROPPED = "dropped"  # retention dropped all rows up to this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A signed statement of how far a chain had come. `key` names the key, `signature` is Ed25519's (RFC 8032)."""

    writer: str
    sequence: int
    hash: bytes
    kind: HeadKind
    signed_at: datetime
    key: str = ""
    signature: bytes = b""


def digest(writer: str, sequence: int, recorded_at: datetime, previous: bytes, record: Record) -> bytes:
    """SHA-256 of the canonical form: each value as UTF-8 behind its length (4 bytes, big-endian); numbers in decimal;
    moments in microseconds since 1970. Migration 0003 writes the same form in SQL.
    """
    r = record
    texts: tuple[str | bytes, ...] = (
        *(_FORM, writer, str(sequence), str(_micros(recorded_at)), previous, str(_micros(r.at)), r.kind, r.outcome),
        *(r.requester_id, r.requester_name, r.request_id, r.scope, r.query, r.study_uid, r.patient_id, r.origin),
        *(r.detail, str(len(r.holders)), *r.holders),
    )
    return hashlib.sha256(_packed(texts)).digest()


def append(tip: Tip, record: Record, recorded_at: datetime) -> tuple[Link, Tip]:
    """The next row of a chain, and how far that brings it. Rows of one chain are never recorded earlier than others
    before them, whatever the clock does.
    """
    moment = max(recorded_at, tip.recorded_at)
    sequence = tip.sequence + 1
    own = digest(tip.writer, sequence, moment, tip.hash, record)
    link = Link(writer=tip.writer, sequence=sequence, recorded_at=moment, previous=tip.hash, hash=own, record=record)
    return link, Tip(tip.writer, sequence, own, moment)


def signed_bytes(head: Head) -> bytes:
    """What a head's signature covers."""
    return _packed(
        (_HEAD_FORM, head.kind, head.writer, str(head.sequence), head.hash, str(_micros(head.signed_at)), head.key)
    )


def _packed(values: Iterable[str | bytes]) -> bytes:
    raw = [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in values]
    return b"".join([piece for value in raw for piece in (_LENGTH.pack(len(value)), value)])


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


class Fault(StrEnum):
    CHANGED = "changed"
    REMOVED = "removed"
    REORDERED = "re-ordered"
    ADDED = "added"
    CUT_OFF = "cut off"
    BAD_HEAD = "bad head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Rows `first` to `last` of a writer's chain that are not as they were written. `text` says how that shows."""

    fault: Fault
    writer: str
    first: int
    last: int
    text: str
    at: datetime | None = None  # when the row that shows it was recorded

    def __str__(self) -> str:
        rows = f"row {self.first}" if self.first == self.last else f"rows {self.first} to {self.last}"
        when = f" (recorded {self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)" if self.at is not None else ""
        return f"{self.fault}: {rows} of {self.writer}{when}: {self.text}"


@dataclass(slots=True)
class RunReport:
    """What the check of one chain gave. Rows behind `sealed` are younger than the last signed head."""

    writer: str
    rows: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    last_sequence: int = 0
    sealed: Head | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        return max(0, self.last_sequence - (self.sealed.sequence if self.sealed is not None else 0))


class RunCheck:
    """Checks one chain: `feed` its rows in the order of their numbers, then `finish`.

    `heads` are those whose signatures were found good, from the database and from outside it, in any order.
    """

    def __init__(self, writer: str, heads: Iterable[Head]) -> None:
        self.report = RunReport(writer)
        self._heads: dict[int, bytes] = {}
        self._dropped: dict[int, bytes] = {}
        for head in heads:
            assert head.writer == writer
            if head.kind is HeadKind.DROPPED:
                self._dropped[head.sequence] = head.hash
                continue
            if self._heads.setdefault(head.sequence, head.hash) != head.hash:
                self._find(Fault.BAD_HEAD, head.sequence, "two signed heads contradict each other")
            if self.report.sealed is None or head.sequence > self.report.sealed.sequence:
                self.report.sealed = head
        self._last: Link | None = None
        self._faulty = 0  # number of the last row that something was found of
        self._agreed = 0  # number of the last row that agreed with a signed head

    def feed(self, link: Link) -> None:
        report = self.report
        assert link.writer == report.writer
        sequence = link.sequence
        report.rows += 1
        report.first_at = report.first_at or link.recorded_at
        report.last_at = link.recorded_at
        if sequence <= report.last_sequence:
            self._find(Fault.ADDED, sequence, "there is another row of this number", link)
            return
        previous = self._expected_before(link)
        sound = self._check_content(link)
        if sound and previous is not None and link.previous != previous:
            self._broken_link(link)
        if (head := self._heads.get(sequence)) is not None:
            if head == link.hash:
                self._agreed = sequence
            elif self._faulty != sequence:
                self._find(
                    Fault.CHANGED,
                    sequence,
                    f"it is not the row that was signed; rows from {self._agreed + 1} up to it were rewritten",
                    link,
                )
        self._last = link
        report.last_sequence = sequence

    def finish(self) -> RunReport:
        report = self.report
        reached = max(report.last_sequence, *self._dropped, 0)
        if report.sealed is not None and report.sealed.sequence > reached:
            self._find(
                Fault.CUT_OFF,
                reached + 1,
                f"the chain ends before a head that was signed {report.sealed.signed_at.astimezone(UTC):%F %T} UTC",
                through=report.sealed.sequence,
            )
        report.last_sequence = reached
        return report

    def _expected_before(self, link: Link) -> bytes | None:
        """Hash of the row before, None if that row is not there: then it is noted as removed."""
        number = link.sequence - 1
        if self._last is not None:
            if number == self._last.sequence:
                return self._last.hash
            begin = self._last.sequence + 1
        else:
            if number == 0:
                return START
            if number in self._dropped:
                return self._dropped[number]
            begin = max((n for n in self._dropped if n < number), default=0) + 1
        self._find(Fault.REMOVED, begin, "not there, though later ones are", through=number)
        return None

    def _check_content(self, link: Link) -> bool:
        if _digest(link) == link.hash:
            return True
        for distance in range(1, _MOVED_BY + 1):
            for number in (link.sequence - distance, link.sequence + distance):
                if number > 0 and _digest(replace(link, sequence=number)) == link.hash:
                    self._find(Fault.REORDERED, link.sequence, f"what stands here was written as row {number}", link)
                    return False
        self._find(Fault.CHANGED, link.sequence, "its hash is not that of what it says", link)
        return False

    def _broken_link(self, link: Link) -> None:
        number = link.sequence - 1
        if self._last is None:
            what = (
                "a signed head says that another row stood before it" if number else "it was not written as the first"
            )
            self._find(Fault.CHANGED, link.sequence, what, link)
        elif self._faulty != number:
            self._find(
                Fault.CHANGED, number, f"it is not the row that row {link.sequence} was written after", self._last
            )

    def _find(self, fault: Fault, first: int, text: str, link: Link | None = None, *, through: int = 0) -> None:
        last = through or first
        self._faulty = max(self._faulty, last)
        at = link.recorded_at if link is not None else None
        found = Finding(fault=fault, writer=self.report.writer, first=first, last=last, text=text, at=at)
        findings = self.report.findings
        if findings and findings[-1].fault is fault and findings[-1].last == first - 1:
            findings[-1] = replace(findings[-1], last=last)  # a thousand rows in a row are one finding
        else:
            findings.append(found)


def _digest(link: Link) -> bytes:
    return digest(link.writer, link.sequence, link.recorded_at, link.previous, link.record)
