"""`POST /emergency` against the real server: who may declare, what is taken, what is kept and traced of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import requests
from support.frozen import frozen
from support.people import GOOD, RULES, SUSPENDED, UNKNOWN, UNSIGNED, SigningKey, claims, key_set, register
from support.serving import Serving, serving, settings_for
from support.tracing import traced

from consent.emergencies import EMERGENCY_S, RUNNING_MAX
from consent.sessions import Sessions, form_token
from registry import migrate
from registry.database import Database
from registry.embedded import Lease
from registry.store import LongPatientID, RegistryStore

REASON = "AVC, patient inconscient, aucun proche joignable"
BODY = {"patient_id": "4547@CSROM41200", "reason": f"  {REASON} "}
SAME = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True, slots=True)
class World:
    """Servers of each way to sign in over one database."""

    oidc: Serving
    demo: Serving
    local: Serving
    key: SigningKey
    url: str

    def bearer(self, rpps: str = GOOD) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.sign(claims(RULES, rpps, jti='token-1'))}"}

    def declare(self, body: Any = BODY, **more: Any) -> requests.Response:
        """As who may, on the server with bearer tokens; `data` in place of the body."""
        headers = {"content-type": "application/json", **self.bearer(), **more.pop("headers", {})}
        data = more.pop("data", None)
        data = json.dumps(body).encode() if data is None else data
        return requests.post(f"{self.oidc.url}/emergency", data=data, headers=headers, timeout=20, **more)

    def fetch(self, *commands: str) -> list[asyncpg.Record]:
        """Rows of the last command."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url)
            try:
                for command in commands[:-1]:
                    await connection.execute(command)
                return list(await connection.fetch(commands[-1]))
            finally:
                await connection.close()

        return asyncio.run(run())

    def kept(self) -> list[asyncpg.Record]:
        return self.fetch("SELECT * FROM emergency ORDER BY started_at")

    def traced(self) -> list[asyncpg.Record]:
        return self.fetch("SELECT * FROM trace WHERE kind = 'emergency-started' ORDER BY recorded_at, sequence")

    def session(self) -> str:
        async def begin() -> str:
            async with Database(self.url) as database:
                return await Sessions(database, lifetime_s=600).begin(GOOD, traced=traced)

        return asyncio.run(begin())


def start(stack: ExitStack, folder: Path, url: str) -> World:
    key = SigningKey("key")
    (folder / "keys.json").write_bytes(key_set(key))
    oidc = {"mode": "oidc", "issuer": RULES.issuer, "jwks": str(folder / "keys.json")}
    members = {"csrom41200": "http://127.0.0.1:9/dicom-web", "csorl45000": "http://127.0.0.1:9/dicom-web"}
    servers = [
        stack.enter_context(serving(settings_for(members, folder, auth=auth, search=search), url))
        for auth, search in (
            (oidc, {}),
            ({"mode": "demo"}, {}),
            ({"mode": "local"}, {"patient_id": "local"}),
        )
    ]
    register(url, "csorl45000")
    return World(*servers, key, url)


@pytest.fixture(scope="module")
def world(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("emergency"), postgres())


@pytest.fixture
def clean(world: World) -> World:
    replica, origin = (f"SET session_replication_role = {role}" for role in ("replica", "origin"))
    world.fetch(replica, "TRUNCATE emergency, trace", origin, "SELECT 1")
    return world


def test_an_emergency_is_declared_traced_and_kept(clean: World) -> None:
    before = datetime.now(UTC)
    answer = clean.declare()
    assert answer.status_code == 201, answer.text
    assert set(answer.json()) == {"id", "expires_at"}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.json()["expires_at"])
    expires_at = datetime.fromisoformat(answer.json()["expires_at"])
    life = timedelta(seconds=EMERGENCY_S)
    assert timedelta(hours=2) == life
    assert before + life - timedelta(seconds=1) <= expires_at <= datetime.now(UTC) + life
    (row,) = clean.kept()
    assert (row["id"], row["expires_at"], row["stopped_at"]) == (answer.json()["id"], expires_at, None)
    assert (row["requester_id"], row["requester_name"]) == (GOOD, "MARTIN^CLAIRE")
    assert (row["ipp"], row["emetteur"], row["reason"]) == ("4547", "csrom41200", REASON)
    (trace,) = clean.traced()
    assert (trace["requester_id"], trace["patient_id"], trace["origin"]) == (GOOD, "4547@csrom41200", "csrom41200")
    assert trace["request_id"] == answer.headers["x-request-id"]
    assert json.loads(trace["detail"]) == {
        "emergency": row["id"],
        "reason": REASON,
        "expires_at": answer.json()["expires_at"],
        "jti": "token-1",
    }
    assert trace["recorded_at"] <= row["started_at"]


def test_another_declaration_for_the_same_patient_starts_another(clean: World) -> None:
    first, second = clean.declare().json(), clean.declare().json()
    assert first["id"] != second["id"]
    assert [row["id"] for row in clean.kept()] == [first["id"], second["id"]]
    assert len(clean.traced()) == 2


@pytest.mark.parametrize(
    ("patient_id", "ipp", "emetteur"),
    [
        ("4547@csrom41200", "4547", "csrom41200"),
        (" 4547 @CsRom41200 ", "4547", "csrom41200"),
        ("a@b@csorl45000", "a@b", "csorl45000"),
        ("nobody-has-this@csorl45000", "nobody-has-this", "csorl45000"),
        ("É'4 5@csorl45000", "É'4 5", "csorl45000"),
        ("~0f0f@csorl45000", "7" * 70, "csorl45000"),  # the hashed form that another process showed
        ("~0e0e@csorl45000", "~0e0e", "csorl45000"),
    ],
)
def test_whatever_patient_is_named_the_answer_is_the_same(
    clean: World, patient_id: str, ipp: str, emetteur: str
) -> None:
    async def remember() -> None:
        async with Database(clean.url) as database:
            long = LongPatientID(hashed="~0f0f@csorl45000", ipp="7" * 70, emetteur="csorl45000")
            await RegistryStore(database).remember_long_patient_id(long)

    asyncio.run(remember())
    answer = clean.declare({**BODY, "patient_id": patient_id})
    assert answer.status_code == 201, answer.text
    (row,) = clean.kept()
    assert (row["ipp"], row["emetteur"]) == (ipp, emetteur)
    (trace,) = clean.traced()
    assert trace["origin"] == emetteur
    assert trace["patient_id"].endswith(f"@{emetteur}")
    assert len(trace["patient_id"]) <= 64


def test_with_local_patient_ids_the_trace_names_the_bare_ipp_and_its_origin(clean: World) -> None:
    answer = requests.post(f"{clean.local.url}/emergency", json=BODY, timeout=20)
    assert answer.status_code == 201, answer.text
    (trace,) = clean.traced()
    assert (trace["requester_id"], trace["patient_id"], trace["origin"]) == ("local", "4547", "csrom41200")


PATIENT, WHY, OBJECT = "patient_id: write IPP@EMETTEUR", "reason: say in a few words", "The body is not a JSON object"


NOT_PATIENTS = (
    *("4547", "4547@", "@csrom41200", "  @csrom41200", "4547@nowhere", "csrom41200@4547", "", 4547, None, ["4547"]),
    *("45\x0047@csrom41200", "45\n47@csrom41200", "45\\47@csrom41200", "4" * 300 + "@csrom41200"),
)
NOT_REASONS = (
    *("", " ", "abcd", "12345 !!", "x" * 501, "a reason\nin two lines", "a reason\x07", "a reason\u2028here"),
    *(12345, None, ["reason enough"]),
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        *(({**BODY, "patient_id": patient_id}, PATIENT) for patient_id in NOT_PATIENTS),
        *(({**BODY, "reason": reason}, WHY) for reason in NOT_REASONS),
        ({}, PATIENT),
        ({"patient_id": BODY["patient_id"]}, WHY),
        ({"reason": REASON}, PATIENT),
        ([BODY], OBJECT),
        ("text", OBJECT),
        (None, OBJECT),
    ],
)
def test_a_bad_body_is_told_how_to_write_it(world: World, body: object, words: str) -> None:
    before = len(world.kept())
    answer = world.declare(body)
    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "4547@CSROM" not in answer.text
    assert (len(world.kept()), len(world.traced())) == (before, before)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"patient_id": "4547@csrom41200", "reason": "\xff\xfe good reason"}', 400),
        (b'{"patient_id": "4547@csrom41200", "reason": "\\ud800 good reason"}', 400),
        (b"[" * 4000, 400),
        (json.dumps({**BODY, "more": "x" * 5000}).encode(), 413),
        (b" " * 1_000_000, 413),
    ],
)
def test_what_is_no_json_or_too_much_is_refused(world: World, data: bytes, status: int) -> None:
    before = len(world.kept())
    answer = world.declare(data=data)
    assert (answer.status_code, "write {" in answer.json()["error"]) == (status, True), answer.text
    assert len(world.kept()) == before


def test_a_body_in_pieces_is_bounded_too(world: World) -> None:
    assert world.declare(data=iter([json.dumps(BODY).encode()])).status_code == 201
    assert world.declare(data=iter([b" " * 1000] * 10)).status_code == 413


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json-seq"])
def test_only_json_is_taken(world: World, kind: str) -> None:
    """Another origin's page may send the other types without asking first, to a server that asks nobody."""
    for server in (world.oidc, world.local):
        headers = {**world.bearer(), "content-type": kind}
        answer = requests.post(f"{server.url}/emergency", data=json.dumps(BODY), headers=headers, timeout=20)
        assert (answer.status_code, "application/json" in answer.json()["error"]) == (415, True)


def test_other_methods_are_refused_with_the_one_that_is_not(world: World) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for headers in ({}, {"accept": "text/html"}):
            answer = requests.request(
                method, f"{world.oidc.url}/emergency", headers={**world.bearer(), **headers}, timeout=20
            )
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), method
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("rpps", [UNKNOWN, UNSIGNED, SUSPENDED])
def test_who_may_not_ask_may_not_declare(world: World, rpps: str) -> None:
    before = len(world.kept())
    assert world.declare(headers=world.bearer(rpps)).status_code == 403
    assert requests.post(f"{world.oidc.url}/emergency", json=BODY, timeout=20).status_code == 401
    assert (len(world.kept()), len(world.traced())) == (before, before)


def test_a_session_declares_from_a_page_of_ours_only(clean: World) -> None:
    word = clean.session()
    cookie = {"cookie": f"imagora_session={word}"}
    token = {"x-csrf-token": form_token(word)}
    url = f"{clean.demo.url}/emergency"
    for headers in (
        cookie,
        {**cookie, **SAME},
        {**cookie, **token},
        {**cookie, **token, "sec-fetch-site": "cross-site"},
        {**cookie, **token, "sec-fetch-site": "same-site"},
        {**cookie, **SAME, "x-csrf-token": form_token("other")},
    ):
        assert requests.post(url, json=BODY, headers=headers, timeout=20).status_code == 403
    assert requests.post(url, json=BODY, headers={**SAME, **token}, timeout=20).status_code == 401
    form = {**BODY, "csrf": form_token(word)}
    assert requests.post(url, data=form, headers={**cookie, **SAME}, timeout=20).status_code == 415
    assert clean.kept() == []
    answer = requests.post(url, json=BODY, headers={**cookie, **SAME, **token}, timeout=20)
    assert answer.status_code == 201, answer.text
    (trace,) = clean.traced()
    detail = json.loads(trace["detail"])
    assert (trace["requester_id"], detail["session"]) == (GOOD, sha256(word.encode()).hexdigest()[:16])
    assert "jti" not in detail


def test_without_a_trace_nothing_is_declared(clean: World) -> None:
    clean.fetch("ALTER TABLE trace RENAME TO elsewhere", "SELECT 1")
    try:
        answer = clean.declare()
    finally:
        clean.fetch("ALTER TABLE elsewhere RENAME TO trace", "SELECT 1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["cache-control"] == "no-store"
    assert clean.kept() == []
    assert clean.declare().status_code == 201


def test_an_emergency_that_cannot_be_kept_is_not_said_to_be(clean: World) -> None:
    clean.fetch("ALTER TABLE emergency ADD CONSTRAINT lost CHECK (false) NOT VALID", "SELECT 1")
    try:
        answer = clean.declare()
    finally:
        clean.fetch("ALTER TABLE emergency DROP CONSTRAINT lost", "SELECT 1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert len(clean.traced()) == 1  # the trace comes first
    assert clean.kept() == []


def test_more_than_one_person_can_care_for_is_refused_and_traced(clean: World) -> None:
    for number in range(RUNNING_MAX):
        assert clean.declare({**BODY, "patient_id": f"{number}@csrom41200"}).status_code == 201
    answer = clean.declare()
    assert answer.status_code == 429
    first_end = min(row["expires_at"] for row in clean.kept())
    assert f"{first_end:%Y-%m-%dT%H:%M:%SZ}" in answer.json()["error"]
    assert 0 < int(answer.headers["retry-after"]) <= EMERGENCY_S
    assert len(clean.kept()) == len(clean.traced()) == RUNNING_MAX
    (refused,) = clean.fetch("SELECT * FROM trace WHERE kind = 'refused'")
    assert (refused["requester_id"], refused["outcome"]) == (GOOD, "failure")
    assert (refused["patient_id"], refused["origin"]) == ("4547@csrom41200", "csrom41200")
    assert refused["request_id"] == answer.headers["x-request-id"]
    detail = json.loads(refused["detail"])
    assert (detail["reason"], detail["declared"]) == ("20 emergency accesses of this requester are running", REASON)
    clean.fetch("UPDATE emergency SET expires_at = now() WHERE id = (SELECT min(id) FROM emergency)", "SELECT 1")
    assert clean.declare().status_code == 201


def test_a_lost_database_gives_503_and_heals(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "state")
    url = lease.acquire()
    try:
        asyncio.run(migrate.migrate(url))
        with ExitStack() as stack:
            world = start(stack, tmp_path, url)
            with frozen(tmp_path / "state"):
                time.sleep(1)  # the registry is not fresh any more
                said = world.declare()
                # Who asks nobody comes as far as the trace, which is not waited for any longer than five seconds.
                asked_nobody = requests.post(f"{world.local.url}/emergency", json=BODY, timeout=9)
            assert [(a.status_code, a.headers["retry-after"]) for a in (said, asked_nobody)] == [(503, "5")] * 2
            until = time.monotonic() + 20
            while (healed := world.declare()).status_code == 503 and time.monotonic() < until:
                time.sleep(0.1)
            assert healed.status_code == 201
            assert [row["requester_id"] for row in world.kept()] == [GOOD]
    finally:
        lease.release()
