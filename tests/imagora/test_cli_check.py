"""`imagora sites check` on a real Orthanc, on one behind a proxy that spoils its answers, and on scripted members."""

from __future__ import annotations

import fnmatch
import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from support import peer
from support.checking import IPPS, NAMES, USER, Checks, spoiling
from support.peer import Connection, Peer, Request
from support.serving import serving, settings_for

from registry.model import Quirks

#: Most rows that a check may ask for at once.
HANDFUL = 5
#: Orthanc 1.10 with DICOMweb 1.7, asked directly.
REAL = Quirks(
    names_ignore_case=True,
    honours_limit=True,
    honours_offset=True,
    decodes_values=False,
    takes_uid_lists=True,
    takes_uid_lists_backslash=False,
    honours_includefield=True,
    searches_series=True,
    searches_instances=True,
    takes_dicom_json=True,
    gives_explicit=True,
    gives_stored=True,
    gives_rendered=True,
    gives_thumbnail=False,
)
NONE_BELOW = {"searches_series": False, "searches_instances": False}
#: … through `spoiling`, which decodes what it is asked.
DECODES = {"decodes_values": True}


def assert_handful(requests_seen: list[Request]) -> None:
    for request in requests_seen:
        if request.method == "GET" and request.path.endswith(("/studies", "/series", "/instances")):
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
        "wildcards": "ok",
        "encoding": "limit",  # Orthanc 1.10
        "lists of UIDs": "ok",
        "no match": "ok",
        "HTTP": "ok",
        "series": "ok",
        "instances": "ok",
        "wide searches": "ok",
        "metadata": "ok",
        "retrieve": "ok",
        "frames": "ok",
        "as stored": "ok",
        "single part": "ok",
        "bulk data": "ok",
        "includefield": "ok",
        "rendered images": "ok",
        "thumbnails": "limit",  # Orthanc 1.10
        "character set": "ok",
    }
    assert findings["retrieve"]["text"] == "one instance came (1 kB) in Explicit VR Little Endian"
    assert check.quirks() == REAL
    assert json.loads(result.stdout)[0]["quirks"] == asdict(REAL)


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
    assert len(member.requests) < 50
    retrieved = [r.path for r in member.requests if r.method == "GET" and "limit" not in dict(r.query)]
    assert all("/instances/" in path for path in retrieved)  # never a series or a study
    assert all(r.headers["authorization"].startswith("Basic ") for r in member.requests)


def test_a_scorecard_is_made_of_a_check_and_of_the_last_one(check: Checks, orthanc: OrthancServer) -> None:
    members = {"one": orthanc.dicomweb_url}
    assert check(members, "--all", "--last").stdout == "No site was checked yet.\n"
    page = check(members, "one", "--format", "html").stdout
    assert page.startswith("<!doctype html>")
    assert "Pas de vignette faite par ce site." in page
    assert "No thumbnail made by this site." in page
    with Peer(peer.garbage) as nobody:
        check.move(nobody.dicomweb_url)
        assert "one" not in check(members, "--all", "--last").stdout  # it is another PACS now
        check.move(orthanc.dicomweb_url)
        again = check(members, "one", "--last", "--format", "html", "--lang", "en").stdout
        assert nobody.requests == []
    assert "No thumbnail made by this site." in again
    assert "vignette" not in again
    (profile,) = json.loads(check(members, "--all", "--last", "--format", "json").stdout)
    assert (profile["emetteur"], profile["usable"]) == ("one", True)
    assert profile["latency_ms"] > 0
    assert profile["bytes_per_s"] > 0
    assert profile["checked_at"] is not None
    assert profile["features"]["thumbnail"] is False
    assert profile["features"]["limit"] is True
    table = check(members, "one", "--last").stdout
    assert "lacks: Thumbnails. No thumbnail made by this site." in table
    uids = [str(exams.uid(f"check-{i}", "study")) for i in range(len(NAMES))]
    words = [part for name in NAMES for part in name.split("^") if len(part) > 3]
    shown = (page + again + table + json.dumps(profile)).casefold()
    assert not [secret for secret in (*words, *IPPS, *uids, "secret-word") if secret.casefold() in shown]


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
    assert check.quirks() == Quirks(honours_limit=False, honours_offset=False, takes_dicom_json=True, **NONE_BELOW)
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
    assert findings["encoding"]["text"] == "decodes percent-encoded text"
    assert check.quirks() == replace(REAL, names_ignore_case=False, **DECODES)


def test_a_member_that_ignores_offsets_is_known_for_it(check: Checks, orthanc: OrthancServer) -> None:
    with Peer(spoiling(orthanc, query=lambda q: {k: v for k, v in q.items() if k != "offset"})) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert "ignores offset" in findings["offset"]["text"]
    assert check.quirks() == replace(REAL, honours_offset=False, **DECODES)


def test_a_member_without_an_order_cannot_show_that_it_honours_offsets(check: Checks, orthanc: OrthancServer) -> None:
    dice = random.Random(1)
    with Peer(spoiling(orthanc, rows=lambda _, found: dice.sample(found, len(found)))) as member:
        findings, result = check.one(member.dicomweb_url)
    assert result.exit_code == 0
    assert "another order each time" in findings["order"]["text"]
    assert check.quirks() == replace(REAL, honours_offset=None, **DECODES)


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
    assert check.quirks() == Quirks(takes_dicom_json=True)
