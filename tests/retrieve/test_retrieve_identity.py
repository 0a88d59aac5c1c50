"""Whose an instance is: two people never share an id, and nobody gets an instance of somebody else under his."""

from __future__ import annotations

import asyncio
from datetime import datetime

import asyncpg
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Held, Holder, content_type, describing, giving, multipart, read
from support.peer import Connection, Request

from consent import Decision, Exam, Requester

MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
SIZE = {"rows": 16, "columns": 16}
MARIE = {"name": "DUPONT-LÉVY^Marie", "birth_date": "19600512", "sex": "F"}
JEAN = {"name": "MARTIN^Jean", "birth_date": "19710203", "sex": "M"}
ENDS = "SELECT * FROM trace WHERE kind = 'transferred' AND study_uid = $1"
ROMORANTIN, BOURGES = "csrom41200", "cpsax18000"


@pytest.fixture
def database(postgres) -> str:
    url: str = postgres()
    return url


def parts(root: str, path: str) -> list[object]:
    seen = wire.get(root, path, MULTIPART)
    assert (seen.status, seen.ended) == (200, True)
    return [read(p.body) for p in seen.parts]


def test_same_ipp_at_two_sites_is_shown_as_two_people(serve) -> None:
    one = exams.study(seed="ipp-one", patient_id="4547", **MARIE, **SIZE)
    two = exams.study(seed="ipp-two", patient_id="4547", **JEAN, **SIZE)
    with Holder(one) as first, Holder(two) as second:
        root = serve({ROMORANTIN: first.url, BOURGES: second.url}, oids={ROMORANTIN: "1.2.250.1.999.423"}).dicomweb()
        expected = {
            exams.uid("ipp-one", "study"): "4547@csrom41200",
            exams.uid("ipp-two", "study"): "4547@cpsax18000",
        }
        for uid, patient_id in expected.items():
            (dataset,) = parts(root, f"/studies/{uid}")
            assert dataset.PatientID == patient_id  # type: ignore[attr-defined]
            assert dataset.IssuerOfPatientID == "IMAGORA"  # type: ignore[attr-defined]
            (other,) = dataset.OtherPatientIDsSequence  # type: ignore[attr-defined]
            assert (other.PatientID, other.IssuerOfPatientID) == ("4547", patient_id.partition("@")[2])
            if "csrom41200" in patient_id:
                (qualifier,) = other.IssuerOfPatientIDQualifiersSequence
                assert (qualifier.UniversalEntityID, qualifier.UniversalEntityIDType) == ("1.2.250.1.999.423", "ISO")
            (metadata,) = requests.get(f"{root}/studies/{uid}/metadata", timeout=10).json()
            assert metadata["00100020"]["Value"] == [patient_id]
            for below in (f"/studies?StudyInstanceUID={uid}", f"/studies/{uid}/series", f"/studies/{uid}/instances"):
                (row,) = requests.get(root + below, timeout=10).json()
                assert row["00100020"]["Value"] == [patient_id]


def test_one_uid_for_two_people_is_a_conflict_that_names_the_ways_out(serve) -> None:
    uid = exams.uid("conflict", "study")
    one = exams.study(seed="conflict", patient_id="1", **MARIE, **SIZE)
    two = exams.study(seed="conflict", patient_id="2", first_series=2, **JEAN, **SIZE)
    with Holder(one) as first, Holder(two) as second:
        server = serve({ROMORANTIN: first.url, BOURGES: second.url})
        for below in ("", "/metadata", "/rendered", f"/series/{exams.uid(uid, 'series', 1)}"):
            answer = requests.get(f"{server.dicomweb()}/studies/{uid}{below}", timeout=10)
            assert answer.status_code == 409
            urls = answer.json()["urls"]
            assert urls == [f"{server.dicomweb(f'/sites/{e}')}/studies/{uid}" for e in (ROMORANTIN, BOURGES)]
        for url, patient_id in zip(urls, ("1@csrom41200", "2@cpsax18000"), strict=True):
            (dataset,) = parts(url, "")
            assert dataset.PatientID == patient_id  # type: ignore[attr-defined]
        assert len(first.retrieves()) == len(second.retrieves()) == 1


@pytest.mark.parametrize(
    ("patient_id", "shown"),
    [("9999", "9999@csrom41200"), ("4547@cpsax18000", "4547@cpsax18000"), ("", None)],
    ids=["another's", "another site's", "nobody's"],
)
def test_instance_of_somebody_else_is_not_given_the_located_identity(
    patient_id: str, shown: str | None, serve, database: str
) -> None:
    """The member's own search says 4547; one of the instances that it sends says otherwise."""
    uid = exams.uid("stranger", "study")
    located = exams.study(seed="stranger", patient_id="4547", n_instances=2, **MARIE, **SIZE)
    stray = exams.study(seed="stranger", patient_id=patient_id, n_instances=2, **JEAN, **SIZE)[1]
    sent = [located[0], stray]
    with Holder(located) as holder:
        root = serve({ROMORANTIN: holder.url, BOURGES: None}, database=database).dicomweb()
        holder.deliver = giving(200, multipart(sent, "b"), content_type("b"))

        async def describe(request: Request, connection: Connection, _: list[Held]) -> None:
            await describing()(request, connection, [Held(data, read(data)) for data in sent])

        holder.describe = describe
        seen = [d.PatientID for d in parts(root, f"/studies/{uid}")]  # type: ignore[attr-defined]
        metadata = requests.get(f"{root}/studies/{uid}/metadata", timeout=10).json()
    described = [m["00100020"]["Value"][0] for m in metadata]
    for ids in (seen, described):
        assert ids[0] == "4547@csrom41200"
        assert ids[1] != ids[0]
        if shown is not None:
            assert ids[1] == shown
    assert metadata[1]["00100010"]["Value"][0]["Alphabetic"] == "MARTIN^Jean"
    # Whose instance went along is traced as his, once for each retrieval; the study's own trace names him too.
    traced = asyncio.run(traces(database, ends=2))
    assert sorted((kind, patient) for kind, patient, _ in traced) == sorted(
        (kind, patient) for kind in ("transfer-begun", "transferred", "accessed") for patient in ids
    )
    assert {also for kind, _, also in traced if kind == "transferred"} == {ids[1], None}


async def traces(database: str, *, ends: int) -> list[tuple[str, str, str | None]]:
    """Kind, patient, and who else is named, of what was retrieved, once so many transfers have ended."""
    query = "SELECT kind, patient_id, detail ->> 'also' FROM trace WHERE study_uid <> '' ORDER BY recorded_at, sequence"
    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(5):
            rows = await connection.fetch(query)
            while sum(row["kind"] == "transferred" for row in rows) < ends:
                await asyncio.sleep(0.05)
                rows = await connection.fetch(query)
        return [tuple(row) for row in rows]
    finally:
        await connection.close()


@pytest.mark.parametrize("place", [0, 1])
def test_stray_instance_does_not_pass_before_it_is_traced_as_its_patients(place: int, serve, database: str) -> None:
    uid = exams.uid("stray", "study")
    large = {"rows": 1024, "columns": 1024}  # so that the first is on its way when the second comes
    located = exams.study(seed="stray", patient_id="4547", n_instances=2, **MARIE, **large)
    stray = exams.study(seed="stray", patient_id="9999", n_instances=2, **JEAN, **large)
    sent = [stray[0], located[1]] if place == 0 else [located[0], stray[1]]
    with Holder(located) as holder:
        root = serve({ROMORANTIN: holder.url}, database=database).dicomweb()
        holder.deliver = giving(200, multipart(sent, "b"), content_type("b"))

        async def describe(request: Request, connection: Connection, _: list[Held]) -> None:
            await describing()(request, connection, [Held(data, read(data)) for data in sent])

        holder.describe = describe
        refusing = "ALTER TABLE trace ADD CONSTRAINT lost CHECK (patient_id <> '9999@csrom41200')"
        asyncio.run(execute(database, refusing))
        seen = wire.get(root, f"/studies/{uid}", MULTIPART)
        metadata = requests.get(f"{root}/studies/{uid}/metadata", timeout=10)
        if place == 0:
            assert (seen.status, seen.ended) == (503, True)
        else:
            assert (seen.status, seen.ended, seen.closed) == (200, False, False)
        assert metadata.status_code == 503
        for body in (seen.body, metadata.content):
            assert b"9999" not in body
            assert b"MARTIN" not in body
        asyncio.run(execute(database, "ALTER TABLE trace DROP CONSTRAINT lost"))
        assert wire.get(root, f"/studies/{uid}", MULTIPART).ended
        assert requests.get(f"{root}/studies/{uid}/metadata", timeout=10).status_code == 200


async def execute(database: str, command: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


class Withheld:
    """A policy that shows nothing of one PatientID."""

    def __init__(self, patient_id: str) -> None:
        self._patient_id = patient_id

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return Decision(permitted=exam.patient_id != self._patient_id)


@pytest.mark.parametrize("place", [0, 1])
def test_stray_instance_of_a_withheld_patient_does_not_pass(place: int, serve) -> None:
    uid = exams.uid("withheld", "study")
    large = {"rows": 1024, "columns": 1024}  # so that the first is on its way when the second comes
    located = exams.study(seed="withheld", patient_id="4547", n_instances=2, **MARIE, **large)
    stray = exams.study(seed="withheld", patient_id="9999", n_instances=2, **JEAN, **large)
    sent = [stray[0], located[1]] if place == 0 else [located[0], stray[1]]
    with Holder(located) as holder:
        root = serve({ROMORANTIN: holder.url}, policy=Withheld("9999@csrom41200")).dicomweb()
        holder.deliver = giving(200, multipart(sent, "b"), content_type("b"))

        async def describe(request: Request, connection: Connection, _: list[Held]) -> None:
            await describing()(request, connection, [Held(data, read(data)) for data in sent])

        holder.describe = describe
        seen = wire.get(root, f"/studies/{uid}", MULTIPART)
        metadata = requests.get(f"{root}/studies/{uid}/metadata", timeout=10)
    if place == 0:
        assert (seen.status, seen.ended) == (404, True)
    else:
        assert (seen.status, seen.ended, seen.closed) == (200, False, False)
        assert b"9999" not in seen.body
        assert b"MARTIN" not in seen.body
    assert metadata.status_code == 404
    assert b"MARTIN" not in metadata.content


def test_withheld_study_looks_unknown(serve) -> None:
    """In every form; and nothing of it is asked of the member but where it is."""
    uid = exams.uid("hidden", "study")
    data = exams.study(seed="hidden", patient_id="4547", **MARIE, **SIZE)
    with Holder(data) as holder:
        root = serve({ROMORANTIN: holder.url}, policy=Withheld("4547@csrom41200")).dicomweb()
        _, series, sop = holder.held[0].uids
        unknown = requests.get(f"{root}/studies/1.2.3.4", timeout=10)
        assert unknown.status_code == 404
        for below in (
            "",
            "/metadata",
            "/rendered",
            "/thumbnail",
            f"/series/{series}",
            f"/series/{series}/metadata",
            f"/series/{series}/instances/{sop}",
            f"/series/{series}/instances/{sop}/frames/1",
            f"/series/{series}/instances/{sop}/rendered",
        ):
            hidden = requests.get(f"{root}/studies/{uid}{below}", timeout=10)
            assert (hidden.status_code, hidden.content) == (404, unknown.content), below
            assert hidden.headers.keys() == unknown.headers.keys()
        assert not holder.retrieves()
        assert requests.get(f"{root}/studies?StudyInstanceUID={uid}", timeout=10).status_code == 204


async def test_transfer_is_traced_before_its_first_byte_and_at_its_end(serve, database: str) -> None:
    uid = exams.uid("traced", "study")
    data = exams.study(seed="traced", patient_id="4547", n_instances=2, **MARIE, **SIZE)
    with Holder(data) as holder:
        root = serve({ROMORANTIN: holder.url}, database=database).dicomweb()
        whole = wire.get(root, f"/studies/{uid}", MULTIPART)
        assert whole.ended

        async def cut(_: Request, connection: Connection, held: list[Held]) -> None:
            body = multipart([i.data for i in held], "b")
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type('b')}\r\n\r\n".encode())
            await connection.send(body[:-200])
            connection.writer.close()

        holder.deliver = cut
        assert not wire.get(root, f"/studies/{uid}", MULTIPART).ended
        holder.deliver = giving(503, b"", "text/plain")
        assert wire.get(root, f"/studies/{uid}", MULTIPART).status == 502

    def traced(outcomes: list[str]) -> bool:
        return sorted(outcomes) == ["failure", "success"]

    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(5):
            while not traced([r["outcome"] for r in await connection.fetch(ENDS, uid)]):
                await asyncio.sleep(0.05)
        begun = await connection.fetch("SELECT * FROM trace WHERE kind = 'transfer-begun' AND study_uid = $1", uid)
        ends = await connection.fetch(ENDS, uid)
    finally:
        await connection.close()
    assert len(begun) == 3  # also the one that no member could serve
    for row in begun:
        assert (row["patient_id"], row["origin"], row["holders"]) == ("4547@csrom41200", ROMORANTIN, [ROMORANTIN])
    assert {row["request_id"] for row in ends} < {row["request_id"] for row in begun}


async def test_without_a_trace_there_is_no_byte(serve, database: str) -> None:
    uid = exams.uid("untraced", "study")
    data = exams.study(seed="untraced", **MARIE, **SIZE)
    with Holder(data) as holder:
        root = serve({ROMORANTIN: holder.url}, database=database).dicomweb()
        connection = await asyncpg.connect(database)
        try:
            await connection.execute("ALTER TABLE trace RENAME TO gone")
            answers = await asyncio.gather(
                *(asyncio.to_thread(wire.get, root, f"/studies/{uid}{below}", None) for below in ("", "/metadata"))
            )
            await connection.execute("ALTER TABLE gone RENAME TO trace")
        finally:
            await connection.close()
        for seen in answers:
            assert (seen.status, seen.ended) == (503, True)
            assert "retry-after" in seen.headers
            assert b"DUPONT" not in seen.body
        assert wire.get(root, f"/studies/{uid}", MULTIPART).ended
