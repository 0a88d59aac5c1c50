"""A real PACS that dies in the middle of a study."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer

MULTIPART = {"Accept": 'multipart/related; type="application/dicom"'}
UID = exams.uid("killed", "study")
INSTANCES = 24  # of 2 MB: far more than all the buffers between a PACS and a client that does not read


@pytest.fixture
def orthanc() -> Iterator[OrthancServer]:
    with OrthancServer(name="killed") as member:
        member.upload(exams.iter_study(seed="killed", n_instances=INSTANCES, rows=1024, columns=1024))
        yield member


def test_killed_orthanc_ends_in_an_aborted_transfer(serve, orthanc: OrthancServer) -> None:
    server = serve({"csrom41200": orthanc.dicomweb_url})
    with wire.connect(server.dicomweb(), f"/studies/{UID}", MULTIPART) as link:
        raw = link.recv(1 << 16)
        assert raw.startswith(b"HTTP/1.1 200")
        time.sleep(0.3)  # the slow reader: the transfer stands still in all the buffers
        orthanc.kill()
        seen = wire.read_to_end(link, raw)
    assert len(seen.body) > 2 << 20  # it was well under way
    assert not seen.ended
    assert not seen.closed

    # What follows is quick and plain while it is down, and whole when it is back.
    started = time.monotonic()
    down = requests.get(f"{server.dicomweb()}/studies/{UID}", headers=MULTIPART, timeout=20)
    assert down.status_code in (502, 503, 504)
    assert "csrom41200" in down.headers["Warning"]
    assert time.monotonic() - started < 8  # a member has ten seconds
    orthanc.start()
    back = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
    assert back.ended
    assert len(back.parts) == INSTANCES


def test_killed_orthanc_raises_in_http_client(serve, orthanc: OrthancServer) -> None:
    server = serve({"csrom41200": orthanc.dicomweb_url})
    address = urlsplit(server.dicomweb())
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    connection.request("GET", f"{address.path}/studies/{UID}", headers=MULTIPART)
    response = connection.getresponse()
    assert response.status == 200
    assert len(response.read(1 << 20)) == 1 << 20
    orthanc.kill()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
