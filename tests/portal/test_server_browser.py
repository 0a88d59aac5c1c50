"""OHIF in Chromium over the server itself, with real members: two that answer and one that is down."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import chromium, expect_picture, grey_levels, keep, page_of
from imagora_demo import documents, exams, pictures
from imagora_demo.orthanc import OrthancServer, free_port, start_all, stop_all
from playwright.sync_api import Browser, Page, Response, expect
from viewer_harness import DIST, ask

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
]

START_S = 60.0
WAIT_MS = 60_000
SITES = {
    "csrom41200": (423, "Romorantin (CH)"),
    "cschb41000": (401, "Blois (CH)"),
    "csven41100": (402, "Vendôme (CH)"),
}
LEVY = {"name": "DUPONT-LÉVY^Marie", "patient_id": "4547", "birth_date": "19600512", "sex": "F"}
OTHER = {"name": "GARNIER^Paul", "patient_id": "4547", "birth_date": "19811130", "sex": "M"}
CT = exams.StudyHeader(
    study_uid=exams.uid("server", "ct"), study_date="20240110", description="Scanner du thorax", **LEVY
)
PRIOR = exams.StudyHeader(study_uid=exams.uid("server", "us"), study_date="20210302", description="Échographie", **LEVY)
ELSEWHERE = exams.StudyHeader(
    study_uid=exams.uid("server", "other"), study_date="20230515", description="Radiographie", **OTHER
)
SHARED = exams.uid("server", "shared")


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    """Romorantin and Blois, with one IPP and one StudyInstanceUID that stand for two people."""
    romorantin, blois = OrthancServer(name="romorantin"), OrthancServer(name="blois")
    start_all([romorantin, blois])
    try:
        romorantin.upload(pictures.chest_ct(CT, n=12, slice_mm=20.0))
        romorantin.upload(documents.letter(CT, ["Pas d'anomalie."]))
        romorantin.upload(pictures.abdomen_ultrasound(PRIOR, n_frames=6))
        romorantin.upload(exams.study(study_uid=SHARED, seed="one", description="Même numéro", **LEVY))
        blois.upload(pictures.chest_radiograph(ELSEWHERE))
        blois.upload(exams.study(study_uid=SHARED, seed="two", description="Même numéro", **OTHER))
        yield {"csrom41200": romorantin, "cschb41000": blois}
    finally:
        stop_all([romorantin, blois])


def configuration(state: Path, port: int, members: dict[str, OrthancServer]) -> str:
    addresses = {emetteur: server.dicomweb_url for emetteur, server in members.items()}
    lines = [
        "[server]",
        f'port = {port}\npublic_url = "http://127.0.0.1:{port}"\nstate_dir = "{state}"',
        f'[portal]\nohif_dir = "{DIST}"',
        '[database]\nurl = "embedded"',
        '[[folders]]\nname = "MIRC historique"',
    ]
    for emetteur, (number, name) in SITES.items():
        address = addresses.get(emetteur, f"http://127.0.0.1:{free_port()}/dicom-web")
        lines.append(
            f'[[sites]]\nemetteur = "{emetteur}"\nsite = {number}\nname = "{name}"\n'
            f'folder = "MIRC historique"\ndicomweb = "{address}"'
        )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def base(members: dict[str, OrthancServer]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="imagora-") as folder:
        port = free_port()
        file = Path(folder, "imagora.toml")
        file.write_text(configuration(Path(folder, "state"), port, members), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", "from imagora.cli import main; main()", "serve", "--config", str(file)]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                wait_ready(process, url, Path(folder, "log"))
                yield url
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if ask(url, "/readyz").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the server did not become ready:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, base: str) -> Iterator[Page]:
    with page_of(browser, base) as (opened, watch):
        opened.set_default_timeout(WAIT_MS)
        yield opened
        assert [e for e in watch.errors if "status of 409" not in e] == []
        assert watch.outside == []


def test_list_says_what_to_type_then_finds_names_without_accents(page: Page) -> None:
    page.goto("/")
    banner = page.locator("imagora-banner")
    expect(banner).to_contain_text("Précisez le patient")
    page.locator("table input").first.fill("dupont levy")
    row = page.get_by_role("row").filter(has_text="Scanner du thorax")
    expect(row).to_contain_text("DUPONT-LÉVY, Marie")
    expect(row).to_contain_text("4547@csrom41200")
    expect(banner).to_contain_text("1 source sur 3 n'a pas répondu : Vendôme (CH) – csven41100 (erreur)")
    expect(banner).not_to_contain_text("Précisez le patient")
    assert page.evaluate("window.crossOriginIsolated") is True
    keep(page)


def test_list_finds_a_name_that_was_typed_with_a_fault(page: Page) -> None:
    asked: list[dict[str, list[str]]] = []
    page.on("request", lambda r: asked.append(parse_qs(urlsplit(r.url).query)) if "/studies?" in r.url else None)
    page.goto("/")
    page.locator("table input").first.fill("dupond levi")
    row = page.get_by_role("row").filter(has_text="Scanner du thorax")
    expect(row).to_contain_text("DUPONT-LÉVY, Marie")
    expect(page.get_by_text("GARNIER")).to_have_count(0)
    by_name = [q for q in asked if "PatientName" in q]
    assert [q["PatientName"] for q in by_name] == [["*dupond levi*"]]
    assert all(q["fuzzymatching"] == ["true"] for q in asked)
    # Study description, modality, referring physician, birth date.
    assert all(q["includefield"] == ["00081030,00080060,00080090,00100030"] for q in asked)


def test_thumbnails_are_ours_beside_the_list_and_beside_the_pictures(page: Page) -> None:
    given: list[Response] = []
    page.on("response", lambda r: given.append(r) if "/thumbnail" in r.url else None)
    page.goto("/?mrn=4547%40csrom41200")
    page.get_by_role("row").filter(has_text="Scanner du thorax").click()
    expect_thumbnail(page)
    beside_list = len(given)
    page.goto(f"/viewer?StudyInstanceUIDs={CT.study_uid}")
    expect_picture(page)
    expect_thumbnail(page)
    keep(page)
    assert 0 < beside_list < len(given)
    for answer in given:
        assert answer.status == 200, answer.url
        assert answer.headers["content-type"] == "image/jpeg"
        assert urlsplit(answer.url).path.startswith(f"/dicom-web/studies/{CT.study_uid}/series/")


def expect_thumbnail(page: Page) -> None:
    """A picture that was made from what a thumbnail's address gave, and that shows something."""
    picture = page.locator("img[src^='blob:']").first
    picture.wait_for()
    assert picture.evaluate("async (img) => { await img.decode(); return img.naturalWidth; }") > 64
    assert grey_levels(picture) > 16


def test_one_identifier_at_two_sites_shows_two_people_apart(page: Page) -> None:
    page.goto("/?mrn=4547")
    rows = page.get_by_role("row")
    expect(rows.filter(has_text="Scanner du thorax")).to_contain_text("4547@csrom41200")
    expect(rows.filter(has_text="Radiographie")).to_contain_text("4547@cschb41000")


def test_slice_is_rendered_and_priors_are_of_this_patient_only(page: Page) -> None:
    page.goto(f"/viewer?StudyInstanceUIDs={CT.study_uid}")
    expect_picture(page)
    expect(page.get_by_text("Échographie").first).to_be_visible()
    expect(page.get_by_text("Radiographie")).to_have_count(0)


def test_letter_opens(page: Page) -> None:
    statuses: list[int] = []
    page.on("response", lambda r: statuses.append(r.status) if "/bulkdata/" in r.url else None)
    page.goto(f"/viewer?StudyInstanceUIDs={CT.study_uid}")
    expect_picture(page)
    page.get_by_text("Courrier").first.dblclick()
    page.locator("object[type='application/pdf'][data^='blob:']").wait_for()
    assert statuses == [200]


def test_study_of_two_people_is_opened_from_its_site(page: Page) -> None:
    page.goto(f"/viewer?StudyInstanceUIDs={SHARED}")
    links = page.locator("imagora-banner a")
    expect(links).to_have_count(2)
    keep(page)
    links.filter(has_text="Blois").click()
    page.wait_for_url(f"**/viewer/site-cschb41000?StudyInstanceUIDs={SHARED}")
    expect_picture(page)


@pytest.mark.parametrize(
    "path", ["/", "/readyz", "/metrics", "/nothing.js", "/dicom-web/nothing", "/dicom-web/studies"]
)
def test_every_answer_isolates(base: str, path: str) -> None:
    headers = ask(base, path).headers
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["x-content-type-options"] == "nosniff"
