"""Nothing by which a member calls itself leaves the façade: no host, path or AE title, in no answer whatever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from pydicom.dataset import Dataset
from region import INSTANCE, SERIES, instance_row, row, rows_of, series_row, value
from support.peer import Connection, Peer, Request
from support.serving import Serving

A, B, C, DOWN = "csrom41200", "cschb41000", "csorl45100", "cstou37000"
#: What would betray a member; all are spelled in lower case.
MARKS = (b"zq-member", b"127.0.0.2")
AT_ONCE = 16
OWN, SHARED, CLASH, NASTY = (str(exams.uid("leaks", n)) for n in ("own", "shared", "clash", "nasty"))


def betrays(data: bytes) -> set[bytes]:
    return {mark for mark in MARKS if mark in data.lower()}


def whole(answer: requests.Response) -> bytes:
    """Everything that came over the wire but the status line."""
    headers = "\n".join(f"{k}: {v}" for k, v in answer.raw.headers.items())
    return headers.encode("latin-1") + b"\n\n" + answer.content


def self_naming(dataset: Dataset, series: int, instance: int) -> None:
    """What some PACS write into the objects that they keep."""
    dataset.RetrieveAETitle = "ZQ-MEMBER-AE"
    dataset.RetrieveURL = "http://127.0.0.21/zq-member-a/dicom-web/studies/1"


def document(study: str) -> list[bytes]:
    """An instance with a value long enough to become bulk data."""
    return exams.light_study(
        study_uid=study,
        patient_id="10",
        extra={"EncapsulatedDocument": b"%PDF-" + b"x" * 5000, "MIMETypeOfEncapsulatedDocument": "application/pdf"},
        finish=self_naming,
    )


URL = "http://127.0.0.23/zq-member-c/dicom-web"
SPEAKS_OF_ITSELF = {
    "t00081190": {"vr": "UR", "Value": [f"{URL}/studies/1"]},
    "t00080054": {"vr": "AE", "Value": ["ZQ-MEMBER-AE"]},
    "t0040E010": {"vr": "UR", "Value": [f"{URL}/wado"]},
    "t00081140": {"vr": "SQ", "Value": [{"00081190": {"vr": "UR", "Value": [URL]}}]},
    "t00400275": {
        "Value": [{"00081190": {"vr": "UR", "Value": [URL]}, "00080054": {"vr": "AE", "Value": ["zq-member"]}}]
    },
    "t00420011": {"vr": "OB", "BulkDataURI": f"{URL}/bulk/1"},
    "t00080012": {"vr": "UN", "BulkDataURI": "/zq-member-c/bulk/2"},
}


async def nasty(request: Request, connection: Connection) -> None:
    """Speaks of itself wherever it can."""
    study = row(NASTY, "33", **SPEAKS_OF_ITSELF)
    series = series_row(study, f"{NASTY}.1")
    headers = {"Location": URL, "Link": f"<{URL}>", "Set_Cookie": "host=127.0.0.23", "Server": "zq-member-c"}
    headers |= {"Warning": f"299 zq-member-c {URL} is tired", "Content_Location": f"{URL}/x"}
    found = {"studies": study, "series": series, "instances": instance_row(series, f"{NASTY}.1.1")}
    last = request.path.rpartition("/")[2]
    if last in found:
        await connection.json([found[last]], **headers)
    elif last == "metadata":
        await connection.json([instance_row(series, f"{NASTY}.1.1")], **headers)
    elif last == "rendered":
        await connection.answer(200, b"\x89PNG", "image/png", **headers)
    else:
        await connection.answer(500, f"fault at {URL} on 127.0.0.23".encode(), "text/plain", **headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    server: Serving
    members: dict[str, OrthancServer]
    nasty: Peer


@pytest.fixture(scope="module")
def region(orthancs, serve_module) -> Iterator[Region]:
    members = orthancs(
        {
            A: [
                *document(OWN),
                *exams.light_study(study_uid=SHARED, patient_id="20", n_series=2),
                *exams.light_study(study_uid=CLASH, patient_id="30", name="PETIT^LUC"),
            ],
            B: [
                *exams.light_study(study_uid=SHARED, patient_id="21", n_series=2, first_series=2, finish=self_naming),
                *exams.light_study(study_uid=CLASH, patient_id="31", name="LEROY^ANNE"),
            ],
        },
        {
            A: {"host": "127.0.0.21", "root": "/zq-member-a/dicom-web/"},
            B: {"host": "127.0.0.22", "root": "/zq-member-b/dicom-web/"},
        },
    )
    with ExitStack() as stack:
        peer = stack.enter_context(Peer(nasty, host="127.0.0.23", root="/zq-member-c/dicom-web"))
        urls = {site: m.dicomweb_url for site, m in members.items()}
        server = serve_module(
            {**urls, C: peer.dicomweb_url, DOWN: "http://127.0.0.24:1/zq-member-d"},
            search={"deadline_s": 5.0, "breaker_failures": 1000},
        )
        yield Region(server=server, members=members, nasty=peer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. Its answer's references to bulk data are asked for as well."""

    url: str
    method: str = "GET"
    accept: str | None = None


def every_question(server: Serving) -> Iterator[Question]:
    for scope in ("", f"/sites/{A}", f"/sites/{C}", f"/sites/{DOWN}", "/sites/nowhere"):
        base = server.dicomweb(scope)
        for query in ("", "?includefield=all", "?PatientID=20", "?limit=x", "?StudyInstanceUID=1.9", "?zq=1"):
            yield from (Question(url=f"{base}/{level}{query}") for level in ("studies", "series", "instances"))
        yield Question(url=f"{base}/studies", accept="application/xml")
        for method in ("OPTIONS", "POST", "PUT", "DELETE", "PATCH"):
            yield Question(url=f"{base}/studies", method=method)
            yield Question(url=f"{base}/studies/{SHARED}", method=method)
        for study in (OWN, SHARED, CLASH, NASTY, "1.9"):
            below = f"{base}/studies/{study}"
            series = f"{below}/series/{exams.uid(study, 'series', 1)}"
            sop = exams.uid(exams.uid(study, "series", 1), "instance", 1)
            for path in (below, series, f"{series}/instances/{sop}"):
                yield Question(url=path)
                yield Question(url=path, accept="application/dicom")
                yield Question(url=path, accept="text/html")
                yield Question(url=f"{path}/metadata")
                yield Question(url=f"{path}/rendered")
                yield Question(url=f"{path}/rendered", accept="image/png")
                yield Question(url=f"{path}/rendered?quality=x")
                yield Question(url=f"{path}/thumbnail")
            yield Question(url=f"{below}/series")
            yield Question(url=f"{below}/instances")
            for frames in ("1", "1,2", "99", "x"):
                yield Question(url=f"{series}/instances/{sop}/frames/{frames}")
            yield Question(url=f"{series}/instances/{sop}/bulkdata/AAAA")
    for path in ("/", "/healthz", "/readyz", "/metrics", "/app-config.js", "/portal/sources", "/dicom-web", "/nowhere"):
        yield Question(url=server.url + path)


def every_answer(server: Serving) -> Iterator[tuple[Question, requests.Response]]:
    """Several at a time: refusals of unknown studies are slow on purpose (100 ms), and wait side by side."""
    with requests.Session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))

        def ask(question: Question) -> tuple[Question, requests.Response]:
            headers = {"Accept": question.accept} if question.accept is not None else {}
            return question, session.request(question.method, question.url, headers=headers, timeout=20)

        references: dict[str, None] = {}
        for question, answer in pool.map(ask, every_question(server)):
            yield question, answer
            if question.url.endswith("/metadata") and answer.status_code in (200, 206):
                for each in answer.json():
                    references.update((c["BulkDataURI"], None) for c in each.values() if "BulkDataURI" in c)
        assert references
        yield from pool.map(ask, [Question(url=uri) for uri in references])


def test_no_answer_names_a_member(region: Region) -> None:
    statuses: set[int] = set()
    types: set[str] = set()
    for asked, answer in every_answer(region.server):
        assert betrays(whole(answer)) == set(), (asked, answer.status_code, whole(answer)[:2000])
        statuses.add(answer.status_code)
        types.add(answer.headers.get("Content-Type", "").partition(";")[0])
    # All kinds of answers were seen.
    assert {200, 204, 400, 404, 405, 406, 409, 502, 503} <= statuses
    assert {"multipart/related", "application/dicom", "application/dicom+json", "image/png", "image/jpeg"} <= types


def test_members_do_name_themselves(region: Region) -> None:
    """The control: asked directly, they say all that the test above looks for."""
    for site in (A, B):
        base = region.members[site].dicomweb_url
        for path in ("studies", f"studies/{SHARED}/series", f"studies/{SHARED}/instances"):
            assert betrays(whole(requests.get(f"{base}/{path}", timeout=20))) == set(MARKS), path
    stored = requests.get(f"{region.members[A].dicomweb_url}/studies/{OWN}", timeout=20)
    assert betrays(stored.content) == set(MARKS)
    metadata = requests.get(f"{region.members[A].dicomweb_url}/studies/{OWN}/metadata", timeout=20)
    assert b"BulkDataURI" in metadata.content
    assert betrays(metadata.content) == set(MARKS)
    for path in ("studies", "studies/1/metadata", "studies/1/rendered", "nothing"):
        answer = requests.get(f"{region.nasty.dicomweb_url}/{path}", timeout=20, allow_redirects=False)
        assert betrays(whole(answer)) == set(MARKS)


def test_bulk_data_comes_through_references_of_ours(region: Region) -> None:
    metadata = rows_of(requests.get(f"{region.server.dicomweb()}/studies/{OWN}/metadata", timeout=20))
    uri = metadata[0]["00420011"]["BulkDataURI"]
    assert uri.startswith(region.server.url)
    body = requests.get(uri, timeout=20)
    assert body.status_code == 200
    assert b"%PDF-" in body.content
    assert betrays(whole(body)) == set()
    below = f"/studies/{OWN}/series/{value(metadata[0], SERIES)}/instances/{value(metadata[0], INSTANCE)}/bulkdata/"
    assert below in uri


def test_row_keeps_what_a_member_does_not_say_of_itself(region: Region) -> None:
    answer = requests.get(f"{region.server.dicomweb()}/studies?StudyInstanceUID={NASTY}", timeout=20)
    found = next(r for r in rows_of(answer) if value(r, "0020000D") == NASTY)
    assert value(found, "00080054") == C
    assert value(found, "00081190") == f"{region.server.dicomweb(f'/sites/{C}')}/studies/{NASTY}"
    assert "BulkDataURI" not in str(found)
