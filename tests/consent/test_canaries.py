"""No log holds a patient, whatever is searched, retrieved, refused, recorded or goes wrong: ours and PostgreSQL's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import requests
from imagora_demo import exams
from retrieve import retrieve_wire as wire
from retrieve.retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type, giving, multipart
from retrieve.retrieve_process import ServeProcess
from support.peer import Connection, Request

from imagora.logs import JsonFormatter
from registry import migrate
from registry.database import Database
from registry.errors import DatabaseError

RPPS, SITE = "10001234567", "csrom41200"
NAME, IPP, BORN, ACCESSION = "CANARI-ZQ^Élodie", "IPPZQ77813", "19431122", "ACCZQ9"
SEEDED = exams.study(
    seed="canaries", name=NAME, patient_id=IPP, birth_date=BORN, sex="F", accession=ACCESSION, rows=64, columns=64
)
UID = str(exams.uid("canaries", "study"))
CANARIES = [c.encode() for c in ("CANARI-ZQ", "canarizq", "lodie", IPP, BORN, ACCESSION, UID)]
#: All that says who it is, as a statement of SQL might.
SAID = f"'{NAME} {IPP} {BORN} {ACCESSION} {UID} canarizq'"
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}


def found_in(text: bytes) -> list[bytes]:
    return [canary for canary in CANARIES if canary in text]


class Region:
    """A server of its own, its members and its database."""

    def __init__(self, server: ServeProcess, holder: Holder, sick: Holder) -> None:
        self.server = server
        self.holder = holder
        self.sick = sick
        self.url = json.loads((server.state / "postgres-run" / "connection.json").read_text())["url"]

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.server.dicomweb}{path}", timeout=20)

    def awaited(self, path: str, status: int) -> requests.Response:
        """A change of consent, and a database that went, take a moment."""
        for _ in range(300):
            answer = self.get(path)
            if answer.status_code == status:
                return answer
            time.sleep(0.05)
        raise AssertionError((path, answer.status_code, answer.text))

    def sql(self, *statements: str, values: tuple[object, ...] = ()) -> str:
        """Run each as a client of PostgreSQL would; `values` are the last one's. → what the last gave, as text."""

        async def run() -> str:
            connection = await asyncpg.connect(self.url, timeout=20)
            try:
                for statement in statements[:-1]:
                    await connection.execute(statement)
                return str([tuple(r) for r in await connection.fetch(statements[-1], *values)])
            finally:
                connection.terminate()

        return asyncio.run(run())

    def refused(self, *statements: str, values: tuple[object, ...] = ()) -> str:
        """→ all that PostgreSQL tells its client of why it refuses the last statement."""
        try:
            self.sql(*statements, values=values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return f"{error} {getattr(error, 'detail', '')}"
        raise AssertionError(statements[-1])

    def logs(self) -> dict[str, bytes]:
        """Ours, PostgreSQL's, and whatever else stands in the state folder besides the data."""
        state = self.server.state
        files = [p for p in state.rglob("*") if p.is_file() and "postgres" not in p.relative_to(state).parts]
        return {"imagora": self.server.errors.read_bytes()} | {str(p.relative_to(state)): p.read_bytes() for p in files}


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    with Holder(SEEDED) as holder, Holder(SEEDED) as sick:
        sick.searches = giving(200, b"[]", "application/dicom+json")
        with ServeProcess(
            tmp_path,
            {SITE: holder.url, "cpsax18000": sick.url},
            server={"log_level": "debug"},
            search={"deadline_s": 2, "breaker_failures": 1000},
        ) as server:
            yield Region(server, holder, sick)


def test_no_log_holds_a_patient(region: Region) -> None:
    shown = search_and_retrieve(region)
    told = refuse_in_the_database(region)
    recorded = oppose(region)
    lose_the_database(region)
    region.server.process.send_signal(signal.SIGTERM)
    assert region.server.process.wait(20) == 0
    logs = region.logs()
    # The controls: they were in what was shown, told and recorded; the logs say what happened at the same time.
    assert found_in(shown) == [c for c in CANARIES if c != b"canarizq"]
    assert found_in(told.encode()) == CANARIES
    assert found_in(recorded.encode()) == CANARIES
    for words in (b"ZQ-CONTROL", b"terminating connection", b"terminated by signal 9", b"ready to accept"):
        assert words in logs["postgres.log"]
    for words in (b"a trace was refused", b"is lost", b"is back", b"transfer aborted", b"CheckViolationError"):
        assert words in logs["imagora"]
    assert {name: found_in(text) for name, text in logs.items() if found_in(text)} == {}
    assert [name for name in logs if found_in(name.encode())] == []


def search_and_retrieve(region: Region) -> bytes:
    """Those that hit, miss, fail and break off. → what was shown."""
    shown = b""
    for path in (
        f"/studies?PatientName=CANARI*&PatientBirthDate={BORN}",
        f"/studies?PatientID={IPP}&AccessionNumber={ACCESSION}",
        f"/studies/{UID}/series",
        f"/studies/{UID}/metadata",
        f"/studies/{UID}",
    ):
        answer = region.get(path)
        assert answer.status_code == 200, (path, answer.text)
        shown += answer.content
    assert region.get(f"/studies?PatientID={IPP}9").status_code == 204
    assert region.get(f"/studies?PatientBirthDate={NAME}").status_code == 400
    assert region.get(f"/studies/{UID}.1").status_code == 404
    said = f"{NAME} {IPP} {UID}".encode()
    region.sick.searches = giving(500, said, "text/plain")
    assert "did not answer" in region.get(f"/studies?PatientID={IPP}").headers["Warning"]
    region.holder.searches = giving(200, said, f"text/{IPP}")
    assert region.get(f"/studies?PatientID={IPP}").status_code == 503
    region.holder.searches = None
    region.sick.searches = giving(200, b"[]", "application/dicom+json")
    region.holder.deliver = breaking_off
    broken = wire.get(region.server.dicomweb, f"/studies/{UID}", MULTIPART)
    assert broken.status == 200
    assert not broken.closed
    region.holder.deliver = giving(200, multipart([said * 9], "b"), content_type(IPP))
    assert wire.get(region.server.dicomweb, f"/studies/{UID}", MULTIPART).status == 502
    return shown


async def breaking_off(_: Request, connection: Connection, held: list[Held]) -> None:
    body = multipart([i.data for i in held], "b")
    await connection.send(answer_head(Framing.LENGTH, len(body), content_type("b")) + body[: len(body) // 2])
    await asyncio.sleep(0.3)
    connection.abort()


def refuse_in_the_database(region: Region) -> str:
    """Statements that fail, each with a patient in it. → what PostgreSQL told those who sent them."""
    asyncio.run(_practitioner(region.url))
    told = [
        region.refused(f"SELECT {SAID}::date"),
        region.refused("SELECT $1::text::integer", values=(SAID,)),
        region.refused(f"SELECT * FROM nowhere WHERE name = {SAID}"),
        region.refused(f"SELECT 1 / length('') AS {IPP}, {SAID}"),
        region.refused(f"DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = {SAID}, DETAIL = {SAID}; END $$"),
        region.refused(f"INSERT INTO opposition_study VALUES (0, {SAID}, true)"),
        region.refused(
            "INSERT INTO opposition (kind, name, birth_date, sex, declared_on, channel, recorded_by)"
            " VALUES ('person', $1, $2, 'F', now(), 'form', $3)",
            values=(NAME, f"{BORN}-", RPPS),
        ),
        region.refused("SET statement_timeout = 100", f"SELECT pg_sleep(5), {SAID}"),
        region.refused("SET lock_timeout = 100", "SET deadlock_timeout = 20", f"SELECT pg_sleep(5), {IPP}, {SAID}"),
    ]
    region.sql("SET log_min_messages = log", "DO $$ BEGIN RAISE LOG 'ZQ-CONTROL'; END $$", "SELECT 1")
    region.sql(f"SELECT pg_sleep(1.2), {SAID}")  # slow
    # One that the database refuses of ours: the trace of a search.
    region.sql("ALTER TABLE trace ADD CONSTRAINT no_such_trace CHECK (query NOT LIKE '%ZQREFUSED%')", "SELECT 1")
    assert region.get(f"/studies?PatientID={IPP}&PatientName=ZQREFUSED").status_code == 503
    region.sql("ALTER TABLE trace DROP CONSTRAINT no_such_trace", "SELECT 1")
    return " ".join(told)


async def _practitioner(url: str) -> None:
    async with Database(url) as database:
        await database.execute(
            "INSERT INTO practitioner (rpps, name, emetteur, role) VALUES ($1, 'MARTIN^CLAIRE', $2, 'correspondent')",
            RPPS,
            SITE,
        )


def oppose(region: Region) -> str:
    """An opposition by person and a near match are recorded; what they bind is refused. → what is recorded."""
    region.sql(
        "INSERT INTO opposition (kind, name, birth_date, sex, declared_on, channel, reason, recorded_by)"
        " VALUES ('person', $1, $2, 'F', now(), 'form', $3, $4)",
        values=(NAME, BORN, f"canarizq {IPP}", RPPS),
    )
    near = (
        "INSERT INTO near_match (opposition, emetteur, ipp, traits, name, birth_date, sex, difference, study_uid)"
        f" SELECT max(id), '{SITE}', $1, $2, $3, $4, 'F', 'one letter of the name differs', $5 FROM opposition"
    )
    values = (IPP, f"canarizq^elodie|{BORN}|F", NAME, BORN, UID)
    region.sql(near, values=values)
    region.refused(near, values=values)  # twice the same
    region.sql(f"UPDATE near_match SET status = 'confirmed', decided_by = '{RPPS}', decided_at = now()", "SELECT 1")
    region.awaited(f"/studies?PatientID={IPP}", 204)
    assert region.get(f"/studies/{UID}").status_code == 404
    assert region.get(f"/studies/{UID}/metadata").status_code == 404
    return region.sql(
        "SELECT query, study_uid, patient_id, detail::text FROM trace UNION ALL"
        " SELECT name, ipp, traits, study_uid FROM near_match UNION ALL"
        " SELECT name, birth_date, reason, '' FROM opposition"
    )


def lose_the_database(region: Region) -> None:
    """Connections that are cut while they carry a patient; a server process of PostgreSQL that dies with one."""
    statement = f"SELECT pg_sleep(20), {SAID}"
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    for end in (lambda _: region.sql(cut), lambda pid: os.kill(pid, signal.SIGKILL)):
        asyncio.run(_ended(region.url, statement, end))
        region.awaited("/studies?PatientName=ZQNOBODY", 204)
    # Who leaves in the middle of his statement, and of his transaction.
    asyncio.run(_left(region.url, statement))


async def _ended(url: str, statement: str, end: Callable[[int], object]) -> None:
    connection = await asyncpg.connect(url, timeout=20)
    running = asyncio.ensure_future(connection.execute(statement))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(end, connection.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await running


async def _left(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=20)
    await connection.execute("BEGIN")
    running = asyncio.ensure_future(connection.execute(statement))
    await asyncio.sleep(0.3)
    connection.terminate()
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await running


def test_failed_migration_is_told_without_values(postgres: Callable[[], str]) -> None:
    """As when what stands in a table breaks a new constraint."""
    url = postgres()
    asyncio.run(_forbid_tables(url))
    with pytest.raises(DatabaseError, match=r"migration failed.*23505.*one_each") as caught:
        asyncio.run(migrate.migrate(url))
    assert found_in(str(caught.value).encode()) == []


async def _forbid_tables(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await connection.execute(
            "CREATE FUNCTION deny() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING"
            f" MESSAGE = {SAID}, DETAIL = {SAID}, ERRCODE = 'unique_violation', CONSTRAINT = 'one_each'; END $$;"
            " CREATE EVENT TRIGGER deny ON ddl_command_start EXECUTE FUNCTION deny()"
        )
    finally:
        await connection.close()


def test_what_asyncio_logs_names_a_fault_without_its_words() -> None:
    """An exception that nobody fetched, with a patient in its text."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("asyncio")

    async def fail() -> None:
        raise KeyError(SAID)

    async def leave() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.wait({task})
        del task
        gc.collect()

    logger.addHandler(handler)
    try:
        asyncio.run(leave())
    finally:
        logger.removeHandler(handler)
    (entry,) = (json.loads(line) for line in written.getvalue().splitlines())
    assert entry["message"] == "Task exception was never retrieved"
    assert entry["exception"] == "KeyError"
    assert found_in(written.getvalue().encode()) == []
