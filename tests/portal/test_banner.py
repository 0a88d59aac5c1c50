"""The banner in Chromium: what people read for what the headers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, page_of
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from viewer_harness import directory, serving

from portal.ohif import viewer_routes

pytestmark = pytest.mark.browser

PAGE = (
    '<!doctype html><html><head><script src="/app-config.js"></script></head><body><div id="root"></div></body></html>'
)
MISSING = {
    "Warning": "299 imagora: 1 of 5 sources did not answer: cschb41000 (timeout)",
    "Imagora-Sources": "cschb41000;timeout;0;10000, csrom41200;ok;2;51, a;ok;0;1, b;ok;0;2, c;ok;0;3",
}
MISSING_TEXT = "1 source sur 5 n'a pas répondu : Blois (CH) – cschb41000 (délai dépassé)"

#: Sends a request as OHIF does and waits until the banner has had its turn.
SEND = """
async ({path, how, headers, status, body}) => {
  const asked = {"x-answer": JSON.stringify({headers, status, body})};
  if (how === "fetch") {
    const response = await fetch(path, {headers: asked});
    await response.text();
  } else {
    await new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("GET", path);
      request.responseType = how;
      Object.entries(asked).forEach(([name, value]) => request.setRequestHeader(name, value));
      request.onloadend = resolve;
      request.send();
    });
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
}
"""


async def answer_as_asked(request: Request) -> Response:
    asked = json.loads(request.headers["x-answer"])
    return Response(asked["body"], status_code=asked["status"], headers=asked["headers"], media_type="application/json")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    dist: Path = tmp_path_factory.mktemp("dist")
    (dist / "index.html").write_text(PAGE)
    picture = directory()
    paths = ("/dicom-web/{rest:path}", "/sites/{site}/dicom-web/{rest:path}", "/other/{rest:path}")
    routes = [Route(path, answer_as_asked) for path in paths]
    with serving(Starlette(routes=[*routes, *viewer_routes(dist, lambda: picture)])) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, base: str) -> Iterator[Page]:
    with page_of(browser, base) as (opened, watch):
        opened.goto("/")
        yield opened
        assert [e for e in watch.errors if "Failed to load resource" not in e] == []
        assert watch.outside == []


def send(
    page: Page,
    headers: dict[str, str] | None = None,
    *,
    path: str = "/dicom-web/studies",
    how: str = "json",
    status: int = 200,
    body: str = "[]",
) -> None:
    page.evaluate(SEND, {"path": path, "how": how, "headers": headers or {}, "status": status, "body": body})


def lines(page: Page) -> list[str]:
    banner = page.locator("imagora-banner .box")
    if banner.count() == 0 or not banner.is_visible():
        return []
    return page.locator("imagora-banner p").all_inner_texts()


@pytest.mark.parametrize("how", ["fetch", "json", "text", "arraybuffer"])
def test_missing_source_is_named(page: Page, how: str) -> None:
    send(page, MISSING, how=how)
    assert lines(page) == [MISSING_TEXT]
    alert = page.locator("imagora-banner").get_by_role("alert")
    expect(alert).to_have_text(MISSING_TEXT)


def test_english_for_other_languages(browser: Browser, base: str) -> None:
    with page_of(browser, base, locale="de-DE") as (page, _):
        page.goto("/")
        send(page, MISSING)
        assert lines(page) == ["1 of 5 sources did not answer: Blois (CH) – cschb41000 (timed out)"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"Warning": "299 imagora: 2 of 3 sources did not answer: a (skipped), zz (error)"},
            ["2 sources sur 3 n'ont pas répondu : a (en panne, non interrogée), zz (erreur)"],
        ),
        (
            {"Imagora-Sources": "zz;refused;0;3, b;ok;1;2"},
            ["1 source sur 2 n'a pas répondu : zz (accès refusé)"],
        ),
        (
            {"Warning": '299 imagora "There are 17 additional results that can be requested"'},
            ["17 autre(s) résultat(s) non affiché(s). Précisez la recherche."],
        ),
        (
            {"Warning": "299 imagora: There are at least 17 additional results that can be requested"},
            ["Au moins 17 autre(s) résultat(s) non affiché(s). Précisez la recherche."],
        ),
        (
            {"Warning": "299 imagora: Source zz was cut at 1000 rows: it has more, narrow the search"},
            ["Résultats incomplets, trop d'examens trouvés : zz. Précisez la recherche."],
        ),
        (
            {
                "Warning": "299 imagora: Source zz was cut at 1000 rows: it has more, narrow the search",
                "Imagora-Sources": "zz;capped;1000;7, b;ok;1;2",
            },
            ["Résultats incomplets, trop d'examens trouvés : zz. Précisez la recherche."],
        ),
        (
            {"Warning": "299 imagora: Exams of your own site, csrom41200, are left out: ask with own_site=include"},
            ["Les examens de votre propre site ne sont pas affichés ici."],
        ),
        (
            {
                "Warning": "299 imagora: The fuzzymatching parameter is not supported. Only literal matching has "
                "been performed., 299 imagora: Unknown parameter ignored: zz"
            },
            [],
        ),
        ({"Warning": "299 imagora: <b>Something, else</b>"}, ["<b>Something, else</b>"]),
        ({"Warning": "garbage", "Imagora-Sources": ";;;,,x"}, ["garbage"]),
        ({}, []),
    ],
)
def test_what_each_header_says(page: Page, headers: dict[str, str], expected: list[str]) -> None:
    send(page, headers)
    assert lines(page) == expected


def test_joined_warnings_are_taken_apart(page: Page) -> None:
    warnings = [
        "299 imagora: 2 of 5 sources did not answer: cschb41000 (timeout), zz (error)",
        "299 imagora: This search names no patient and was not sent: give a UID, an accession number, a PatientID",
        "299 imagora: 3 StudyInstanceUID stand for different patients at different sites: open each by itself",
        '299 imagora "There are 4 additional results that can be requested"',
    ]
    send(page, {"Warning": ", ".join(warnings)})
    found = lines(page)
    assert len(found) == 4
    assert found[0].startswith("2 sources sur 5 n'ont pas répondu : Blois (CH) – cschb41000 (délai dépassé), zz")
    assert any(text.startswith("Précisez le patient") for text in found)
    assert any("patients différents" in text for text in found)


def test_closed_message_stays_closed_until_it_changes(page: Page) -> None:
    send(page, MISSING)
    page.locator("imagora-banner button").focus()
    page.keyboard.press("Enter")
    assert lines(page) == []
    send(page, MISSING)
    assert lines(page) == []
    other = {"Warning": "299 imagora: 1 of 5 sources did not answer: csrom41200 (error)"}
    send(page, other)
    assert lines(page) == ["1 source sur 5 n'a pas répondu : Romorantin (CH) – csrom41200 (erreur)"]
    page.locator("imagora-banner button").focus()
    page.keyboard.press("Escape")
    assert lines(page) == []
    send(page)  # all sources are back …
    send(page, MISSING)  # … and one is lost again
    assert lines(page) == [MISSING_TEXT]


def test_a_new_search_replaces_what_the_last_one_said(page: Page) -> None:
    send(page, MISSING)
    send(page)
    assert lines(page) == []


def test_same_message_of_many_answers_is_shown_once(page: Page) -> None:
    for frame in range(1, 6):
        path = f"/dicom-web/studies/1.2/series/1.3/instances/1.4/frames/{frame}"
        send(page, path=path, how="arraybuffer", status=503, body='{"error": "The PACS rests."}')
    assert lines(page) == ["Aucune source n'a pu répondre. Réessayez dans un instant : The PACS rests."]


def test_other_paths_are_not_ours(page: Page) -> None:
    send(page, MISSING, path="/other/dicom-web/studies")
    send(page, path="/other/studies", status=503)
    assert lines(page) == []


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, '{"error": "x"}', ["Aucune source n'a pu répondre. Réessayez dans un instant : x"]),
        (500, "<h1>no</h1>", ["La demande a échoué (500)."]),
        (502, '{"error": {"deep": 1}}', ["La demande a échoué (502)."]),
        (409, '{"error": "Two people."}', ["La demande a échoué (409) : Two people."]),
        (404, '{"error": "Not found"}', []),
    ],
)
@pytest.mark.parametrize("how", ["fetch", "text", "arraybuffer"])
def test_errors_are_told_in_plain_text(page: Page, how: str, status: int, body: str, expected: list[str]) -> None:
    send(page, path="/dicom-web/studies/1.2/series", how=how, status=status, body=body)
    assert lines(page) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(502, []), (504, []), (503, ["Aucune source n'a pu répondre. Réessayez dans un instant."]), (403, ["(403)"])],
)
def test_a_thumbnail_that_cannot_be_made_is_no_alarm(page: Page, status: int, expected: list[str]) -> None:
    """What keeps the exam itself away is told all the same."""
    send(page, path="/dicom-web/studies/1.2/series/1.3/thumbnail", how="fetch", status=status, body="{}")
    said = lines(page)
    assert len(said) == len(expected)
    assert all(part in line for part, line in zip(expected, said, strict=True))


def test_conflict_offers_each_site(page: Page) -> None:
    body = {
        "error": "This StudyInstanceUID stands for different patients at different sites.",
        "urls": [f"http://h/sites/{site}/dicom-web/studies/1.2.3" for site in ("csrom41200", "cschb41000")],
    }
    send(page, path="/dicom-web/studies/1.2.3/metadata", status=409, body=json.dumps(body))
    links: list[Any] = page.locator("imagora-banner a").evaluate_all(
        "anchors => anchors.map(a => [a.getAttribute('href'), a.textContent])"
    )
    assert links == [
        ["/viewer/site-csrom41200?StudyInstanceUIDs=1.2.3", "Romorantin (CH) – csrom41200"],
        ["/viewer/site-cschb41000?StudyInstanceUIDs=1.2.3", "Blois (CH) – cschb41000"],
    ]


def test_messages_do_not_follow_to_another_page(page: Page) -> None:
    send(page, MISSING)
    page.evaluate("history.pushState({}, '', '/viewer?StudyInstanceUIDs=1.2')")
    send(page, path="/dicom-web/studies?StudyInstanceUID=1.2")
    assert lines(page) == []
    send(page, MISSING, path="/dicom-web/studies?00100020=4547")
    send(page, path="/dicom-web/studies/1.2/series")
    assert lines(page) == [MISSING_TEXT]


def test_answers_pass_unchanged(page: Page) -> None:
    text = page.evaluate(
        """async () => {
          const answer = {headers: {}, status: 500, body: '{"error": "é"}'};
          const response = await fetch("/dicom-web/studies", {headers: {"x-answer": JSON.stringify(answer)}});
          return [response.status, await response.text()];
        }"""
    )
    assert text == [500, '{"error": "é"}']


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("00100020=*4547*&limit=1", "00100020=4547&limit=1"),
        ("00100020=*45**", "00100020=45*"),
        ("00100020=4547%40csrom41200", "00100020=4547%40csrom41200"),
        ("00100020=**", "00100020=**"),
        ("AccessionNumber=*A%2B1*&PatientName=*DUP*", "AccessionNumber=A%2B1&PatientName=*DUP*"),
        ("PatientName=*DUP*", "PatientName=*DUP*"),
    ],
)
def test_identifiers_are_searched_exactly(page: Page, typed: str, sent: str) -> None:
    with page.expect_request("**/dicom-web/studies*") as seen:
        send(page, path=f"/dicom-web/studies?{typed}")
    assert seen.value.url.partition("?")[2] == sent
