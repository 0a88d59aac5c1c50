"""Who may read which traces, and the trace of reading them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from support.commands import CORRESPONDENT, ELSEWHERE, NOBODY, PRACTITIONER, REFERENT, SUSPENDED, Commands

from consent.heads import load_or_make_keys
from consent.journal import Journal
from consent.model import Event, EventKind, Requester
from imagora.commands.traced import operator
from registry.database import Database

SEEN = Event(
    kind=EventKind.ACCESSED,
    requester=Requester(id="10001234567", name="MARTIN^CLAIRE"),
    at=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    study_uid="1.2.3",
    patient_id="4547@csrom41200",
    origin="csrom41200",
)
DECLARED = replace(
    SEEN,
    kind=EventKind.EMERGENCY_STARTED,
    study_uid="",
    detail={"emergency": "e-1", "reason": "unconscious"},
)
EVENTS = (
    SEEN,
    replace(SEEN, study_uid="1.2.4", patient_id="12@csorl45000", origin="csorl45000"),
    replace(SEEN, kind=EventKind.QUERY, study_uid="", patient_id="", origin=""),
    DECLARED,
    replace(SEEN, study_uid="1.2.5", detail={"emergency": "e-1"}),
    # The same patient's exam of another site.
    replace(SEEN, study_uid="1.2.6", origin="csorl45000", detail={"emergency": "e-1"}),
    replace(DECLARED, kind=EventKind.EMERGENCY_STOPPED, detail={"emergency": "e-1"}),
    replace(DECLARED, detail={"emergency": "e-2", "reason": "nothing of csorl45000 was seen"}),
)


@pytest.fixture
def traced(region: Commands) -> Commands:
    async def work() -> None:
        async with Database(region.url) as database, Journal(database) as journal:
            for event in EVENTS:
                await journal.write(event)

    asyncio.run(work())
    return region


def read(region: Commands, *options: str, command: str = "list") -> list[dict[str, Any]]:
    found = region.json("traces", command, *options)
    assert isinstance(found, list)
    return found


def shown(traces: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(t["kind"], t["study_uid"] or str(t["detail"].get("emergency", ""))) for t in traces]


def test_a_correspondent_reads_the_traces_of_his_own_site_and_a_referent_all(traced: Commands) -> None:
    for command in ("list", "export"):
        own = [t for t in read(traced, "--by", CORRESPONDENT, command=command) if t["kind"] != "traces-read"]
        assert {t["origin"] for t in own} == {"csrom41200"}
        assert len(own) == 5
        again = read(traced, "--by", CORRESPONDENT, "--site", "CSROM41200", command=command)
        assert [t for t in again if t["kind"] != "traces-read"] == own
        for options in (("--by", REFERENT), ()):
            all_ = read(traced, *options, command=command)
            assert len([t for t in all_ if t["kind"] != "traces-read"]) == len(EVENTS)
    theirs = read(traced, "--by", REFERENT, "--site", "csorl45000")
    assert shown(theirs) == [("accessed", "1.2.4"), ("accessed", "1.2.6")]


@pytest.mark.parametrize("command", [("list",), ("export", "--format", "csv"), ("export", "--format", "json")])
def test_nobody_else_reads_anything(traced: Commands, command: tuple[str, ...]) -> None:
    for options, words in (
        (("--by", CORRESPONDENT, "--site", "csorl45000"), "may read the traces of csrom41200 only"),
        (("--by", PRACTITIONER), "a correspondent may read those of his site, a referent all"),
        (("--by", PRACTITIONER, "--site", "csrom41200"), "a correspondent may read those of his site"),
        (("--by", SUSPENDED), "is suspended"),
        (("--by", NOBODY), "no practitioner has the RPPS"),
        (("--by", CORRESPONDENT, "--site", "nowhere"), "no site has the EMETTEUR 'nowhere'"),
    ):
        result = traced("traces", *command, *options)
        assert (result.exit_code, result.stdout, words in result.stderr) == (1, "", True), result.output
    wrong = traced("traces", *command, "--by", "me")
    assert (wrong.exit_code, "is not an RPPS" in wrong.stderr) == (2, True)
    assert traced.traces("traces-read") == []


def test_a_correspondent_is_told_the_emergencies_that_concern_his_site(traced: Commands) -> None:
    started, stopped = ("emergency-started", "e-1"), ("emergency-stopped", "e-1")
    assert shown(read(traced, "--by", CORRESPONDENT, "--emergencies")) == [
        started,
        ("accessed", "1.2.5"),
        stopped,
        ("emergency-started", "e-2"),
    ]
    # Of another site's patient: his own site's exam, and the declaration by which it was seen, with its reason.
    others = read(traced, "--by", ELSEWHERE, "--emergencies")
    assert shown(others) == [started, ("accessed", "1.2.6"), stopped]
    assert others[0]["detail"]["reason"] == "unconscious"
    assert shown(read(traced, "--by", ELSEWHERE)) == [("accessed", "1.2.4"), ("accessed", "1.2.6"), ("traces-read", "")]
    table = traced("traces", "list", "--site", "csorl45000", "--emergencies").stdout
    assert "emergency=e-1 reason=unconscious" in table


def test_reading_is_traced_with_what_was_asked(traced: Commands) -> None:
    read(traced, "--by", CORRESPONDENT, "--patient", "4547@csrom41200", "--since", "2026-01-31T12:00:00")
    traced("traces", "export", "--format", "csv", "--site", "CSORL45000", "--practitioner", "10001234567")
    read(traced, "--emergencies", "--patient", "4547")
    traced("traces", "verify")
    first, second, third, fourth = traced.traces("traces-read")
    since = datetime(2026, 1, 31, 12).astimezone().astimezone(UTC).isoformat()
    assert (first["requester_id"], first["origin"], first["patient_id"]) == (
        CORRESPONDENT,
        "csrom41200",
        "4547@csrom41200",
    )
    assert first["detail"] == {
        "action": "list",
        "site": "csrom41200",
        "patient": "4547@csrom41200",
        "since": since,
    }
    assert (second["requester_id"], second["origin"], second["patient_id"]) == (operator().id, "csorl45000", "")
    assert second["detail"] == {"action": "export", "site": "csorl45000", "practitioner": "10001234567"}
    assert third["detail"] == {"action": "list", "patient": "4547", "emergencies": 1}
    assert (third["origin"], third["patient_id"]) == ("", "")
    assert fourth["detail"] == {"action": "verify"}


def test_a_reading_stands_in_later_ones_only(traced: Commands) -> None:
    assert "traces-read" not in {t["kind"] for t in read(traced, "--site", "csrom41200")}
    newest = read(traced, "--site", "csrom41200", "--limit", "1")
    assert [(t["kind"], t["detail"]["action"], t["event_id"]) for t in newest] == [("traces-read", "list", "110101")]
    assert len(traced.traces("traces-read")) == 2


@pytest.mark.parametrize(
    "command", [("list",), ("export", "--format", "csv"), ("export", "--format", "json"), ("verify",)]
)
def test_nothing_is_shown_unless_the_reading_is_durable(traced: Commands, command: tuple[str, ...]) -> None:
    traced.fetch(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON trace FOR EACH ROW EXECUTE FUNCTION refuse()",
        "SELECT 1",
    )
    result = traced("traces", *command)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert "no trace can be made: the database refuses it" in result.stderr


def test_who_reads_needs_no_key_to_sign_with(traced: Commands) -> None:
    """The end of the row's chain is signed by a running server."""
    key = traced.state / "trace-key.pem"
    read(traced)
    assert not key.exists()
    assert traced.fetch("SELECT FROM trace_head") == []
    load_or_make_keys(key)
    read(traced)
    assert len(traced.fetch("SELECT FROM trace_head")) == 1
    key.chmod(0o644)
    read(traced)
    assert len(traced.traces("traces-read")) == 3
