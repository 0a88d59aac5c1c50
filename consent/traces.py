"""Reading the traces: selected for people, whole for a check."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from consent import trace_queries as queries
from consent.chain import Fault, Finding, Head, HeadKind, Link, Record, RunCheck, RunReport
from consent.heads import Keys
from registry.database import Connection, Database, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which traces. None = any. `site` is the origin's EMETTEUR in the registry's case; `patient_id` as it is shown
    (IPP@EMETTEUR), or a bare IPP, which finds that IPP everywhere; `requester_id` an RPPS or an AE title.
    `emergencies`: only declarations and ends, and what was seen by them; a site is told, too, by which declaration for
    another site's patient an exam of its own was seen.
    """

    site: str | None = None
    patient_id: str | None = None
    requester_id: str | None = None
    since: datetime | None = None
    emergencies: bool = False


async def select(database: Database, selection: Selection) -> AsyncGenerator[Link, None]:
    """Traces in the order in which they were recorded, read bit by bit. Raises `DatabaseError`."""
    patient = selection.patient_id
    pattern = None
    if patient is not None:
        # A bare IPP at whichever site; what holds an @ already is one patient's.
        escaped = patient.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        pattern = escaped if "@" in patient else f"{escaped}@%"
    async with database.transaction("repeatable_read") as connection:
        rows = connection.stream(
            queries.SELECTED,
            selection.site,
            patient,
            pattern,
            selection.requester_id,
            selection.since,
            selection.emergencies,
        )
        async for row in rows:
            yield _link(row)


@dataclass(slots=True)
class Verification:
    """What was checked and what was found."""

    runs: list[RunReport] = field(default_factory=list)
    bad_heads: list[Finding] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        return [*self.bad_heads, *(finding for run in self.runs for finding in run.findings)]

    @property
    def rows(self) -> int:
        return sum(run.rows for run in self.runs)

    @property
    def unsealed(self) -> int:
        """Rows that are younger than the last signed head of their chain."""
        return sum(run.unsealed for run in self.runs)

    @property
    def first_at(self) -> datetime | None:
        return min((run.first_at for run in self.runs if run.first_at is not None), default=None)

    @property
    def last_at(self) -> datetime | None:
        return max((run.last_at for run in self.runs if run.last_at is not None), default=None)

    @property
    def sealed_at(self) -> datetime | None:
        """When the newest head was signed."""
        return max((run.sealed.signed_at for run in self.runs if run.sealed is not None), default=None)


async def verify(database: Database, keys: Keys | None, outside: Mapping[str, Sequence[Head]]) -> Verification:
    """Check every chain against itself and against signed heads, at one moment of the database.

    `outside`: heads from files, by writer; read them before, so that none is newer than the rows. Without `keys` no
    head can be trusted, and each is a finding. Raises `DatabaseError`.
    """
    result = Verification()
    async with database.transaction("repeatable_read") as connection:
        known = [str(row["writer"]) for row in await connection.fetch(queries.WRITERS, timeout=3600)]
        for writer in sorted({*known, *outside}):
            inside = [_head(row) for row in await connection.fetch(queries.HEADS_OF, writer)]
            heads = [
                *_trusted(inside, keys, "in the database", result.bad_heads),
                *_trusted(outside.get(writer, ()), keys, "in the file", result.bad_heads),
            ]
            result.runs.append(await _check(connection, writer, heads))
    return result


async def _check(connection: Connection, writer: str, heads: Iterable[Head]) -> RunReport:
    check = RunCheck(writer, heads)
    async for row in connection.stream(queries.ROWS_OF, writer):
        check.feed(_link(row))
    return check.finish()


def _trusted(heads: Iterable[Head], keys: Keys | None, where: str, bad: list[Finding]) -> list[Head]:
    good = []
    for head in heads:
        if keys is not None and keys.verify(head):
            good.append(head)
            continue
        known = keys is not None and keys.knows(head.key)
        why = f"its signature by key {head.key} is wrong" if known else f"it is signed by key {head.key}, unknown here"
        text = f"the head {where} cannot be trusted: {why}"
        if bad and bad[-1].writer == head.writer and bad[-1].text == text:
            bad[-1] = Finding(
                fault=Fault.BAD_HEAD, writer=head.writer, first=bad[-1].first, last=head.sequence, text=text
            )
        else:
            bad.append(
                Finding(fault=Fault.BAD_HEAD, writer=head.writer, first=head.sequence, last=head.sequence, text=text)
            )
    return good


def _head(row: Row) -> Head:
    return Head(
        writer=row["writer"],
        sequence=row["sequence"],
        hash=bytes(row["hash"]),
        kind=HeadKind(row["kind"]),
        signed_at=row["signed_at"],
        key=row["key"],
        signature=bytes(row["signature"]),
    )


def _link(row: Row) -> Link:
    return Link(
        writer=row["writer"],
        sequence=row["sequence"],
        recorded_at=row["recorded_at"],
        previous=bytes(row["previous"]),
        hash=bytes(row["hash"]),
        record=Record(
            at=row["at"],
            kind=row["kind"],
            outcome=row["outcome"],
            requester_id=row["requester_id"],
            requester_name=row["requester_name"],
            request_id=row["request_id"],
            scope=row["scope"],
            query=row["query"],
            study_uid=row["study_uid"],
            patient_id=row["patient_id"],
            origin=row["origin"],
            holders=tuple(row["holders"]),
            detail=row["detail"],
        ),
    )
