"""OHIF as npm brings it, in Chromium, over exams that a real Orthanc holds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser import chromium, expect_picture, keep, page_of
from imagora_demo import documents, exams, pictures
from imagora_demo.orthanc import OrthancServer
from playwright.sync_api import Browser, Page, expect
from viewer_harness import DIST, Backend, application, ask, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
]

WAIT_MS = 60_000
PATIENT = {"name": "DUPONT-LÉVY^Marie", "patient_id": "4547@csrom41200", "birth_date": "19600512", "sex": "F"}
CT = exams.StudyHeader(
    study_uid=exams.uid("viewer", "ct"), study_date="20240110", description="Scanner du thorax", **PATIENT
)
US = exams.StudyHeader(study_uid=exams.uid("viewer", "us"), study_date="20210302", description="Échographie", **PATIENT)
SYNTAXES = {
    "RLE": exams.RLELossless,
    "JPEG": exams.JPEGBaseline8Bit,
    "JPEG 2000": exams.JPEG2000Lossless,
}


@pytest.fixture(scope="module")
def orthanc() -> Iterator[OrthancServer]:
    with OrthancServer(name="member") as server:
        server.upload(pictures.chest_ct(CT, n=12, slice_mm=20.0))
        server.upload(documents.letter(CT, ["Pas d'anomalie."]))
        server.upload(documents.report(CT, [("Conclusion", "Examen normal du thorax.")]))
        server.upload(pictures.abdomen_ultrasound(US, n_frames=6))
        for name, syntax in SYNTAXES.items():
            bits = 8 if name == "JPEG" else 16
            server.upload(exams.study(seed=name, bits=bits, transfer_syntax=syntax, patient_id=name))
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def backend(orthanc: OrthancServer) -> Backend:
    return Backend(orthanc.dicomweb_url)


@pytest.fixture
def page(browser: Browser, backend: Backend) -> Iterator[Page]:
    with serving(application(DIST, backend)) as base, page_of(browser, base) as (opened, watch):
        opened.set_default_timeout(WAIT_MS)
        yield opened
        assert watch.errors == []
        assert watch.outside == []


def open_study(page: Page, study_uid: str, source: str = "") -> None:
    page.goto(f"/viewer{source}?StudyInstanceUIDs={study_uid}")


def test_study_list_names_patients_and_missing_sources(page: Page, backend: Backend) -> None:
    backend.search_headers = {
        "Warning": "299 imagora: 1 of 5 sources did not answer: cschb41000 (timeout)",
        "Imagora-Sources": "cschb41000;timeout;0;10000, csrom41200;ok;2;51",
    }
    page.goto("/")
    expect(page.get_by_text("Scanner du thorax")).to_be_visible()
    expect(page.get_by_text("4547@csrom41200").first).to_be_visible()
    expect(page.locator("imagora-banner")).to_contain_text("1 source sur 5 n'a pas répondu")
    assert page.evaluate("window.crossOriginIsolated") is True
    keep(page)


def test_slice_is_rendered_with_priors_beside_it(page: Page, backend: Backend) -> None:
    open_study(page, CT.study_uid)
    expect_picture(page)
    expect(page.get_by_text("Échographie").first).to_be_visible()
    priors = [e.query for e in backend.exchanges if "00100020=" in e.query]
    assert priors
    assert all("00100020=4547%40csrom41200" in q for q in priors)


def test_site_scoped_study_stays_with_its_site(page: Page, backend: Backend) -> None:
    open_study(page, US.study_uid, "/site-csrom41200")
    expect_picture(page)
    assert backend.exchanges
    assert {e.path.partition("/dicom-web/")[0] for e in backend.exchanges} == {"/sites/csrom41200"}


@pytest.mark.parametrize("name", SYNTAXES)
def test_compressed_images_are_decoded(page: Page, name: str) -> None:
    open_study(page, exams.uid(name, "study"))
    expect_picture(page)


def test_documents_are_shown(page: Page) -> None:
    open_study(page, CT.study_uid)
    expect_picture(page)
    page.get_by_text("Courrier").first.dblclick()
    document = page.locator("object[type='application/pdf']")
    expect(document).to_have_attribute("data", re.compile("^blob:"))
    keep(page)
    page.get_by_text("Compte rendu", exact=True).first.dblclick()
    expect(page.get_by_text("Examen normal du thorax.").first).to_be_visible()


def test_source_is_chosen_from_the_settings_menu(page: Page, backend: Backend) -> None:
    page.goto("/")
    page.get_by_label("Open settings").click()
    page.get_by_text("Choisir une source").click()
    page.get_by_text("Romorantin (CH)").click()
    expect(page.get_by_text("Scanner du thorax")).to_be_visible()
    assert backend.exchanges[-1].path == "/sites/csrom41200/dicom-web/studies"


def test_identifier_typed_in_the_list_is_sent_as_typed(page: Page, backend: Backend) -> None:
    page.goto("/?mrn=4547%40csrom41200")
    expect(page.get_by_text("Scanner du thorax")).to_be_visible()
    assert "00100020=4547%40csrom41200&" in backend.exchanges[0].query


def test_rows_that_the_server_found_are_not_filtered_again(page: Page, backend: Backend) -> None:
    backend.any_name_matches = True
    page.goto("/")
    row = page.get_by_text("Scanner du thorax")
    expect(row).to_be_visible()
    with page.expect_request("**/dicom-web/studies?PatientName=*"):
        page.locator("table input").first.fill("dupont levy")
    page.wait_for_timeout(1000)
    expect(row).to_be_visible()
    assert "PatientName=*dupont%20levy*" in backend.exchanges[-1].query.replace("+", "%20")


def test_refused_retrieve_is_told(browser: Browser, backend: Backend) -> None:
    backend.retrieve_error = (503, b'{"error": "The source rests."}')
    with serving(application(DIST, backend)) as base, page_of(browser, base) as (page, watch):
        open_study(page, CT.study_uid)
        expect(page.locator("imagora-banner")).to_contain_text("The source rests.", timeout=WAIT_MS)
        keep(page)
        assert watch.outside == []


def test_every_file_of_the_build_has_a_media_type_of_its_own() -> None:
    with serving(application(DIST)) as base:
        for path in sorted(p for p in DIST.rglob("*") if p.suffix in (".wasm", ".js", ".mjs", ".css", ".woff2")):
            answer = ask(base, f"/{path.relative_to(DIST).as_posix()}", method="HEAD")
            if path.name != "google.js":
                assert answer.status == 200, path
                assert answer.headers["content-type"] != "application/octet-stream"
