"""`verify` against a real PostgreSQL: after normal work, and after each way to tamper with the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from consent.chain import Fault, Finding
from consent.heads import HeadFile, Keys, load_or_make_keys, read_heads
from consent.journal import Journal
from consent.keeper import Keeper
from consent.model import Event, EventKind, Requester
from consent.traces import Selection, Verification, select, verify
from registry.database import Database
from registry.migrate import FOLDER

EVENT = Event(
    kind=EventKind.ACCESSED,
    requester=Requester(id="10001234567", name="MARTIN^CLAIRE"),
    at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    scope="all",
    study_uid="1.2.3",
    patient_id="4547@csrom41200",
    origin="csrom41200",
    holders=("csrom41200", "cstrs37000"),
    detail={"ratio": 1e22, "why": "é\n"},
)
Tamper = Callable[..., Awaitable[None]]


@dataclass
class Kept:
    """Forty sealed rows of one chain and the means to check them."""

    database: Database
    keys: Keys
    file: HeadFile
    writer: str

    async def check(self, *, outside: bool = True) -> Verification:
        heads = read_heads(self.file.path).heads if outside else {}
        return await verify(self.database, self.keys, heads)

    async def findings(self, *, outside: bool = True) -> list[tuple[Fault, int, int]]:
        found: list[Finding] = (await self.check(outside=outside)).findings
        assert all(finding.writer == self.writer for finding in found)
        return [(finding.fault, finding.first, finding.last) for finding in found]


def keeper(database: Database, journal: Journal, keys: Keys, file: HeadFile, **more: float) -> Keeper:
    return Keeper(database, journal, keys, file, retention_months=12, **more)


async def work(database: Database, keys: Keys, file: HeadFile, rows: int = 40) -> None:
    """What a process does from start to end: it writes traces, many at once, and seals them."""
    journal = Journal(database)
    async with keeper(database, journal, keys, file, seal_s=0.02), journal:
        for begin in range(0, rows, 10):
            some = (replace(EVENT, request_id=f"r-{begin + n}") for n in range(min(10, rows - begin)))
            await asyncio.gather(*map(journal.write, some))
            await asyncio.sleep(0.03)


@pytest.fixture
async def kept(database: Database, keys: Keys, head_file: HeadFile) -> Kept:
    await work(database, keys, head_file)
    writer = str(await database.fetchval("SELECT DISTINCT writer FROM trace"))
    kept = Kept(database, keys, head_file, writer)
    assert await kept.findings() == []  # the control of every test below
    return kept


async def test_normal_work_is_whole_and_says_up_to_when(kept: Kept) -> None:
    result = await kept.check()
    assert (result.rows, result.unsealed, result.findings) == (40, 0, [])
    (run,) = result.runs
    assert run.sealed is not None
    assert run.sealed.sequence == 40
    assert result.last_at is not None
    assert result.sealed_at is not None
    assert result.sealed_at >= result.last_at
    assert await kept.database.fetchval("SELECT count(*) FROM trace_head") >= 2


async def test_several_writers_at_once_are_whole(database: Database, keys: Keys, head_file: HeadFile) -> None:
    await asyncio.gather(*(work(database, keys, head_file, rows=25) for _ in range(3)))
    result = await verify(database, keys, read_heads(head_file.path).heads)
    assert (result.rows, len(result.runs), result.unsealed, result.findings) == (75, 3, 0, [])


@pytest.mark.parametrize(
    "change",
    [
        "patient_id = 'other'",
        "requester_id = ''",
        "at = at + interval '1 microsecond'",
        "detail = '{}'",
        "holders = '{csrom41200}'",
        "outcome = 'failure'",
        "hash = sha256('')",
        "previous = sha256('')",
        "recorded_at = recorded_at + interval '1 microsecond'",
    ],
)
async def test_a_changed_row_is_named(kept: Kept, tamper: Tamper, change: str) -> None:
    await tamper(f"UPDATE trace SET {change} WHERE sequence = 17")
    assert await kept.findings() == [(Fault.CHANGED, 17, 17)]


async def test_a_row_moved_to_another_writer_is_named(kept: Kept, tamper: Tamper) -> None:
    await tamper("UPDATE trace SET writer = 'nobody' WHERE sequence = 40")
    result = await kept.check()
    assert {(f.fault, f.writer) for f in result.findings} >= {
        (Fault.CUT_OFF, kept.writer),
        (Fault.REMOVED, "nobody"),
    }


@pytest.mark.parametrize("number", [1, 17])
async def test_a_removed_row_is_named(kept: Kept, tamper: Tamper, number: int) -> None:
    await tamper(f"DELETE FROM trace WHERE sequence = {number}")
    assert await kept.findings() == [(Fault.REMOVED, number, number)]


async def test_rows_that_changed_places_are_named(kept: Kept, tamper: Tamper) -> None:
    await tamper(
        "UPDATE trace SET sequence = 100 WHERE sequence = 17",
        "UPDATE trace SET sequence = 17 WHERE sequence = 18",
        "UPDATE trace SET sequence = 18 WHERE sequence = 100",
    )
    assert await kept.findings() == [(Fault.REORDERED, 17, 18)]


async def test_a_removed_row_does_not_hide_behind_new_numbers(kept: Kept, tamper: Tamper) -> None:
    await tamper(
        "DELETE FROM trace WHERE sequence = 17",
        "ALTER TABLE trace DROP CONSTRAINT trace_sequence_check",
        "UPDATE trace SET sequence = -sequence WHERE sequence > 17",
        "UPDATE trace SET sequence = -sequence - 1 WHERE sequence < 0",
    )
    assert await kept.findings() == [(Fault.REORDERED, 17, 39), (Fault.CUT_OFF, 40, 40)]


async def test_a_cut_tail_is_named(kept: Kept, tamper: Tamper) -> None:
    await tamper("DELETE FROM trace WHERE sequence > 35")
    assert await kept.findings() == [(Fault.CUT_OFF, 36, 40)]
    assert await kept.findings(outside=False) == [(Fault.CUT_OFF, 36, 40)]


async def test_a_tail_cut_with_its_heads_shows_outside(kept: Kept, tamper: Tamper) -> None:
    await tamper("DELETE FROM trace WHERE sequence > 35", "DELETE FROM trace_head WHERE sequence > 35")
    assert await kept.findings() == [(Fault.CUT_OFF, 36, 40)]
    assert await kept.findings(outside=False) == []  # which is why heads are kept outside too


async def test_a_whole_chain_cut_with_its_heads_shows_outside(kept: Kept, tamper: Tamper) -> None:
    await tamper("TRUNCATE trace", "TRUNCATE trace_head")
    assert await kept.findings() == [(Fault.CUT_OFF, 1, 40)]


async def test_a_head_that_nobody_signed_is_named(kept: Kept, tamper: Tamper) -> None:
    await tamper("UPDATE trace_head SET hash = sha256('') WHERE sequence = 40")
    result = await kept.check()
    assert [(f.fault, f.last) for f in result.findings] == [(Fault.BAD_HEAD, 40)]
    assert "wrong" in result.findings[0].text


async def test_retention_cannot_be_feigned(kept: Kept, tamper: Tamper) -> None:
    await tamper(
        "INSERT INTO trace_head SELECT writer, sequence, 'dropped', hash, now(), key, signature "
        "FROM trace_head WHERE sequence = 40",
        "TRUNCATE trace",
    )
    assert [fault for fault, _, _ in await kept.findings()] == [Fault.BAD_HEAD, Fault.CUT_OFF]


async def test_heads_of_a_key_that_is_not_here_are_named(kept: Kept, tmp_path: Path) -> None:
    other = load_or_make_keys(tmp_path / "other.pem")
    result = await verify(kept.database, other, {})
    assert {f.fault for f in result.findings} == {Fault.BAD_HEAD}
    assert "unknown here" in result.findings[0].text
    assert (await verify(kept.database, None, {})).findings


async def test_a_lost_connection_begins_a_new_chain_and_both_are_whole(
    database: Database, keys: Keys, head_file: HeadFile
) -> None:
    journal = Journal(database)
    async with keeper(database, journal, keys, head_file), journal:
        await journal.write(EVENT)
        await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.gather(*(journal.write(EVENT) for _ in range(20)))
    result = await verify(database, keys, read_heads(head_file.path).heads)
    assert (result.rows, len(result.runs), result.findings) == (21, 2, [])
    assert result.unsealed <= 1


async def test_the_end_of_an_abandoned_chain_is_signed_by_another_process(
    database: Database, keys: Keys, head_file: HeadFile, tamper: Tamper
) -> None:
    async with Journal(database) as gone:  # as after a crash: nobody signed
        await asyncio.gather(*(gone.write(EVENT) for _ in range(5)))
    assert (await verify(database, keys, {})).unsealed == 5
    idle = Journal(database)
    assert await keeper(database, idle, keys, head_file).adopt() == 0  # it may be alive
    other = keeper(database, idle, keys, head_file, abandoned_s=0.0)
    assert await other.adopt() == 1
    assert await other.adopt() == 0
    result = await verify(database, keys, read_heads(head_file.path).heads)
    assert (result.unsealed, result.findings) == (0, [])
    await tamper("DELETE FROM trace WHERE sequence = 5")
    assert [f.fault for f in (await verify(database, keys, {})).findings] == [Fault.CUT_OFF]


async def test_heads_wait_for_a_disk_that_fails(database: Database, keys: Keys, head_file: HeadFile) -> None:
    head_file.path.parent.write_text("in the way")
    journal = Journal(database)
    async with keeper(database, journal, keys, head_file) as kept, journal:
        await journal.write(EVENT)
        await kept.seal()
        assert await database.fetchval("SELECT count(*) FROM trace_head") == 1
        head_file.path.parent.unlink()
        await kept.seal()
    assert [len(heads) for heads in read_heads(head_file.path).heads.values()] == [1]


async def test_what_stood_before_chains_is_chained(database: Database, keys: Keys, trace_url: str) -> None:
    """The migration's own SQL writes what the check computes."""
    assert database  # migrated already: only its last step is taken back, as no program does
    connection = await asyncpg.connect(trace_url)
    try:
        migration = _versions()["0003"]
        await connection.execute("DROP TABLE trace, trace_head; DROP FUNCTION make_trace_month, drop_trace_month")
        first = _versions()["0001"]
        begin = first.index("CREATE TABLE trace (")
        await connection.execute(first[begin : first.index(");", begin) + 2])
        await connection.execute(
            """
            INSERT INTO trace (at, kind, outcome, requester_id, requester_name, request_id, scope, query, study_uid,
                               patient_id, origin, holders, detail)
            SELECT timestamptz '2025-12-30 23:59:58.123456+00' + n * interval '11 hours', 'query', 'success', 'r',
                   'É^È', 'id' || n, 'all', E'a\nb', '1.2', CASE WHEN n % 2 = 0 THEN 'p' ELSE '' END, '',
                   CASE WHEN n % 3 = 0 THEN '{}' ELSE ARRAY['a', 'bé'] END, '{"n": 1.50, "é": "x"}'
            FROM generate_series(1, 30) AS n
            """
        )
        await connection.execute(migration)
    finally:
        await connection.close()
    result = await verify(database, keys, {})
    assert (result.rows, result.unsealed, result.findings) == (30, 30, [])
    assert await database.fetchval("SELECT count(DISTINCT tableoid) FROM trace") == 2


def _versions() -> dict[str, str]:
    return {path.name[:4]: path.read_text(encoding="utf-8") for path in FOLDER.joinpath("versions").glob("*.sql")}


async def test_traces_are_selected(kept: Kept) -> None:
    async with Journal(kept.database) as journal:
        await journal.write(replace(EVENT, kind=EventKind.QUERY, study_uid="", patient_id="", origin="", detail={}))
        await journal.write(replace(EVENT, patient_id="4547@csorl45000", origin="csorl45000"))
        await journal.write(replace(EVENT, patient_id="4%7@csorl45000", requester=Requester(id="CT")))
        await journal.write(replace(EVENT, patient_id="z@csa", detail={"also": "x@csa y@csa"}))
        await journal.write(replace(EVENT, patient_id="u@csa", detail={"emergency": "e-1"}, origin="csa"))

    async def found(**asked: object) -> int:
        return len([link async for link in select(kept.database, Selection(**asked))])

    assert await found() == 45
    assert await found(patient_id="4547") == 41
    assert await found(patient_id="4547@csorl45000") == 1
    assert await found(patient_id="4%7") == 1
    assert await found(patient_id="x@csa") == 1
    assert await found(site="csorl45000") == 1
    assert await found(site="csrom41200") == 42
    assert await found(requester_id="CT") == 1
    assert await found(emergencies=True) == 1
    assert await found(since=datetime(2026, 1, 31, 12, tzinfo=UTC)) == 45
    assert await found(since=datetime(2026, 2, 1, tzinfo=UTC)) == 0
