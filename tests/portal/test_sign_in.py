"""Sign-in of the demonstration over HTTP: sessions that two servers share, and forms that only our pages can send."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.cookies import SimpleCookie

import asyncpg
import pytest
import requests
from support.people import GOOD, SUSPENDED, UNKNOWN, UNSIGNED, register
from support.serving import Serving, serving, settings_for
from support.tracing import traced

from consent.sessions import Sessions, form_token
from portal.forms import local_path
from registry.database import Database
from registry.practitioners import PractitionerStore

SAME = {"sec-fetch-site": "same-origin"}
HTML = {"accept": "text/html"}


@dataclass(frozen=True, slots=True)
class Twins:
    """Two servers over one database."""

    one: Serving
    two: Serving
    database: str


@pytest.fixture(scope="module")
def twins(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    url = postgres()
    state = tmp_path_factory.mktemp("demo")
    settings = settings_for({"csrom41200": None}, state, auth={"mode": "demo"})
    with ExitStack() as stack:
        one, two = (stack.enter_context(serving(settings, url)) for _ in range(2))
        register(url, "csrom41200")
        yield Twins(one, two, url)


class Browser(requests.Session):
    """Loads the sign-in page and sends its form."""

    def __init__(self, server: Serving) -> None:
        super().__init__()
        self.server = server

    def load(self, path: str = "/portal/sign-in", language: str = "fr") -> requests.Response:
        headers = {**HTML, "accept-language": language}
        return self.get(self.server.url + path, headers=headers, allow_redirects=False, timeout=20)

    def sign_in(self, rpps: str = GOOD, target: str = "/", **changes: str) -> requests.Response:
        form = {"csrf": field(self.load(), "csrf"), "next": target, "rpps": rpps, **changes}
        return self.post(
            f"{self.server.url}/portal/sign-in", data=form, headers={**HTML, **SAME}, allow_redirects=False, timeout=20
        )

    def studies(self, server: Serving | None = None) -> int:
        return self.get(f"{(server or self.server).dicomweb()}/studies", allow_redirects=False, timeout=20).status_code

    @property
    def word(self) -> str:
        return self.cookies["imagora_session"]


def field(page: requests.Response, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found is not None, page.text
    return found[1]


_TRACES = "SELECT kind, outcome, requester_id, detail FROM trace ORDER BY recorded_at, writer, sequence"


async def _fetch(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


def fetch(url: str, sql: str) -> list[asyncpg.Record]:
    return asyncio.run(_fetch(url, sql))


def test_the_page_lists_the_practitioners_in_both_languages(twins: Twins) -> None:
    french = Browser(twins.one).load()
    assert french.status_code == 200
    assert '<html lang="fr">' in french.text
    assert "MARTIN CLAIRE" in french.text
    assert "charte non signée" in french.text
    assert "accès suspendu" in french.text
    assert 'class="demo"' in french.text
    english = Browser(twins.one).load(language="en-GB,fr;q=0.5")
    assert "charter not signed" in english.text
    assert "form-action 'self'" in english.headers["content-security-policy"]
    assert english.headers["cache-control"] == "no-store"


def test_who_signs_in_comes_to_where_he_wanted_and_is_known_to_both_servers(twins: Twins) -> None:
    browser = Browser(twins.one)
    assert browser.studies() == 401
    sent = browser.load("/viewer?StudyInstanceUIDs=1.2.3")
    assert sent.status_code == 303
    target = field(browser.load(sent.headers["location"]), "next")
    assert target == "/viewer?StudyInstanceUIDs=1.2.3"
    answer = browser.sign_in(target=target)
    assert (answer.status_code, answer.headers["location"]) == (303, target)
    cookie = SimpleCookie(answer.headers["set-cookie"])["imagora_session"]
    assert (cookie["httponly"], cookie["samesite"].lower(), cookie["path"]) == (True, "lax", "/")
    assert cookie["secure"] == ""  # this server is on loopback
    assert 0 < int(cookie["max-age"]) <= 8 * 3600
    assert browser.studies() == 200
    assert browser.studies(twins.two) == 200
    assert browser.load("/portal/sources").status_code == 200


def test_the_database_holds_no_word_that_lets_in(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    rows = fetch(twins.database, "SELECT token_hash, rpps, expires_at - now() AS life FROM session")
    assert rows
    assert all(len(row["token_hash"]) == 32 and row["life"].total_seconds() <= 8 * 3600 for row in rows)
    assert browser.word.encode() not in b"".join(row["token_hash"] for row in rows)


def test_signing_out_ends_the_session_everywhere_within_a_second(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    assert browser.studies(twins.two) == 200
    page = browser.load("/portal/sign-out")
    assert "MARTIN CLAIRE" in page.text
    word = browser.word
    answer = browser.post(
        f"{twins.one.url}/portal/sign-out",
        data={"csrf": field(page, "csrf")},
        headers={**HTML, **SAME},
        allow_redirects=False,
        timeout=20,
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in")
    assert "imagora_session" not in browser.cookies
    held = {"cookie": f"imagora_session={word}"}
    assert requests.get(f"{twins.one.dicomweb()}/studies", headers=held, timeout=20).status_code == 401
    time.sleep(1)
    assert requests.get(f"{twins.two.dicomweb()}/studies", headers=held, timeout=20).status_code == 401


def test_sign_in_and_out_are_traced(twins: Twins) -> None:
    fetch(twins.database, "SELECT 1")
    before = len(fetch(twins.database, "SELECT kind FROM trace"))
    browser = Browser(twins.one)
    words = []
    for _ in range(2):  # again: the first session ends
        browser.sign_in()
        words.append(browser.word)
    browser.sign_in(UNSIGNED)
    rows = fetch(twins.database, _TRACES)[before:]
    assert [(row["kind"], row["outcome"], row["requester_id"]) for row in rows] == [
        ("signed-in", "success", GOOD),
        ("signed-out", "success", GOOD),
        ("signed-in", "success", GOOD),
        ("signed-in", "failure", UNSIGNED),
    ]
    details = [json.loads(row["detail"]) for row in rows]
    first, second = (hashlib.sha256(word.encode()).hexdigest()[:16] for word in words)
    assert [d.get("session") for d in details] == [first, first, second, None]
    assert "charter" in details[-1]["refusal"]


def test_without_a_trace_nobody_is_signed_in(twins: Twins) -> None:
    count = "SELECT count(*) AS n FROM session"
    before = fetch(twins.database, count)[0]["n"]
    fetch(twins.database, "ALTER TABLE trace RENAME TO elsewhere")
    try:
        browser = Browser(twins.one)
        answer = browser.sign_in()
    finally:
        fetch(twins.database, "ALTER TABLE elsewhere RENAME TO trace")
    assert answer.status_code == 503
    assert "imagora_session" not in browser.cookies
    assert fetch(twins.database, count)[0]["n"] == before


@pytest.mark.parametrize(
    ("rpps", "words"), [(UNSIGNED, "charte"), (SUSPENDED, "suspendu"), (UNKNOWN, "pas enregistré"), ("x", "enregistré")]
)
def test_who_may_not_ask_gets_no_session_and_is_told_what_to_do(twins: Twins, rpps: str, words: str) -> None:
    browser = Browser(twins.one)
    browser.headers["accept-language"] = "fr"
    answer = browser.sign_in(rpps)
    assert answer.status_code == 403
    assert words in answer.text
    assert "imagora_session" not in browser.cookies


def test_a_form_of_another_page_signs_nobody_in(twins: Twins) -> None:
    url = f"{twins.one.url}/portal/sign-in"
    browser = Browser(twins.one)
    form = {"csrf": field(browser.load(), "csrf"), "rpps": GOOD}
    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        answer = browser.post(url, data=form, headers=headers, allow_redirects=False, timeout=20)
        assert answer.status_code == 403
    for changed in ({**form, "csrf": "0" * 64}, {"rpps": GOOD}):
        assert browser.post(url, data=changed, headers=SAME, allow_redirects=False, timeout=20).status_code == 403
    stranger = requests.post(url, data=form, headers=SAME, allow_redirects=False, timeout=20)  # without its cookie
    assert stranger.status_code == 403


def test_a_session_changes_nothing_without_our_pages_token(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    url = f"{twins.one.url}/portal/sign-out"
    good = {"csrf": form_token(browser.word)}
    for headers, form in (({}, good), ({"sec-fetch-site": "cross-site"}, good), (SAME, {"csrf": "x"}), (SAME, {})):
        answer = browser.post(url, data=form, headers=headers, allow_redirects=False, timeout=20)
        assert answer.status_code == 403
    assert browser.post(url, data=b"x" * 70_000, headers={**SAME, "content-type": FORM}, timeout=20).status_code == 413
    assert browser.studies() == 200
    header = {**SAME, "x-csrf-token": form_token(browser.word)}
    assert browser.post(url, headers=header, allow_redirects=False, timeout=20).status_code == 303
    assert browser.studies() == 401


FORM = "application/x-www-form-urlencoded"


def test_a_session_is_never_taken_for_storing(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    headers = {**SAME, "x-csrf-token": form_token(browser.word), "content-type": "multipart/related"}
    answer = browser.post(f"{twins.one.dicomweb()}/studies", data=b"", headers=headers, timeout=20)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"]


def test_two_cookies_of_one_name_are_not_chosen_between(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    both = {"cookie": f"imagora_session={browser.word}; imagora_session=x"}
    assert requests.get(f"{twins.one.dicomweb()}/studies", headers=both, timeout=20).status_code == 401


def test_a_suspension_ends_what_a_session_may_within_a_second(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    assert browser.studies(twins.two) == 200

    async def set_active(*, active: bool) -> None:
        async with Database(twins.database) as database:
            await PractitionerStore(database).set_active(GOOD, active=active)

    asyncio.run(set_active(active=False))
    try:
        time.sleep(1)
        assert (browser.studies(), browser.studies(twins.two)) == (403, 403)
    finally:
        asyncio.run(set_active(active=True))
        time.sleep(1)
    assert browser.studies() == 200


def test_a_session_that_is_over_lets_nobody_in(twins: Twins) -> None:
    async def scenario() -> None:
        async with Database(twins.database) as database:
            sessions = Sessions(database, lifetime_s=0.3, fresh_s=0.05)
            word = await sessions.begin(GOOD, traced=traced)
            found = await asyncio.gather(*(sessions.find(word) for _ in range(20)))
            assert {session.rpps for session in found if session is not None} == {GOOD}
            assert await sessions.find("other") is None
            await asyncio.sleep(0.5)
            assert await sessions.find(word) is None
            await sessions.begin(GOOD, traced=traced)
            assert await database.fetchval("SELECT count(*) FROM session WHERE expires_at <= now()") == 0

    asyncio.run(scenario())


def test_every_page_says_that_it_is_a_demonstration(twins: Twins) -> None:
    browser = Browser(twins.one)
    browser.sign_in()
    for path in ("/portal/sign-in", "/portal/sign-out", "/portal/sources"):
        assert 'class="demo"' in browser.load(path).text, path
    assert browser.load("/portal/static/imagora-demo.js").status_code == 200
    page = browser.load("/")
    assert page.status_code == 503 or "/portal/static/imagora-demo.js" in page.text  # 503: OHIF is not installed


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/viewer?StudyInstanceUIDs=1.2", "/viewer?StudyInstanceUIDs=1.2"),
        ("/", "/"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("viewer", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("/\t/evil.example", "/"),
        ("/[", "/["),
        ("//[", "/"),
    ],
)
def test_sign_in_leads_nowhere_else(target: str, path: str) -> None:
    assert local_path(target) == path
