"""CORS, isolation, health and metrics, on every kind of answer of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import Holder, delivering, giving
from support.serving import Serving

IPP = "IPP-ZQ-77"
STUDY = exams.study(seed="headers", patient_id=IPP, rows=16, columns=16)
UID = exams.uid("headers", "study")
VIEWER = "https://viewer.example"
ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "x-content-type-options": "nosniff",
}


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder(STUDY) as member:
        yield member


@pytest.fixture(scope="module")
def server(holder: Holder, serve_module) -> Serving:
    serving: Serving = serve_module(
        {"csrom41200": holder.url, "cpsax18000": "http://127.0.0.1:1/x"},
        server={"allowed_origins": [VIEWER, "http://localhost:3000"]},
        search={"deadline_s": 2},
    )
    return serving


def requests_of_every_kind(server: Serving, holder: Holder) -> dict[str, tuple[str, str, dict[str, str], int]]:
    """Name → (method, URL, headers, status)."""
    study, series, sop = holder.held[0].uids
    instance = f"{server.dicomweb()}/studies/{study}/series/{series}/instances/{sop}"
    rom = server.dicomweb("/sites/csrom41200")
    return {
        "rows": ("GET", f"{server.dicomweb()}/studies?PatientID={IPP}", {}, 200),
        "no rows": ("GET", f"{rom}/studies?PatientID=1&StudyInstanceUID=1.2.3", {}, 204),
        "a study": ("GET", f"{server.dicomweb()}/studies/{UID}", {}, 200),
        "one part": ("GET", instance, {"Accept": "application/dicom"}, 200),
        "metadata": ("GET", f"{instance}/metadata", {}, 200),
        "unknown study": ("GET", f"{rom}/studies/1.2.3", {}, 404),
        "unknown site": ("GET", f"{server.url}/sites/nobody/dicom-web/studies", {}, 404),
        "bad request": ("GET", f"{server.dicomweb()}/studies?limit=-1", {}, 400),
        "not acceptable": ("GET", instance, {"Accept": "text/html"}, 406),
        "not allowed": ("DELETE", instance, {}, 405),
        "all down": ("GET", f"{server.dicomweb('/sites/cpsax18000')}/studies?PatientID=1", {}, 503),
        "alive": ("GET", f"{server.url}/healthz", {}, 200),
        "ready": ("GET", f"{server.url}/readyz", {}, 200),
        "metrics": ("GET", f"{server.url}/metrics", {}, 403),
    }


def test_isolation_headers_are_on_every_answer(server: Serving, holder: Holder) -> None:
    for name, (method, url, headers, status) in requests_of_every_kind(server, holder).items():
        answer = requests.request(method, url, headers=headers, timeout=10)
        assert answer.status_code == status, name
        for header, value in ISOLATION.items():
            assert answer.headers[header] == value, name
        assert answer.headers["X-Request-Id"], name
    preflight = requests.options(
        f"{server.dicomweb()}/studies", headers={"Origin": VIEWER, "Access-Control-Request-Method": "GET"}, timeout=10
    )
    assert all(preflight.headers[h] == v for h, v in ISOLATION.items())
    foreign = requests.get(f"{server.dicomweb()}/studies", headers={"Host": "attacker.example"}, timeout=10)
    assert foreign.status_code == 421
    probe = requests.get(f"{server.url}/healthz", headers={"Host": "10.0.0.7:8080"}, timeout=10)
    assert probe.status_code == 200  # asked by its address
    assert all(foreign.headers[h] == v for h, v in ISOLATION.items())


def test_allowed_origin_may_read_every_answer_and_its_warnings(server: Serving, holder: Holder) -> None:
    for name, (method, url, headers, status) in requests_of_every_kind(server, holder).items():
        answer = requests.request(method, url, headers={**headers, "Origin": VIEWER}, timeout=10)
        assert answer.status_code == status, name
        assert answer.headers["Access-Control-Allow-Origin"] == VIEWER, name
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = {h.strip().lower() for h in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"warning", "imagora-sources", "accept-ranges", "content-range", "etag"} <= exposed
        assert "origin" in answer.headers["Vary"].lower()


@pytest.mark.parametrize(
    "origin", ["https://attacker.example", "null", f"{VIEWER}.attacker.example", "http://viewer.example"]
)
def test_other_origins_may_not(origin: str, server: Serving, holder: Holder) -> None:
    for name, (method, url, headers, _) in requests_of_every_kind(server, holder).items():
        answer = requests.request(method, url, headers={**headers, "Origin": origin}, timeout=10)
        assert "Access-Control-Allow-Origin" not in answer.headers, name
    preflight = requests.options(
        f"{server.dicomweb()}/studies", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}, timeout=10
    )
    assert preflight.status_code == 400
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_preflight_of_what_viewers_ask(server: Serving) -> None:
    answer = requests.options(
        f"{server.dicomweb()}/studies/{UID}",
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "accept,authorization,if-range,range",
        },
        timeout=10,
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    refused = requests.options(
        f"{server.dicomweb()}/studies/{UID}",
        headers={"Origin": VIEWER, "Access-Control-Request-Method": "DELETE"},
        timeout=10,
    )
    assert refused.status_code == 400


def test_answers_with_patients_are_not_stored_by_caches(server: Serving, holder: Holder) -> None:
    for name in ("rows", "a study", "one part", "metadata", "unknown study"):
        method, url, headers, _ = requests_of_every_kind(server, holder)[name]
        answer = requests.request(method, url, headers=headers, timeout=10)
        # What a browser may keep it must ask for again each time; its tag is answered after consent and trace.
        kept = name in ("rows", "metadata") and "did not answer" not in answer.headers.get("Warning", "")
        assert answer.headers["Cache-Control"] == "no-store", name
        assert ("ETag" in answer.headers) == kept


def test_metrics_need_their_token(server: Serving, monkeypatch: pytest.MonkeyPatch, holder: Holder) -> None:
    url = f"{server.url}/metrics"
    assert requests.get(url, timeout=10).status_code == 403
    monkeypatch.setenv("IMAGORA_METRICS_TOKEN", "s3cret-of-the-collector")
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret-of-the-collector"}):
        answer = requests.get(url, headers=wrong, timeout=10)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert b"imagora_" not in answer.content
    holder.deliver = delivering()
    assert wire.get(server.dicomweb(), f"/studies/{UID}").ended
    text = requests.get(url, headers={"Authorization": "Bearer s3cret-of-the-collector"}, timeout=10).text
    assert 'imagora_member_calls_total{emetteur="csrom41200",operation="retrieve-dicom",status="ok"}' in text
    assert 'imagora_member_breaker{emetteur="cpsax18000",state=' in text
    assert 'route="/dicom-web/studies/{study}",status="200"' in text
    for secret in (UID, IPP, "DUPONT", "127.0.0.1", f":{holder.peer._port}"):
        assert secret not in text


def test_health_when_the_database_is_gone(serve, postgres) -> None:
    database = postgres()
    with Holder(STUDY) as holder:
        server = serve({"csrom41200": holder.url}, database=database)
        assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
        asyncio.run(drop(database))
        started = time.monotonic()
        ready = requests.get(f"{server.url}/readyz", timeout=10)
        assert time.monotonic() - started < 4
        assert (ready.status_code, ready.text) == (503, "the database is not ready\n")
        assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
        # Nothing is shown that can't be traced.
        seen = wire.get(server.dicomweb(), f"/studies/{UID}")
        assert (seen.status, seen.ended) == (503, True)
        assert b"DUPONT" not in seen.body


async def drop(database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    connection = await asyncpg.connect(database.replace(f"/{name}?", "/postgres?"))
    try:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


def test_broken_member_still_gives_isolated_readable_errors(server: Serving, holder: Holder) -> None:
    holder.deliver = giving(500, b"", "text/plain")
    try:
        answer = requests.get(f"{server.dicomweb()}/studies/{UID}", headers={"Origin": VIEWER}, timeout=10)
    finally:
        holder.deliver = delivering()
    assert answer.status_code == 502
    assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
    assert all(answer.headers[h] == v for h, v in ISOLATION.items())
    assert answer.headers["Content-Type"] == "application/json"
