"""`imagora traces` as people run it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result

from consent.audit import CODES, OUTCOMES
from consent.heads import HeadFile, load_or_make_keys
from consent.journal import Journal
from consent.keeper import Keeper
from consent.model import Event, EventKind, EventOutcome, Requester
from imagora.cli import cli
from registry import migrate
from registry.database import Database
from registry.embedded import Lease

AT = datetime(2026, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)
BEGUN = Event(
    kind=EventKind.TRANSFER_BEGUN,
    requester=Requester(id="10001234567", name="MARTIN^CLAIRE"),
    at=AT,
    request_id="r-1",
    scope="all",
    study_uid="1.2.3",
    patient_id="4547@csrom41200",
    origin="csrom41200",
    holders=("csrom41200", "csorl45000"),
)
EVENTS = (
    BEGUN,
    replace(BEGUN, kind=EventKind.TRANSFERRED, outcome=EventOutcome.FAILURE, detail={"bytes": 12}),
    replace(
        BEGUN,
        kind=EventKind.QUERY,
        requester=Requester(id="CT_DEST"),
        at=datetime(2026, 2, 2, tzinfo=UTC),
        query='=HYPERLINK("http://x";"y")\n',
        study_uid="",
        patient_id="",
        origin="",
        holders=(),
    ),
)
CONFIG = """
[server]
state_dir = "{state}"
[[sites]]
emetteur = "csrom41200"
site = 423
name = "Romorantin"
"""


class Commands:
    def __init__(self, config: Path, state: Path, url: str) -> None:
        self.config = config
        self.state = state
        self.url = url

    def __call__(self, *arguments: str) -> Result:
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        return CliRunner().invoke(cli, ["traces", *arguments, "--config", str(self.config)], env=cleared)

    def tamper(self, command: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(command)
            await connection.close()

        asyncio.run(run())


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A state folder whose database keeps running, so that each command finds it up."""
    state = tmp_path_factory.mktemp("cli") / "state"
    lease = Lease(state)
    url = lease.acquire()
    asyncio.run(migrate.migrate(url))
    try:
        yield state, url
    finally:
        lease.release()


@pytest.fixture
def imagora(held: tuple[Path, str], tmp_path: Path) -> Commands:
    state, url = held
    config = tmp_path / "imagora.toml"
    config.write_text(CONFIG.format(state=state))
    commands = Commands(config, state, url)
    commands.tamper("TRUNCATE trace, trace_head")
    (state / "trace-heads.jsonl").unlink(missing_ok=True)
    return commands


@pytest.fixture
def traced(imagora: Commands) -> Commands:
    async def work() -> None:
        keys = load_or_make_keys(imagora.state / "trace-key.pem")
        async with Database(imagora.url) as database:
            journal = Journal(database)
            file = HeadFile(imagora.state / "trace-heads.jsonl")
            async with Keeper(database, journal, keys, file, retention_months=120), journal:
                for event in EVENTS:
                    await journal.write(event)

    asyncio.run(work())
    return imagora


def listed(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def test_traces_are_listed_for_people(traced: Commands) -> None:
    result = traced("list")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:5] == ["AT", "KIND", "OUTCOME", "REQUESTER", "PATIENT"]
    assert "10001234567 MARTIN CLAIRE" in lines[1]
    assert "4547@csrom41200" in lines[1]
    assert lines[-1] == "3 traces."


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ((), 3),
        (("--site", "CSROM41200"), 2),
        (("--patient", "4547"), 2),
        (("--patient", "4547@csrom41200"), 2),
        (("--patient", "454"), 0),
        (("--practitioner", "CT_DEST"), 1),
        (("--since", "2026-02-01"), 1),
        (("--since", "2026-01-31"), 3),
        (("--emergencies",), 0),
        (("--site", "csrom41200", "--since", "2026-02-01"), 0),
    ],
)
def test_traces_are_selected(traced: Commands, options: tuple[str, ...], number: int) -> None:
    assert len(listed(traced("list", "--format", "json", *options))) == number
    exported = listed(traced("export", "--format", "json", *options))
    assert len([trace for trace in exported if trace["kind"] != "traces-read"]) == number


def test_the_newest_are_listed_and_what_is_left_out_is_told(traced: Commands) -> None:
    result = traced("list", "--format", "json", "--limit", "1")
    assert [trace["kind"] for trace in listed(result)] == ["query"]
    assert "2 older ones are left out" in result.stderr


def test_an_unknown_site_is_told(traced: Commands) -> None:
    result = traced("list", "--site", "nobody")
    assert (result.exit_code, "no site has the EMETTEUR 'nobody'" in result.stderr) == (1, True)


def test_json_holds_all_with_dicom_s_codes(traced: Commands) -> None:
    first, second, _ = listed(traced("export", "--format", "json"))
    assert {name: first[name] for name in list(first)[:18]} == {
        "at": "2026-01-31T12:30:15.123456Z",
        "kind": "transfer-begun",
        "outcome": "success",
        "requester_id": "10001234567",
        "requester_name": "MARTIN^CLAIRE",
        "patient_id": "4547@csrom41200",
        "study_uid": "1.2.3",
        "origin": "csrom41200",
        "holders": ["csrom41200", "csorl45000"],
        "scope": "all",
        "query": "",
        "request_id": "r-1",
        "detail": {},
        "event_id": "110102",
        "event_id_meaning": "Begin Transferring DICOM Instances",
        "event_type_code": "",
        "event_action_code": "E",
        "event_outcome_indicator": "0",
    }
    assert (first["sequence"], second["sequence"], second["previous"]) == (1, 2, first["hash"])
    assert (second["event_id"], second["event_outcome_indicator"]) == ("110104", "8")


def test_csv_runs_no_formula(traced: Commands) -> None:
    result = traced("export", "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 3
    assert rows[2]["query"] == '\'=HYPERLINK("http://x";"y") '
    assert rows[0]["holders"] == "csrom41200 csorl45000"
    assert (rows[1]["detail"], rows[1]["event_id"]) == ('{"bytes":12}', "110104")


def test_no_trace_is_an_empty_list(imagora: Commands) -> None:
    result = imagora("verify")
    assert (result.exit_code, result.stdout) == (0, "There are no traces.\n")
    imagora.tamper("TRUNCATE trace, trace_head")  # the trace of that check
    assert listed(imagora("list", "--format", "json")) == []
    imagora.tamper("TRUNCATE trace, trace_head")
    assert listed(imagora("export", "--format", "json")) == []
    imagora.tamper("TRUNCATE trace, trace_head")
    assert len(imagora("export", "--format", "csv").stdout.splitlines()) == 1


def test_every_kind_and_outcome_has_its_code() -> None:
    assert set(EventKind) <= set(CODES)
    assert set(EventOutcome) == set(OUTCOMES)


def test_verify_says_what_was_checked(traced: Commands) -> None:
    result = traced("verify")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("3 rows in 1 chain checked, recorded from 20")
    assert "The last head was signed 20" in result.stdout
    assert "Not signed yet" not in result.stdout
    assert result.stderr == ""


def test_verify_names_what_is_wrong(traced: Commands) -> None:
    traced.tamper("DELETE FROM trace WHERE sequence = 3; DELETE FROM trace_head")
    result = traced("verify")
    assert result.exit_code == 1
    assert result.stdout.startswith("cut off: row 3 of ")
    assert result.stderr == "Error: the traces are not as they were written: 1 finding\n"


def test_verify_takes_heads_from_elsewhere(traced: Commands, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    (traced.state / "trace-heads.jsonl").rename(copy)
    assert traced("verify", "--heads", str(copy)).exit_code == 0
    traced.tamper("DELETE FROM trace WHERE sequence = 3; DELETE FROM trace_head")
    (traced.state / "trace-heads.jsonl").unlink()  # of the trace of the check itself
    result = traced("verify")
    assert (result.exit_code, "do not show" in result.stderr) == (0, True)  # said, because nothing can show it
    assert traced("verify", "--heads", str(copy)).exit_code == 1


def test_verify_without_the_key_trusts_nothing(traced: Commands) -> None:
    with traced.config.open("a") as file:
        file.write(f'[traces]\nkey_file = "{traced.config.parent / "none.pem"}"\n')
    result = traced("verify")
    assert result.exit_code == 1
    assert "unknown here" in result.stdout
    assert "There is no key at" in result.stderr
