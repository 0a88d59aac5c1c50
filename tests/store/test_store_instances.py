"""STOW-RS to the requester's own site, a real Orthanc: what is stored, what is refused, and what is traced of it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pydicom
import pytest
import requests
import store_wire as wire
from dicomweb_client.api import DICOMwebClient
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from support.consenting import People
from support.serving import Serving, serving, settings_for

HOME, OTHER, NOWHERE = "csrom41200", "cpsax18000", "chbrg18000"
DOCTOR, STRANGER, HOMELESS = "10001234567", "10001234568", "10001234569"


@dataclass
class World:
    server: Serving
    people: People
    home: OrthancServer
    other: OrthancServer
    url: str

    def post(self, data: Any, path: str = "/studies", *, by: str = DOCTOR, scope: str = "", **more: str) -> Any:
        return wire.post(f"{self.server.dicomweb(scope)}{path}", data, self.people.bearer(by), **more)

    def traces(self, study_uid: str) -> list[asyncpg.Record]:
        async def fetch() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url)
            try:
                return list(
                    await connection.fetch(
                        "SELECT * FROM trace WHERE study_uid = $1 ORDER BY recorded_at, sequence", study_uid
                    )
                )
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def traced(self, study_uid: str, count: int) -> list[asyncpg.Record]:
        """Once as many are there: the last is written after the answer."""
        until = time.monotonic() + 5
        while len(rows := self.traces(study_uid)) < count and time.monotonic() < until:
            time.sleep(0.05)
        return rows


@pytest.fixture(scope="module")
def world(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    servers = (OrthancServer(name="home"), OrthancServer(name="other"))
    start_all(servers)
    try:
        folder = tmp_path_factory.mktemp("store")
        people = People(folder / "issuer")
        url = postgres()
        settings = settings_for(
            {HOME: servers[0].dicomweb_url, OTHER: servers[1].dicomweb_url, NOWHERE: "http://127.0.0.1:9/dicom-web"},
            folder,
            folders={"Centre": [HOME, OTHER]},
            auth=people.auth,
            store={"instance_mb": 4, "request_mb": 12, "instances": 40},
        )
        with serving(settings, url) as server:
            people.register(url, {DOCTOR: HOME, STRANGER: OTHER, HOMELESS: NOWHERE})
            yield World(server, people, *servers, url)
    finally:
        stop_all(servers)


@pytest.fixture(autouse=True)
def nothing_held(world: World) -> None:
    world.home.clear()
    world.other.clear()


def study(seed: str, **parameters: Any) -> tuple[str, list[bytes]]:
    return str(exams.uid(seed, "study")), exams.study(seed=seed, rows=16, columns=16, **parameters)


def sops(data: list[bytes]) -> set[str]:
    return {str(wire.read(d).SOPInstanceUID) for d in data}


@pytest.mark.parametrize("scope", ["", "/folders/centre", f"/sites/{HOME.upper()}"])
def test_instances_are_stored_at_the_own_site_and_come_back(world: World, scope: str) -> None:
    uid, data = study(f"stored{scope}", n_series=2, n_instances=3)
    answer = world.post(wire.body(data), scope=scope)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    told = answer.json()
    assert set(wire.stored(told)) == sops(data)
    assert "00081198" not in told
    assert told["00081190"]["Value"] == [f"{world.server.url}/sites/{HOME}/dicom-web/studies/{uid}"]
    assert world.home.count()["instances"] == 6
    assert world.other.count()["instances"] == 0
    # Each is to be had under the URL that it was given, at once, as it was sent.
    sop, url = next(iter(wire.stored(told).items()))
    got = requests.get(url, headers={**world.people.bearer(DOCTOR), "Accept": "application/dicom"}, timeout=20)
    sent = next(d for d in map(wire.read, data) if sop == d.SOPInstanceUID)
    assert wire.read(got.content).PixelData == sent.PixelData


def test_dicomweb_client_stores(world: World) -> None:
    uid, data = study("client", n_instances=2)
    client = DICOMwebClient(world.server.dicomweb(), headers=world.people.bearer(DOCTOR))
    answer = client.store_instances([wire.read(d) for d in data], study_instance_uid=uid)
    assert {str(item.ReferencedSOPInstanceUID) for item in answer.ReferencedSOPSequence} == sops(data)
    assert len(client.search_for_instances(uid)) == 2


def test_one_instance_may_be_the_body_itself(world: World) -> None:
    _, data = study("single", n_instances=1)
    answer = world.post(data[0], **{"Content-Type": "application/dicom"})
    assert (answer.status_code, set(wire.stored(answer.json()))) == (200, sops(data))


def test_an_unknown_study_that_was_asked_for_is_found_once_it_is_stored(world: World) -> None:
    """What a member was known not to hold is known no more."""
    uid, data = study("asked-before", n_instances=1)
    rows = f"{world.server.dicomweb()}/studies?StudyInstanceUID={uid}"
    headers = world.people.bearer(DOCTOR)
    assert (
        requests.get(f"{world.server.dicomweb()}/studies/{uid}/metadata", headers=headers, timeout=20).status_code
        == 404
    )
    assert world.post(wire.body(data)).status_code == 200
    assert (
        requests.get(f"{world.server.dicomweb()}/studies/{uid}/metadata", headers=headers, timeout=20).status_code
        == 200
    )
    assert len(requests.get(rows, headers=headers, timeout=20).json()) == 1


@pytest.mark.parametrize(
    ("by", "scope"), [(DOCTOR, f"/sites/{OTHER}"), (STRANGER, f"/sites/{HOME}"), (HOMELESS, "/folders/centre")]
)
def test_another_site_takes_nothing(world: World, by: str, scope: str) -> None:
    uid, data = study(f"foreign{by}{scope}", n_instances=2)
    answer = world.post(wire.body(data), by=by, scope=scope)
    assert answer.status_code == 409
    assert wire.failed(answer.json()) == dict.fromkeys(sops(data), 0x0124)
    assert wire.stored(answer.json()) == {}
    assert world.home.count()["instances"] == world.other.count()["instances"] == 0
    (trace,) = world.traced(uid, 1)
    assert (trace["kind"], trace["outcome"]) == ("refused", "failure")


def test_another_study_than_the_path_names_is_left_out(world: World) -> None:
    uid, mine = study("named", n_instances=2)
    _, other = study("not-named", n_instances=1)
    answer = world.post(wire.body([mine[0], other[0], mine[1]]), f"/studies/{uid}")
    assert answer.status_code == 202
    assert set(wire.stored(answer.json())) == sops(mine)
    assert wire.failed(answer.json()) == dict.fromkeys(sops(other), 0xA900)
    assert world.home.count()["instances"] == 2


def test_the_same_instance_twice_is_stored_once(world: World) -> None:
    _, data = study("twice", n_instances=1)
    answer = world.post(wire.body([data[0], data[0]]))
    assert answer.status_code == 202
    assert set(wire.stored(answer.json())) == sops(data)
    assert wire.failed(answer.json()) == dict.fromkeys(sops(data), 0x0111)


def test_each_store_is_traced_before_and_after(world: World) -> None:
    uid, data = study("traced", patient_id="4547", n_instances=2)
    assert world.post(wire.body(data), "/studies").status_code == 200
    begun, ended = world.traced(uid, 2)
    assert [begun["kind"], ended["kind"]] == ["store-begun", "stored"]
    for trace in (begun, ended):
        assert trace["requester_id"] == DOCTOR
        assert trace["patient_id"] == f"4547@{HOME}"
        assert trace["origin"] == HOME
        assert trace["holders"] == [HOME]
    assert ended["outcome"] == "success"
    detail = ended["detail"]
    assert (json.loads(detail) if isinstance(detail, str) else detail) == {"stored": 2, "failed": 0}


def test_every_patient_of_a_request_is_traced(world: World) -> None:
    one, first = study("patients-1", patient_id="1", n_instances=1)
    two, second = study("patients-2", patient_id="2", n_instances=1)
    assert world.post(wire.body([*first, *second])).status_code == 200
    assert [t["patient_id"] for t in world.traced(one, 2)] == [f"1@{HOME}"] * 2
    assert [t["patient_id"] for t in world.traced(two, 2)] == [f"2@{HOME}"] * 2


def test_a_part_that_is_no_instance_is_told_and_the_others_are_stored(world: World) -> None:
    _, data = study("sick", n_instances=2)
    dataset = wire.read(data[0])
    cut = data[1][:400]  # within its head
    answer = world.post(wire.body([b"this is not DICOM", data[0], cut]))
    assert answer.status_code == 202
    assert set(wire.stored(answer.json())) == {str(dataset.SOPInstanceUID)}
    assert "can't be read" in answer.headers["warning"]
    assert world.home.count()["instances"] == 1


def test_nothing_but_rubbish_is_409(world: World) -> None:
    answer = world.post(wire.body([b"rubbish"]))
    assert (answer.status_code, wire.stored(answer.json())) == (409, {})


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_syntaxes_pass_as_they_are(world: World, syntax: str) -> None:
    uid, data = study(f"syntax{syntax}", n_instances=1)
    dataset = wire.read(data[0])
    dataset.file_meta.TransferSyntaxUID = syntax
    answer = world.post(wire.body([wire.written(dataset)]))
    assert answer.status_code == 200, answer.text
    assert len(world.traced(uid, 2)) == 2


def test_big_endian_is_refused_with_its_reason(world: World) -> None:
    _, data = study("big", n_instances=1)
    dataset = wire.read(data[0])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    sent = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data[0]))
    stream = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(stream, sent, implicit_vr=False, little_endian=False, force_encoding=True)
    raw = stream.getvalue().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", 1)
    answer = world.post(wire.body([raw]))
    assert answer.status_code == 409, answer.text


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'}, b"", 415),
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({"Content-Type": wire.RELATED, "Content-Encoding": "gzip"}, b"", 415),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, b"", 400),
        ({"Content-Type": wire.RELATED}, b"", 400),
        ({"Content-Type": wire.RELATED}, f"--{wire.BOUNDARY}--\r\n".encode(), 400),
        ({"Content-Type": wire.RELATED}, b"nothing of the kind", 400),
        ({"Content-Type": wire.RELATED, "Accept": "text/html"}, wire.body([b"x"]), 406),
    ],
)
def test_what_is_no_store_is_refused(world: World, headers: dict[str, str], data: bytes, status: int) -> None:
    answer = world.post(data, **headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]


def test_a_body_without_its_end_stores_nothing(world: World) -> None:
    uid, data = study("endless", n_instances=2)
    answer = world.post(wire.body(data)[: -len(wire.BOUNDARY) - 6])
    assert answer.status_code == 400
    assert [t["kind"] for t in world.traced(uid, 2)] == ["store-begun", "stored"]
    assert world.traces(uid)[1]["outcome"] == "failure"


def test_limits_are_told(world: World) -> None:
    _, data = study("limits", n_instances=1)
    big = wire.read(data[0])
    big.PixelData = bytes(5 << 20)
    assert world.post(wire.body([wire.written(big)])).status_code == 413
    assert world.post(wire.body([bytes(100)] * 41)).status_code == 413
    assert world.post(iter([wire.body([bytes(3 << 20)] * 5)])).status_code == 413
    assert world.home.count()["instances"] == 0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_a_client_that_breaks_off_was_told_nothing(world: World, share: float) -> None:
    """What reached the PACS whole may stay there; what was cut does not, and nothing is told to be stored."""
    uid, data = study(f"left{share}", n_instances=4)
    assert all(len(d) < 10_000 for d in data)
    whole = wire.body(data)
    parts = urlsplit(world.server.url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80)) as connection:
        head = "".join(
            f"{name}: {value}\r\n"
            for name, value in {
                "Host": parts.netloc,
                **world.people.bearer(DOCTOR),
                "Content-Type": wire.RELATED,
                "Content-Length": len(whole),
            }.items()
        )
        connection.sendall(f"POST /dicom-web/studies HTTP/1.1\r\n{head}\r\n".encode())
        connection.sendall(whole[: int(len(whole) * share)])
        time.sleep(0.2)
    begun, ended = world.traced(uid, 2)
    assert (begun["kind"], ended["kind"], ended["outcome"]) == ("store-begun", "stored", "failure")
    assert world.home.count()["instances"] < 4


def test_a_site_that_does_not_answer_stores_nothing_and_each_instance_is_told(world: World) -> None:
    uid, data = study("nowhere", n_instances=3)
    answer = world.post(wire.body(data), by=HOMELESS)
    assert answer.status_code == 409
    assert wire.failed(answer.json()) == dict.fromkeys(sops(data), 0xA700)
    assert "send it again later" in answer.headers["warning"]
    assert "127.0.0.1" not in answer.headers["warning"]
    assert world.traced(uid, 2)[1]["outcome"] == "failure"


def test_nothing_is_ever_deleted(world: World) -> None:
    uid = exams.uid("deleted")
    answer = requests.delete(
        f"{world.server.dicomweb()}/studies/{uid}", headers=world.people.bearer(DOCTOR), timeout=20
    )
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST", "OPTIONS"}
    posted = requests.post(
        f"{world.server.dicomweb()}/studies/{uid}/metadata", headers=world.people.bearer(DOCTOR), timeout=20
    )
    assert "POST" not in posted.headers["allow"]


def test_without_a_token_nothing_is_read(world: World, tmp_path: Path) -> None:
    _, data = study("nobody", n_instances=1)
    answer = requests.post(
        f"{world.server.dicomweb()}/studies", data=wire.body(data), headers={"Content-Type": wire.RELATED}, timeout=20
    )
    assert answer.status_code == 401
    assert world.home.count()["instances"] == 0


def test_the_answer_may_be_xml(world: World) -> None:
    _, data = study("xml", n_instances=1)
    answer = world.post(wire.body(data), Accept="application/dicom+xml")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+xml")
    assert next(iter(sops(data))).encode() in answer.content
    assert b'keyword="ReferencedSOPSequence"' in answer.content
