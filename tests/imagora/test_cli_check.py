"""`imagora sites check` on a real Orthanc, on one behind a proxy that spoils its answers, and on scripted members."""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
import requests
from click.testing import CliRunner, Result
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from pydicom.uid import ImplicitVRLittleEndian
from support import peer
from support.peer import Connection, Peer, Request
from support.serving import serving, settings_for
from yarl import URL

from imagora.cli import cli
from registry.database import Database
from registry.model import Quirks
from registry.store import RegistryStore

NAMES = ("DUPONT-LÉVY^Marie", "MARTIN^Jean", "Noël^Zoé", "O'NEIL^Pat", "KELLER^Tom")
IPPS = ("IPP4711", "IPP4712", "IPP4713", "IPP4714", "IPP4715")
USER = {"IMAGORA_MEMBER_ONE_USER": "imagora", "IMAGORA_MEMBER_ONE_PASSWORD": "secret-word"}
#: Most rows that a check may ask for at once.
HANDFUL = 5
SITES = {"one": 401, "down": 402}


class Checks:
    """Runs `imagora sites check` over one database; members are given as EMETTEUR → URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._config = folder / "imagora.toml"

    def __call__(
        self, members: dict[str, str], *arguments: str, environment: dict[str, str] | None = None, more: str = ""
    ) -> Result:
        lines = ["[search]", "deadline_s = 2.0"]
        for emetteur, url in members.items():
            lines += [
                "[[sites]]",
                f'emetteur = "{emetteur}"',
                f"site = {SITES[emetteur]}",
                f'name = "Hôpital {emetteur}"',
            ]
            lines += [f'dicomweb = "{url}"']
        self._config.write_text("\n".join([*lines, more]))
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        cleared |= {"IMAGORA_DATABASE__URL": self.url, **USER, **(environment or {})}
        return CliRunner().invoke(cli, ["sites", "check", *arguments, "--config", str(self._config)], env=cleared)

    def one(self, url: str) -> tuple[dict[str, dict[str, Any]], Result]:
        """Check one member → (its findings by topic, the whole result)."""
        result = self({"one": url}, "one", "--format", "json")
        found = json.loads(result.stdout)[0]
        return {finding["topic"]: finding for finding in found["findings"]}, result

    def quirks(self, emetteur: str = "one") -> Quirks:
        async def load() -> Quirks:
            async with Database(self.url) as database:
                site = (await RegistryStore(database).load()).site(emetteur)
                assert site is not None
                return site.quirks

        return asyncio.run(load())


@pytest.fixture(scope="module")
def database(postgres: Callable[[], str]) -> str:
    return postgres()


@pytest.fixture
def check(database: str, tmp_path: Path) -> Checks:
    async def empty() -> None:
        async with Database(database) as opened:
            await opened.execute("TRUNCATE site, folder CASCADE")

    asyncio.run(empty())
    return Checks(database, tmp_path)


@pytest.fixture(scope="module")
def orthanc() -> Iterator[OrthancServer]:
    """A member that wants a password and holds five patients, one exam each."""
    config = {"AuthenticationEnabled": True, "RegisteredUsers": {"imagora": "secret-word"}}
    with OrthancServer(name="checked", config=config) as member:
        for i, (name, ipp) in enumerate(zip(NAMES, IPPS, strict=True)):
            date = f"202{i}0101"
            member.upload(exams.light_study(f"check-{i}", name=name, patient_id=ipp, study_date=date, n_instances=2))
        yield member


def spoiling(
    orthanc: OrthancServer,
    *,
    query: Callable[[dict[str, str]], dict[str, str]] = lambda q: q,
    rows: Callable[[dict[str, str], list[dict[str, Any]]], list[dict[str, Any]]] = lambda _, found: found,
    only: str = "/studies",
    instead: dict[str, peer.Behaviour] | None = None,
) -> peer.Behaviour:
    """Passes requests on to Orthanc and answers back.

    `query` changes what a search of `only` asks, `rows` what it answers; `instead` answers paths that end so.
    """

    async def behave(request: Request, connection: Connection) -> None:
        for end, other in (instead or {}).items():
            if request.path.endswith(end):
                await other(request, connection)
                return
        asked = dict(request.query)
        searched = request.path == only
        sent = query(dict(asked)) if searched else asked
        text = "&".join(f"{k}={quote(v, safe='*,@^?')}" for k, v in sent.items())  # Orthanc does not decode
        headers = {k: request.headers[k] for k in ("accept", "authorization") if k in request.headers}
        async with aiohttp.ClientSession() as session:
            url = f"{orthanc.dicomweb_url}{request.path}?{text}"
            async with session.get(URL(url, encoded=True), headers=headers) as answer:
                body = await answer.read()
                content_type = answer.headers.get("Content-Type", "text/plain")
        if searched and answer.status == 200:
            body = orjson.dumps(rows(asked, json.loads(body)))
        await connection.answer(answer.status, body, content_type)

    return behave


def assert_handful(requests_seen: list[Request]) -> None:
    for request in requests_seen:
        if request.path.endswith(("/studies", "/series", "/instances")):
            assert int(request.values("limit")[0]) <= HANDFUL


# A PACS that is well -------------------------------------------------------------------------------------------


def test_a_real_pacs_is_usable_and_what_was_learnt_is_kept(check: Checks, orthanc: OrthancServer) -> None:
    findings, result = check.one(orthanc.dicomweb_url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert {topic: f["result"] for topic, f in findings.items()} == {
        "connection": "ok",
        "studies": "ok",
        "limit": "ok",
        "order": "ok",
        "offset": "ok",
        "study by UID": "ok",
        "names": "ok",
        "accents": "ok",
        "encoding": "limit",  # Orthanc 1.10
        "series": "ok",
        "instances": "ok",
        "wide searches": "ok",
        "metadata": "ok",
        "retrieve": "ok",
        "frames": "ok",
        "rendered images": "ok",
    }
    assert findings["retrieve"]["text"] == "one instance came (1 kB) in Explicit VR Little Endian"
    assert check.quirks() == Quirks(names_ignore_case=True, honours_limit=True, honours_offset=True)
    assert json.loads(result.stdout)[0]["quirks"] == {
        "names_ignore_case": True,
        "honours_limit": True,
        "honours_offset": True,
    }


def test_it_is_said_in_words_without_anything_of_a_patients(check: Checks, orthanc: OrthancServer) -> None:
    result = check({"one": orthanc.dicomweb_url}, "ONE")
    lines = result.stdout.splitlines()
    assert lines[0] == "one, Hôpital one: usable, with limits"
    assert lines[1].startswith("  ok     connection       it answers (")
    assert "  ok     limit            gives no more rows than asked for" in lines
    uids = [str(exams.uid(f"check-{i}", "study")) for i in range(len(NAMES))]
    words = [part for name in NAMES for part in name.split("^") if len(part) > 3]
    for form in ("table", "json"):
        shown = check({"one": orthanc.dicomweb_url}, "one", "--format", form).output.casefold()
        assert not [secret for secret in (*words, *IPPS, *uids, "secret-word") if secret.casefold() in shown]


def test_searches_find_as_much_after_a_check_as_before(
    check: Checks, orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in USER.items():
        monkeypatch.setenv(name, value)
    settings = settings_for({"one": orthanc.dicomweb_url}, tmp_path)
    patterns = ("dupont levy", "DUPONT-LÉVY^M*", "noel^zoe", "NOËL*", "oneil", "o'neil^pat", "Keller^T*", "martin")
    with serving(settings, check.url) as server:

        def found() -> list[list[str]]:
            answers = [
                requests.get(f"{server.dicomweb()}/studies", params={"PatientName": p}, timeout=10) for p in patterns
            ]
            return [[row["00100020"]["Value"][0] for row in a.json()] if a.content else [] for a in answers]

        before = found()
        assert all(len(ids) == 1 for ids in before)
        check.one(orthanc.dicomweb_url)
        assert check.quirks().names_ignore_case
        time.sleep(0.6)  # the server has heard of it
        assert found() == before


def test_no_more_than_a_handful_is_asked_for(check: Checks, orthanc: OrthancServer) -> None:
    with Peer(spoiling(orthanc)) as member:
        _, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert_handful(member.requests)
    assert len(member.requests) < 30
    retrieved = [r.path for r in member.requests if "limit" not in dict(r.query)]
    assert all("/instances/" in path for path in retrieved)  # never a series or a study
    assert all(r.headers["authorization"].startswith("Basic ") for r in member.requests)


# Habits --------------------------------------------------------------------------------------------------------


def endless(_: Request) -> Iterator[bytes]:
    yield b"["
    for i in itertools.count(1):
        row = {
            "0020000D": {"vr": "UI", "Value": [f"1.2.{i}"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "ANYBODY^AT"}]},
            "00100020": {"vr": "LO", "Value": [str(i)]},
        }
        yield orjson.dumps(row) + b","


def test_a_member_that_sends_all_its_rows_is_not_read_to_the_end(check: Checks) -> None:
    sent = 0

    async def behave(request: Request, connection: Connection) -> None:
        nonlocal sent
        if request.path != "/studies":
            await connection.answer(404, b"", "text/plain")
            return
        await connection.head(200, {"Content-Type": "application/dicom+json", "Connection": "close"})
        for piece in endless(request):
            await connection.send(piece)
            sent += len(piece)

    with Peer(behave) as member:
        started = time.monotonic()
        findings, _ = check.one(member.dicomweb_url)
        assert time.monotonic() - started < 8
    assert findings["limit"]["result"] == "limit"
    assert "ignores limit" in findings["limit"]["text"]
    assert findings["offset"]["result"] == "limit"
    assert "ignores offset" in findings["offset"]["text"]
    assert "does not look at the name" in findings["names"]["text"]
    assert check.quirks() == Quirks(honours_limit=False, honours_offset=False)
    assert sent < len(member.requests) * 8_000_000  # what sockets hold, and no more


def test_a_member_that_tells_cases_apart_is_known_for_it(check: Checks, orthanc: OrthancServer) -> None:
    def same_case(asked: dict[str, str], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        wanted = asked.get("00100010")
        names = [row["00100010"]["Value"][0]["Alphabetic"] for row in found]
        return [row for row, name in zip(found, names, strict=True) if not wanted or fnmatch.fnmatchcase(name, wanted)]

    with Peer(spoiling(orthanc, rows=same_case)) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert "only as they are written" in findings["names"]["text"]
    assert "encoding" not in findings  # this one decodes
    assert check.quirks() == Quirks(names_ignore_case=False, honours_limit=True, honours_offset=True)


def test_a_member_that_ignores_offsets_is_known_for_it(check: Checks, orthanc: OrthancServer) -> None:
    with Peer(spoiling(orthanc, query=lambda q: {k: v for k, v in q.items() if k != "offset"})) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert "ignores offset" in findings["offset"]["text"]
    assert check.quirks() == Quirks(names_ignore_case=True, honours_limit=True, honours_offset=False)


def test_a_member_without_an_order_cannot_show_that_it_honours_offsets(check: Checks, orthanc: OrthancServer) -> None:
    dice = random.Random(1)
    with Peer(spoiling(orthanc, rows=lambda _, found: dice.sample(found, len(found)))) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert "another order each time" in findings["order"]["text"]
    assert check.quirks() == Quirks(names_ignore_case=True, honours_limit=True, honours_offset=None)


def test_a_member_that_refuses_wide_questions_is_asked_narrower_ones(check: Checks) -> None:
    row = {tag: {"vr": "LO", "Value": ["1.2.3"]} for tag in ("00100010", "00100020", "00080020", "0020000D")}

    async def behave(request: Request, connection: Connection) -> None:
        wide = not {"00080020", "0020000D"} & dict(request.query).keys()
        await connection.json([] if wide else [row], status=413 if wide else 200)

    with Peer(behave) as member:
        findings, _ = check.one(member.dicomweb_url)
    assert findings["connection"]["result"] == "ok"
    assert "a question that is not too wide (HTTP 413)" in findings["studies"]["text"]
    assert findings["study by UID"]["result"] == "ok"


def test_a_member_that_knows_no_wildcards_is_not_usable(check: Checks, orthanc: OrthancServer) -> None:
    def exact(asked: dict[str, str], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [] if "*" in asked.get("00100010", "") else found

    with Peer(spoiling(orthanc, rows=exact)) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 1
    assert findings["names"]["result"] == "failed"
    assert check.quirks().names_ignore_case is None


def test_an_empty_member_is_usable_as_far_as_can_be_told(check: Checks) -> None:
    with Peer(peer.rows([])) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert findings["studies"]["text"] == "it holds no exam, so nothing more could be tried"
    assert check.quirks() == Quirks()


# What cannot be used -------------------------------------------------------------------------------------------


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

    async def move() -> None:
        async with Database(check.url) as database:
            await database.execute("UPDATE site SET dicomweb = 'http://127.0.0.1:1/x'")

    asyncio.run(move())
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


def multipart(content_type: str, *parts: bytes) -> peer.Behaviour:
    body = b"".join(b"--x\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + p + b"\r\n" for p in parts)

    async def behave(_: Request, connection: Connection) -> None:
        await connection.answer(200, body + b"--x--", f'multipart/related; type="{content_type}"; boundary=x')

    return behave


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
    words = ("EMETTEUR", "--all", "--format", "IMAGORA_MEMBER_<EMETTEUR>_USER", "search.deadline_s", "Exit status")
    assert all(word in " ".join(text.split()) for word in (*words, "kept", "FAILED", "limit and offset"))
    assert "  check " in CliRunner().invoke(cli, ["sites", "--help"]).output
