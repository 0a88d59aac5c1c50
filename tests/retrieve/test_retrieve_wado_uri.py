"""WADO-URI over real Orthancs: the same instances and pictures as WADO-RS gives, in every scope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import requests
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from retrieve_archives import CT, EXAMS, FOLDERS, MR, US, archives
from retrieve_member import read
from support.serving import Serving

EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def server(members: dict[str, OrthancServer], serve_module) -> Serving:
    serving: Serving = serve_module({e: m.dicomweb_url for e, m in members.items()}, folders=FOLDERS)
    return serving


def named(exam: Any, **more: str) -> dict[str, str]:
    dataset = read(exam.data[0])
    uids = {"studyUID": exam.uid, "seriesUID": dataset.SeriesInstanceUID, "objectUID": dataset.SOPInstanceUID}
    return {"requestType": "WADO", **uids, **more}


def get(server: Serving, exam: Any, scope: str = "", **more: str) -> requests.Response:
    return requests.get(f"{server.url}{scope}/wado", params=named(exam, **more), timeout=20)


def by_rs(server: Serving, exam: Any, below: str, accept: str) -> bytes:
    uids = named(exam)
    path = f"/studies/{uids['studyUID']}/series/{uids['seriesUID']}/instances/{uids['objectUID']}{below}"
    seen = wire.get(server.dicomweb(), path, {"Accept": accept})
    assert seen.status == 200
    return seen.body


@pytest.mark.parametrize("exam", [CT, US, MR], ids=EXAMS)
def test_instances_are_those_of_wado_rs_in_each_scope(exam: Any, server: Serving) -> None:
    for scope in exam.scopes:
        answer = get(server, exam, scope, contentType="application/dicom", transferSyntax="*")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("application/dicom; transfer-syntax=")
        dataset = read(answer.content)
        assert dataset.PatientID == exam.patient_id
        assert answer.content == by_rs(server, exam, "", "application/dicom; transfer-syntax=*")


def test_explicit_little_endian_by_default(server: Serving) -> None:
    for more, syntax in (({}, EXPLICIT), ({"transferSyntax": JPEG}, JPEG)):
        answer = get(server, US, contentType="application/dicom", **more)
        assert read(answer.content).file_meta.TransferSyntaxUID == syntax


def test_pictures_are_those_of_wado_rs(server: Serving) -> None:
    for more, below, accept in (
        ({}, "/rendered", "image/jpeg"),
        ({"contentType": "image/png"}, "/rendered", "image/png"),
        ({"windowCenter": "40", "windowWidth": "400"}, "/rendered?window=40,400,linear", "image/jpeg"),
        ({"rows": "32", "columns": "16", "imageQuality": "50"}, "/rendered?viewport=16,32&quality=50", "image/jpeg"),
    ):
        answer = get(server, CT, **more)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, accept)
        assert answer.content == by_rs(server, CT, below, accept)
    third = get(server, US, frameNumber="3", contentType="image/png")
    assert third.content == by_rs(server, US, "/frames/3/rendered", "image/png")
    assert third.content != get(server, US, frameNumber="1", contentType="image/png").content


def test_each_access_is_traced(members: dict[str, OrthancServer], serve, postgres) -> None:
    database = postgres()
    server = serve({e: m.dicomweb_url for e, m in members.items()}, folders=FOLDERS, database=database)
    assert get(server, CT).status_code == 200
    assert get(server, CT, contentType="application/dicom").status_code == 200
    assert requests.get(f"{server.url}/wado", params={**named(CT), "studyUID": "1.2.3"}, timeout=10).status_code == 404

    async def traces() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(database)
        try:
            kinds = ("accessed", "transfer-begun", "refused")
            found = await connection.fetch(
                "SELECT kind, study_uid, patient_id FROM trace WHERE kind = ANY($1::text[]) ORDER BY kind", kinds
            )
            return [tuple(row) for row in found]
        finally:
            await connection.close()

    expected = [
        ("accessed", CT.uid, CT.patient_id),
        ("refused", "1.2.3"),
        ("transfer-begun", CT.uid, CT.patient_id),
    ]
    limit = time.monotonic() + 5  # refusals are written after their answers
    while len(found := asyncio.run(traces())) < len(expected) and time.monotonic() < limit:
        time.sleep(0.05)
    assert [row[: len(e)] for row, e in zip(found, expected, strict=True)] == expected


def test_refusals_are_plain(server: Serving) -> None:
    answer = requests.get(f"{server.url}/wado", params={"requestType": "WADO"}, timeout=10)
    assert answer.status_code == 400
    assert all(name in answer.json()["error"] for name in ("studyUID", "seriesUID", "objectUID"))
    assert "anonymize" in get(server, CT, anonymize="yes").json()["error"]
    assert get(server, CT, contentType="application/dicom", transferSyntax="1.2.840.10008.1.2").status_code == 406
    unknown = {**named(CT), "studyUID": "1.2.3"}
    assert requests.get(f"{server.url}/wado", params=unknown, timeout=10).status_code == 404
    for other in (f"/sites/{US.emetteur}", "/sites/nobody", "/folders/none"):
        assert get(server, CT, other).status_code == 404
    assert requests.post(f"{server.url}/wado", params=named(CT), timeout=10).status_code == 405


def test_what_counts_for_nothing_is_told(server: Serving) -> None:
    answer = get(server, CT, contentType="application/dicom", frameNumber="1", nonsense="1")
    assert answer.status_code == 200
    assert "frameNumber" in answer.headers["Warning"]
    assert "nonsense" in answer.headers["Warning"]


def test_it_describes_itself(server: Serving) -> None:
    answer = requests.options(
        f"{server.url}/sites/{CT.emetteur}/wado", headers={"Accept": "application/json"}, timeout=10
    )
    (resources,) = answer.json()["application"]["resources"]
    assert resources["base"] == f"{server.url}/sites/{CT.emetteur}"
    (resource,) = resources["resource"]
    assert resource["path"] == "wado"
    (method,) = resource["method"]
    (request,) = method["request"]
    params = {p["name"]: p for p in request["param"]}
    assert {n for n, p in params.items() if p.get("required")} == {"requestType", "studyUID", "seriesUID", "objectUID"}
    assert request["param"][0]["option"][0] == {"value": "image/jpeg"}
    assert {"value": "application/dicom"} in request["param"][0]["option"]
    values = {"rows": "8", "columns": "8", "windowCenter": "1", "windowWidth": "2", "frameNumber": "1"}
    values |= {"imageQuality": "50", "annotation": "patient", "imageAnnotation": "patient", "charset": "utf-8"}
    asked = {n: v for n, v in values.items() if n in params}
    assert len(asked) == len(values)
    done = get(server, CT, **asked)
    assert (done.status_code, "Warning" in done.headers) == (200, False)
