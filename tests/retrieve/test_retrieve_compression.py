"""Compression towards clients, over real Orthancs: of rows and metadata, never of pixels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest
import requests
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from retrieve_archives import CT, FOLDERS, archives
from retrieve_member import read
from support.serving import Serving

XML = 'multipart/related; type="application/dicom+xml"'
SERIES = f"/studies/{CT.uid}/series/{read(CT.data[0]).SeriesInstanceUID}"
INSTANCE = f"{SERIES}/instances/{read(CT.data[0]).SOPInstanceUID}"


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def root(members: dict[str, OrthancServer], serve_module) -> str:
    serving: Serving = serve_module({e: m.dicomweb_url for e, m in members.items()}, folders=FOLDERS)
    return serving.dicomweb()


@pytest.mark.parametrize(
    "path", [f"/studies/{CT.uid}/metadata", f"/studies/{CT.uid}/instances", f"/studies?StudyInstanceUID={CT.uid}"]
)
def test_rows_and_metadata_are_compressed_for_who_asks(path: str, root: str) -> None:
    plain = wire.get(root, path)
    assert "content-encoding" not in plain.headers
    for version in ("1.1", "1.0"):
        packed = wire.get(root, path, {"Accept-Encoding": "br;q=1.0, gzip;q=0.8, *;q=0.1"}, version=version)
        assert packed.headers["content-encoding"] == "gzip"
        assert {"accept", "accept-encoding"} <= set(packed.headers["vary"].lower().split(", "))
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body) / 2
    for unwanted in ("identity", "gzip;q=0", "deflate, br"):
        assert wire.get(root, path, {"Accept-Encoding": unwanted}).body == plain.body
    xml = wire.get(root, path, {"Accept": XML, "Accept-Encoding": "gzip"})
    assert (xml.headers["content-encoding"], xml.ended) == ("gzip", True)
    assert len(wire.parts_of(gzip.decompress(xml.body), xml.boundary)) == len(json.loads(plain.body))


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (f"/studies/{CT.uid}", 'multipart/related; type="application/dicom"'),
        (INSTANCE, "application/dicom"),
        (f"{INSTANCE}/frames/1", "multipart/related; type=application/octet-stream"),
        (f"{INSTANCE}/rendered", "image/jpeg"),
    ],
)
def test_pixels_are_not(path: str, accept: str, root: str) -> None:
    seen = wire.get(root, path, {"Accept": accept, "Accept-Encoding": "gzip"})
    assert seen.status == 200
    assert "content-encoding" not in seen.headers


def test_short_answers_are_not(root: str) -> None:
    seen = wire.get(root, "/studies/1.2.3/metadata", {"Accept-Encoding": "gzip"})
    assert (seen.status, "content-encoding" in seen.headers) == (404, False)


def test_clients_that_decode_by_themselves_see_no_difference(root: str) -> None:
    url = f"{root}/studies/{CT.uid}/metadata"
    with requests.Session() as session:
        packed = session.get(url, timeout=10)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.json() == session.get(url, headers={"Accept-Encoding": "identity"}, timeout=10).json()
        tag = packed.headers["ETag"]
        assert session.get(url, headers={"If-None-Match": tag}, timeout=10).status_code == 304
