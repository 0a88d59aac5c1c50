"""Every route of the application × every kind of token: who is let in, who is not, and that a refusal tells nothing.

The routes are taken from the application: a new one fails here until it stands in a table below.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import requests
from starlette.routing import BaseRoute, Mount, Route
from support import peer
from support.peer import Peer
from support.people import (
    GOOD,
    RULES,
    SUSPENDED,
    UNKNOWN,
    UNSIGNED,
    SigningKey,
    bad_tokens,
    claims,
    key_set,
    register,
)
from support.serving import Serving, serving, settings_for

from imagora.demo_issuer import FILE, demo_issuer, demo_rules

STUDY, PATIENT, NAME, BORN = "1.2.840.99.777.1", "CANARY-4547", "CANARYNAME", "19600512"
CANARIES = (STUDY, PATIENT, NAME, BORN)
ROW = {
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "00080020": {"vr": "DA", "Value": ["20240101"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{NAME}^MARIE"}]},
    "00100020": {"vr": "LO", "Value": [PATIENT]},
    "00100030": {"vr": "DA", "Value": [BORN]},
}

#: What stands for the parameters of a path.
PARAMETERS = {
    "folder": "mirc-historique",
    "emetteur": "csrom41200",
    "study": STUDY,
    "series": f"{STUDY}.1",
    "instance": f"{STUDY}.1.1",
    "frames": "1",
    "token": "x",
}
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_FRAMES = f"{_INSTANCE}/frames/{{frames}}"
_RESOURCES = (
    *("", "/"),  # the service itself: what it can do
    *("/studies", "/series", "/instances"),
    *(f"{_STUDY}/series", f"{_STUDY}/instances", f"{_SERIES}/instances"),
    *(
        f"{level}{what}"
        for level in (_STUDY, _SERIES, _INSTANCE)
        for what in ("", "/metadata", "/rendered", "/thumbnail")
    ),
    *(_FRAMES, f"{_FRAMES}/rendered", f"{_FRAMES}/thumbnail", f"{_INSTANCE}/bulkdata/{{token}}"),
)
#: Routes that ask who is there.
_SCOPES = ("", "/folders/{folder}", "/sites/{emetteur}")
CLOSED = {
    *(f"{scope}/dicom-web{what}" for scope in _SCOPES for what in _RESOURCES),
    *(f"{scope}/wado" for scope in _SCOPES),
    "/portal/sources",
    "/emergency",
}
#: Routes that ask nobody, by mode, and an example of each. /metrics asks for a token of its own.
OPEN = {"/healthz": "/healthz", "/readyz": "/readyz", "/metrics": "/metrics"}
OPEN |= {"/portal/static/{name:path}": "/portal/static/imagora-pages.css"}
DEMO_CLOSED = {"/portal/sign-out"}
DEMO_OPEN = {"/portal/sign-in": "/portal/sign-in"}
#: What the viewer's mount at the root answers.
VIEWER = "/"
VIEWER_CLOSED = ("/", f"/viewer?StudyInstanceUIDs={STUDY}", "/app-config.js", "/index.html", "/nothing", "/dicom-web")
VIEWER_OPEN = ("/app.bundle.js", "/assets/images/x.svg", "/manifest.json")


@dataclass(frozen=True, slots=True)
class World:
    server: Serving
    tokens: dict[str, str]
    closed: set[str]
    open: dict[str, str]
    database: str


@pytest.fixture(scope="module", params=["oidc", "demo"])
def world(
    request: pytest.FixtureRequest, postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    state = tmp_path_factory.mktemp(request.param)
    other = SigningKey("other")
    if request.param == "oidc":
        key = SigningKey("key")
        (state / "keys.json").write_bytes(key_set(key, other))
        auth = {"mode": "oidc", "issuer": RULES.issuer, "jwks": str(state / "keys.json")}
    else:
        demo_issuer(state)
        pem = (state / FILE).read_bytes()
        key = SigningKey(hashlib.sha256(pem).hexdigest()[:16], "ES256", pem=pem)
        auth = {"mode": "demo"}
    url = postgres()
    with ExitStack() as stack:
        member = stack.enter_context(Peer(peer.rows([ROW])))
        settings = settings_for(
            {"csrom41200": None, "csmem41000": member.dicomweb_url},
            state,
            folders={"MIRC historique": ["csmem41000"]},
            auth=auth,
        )
        server = stack.enter_context(serving(settings, url))
        register(url, "csrom41200")
        rules = RULES if request.param == "oidc" else demo_rules(settings)
        tokens = {
            **bad_tokens(key, other, rules),
            **{
                kind: key.sign(claims(rules, rpps))
                for kind, rpps in (
                    ("unknown", UNKNOWN),
                    ("unsigned", UNSIGNED),
                    ("suspended", SUSPENDED),
                    ("good", GOOD),
                )
            },
        }
        demo = request.param == "demo"
        yield World(server, tokens, CLOSED | (DEMO_CLOSED if demo else set()), OPEN | (DEMO_OPEN if demo else {}), url)


NOBODY = ("unknown", "unsigned", "suspended")
KINDS = ("no token", "another scheme", *bad_tokens(SigningKey("a"), SigningKey("b")), *NOBODY, "good")


def headers_for(world: World, kind: str) -> dict[str, str]:
    if kind == "no token":
        return {}
    if kind == "another scheme":
        return {"authorization": f"Basic {world.tokens['good']}"}
    return {"authorization": f"Bearer {world.tokens[kind]}"}


def routes_of(app: Any) -> Iterator[BaseRoute]:
    """All routes, those behind mounts too; a mount that holds none stands for itself."""
    while not hasattr(app, "routes"):
        if not hasattr(app, "app"):
            return
        app = app.app
    for route in app.routes:
        inner = list(routes_of(route.app)) if isinstance(route, Mount) else []
        yield from inner or [route]


def example(pattern: str) -> str:
    if pattern.endswith("/wado"):
        uids = f"studyUID={STUDY}&seriesUID={STUDY}.1&objectUID={STUDY}.1.1"
        return f"{pattern.format(**PARAMETERS)}?requestType=WADO&{uids}"
    return f"{pattern.format(**PARAMETERS)}?PatientName={NAME}&PatientBirthDate={BORN}"


def test_every_route_of_the_application_stands_in_a_table(world: World) -> None:
    found = set()
    for route in routes_of(world.server.app):
        assert isinstance(route, Route | Mount), route
        found.add(route.path or VIEWER)
    assert found == world.closed | set(world.open) | {VIEWER}


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_route_lets_in_who_may_ask_and_nobody_else(world: World, kind: str) -> None:
    headers = {"accept": "application/json", **headers_for(world, kind)}
    wrong = {}
    paths = [*map(example, sorted(world.closed)), *VIEWER_CLOSED]
    with requests.Session() as session:
        for path in paths:
            answer = session.get(world.server.url + path, headers=headers, allow_redirects=False, timeout=20)
            if not is_right(answer, kind):
                wrong[path] = (answer.status_code, answer.headers, answer.text[:300])
    assert not wrong
    assert len(paths) > 70


def is_right(answer: requests.Response, kind: str) -> bool:
    if kind == "good":
        if answer.headers.get("location") == "/portal/sign-in":
            return "/portal/sign-out?" in str(answer.url)  # a bearer has no session to end
        return answer.status_code not in (303, 401, 403)
    said = f"{answer.headers}{answer.text}"
    if any(canary in said for canary in CANARIES) or answer.headers["cache-control"] != "no-store":
        return False
    if kind in NOBODY:
        return answer.status_code == 403 and answer.json()["error"] != ""
    challenge = answer.headers.get("www-authenticate", "")
    return (
        answer.status_code == 401
        and challenge.startswith('Bearer realm="imagora"')
        and ("invalid_token" in challenge) == (kind != "no token")
    )


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_other_method_finds_a_way_past(world: World, method: str) -> None:
    with requests.Session() as session:
        for path in (*map(example, sorted(world.closed)), *VIEWER_CLOSED):
            answer = session.request(method, world.server.url + path, allow_redirects=False, timeout=20)
            assert answer.status_code == 401, path


@pytest.mark.parametrize("kind", ["no token", "expired", "suspended", "good"])
def test_an_open_route_asks_nobody(world: World, kind: str) -> None:
    headers = headers_for(world, kind)
    with requests.Session() as session:
        for path in (*world.open.values(), *VIEWER_OPEN):
            answer = session.get(world.server.url + path, headers=headers, allow_redirects=False, timeout=20)
            expected = {"/metrics": (403,)}.get(path, (200, 404))
            assert answer.status_code in expected, path
            assert not any(canary in answer.text for canary in CANARIES)


def test_who_may_ask_gets_rows(world: World) -> None:
    """The control: the canaries would be seen if they were there."""
    answer = requests.get(
        f"{world.server.dicomweb()}/studies",
        params={"PatientName": NAME},
        headers=headers_for(world, "good"),
        timeout=20,
    )
    assert answer.status_code == 200
    assert all(canary in answer.text for canary in CANARIES)


def test_a_refusal_says_how_to_sign(world: World) -> None:
    for kind, words in (
        ("unknown", "practitioners add"),
        ("unsigned", "practitioners sign"),
        ("suspended", "suspended"),
    ):
        answer = requests.get(f"{world.server.dicomweb()}/studies", headers=headers_for(world, kind), timeout=20)
        assert answer.status_code == 403
        assert words in answer.json()["error"]


def test_who_is_not_admitted_leaves_a_trace(world: World) -> None:
    async def refusals() -> dict[str, list[str]]:
        connection = await asyncpg.connect(world.database)
        try:
            rows = await connection.fetch(
                "SELECT requester_id, outcome, detail ->> 'reason' AS reason FROM trace WHERE kind = 'refused'"
            )
        finally:
            await connection.close()
        return {
            rpps: [r["reason"] for r in rows if r["requester_id"] == rpps] for rpps in (UNKNOWN, UNSIGNED, SUSPENDED)
        }

    before = asyncio.run(refusals())
    for kind in NOBODY:
        requests.get(f"{world.server.dicomweb()}/studies", headers=headers_for(world, kind), timeout=20)
    after = asyncio.run(refusals())
    new = {rpps: after[rpps][len(before[rpps]) :] for rpps in after}
    assert new == {
        UNKNOWN: ["not admitted: unknown"],
        UNSIGNED: ["not admitted: charter"],
        SUSPENDED: ["not admitted: suspended"],
    }


def test_paths_that_look_open_are_not(world: World) -> None:
    for path in (
        f"//dicom-web/studies/{STUDY}/x.png",
        f"/dicom-web/studies/{STUDY}/thumbnail.jpg",
        "/dicom-web/studies/.js",
        "/healthz/",
        "/healthz/../dicom-web/studies",
        "/portal/static",
        "/portal/sources.css",
        "/app-config.js/",
        "/PORTAL/sign-in",
    ):
        prepared = requests.Request("GET", world.server.url).prepare()
        prepared.url = world.server.url + path  # as it stands, not made plain
        with requests.Session() as session:
            answer = session.send(prepared, allow_redirects=False, timeout=20)
        assert answer.status_code == 401, path


def test_a_preflight_is_answered_without_a_token(world: World) -> None:
    answer = requests.options(
        f"{world.server.dicomweb()}/studies",
        headers={"origin": "https://a.example", "access-control-request-method": "GET"},
        timeout=20,
    )
    assert answer.status_code == 400  # an origin that is not allowed
    assert "www-authenticate" not in answer.headers


def test_only_pages_lead_to_the_sign_in(world: World) -> None:
    html = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
    page = requests.get(
        f"{world.server.url}/viewer?StudyInstanceUIDs={STUDY}&x=%26", headers=html, allow_redirects=False, timeout=20
    )
    if "/portal/sign-in" in world.open:
        assert page.status_code == 303
        assert page.headers["location"] == (f"/portal/sign-in?next=/viewer%3FStudyInstanceUIDs%3D{STUDY}%26x%3D%2526")
    else:
        assert page.status_code == 401
    for headers in (html, {**html, **headers_for(world, "expired")}):
        answer = requests.get(f"{world.server.dicomweb()}/studies", headers=headers, allow_redirects=False, timeout=20)
        assert answer.status_code == 401


def test_two_authorization_headers_are_not_chosen_between(world: World) -> None:
    host, _, port = world.server.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("GET", "/dicom-web/studies")
    for _ in range(2):
        connection.putheader("authorization", f"Bearer {world.tokens['good']}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()
