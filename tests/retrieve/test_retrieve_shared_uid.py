"""Two patients under one StudyInstanceUID at one site: the instances of him who may be seen come, the other's never."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from retrieve_member import DICOM, Held, Holder, delivering, read
from support.peer import Connection, Request

from consent import Decision, Exam, Requester

MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
SIZE = {"rows": 16, "columns": 16}
MARIE = {"patient_id": "4547", "name": "DUPONT-LÉVY^Marie", "birth_date": "19600512", "sex": "F"}
JEAN = {"patient_id": "9999", "name": "MARTIN^Jean", "birth_date": "19710203", "sex": "M"}
ROMORANTIN, BOURGES = "csrom41200", "cpsax18000"
UID = exams.uid("shared", "study")
HIS = exams.study(seed="shared", n_series=2, n_instances=2, **MARIE, **SIZE)
OTHER = exams.study(seed="shared", n_series=3, n_instances=4, **JEAN, **SIZE)
HIS_SOPS = {str(read(data).SOPInstanceUID) for data in HIS}
#: Of the other: two in one of his series, and a series of its own.
STRAYS = [data for data in OTHER if str(read(data).SOPInstanceUID) not in HIS_SOPS][1:]


class JeanOpposed:
    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return Decision(permitted=not exam.patient_id.startswith("9999@"))


def below(data: bytes) -> str:
    dataset = read(data)
    return f"/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


@pytest.fixture(scope="module", params=["scripted", "orthanc"])
def root(request: pytest.FixtureRequest, serve_module) -> Iterator[str]:
    if request.param == "scripted":
        with Holder([*STRAYS[:2], *HIS, *STRAYS[2:]]) as holder:
            yield serve_module({ROMORANTIN: holder.url, BOURGES: None}, policy=JeanOpposed()).dicomweb()
        return
    with OrthancServer(name="SHARED") as server:
        server.upload([*HIS, *STRAYS])
        yield serve_module({ROMORANTIN: server.dicomweb_url, BOURGES: None}, policy=JeanOpposed()).dicomweb()


def test_instances_of_the_one_who_may_be_seen_come(root: str) -> None:
    wanted = {"": HIS, below(HIS[0]).partition("/instances")[0]: HIS[:2], below(HIS[0]): HIS[:1]}
    for path, expected in wanted.items():
        seen = wire.get(root, f"/studies/{UID}{path}", MULTIPART)
        assert (seen.status, seen.ended) == (200, True), path
        datasets = [read(part.body) for part in seen.parts]
        sops = sorted(str(read(data).SOPInstanceUID) for data in expected)
        assert sorted(str(d.SOPInstanceUID) for d in datasets) == sops
        assert {d.PatientID for d in datasets} == {"4547@csrom41200"}
        metadata = requests.get(f"{root}/studies/{UID}{path}/metadata", timeout=10)
        assert metadata.status_code == 200, path
        assert sorted(m["00080018"]["Value"][0] for m in metadata.json()) == sops
        assert {m["00100020"]["Value"][0] for m in metadata.json()} == {"4547@csrom41200"}
        for body in (seen.body, metadata.content):
            assert b"9999" not in body
            assert b"MARTIN" not in body


def test_nothing_of_the_other_comes(root: str) -> None:
    for data in STRAYS:
        for form in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail"):
            answer = requests.get(f"{root}/studies/{UID}{below(data)}{form}", timeout=10)
            assert answer.status_code == 404, form
            assert b"MARTIN" not in answer.content


def test_pixels_do_not_say_whose_they_are_so_none_come(root: str) -> None:
    for path in ("/rendered", "/thumbnail", *(f"{below(HIS[0])}/{form}" for form in ("frames/1", "rendered"))):
        assert requests.get(f"{root}/studies/{UID}{path}", timeout=10).status_code == 404, path


def test_an_instance_uid_of_both_brings_neither_and_that_is_told(serve) -> None:
    twin = OTHER[0]
    assert str(read(twin).SOPInstanceUID) in HIS_SOPS
    with Holder([twin, *HIS]) as holder:
        root = serve({ROMORANTIN: holder.url, BOURGES: None}, policy=JeanOpposed()).dicomweb()
        seen = wire.get(root, f"/studies/{UID}", MULTIPART)
        assert (seen.status, seen.ended, len(seen.parts)) == (206, True, len(HIS) - 1)
        assert "csrom41200" in seen.headers["warning"]
        metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=10)
        assert (metadata.status_code, len(metadata.json())) == (206, len(HIS) - 1)
        assert b"MARTIN" not in seen.body + metadata.content


def test_a_site_that_does_not_say_whose_each_instance_is_gives_none(serve) -> None:
    with Holder([*HIS, *STRAYS]) as holder:

        async def terse(request: Request, connection: Connection, _: list[Held]) -> None:
            if not request.path.endswith("/instances"):
                holder.searches = None
                await holder._behave(request, connection)
                holder.searches = terse
                return
            rows = [{"00080018": uid(h.sop), "0020000D": uid(UID), "0020000E": uid(h.uids[1])} for h in holder.held]
            await connection.json(rows)

        holder.searches = terse
        root = serve({ROMORANTIN: holder.url, BOURGES: None}, policy=JeanOpposed()).dicomweb()
        for path in ("", "/metadata"):
            answer = requests.get(f"{root}/studies/{UID}{path}", timeout=10)
            assert answer.status_code == 502
            assert json.loads(answer.content)["error"]
        assert not holder.retrieves()


def uid(value: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [value]}


def test_what_a_site_sends_beyond_what_it_listed_is_never_the_others(serve) -> None:
    """It says of a series that all in it is his, and sends one of the other's with it."""
    with Holder([*HIS, *STRAYS]) as holder:
        stray = next(data for data in STRAYS if read(data).SeriesInstanceUID == read(HIS[0]).SeriesInstanceUID)
        holder.held = [h for h in holder.held if h.data != stray]

        async def more(request: Request, connection: Connection, held: list[Held]) -> None:
            await delivering()(request, connection, [Held(stray, read(stray)), *held])

        holder.deliver = more
        root = serve({ROMORANTIN: holder.url, BOURGES: None}, policy=JeanOpposed()).dicomweb()
        seen = wire.get(root, f"/studies/{UID}", MULTIPART)
        assert not (seen.status == 200 and seen.ended)
        assert b"MARTIN" not in seen.body
