"""`imagora search` over the real server, a real Orthanc and members that misbehave."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from support import peer
from support.peer import Connection, Peer, Request

from imagora.cli import cli
from imagora.commands.criteria import period
from imagora.search_client import PAGE

FOLDER = "MIRC historique"
REPOSITORY = Path(__file__).parents[2]


def row(number: int, **more: Any) -> dict[str, Any]:
    """A study row of a scripted member; the higher the number, the older the study."""
    values: dict[str, tuple[str, Any]] = {
        "0020000D": ("UI", f"1.2.{number}"),
        "00080020": ("DA", f"{2024 - number // 300}0101"),
        "00080030": ("TM", "101010"),
        "00080061": ("CS", "CT"),
        "00201206": ("IS", 1),
        "00201208": ("IS", 1),
        "00100010": ("PN", {"Alphabetic": "SCRIPTED^NAME"}),
        "00100020": ("LO", str(number)),
        "00100030": ("DA", "19500101"),
    }
    values |= more
    return {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in values.items()}


def run(*arguments: str) -> Result:
    cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
    return CliRunner().invoke(cli, ["search", *arguments], env=cleared)


def found(result: Result) -> list[dict[str, str]]:
    """The rows of a CSV answer."""
    return list(csv.DictReader(io.StringIO(result.stdout)))


@dataclass
class Region:
    """A server over Orthanc (csrom41200), a scripted member (cstrs37000) and one that is down (csblo41000)."""

    url: str
    scripted: Peer

    def search(self, *arguments: str) -> Result:
        return run("--url", self.url, *arguments)


@pytest.fixture(scope="module")
def region(serve_module) -> Iterator[Region]:
    hostile = row(1, **{"00081030": ("LO", '=HYPERLINK("http://x";"y")'), "00100020": ("LO", "\x1b[31m+1")})
    with OrthancServer(name="romorantin") as orthanc, Peer(peer.rows([hostile])) as scripted:
        marie = {"name": "DUPONT-LÉVY^Marie", "birth_date": "19600512", "sex": "F", "patient_id": "4547"}
        orthanc.upload(
            [
                *exams.light_study("a", **marie, study_date="20240110", description="Scanner thoracique", n_series=2),
                *exams.light_study("b", **marie, study_date="20190110", modality="MR", accession="ACC7"),
                *exams.light_study("c", name="O'NEIL^Jean", patient_id="12", birth_date="19600512", sex="M"),
            ]
        )
        server = serve_module(
            {
                "csrom41200": orthanc.dicomweb_url,
                "cstrs37000": scripted.dicomweb_url,
                "csblo41000": "http://127.0.0.1:1/x",
            },
            folders={FOLDER: ["csrom41200"], "MIRC Centres Imagerie": ["cstrs37000", "csblo41000"]},
            search={"require_patient_criterion": True, "breaker_failures": 1000},
        )
        yield Region(server.url, scripted)


def test_an_exam_is_shown_to_people(region: Region) -> None:
    result = region.search(
        "--name", "dupont levy,m*", "--born", "12/05/1960", "--since", "2020", "--scope", "CSROM41200"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == ("DATE MOD DESCRIPTION NAME BORN SEX PATIENT ID SITE EMETTEUR SERIES/IMAGES")
    assert " ".join(lines[1].split()) == (
        "2024-01-10 CT Scanner thoracique DUPONT-LÉVY Marie 1960-05-12 F 4547@csrom41200 401 csrom41200 2/2"
    )
    assert lines[2:] == ["", "1 exam."]
    assert lines[1].index("Scanner") == lines[0].index("DESCRIPTION")


@pytest.mark.parametrize(
    ("arguments", "studies"),
    [
        (("--name", "dupont-lévy"), 2),
        (("--name", "DUPONT-LEVY^M*", "--modality", "mr"), 1),
        (("--name", "ONEIL", "--born", "1960-05-12"), 1),
        (("--patient-id", "4547", "--until", "2019"), 1),
        (("--patient-id", "4547@csrom41200", "--since", "2019-01-11"), 1),
        (("--patient-id", "4547", "--since", "10/01/2019", "--until", "20240110"), 2),
        (("--patient-id", "4547", "--since", "2019-02", "--until", "2023-12"), 0),
        (("--accession", "ACC7"), 1),
        (("--description", "*THORAC*"), 1),
        (("--study", str(exams.uid("b", "study"))), 1),
    ],
)
def test_every_criterion_narrows(region: Region, arguments: tuple[str, ...], studies: int) -> None:
    result = region.search(*arguments, "--scope", "csrom41200", "--format", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(found(result)) == studies


def test_json_is_the_rows_as_the_server_gave_them(region: Region) -> None:
    result = region.search("--patient-id", "4547", "--scope", "mirc-historique", "--format", "json")
    rows = json.loads(result.stdout)
    assert [r["00080020"]["Value"] for r in rows] == [["20240110"], ["20190110"]]  # newest first
    assert rows[0]["00080054"]["Value"] == ["csrom41200"]
    assert rows[0]["00100010"]["Value"] == [{"Alphabetic": "DUPONT-LÉVY^Marie"}]
    assert "DUPONT-LÉVY" in result.stdout  # not escaped
    assert region.search("--patient-id", "nobody", "--scope", FOLDER, "--format", "json").stdout == "[]\n"


def test_csv_says_all_of_an_exam(region: Region) -> None:
    result = region.search("--accession", "ACC7", "--scope", FOLDER, "--format", "csv")
    uid = str(exams.uid("b", "study"))
    assert found(result) == [
        {
            "study_date": "2019-01-10",
            "study_time": "101500",
            "modalities": "MR",
            "description": "",
            "patient_name": "DUPONT-LÉVY^Marie",
            "birth_date": "1960-05-12",
            "sex": "F",
            "patient_id": "4547@csrom41200",
            "accession_number": "ACC7",
            "site": "401",
            "site_name": "Hôpital csrom41200",
            "emetteurs": "csrom41200",
            "series": "1",
            "instances": "1",
            "study_uid": uid,
            "url": f"{region.url}/sites/csrom41200/dicom-web/studies/{uid}",
        }
    ]


def test_what_members_write_is_neither_run_nor_obeyed(region: Region) -> None:
    arguments = ("--name", "SCRIPTED", "--scope", "cstrs37000")
    cells = found(region.search(*arguments, "--format", "csv"))[0]
    assert cells["description"] == '\'=HYPERLINK("http://x";"y")'
    assert cells["patient_id"] == " [31m+1@cstrs37000"
    assert "\x1b" not in region.search(*arguments).stdout


def test_missing_sources_are_told_with_status_3(region: Region) -> None:
    for form in ("table", "json", "csv"):
        result = region.search("--name", "dupont*", "--format", form)
        assert result.exit_code == 3
        assert result.stderr == "Warning: 1 of 3 sources did not answer: csblo41000 (error)\n"
        assert "DUPONT" in result.stdout
    nothing = region.search("--patient-id", "nobody")
    assert nothing.exit_code == 3
    assert nothing.stdout == "No exam found by the sources that answered.\n"


def test_a_search_that_was_sent_to_nobody_has_status_3(region: Region) -> None:
    before = len(region.scripted.requests)
    result = region.search("--modality", "CT")
    assert result.exit_code == 3
    assert result.stderr.startswith("Warning: This search names no patient and was not sent: give a UID")
    assert result.stdout == "Nothing was searched.\n"
    assert len(region.scripted.requests) == before


def test_no_source_at_all_is_a_failure(region: Region) -> None:
    result = region.search("--name", "dupont", "--scope", "csblo41000")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "Warning: 1 of 1 sources did not answer: csblo41000 (error)",
        f"Error: {region.url} answered 503: None of the sources answered. Try again in 10 s.",
    ]


def test_an_unknown_scope_is_told(region: Region) -> None:
    result = region.search("--name", "dupont", "--scope", "nowhere")
    assert result.exit_code == 1
    assert result.stderr == "Error: there is no site and no folder 'nowhere': `imagora sites list` shows all\n"


def test_all_pages_are_walked_until_the_limit(serve) -> None:
    number = 2 * PAGE + 203
    with Peer(peer.rows([row(i) for i in range(number)], honours_paging=False)) as member:
        server = serve({"one": member.dicomweb_url}, search={"member_cap": 2000})
        whole = run("--url", server.url, "--format", "json")
        assert (whole.exit_code, whole.stderr) == (0, "")
        uids = [r["0020000D"]["Value"][0] for r in json.loads(whole.stdout)]
        assert len(uids) == len(set(uids)) == number
        part = run("--url", server.url, "--format", "csv", "--limit", str(PAGE + 1))
        assert part.exit_code == 0
        assert [r["study_uid"] for r in found(part)] == uids[: PAGE + 1]
        assert part.stderr == f"{number - PAGE - 1} more: ask for them with a larger --limit.\n"


def test_a_source_that_was_cut_has_status_3(serve) -> None:
    with Peer(peer.rows([row(i) for i in range(20)])) as member:
        server = serve({"one": member.dicomweb_url}, search={"member_cap": 5})
        result = run("--url", server.url, "--limit", "3")
    assert result.exit_code == 3
    assert "Source one was cut at 5 rows" in result.stderr
    assert "at least 2 more" in result.stderr
    assert result.stdout.endswith("\n3 exams.\n")


# Servers that are not well ------------------------------------------------------------------------------------


def answering(status: int, body: bytes, content_type: str = "application/json", *headers: str) -> peer.Behaviour:
    async def behave(_: Request, connection: Connection) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
        await connection.send("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def test_every_warning_of_an_answer_is_told() -> None:
    headers = (
        'Warning: 299 a "first, with a comma", 299 b "second \\"quoted\\""',
        "Warning: 299 imagora: third: with a colon",
        "Warning: 299 imagora: There are 7 additional results that can be requested",
        "Imagora-Sources: one;timeout;0;9",
        "Imagora-Sources: two;ok;1;9",
    )
    body = json.dumps([row(1)]).encode()
    with Peer(answering(200, body, "application/dicom+json", *headers), root="") as server:
        result = run("--url", f"{server.dicomweb_url}/dicom-web/", "--limit", "1")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "Warning: first, with a comma",
        'Warning: second "quoted"',
        "Warning: third: with a colon",
        "7 more: ask for them with a larger --limit.",
    ]
    port = server.dicomweb_url.rpartition(":")[2]
    assert server.requests[0].headers["host"] == f"127.0.0.1:{port}"
    assert server.requests[0].path == "/dicom-web/studies"


def test_a_server_that_ignores_the_offset_does_not_hold_the_command() -> None:
    behave = answering(200, json.dumps([row(i) for i in range(PAGE)]).encode(), "application/dicom+json")
    with Peer(behave) as server:
        result = run("--url", server.dicomweb_url, "--format", "csv")
    assert result.exit_code == 0
    assert len(found(result)) == PAGE
    assert len(server.requests) == 2


CONFLICT = json.dumps({"error": "It stands for different people.", "urls": ["http://x/sites/a"]}).encode()


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (answering(409, CONFLICT), "answered 409: It stands for different people. Ask one of: http://x/sites/a"),
        (answering(400, b'{"error": "StudyDate: no date"}'), "answered 400: StudyDate: no date"),
        (answering(500, b"<html>DUPONT^MARIE</html>", "text/html"), "answered 500"),
        (answering(404, b""), "there is no DICOMweb façade at this address"),
        (peer.garbage, "did not answer in DICOM JSON"),
        (answering(200, b'[{"00100010": 1}]'), "did not answer in DICOM JSON"),
        (peer.silent, "did not answer within 0.3 s"),
    ],
)
def test_a_failure_is_one_line_and_status_1(behave: peer.Behaviour, words: str) -> None:
    with Peer(behave, root="") as server:
        result = run("--url", server.dicomweb_url, "--timeout", "0.3", "--name", "typed")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "MARIE" not in result.stderr


def test_a_server_that_does_not_run_is_told_as_people_run_it(tmp_path: Path) -> None:
    config = tmp_path / "imagora.toml"
    config.write_text("[server]\nport = 1\n")  # public_url follows it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}
    result = subprocess.run(
        [sys.executable, "-c", "from imagora.cli import main; main()", "search", "--config", str(config)],
        # A proxy has nothing to do with this machine's own addresses.
        env=environment | {"http_proxy": "http://192.0.2.1:3128"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: http://127.0.0.1:1 cannot be reached: is `imagora serve` running there?\n"


# What is typed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--born", "1960"),
        ("--born", "31/02/1960"),
        ("--since", "yesterday"),
        ("--since", "2021", "--until", "2020"),
        ("--name", " ^ "),
        ("--name", "A\\B"),
        ("--modality", "C"),
        ("--study", "abc"),
        ("--limit", "0"),
        ("--url", "ftp://x"),
        ("--format", "xml"),
        ("--accession", ""),
    ],
)
def test_wrong_usage_has_status_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("1960-05-12", "1960-05-12", "1960-05-12"),
        ("19600512", "1960-05-12", "1960-05-12"),
        ("12/05/1960", "1960-05-12", "1960-05-12"),
        ("2/5/1960", "1960-05-02", "1960-05-02"),
        ("2020", "2020-01-01", "2020-12-31"),
        ("2020-02", "2020-02-01", "2020-02-29"),
        ("202103", "2021-03-01", "2021-03-31"),
        ("12/2021", "2021-12-01", "2021-12-31"),
    ],
)
def test_dates_are_read_as_people_write_them(text: str, first: str, last: str) -> None:
    assert (str(period(text).first), str(period(text).last)) == (first, last)


def test_help_says_everything() -> None:
    text = run("--help").stdout
    options = ("name", "born", "patient-id", "accession", "modality", "description", "since", "until", "study")
    assert all(f"--{option} " in text for option in (*options, "scope", "limit", "url", "timeout", "format", "config"))
    assert all(words in text for words in ("Exit status", "3  an answer", "12/05/1960", "mirc-", "public_url"))
    assert "  search " in CliRunner().invoke(cli, ["--help"]).stdout
