"""`imagora sites check`: members that cannot be used, or in part, which sites it takes, and wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from pydicom.uid import ImplicitVRLittleEndian
from support import peer
from support.checking import NAMES, Checks, multipart, spoiling
from support.peer import Connection, Peer, Request

from imagora.cli import cli
from registry.model import Quirks


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (peer.silent, "no answer within 2 s"),
        (peer.dripping, "no answer within 2 s"),
        (peer.garbage, "not an array of data sets"),
        (peer.redirecting, "redirects are not followed"),
        (lambda _, c: c.answer(404, b"", "text/plain"), "HTTP 404"),
        (lambda _, c: c.json([{"00100010": {"vr": "PN", "Value": ["SECRET"]}}]), "rows lack StudyInstanceUID"),
    ],
)
def test_what_is_wrong_is_told(check: Checks, behave: peer.Behaviour, words: str) -> None:
    with Peer(behave) as member:
        result = check({"one": member.dicomweb_url}, "one")
    assert result.exit_code == 1
    assert result.stdout.startswith("one, Hôpital one: not usable\n")
    assert words in result.stdout
    assert "SECRET" not in result.stdout
    assert "Traceback" not in result.output


def test_a_member_that_is_down_keeps_what_was_known_of_it(check: Checks, orthanc: OrthancServer) -> None:
    check.one(orthanc.dicomweb_url)
    known = check.quirks()

    check.move("http://127.0.0.1:1/x")
    result = check({"one": "http://127.0.0.1:1/x"}, "one")
    assert result.exit_code == 1
    assert result.stdout == "one, Hôpital one: not usable\n  FAILED  connection  no connection (Connection refused)\n"
    assert check.quirks() == known != Quirks()


def test_a_wrong_password_is_told_with_what_to_set(check: Checks, orthanc: OrthancServer) -> None:
    wrong = {"IMAGORA_MEMBER_ONE_PASSWORD": "wrong-word"}
    result = check({"one": orthanc.dicomweb_url}, "one", environment=wrong)
    assert result.exit_code == 1
    assert "it refuses us (HTTP 401): are IMAGORA_MEMBER_ONE_USER and _PASSWORD, or _TOKEN, right?" in result.stdout
    assert "wrong-word" not in result.output


IMPLICIT = exams.light_study("check-0", transfer_syntax=ImplicitVRLittleEndian)[0]
OTHER = exams.light_study("another")[0]


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (multipart("application/dicom", IMPLICIT), "comes in implicit VR or big endian"),
        (multipart("application/dicom", OTHER), "not the one instance asked for"),
        (multipart("application/dicom", OTHER, OTHER), "not the one instance asked for"),
        (multipart("application/dicom", b"nonsense"), "not a DICOM file"),
        (multipart("application/dicom", OTHER[:600]), "not a DICOM file"),
        (lambda _, c: c.answer(406, b"", "text/plain"), "HTTP 406"),
    ],
)
def test_instances_that_cannot_be_relayed_are_told(
    check: Checks, orthanc: OrthancServer, behave: peer.Behaviour, words: str
) -> None:
    instances = {f"/{exams.uid(exams.uid(exams.uid(f'check-{i}', 'study'), 'series', 1), 'instance', n)}": behave
                 for i in range(len(NAMES)) for n in (1, 2)}  # fmt: skip
    with Peer(spoiling(orthanc, instead=instances)) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 1
    assert findings["retrieve"]["result"] == "failed"
    assert words in findings["retrieve"]["text"]


def test_missing_pictures_are_a_limit_only(check: Checks, orthanc: OrthancServer) -> None:
    async def cannot(_: Request, connection: Connection) -> None:
        await connection.answer(501, b"", "text/plain")

    with Peer(spoiling(orthanc, instead={"/frames/1": cannot, "/rendered": cannot, "/series": cannot})) as member:
        findings, result = check.one(member.dicomweb_url)
    assert findings["frames"] | {"ms": None} == {
        "topic": "frames",
        "result": "limit",
        "text": "HTTP 501; viewers could not show its images",
        "ms": None,
    }
    assert findings["rendered images"]["result"] == "limit"
    assert "/series (HTTP 501)" in findings["wide searches"]["text"]
    assert findings["series"]["result"] == "failed"
    assert result.exit_code == 1


def test_what_was_learnt_is_forgotten_with_the_address(check: Checks, orthanc: OrthancServer, tmp_path: Path) -> None:
    check.one(orthanc.dicomweb_url)
    table = tmp_path / "sites.csv"
    arguments = ["sites", "import", str(table), "--config", str(tmp_path / "imagora.toml")]
    for address, known in ((orthanc.dicomweb_url, True), ("http://127.0.0.1:1/other", None)):
        table.write_text(f"emetteur,site,name,folder,availability,status,dicomweb\none,401,New,,,member,{address}\n")
        result = CliRunner().invoke(cli, arguments, env={"IMAGORA_DATABASE__URL": check.url})
        assert result.exit_code == 0, result.output
        assert check.quirks().names_ignore_case is known


# Which sites ---------------------------------------------------------------------------------------------------


def test_all_sites_that_are_asked_are_checked(check: Checks, orthanc: OrthancServer) -> None:
    more = '[[sites]]\nemetteur = "noaddress"\nsite = 999\nname = "X"\n'
    more += '[[sites]]\nemetteur = "listed"\nsite = 998\nname = "Y"\nstatus = "unreferenced"\n'
    members = {"one": orthanc.dicomweb_url, "down": "http://127.0.0.1:1/x"}
    result = check(members, "--all", more=more)
    assert result.exit_code == 1
    titles = [line for line in result.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles == [
        "one, Hôpital one: usable, with limits",
        "down, Hôpital down: not usable",
        "1 of 2 sites usable.",
    ]
    assert result.stderr == "Not checked, for want of a DICOMweb address: noaddress.\n"


@pytest.mark.parametrize(
    ("emetteur", "words"),
    [
        ("nobody", "no site has the EMETTEUR 'nobody'"),
        ("noaddress", "noaddress has no address"),
        ("listed", "listed is unreferenced"),
        ("dimse", "dimse speaks DIMSE only"),
    ],
)
def test_a_site_that_cannot_be_checked_is_told(check: Checks, emetteur: str, words: str) -> None:
    more = '[[sites]]\nemetteur = "noaddress"\nsite = 999\nname = "X"\n'
    more += '[[sites]]\nemetteur = "listed"\nsite = 998\nname = "Y"\nstatus = "unreferenced"\n'
    more += '[[sites]]\nemetteur = "dimse"\nsite = 997\nname = "Z"\naet = "Z"\nhost = "127.0.0.1"\nport = 4242\n'
    result = check({}, emetteur, more=more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {words}")


def test_wrong_usage_has_status_2() -> None:
    for arguments in ([], ["one", "--all"], ["one", "--format", "xml"]):
        assert CliRunner().invoke(cli, ["sites", "check", *arguments]).exit_code == 2


def test_help_says_everything() -> None:
    text = CliRunner().invoke(cli, ["sites", "check", "--help"]).output
    words = (
        "EMETTEUR",
        "--all",
        "--format",
        "IMAGORA_MEMBER_<EMETTEUR>_USER",
        "search.deadline_s",
        "Exit status",
        "--last",
        "--lang",
        "html",
    )
    shown = " ".join(text.split())
    assert all(word in shown for word in (*words, "kept", "FAILED", "limit and offset", "--last", "--lang"))
    assert "  check " in CliRunner().invoke(cli, ["sites", "--help"]).output
