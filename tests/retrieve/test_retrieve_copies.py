"""One study at several holders: retrieved whole, each instance once, under one PatientID; what is missing is said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from retrieve_member import DICOM, Held, Holder, describing, giving, read
from support.peer import Connection, Request
from support.serving import Serving

MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
UID = exams.uid("copies", "study")
#: Series 1 and 2, and a third that only the copy has.
BOTH = exams.study(seed="copies", n_series=2, n_instances=2, rows=24, columns=24)
COPY_ID = "4547@csrom41200"
COPIED = exams.study(seed="copies", patient_id=COPY_ID, first_series=2, n_series=2, n_instances=2, rows=24, columns=24)


def sops(data: list[bytes]) -> list[str]:
    return sorted(str(read(d).SOPInstanceUID) for d in data)


def retrieve(root: str, path: str) -> wire.Seen:
    return wire.get(root, path, MULTIPART)


def patients(seen: wire.Seen) -> set[str]:
    return {str(read(p.body).PatientID) for p in seen.parts}


@pytest.fixture(scope="module")
def orthancs() -> Iterator[tuple[OrthancServer, OrthancServer]]:
    servers = (OrthancServer(name="origin"), OrthancServer(name="copy"))
    start_all(servers)
    try:
        servers[0].upload(BOTH)
        servers[1].upload(COPIED)
        yield servers
    finally:
        stop_all(servers)


@pytest.fixture(scope="module")
def server(orthancs: tuple[OrthancServer, OrthancServer], serve_module) -> Serving:
    # The copy stands first in the registry: whose id is shown must not depend on that.
    members = {"cpsax18000": orthancs[1].dicomweb_url, "csrom41200": orthancs[0].dicomweb_url}
    serving: Serving = serve_module(members, search={"deadline_s": 3, "breaker_failures": 1000})
    return serving


def test_series_of_both_holders_come_in_one_answer(server: Serving) -> None:
    seen = retrieve(server.dicomweb(), f"/studies/{UID}")
    assert (seen.status, seen.ended) == (200, True)
    union = sorted({*sops(BOTH), *sops(COPIED)})
    assert len(union) == 6
    assert sorted(str(read(p.body).SOPInstanceUID) for p in seen.parts) == union
    assert "warning" not in seen.headers


def test_one_patient_id_in_all_parts_metadata_and_rows(server: Serving) -> None:
    """Also in what comes from the copy, in every scope, and with the copy's own id kept."""
    for scope in ("", "/sites/csrom41200", "/sites/cpsax18000"):
        root = server.dicomweb(scope)
        seen = retrieve(root, f"/studies/{UID}")
        assert seen.ended
        assert patients(seen) == {COPY_ID}, scope
        for part in seen.parts:
            dataset = read(part.body)
            assert dataset.IssuerOfPatientID == "IMAGORA"
            assert dataset.InstitutionCodeSequence[0].CodeValue == "402"  # csrom41200, the origin
            assert ("4547", "csrom41200") in [
                (i.PatientID, i.IssuerOfPatientID) for i in dataset.OtherPatientIDsSequence
            ]
        metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=20).json()
        assert {m["00100020"]["Value"][0] for m in metadata} == {COPY_ID}
        for level in ("studies", "series", "instances"):
            below = f"/studies?StudyInstanceUID={UID}" if level == "studies" else f"/studies/{UID}/{level}"
            rows = requests.get(root + below, timeout=20).json()
            assert rows
            assert {r["00100020"]["Value"][0] for r in rows} == {COPY_ID}
    whole = requests.get(f"{server.dicomweb()}/studies/{UID}/metadata", timeout=20).json()
    assert len(whole) == 6
    assert sorted(m["00080018"]["Value"][0] for m in whole) == sorted({*sops(BOTH), *sops(COPIED)})


def test_parts_and_metadata_lead_back_to_the_holder_that_gave_them(server: Serving) -> None:
    for part in retrieve(server.dicomweb(), f"/studies/{UID}").parts:
        again = wire.get(part.location, "", MULTIPART)
        assert again.status == 200
        assert [p.body for p in again.parts] == [part.body]
    for metadata in requests.get(f"{server.dicomweb()}/studies/{UID}/metadata", timeout=20).json():
        again = wire.get(metadata["00081190"]["Value"][0], "", MULTIPART)
        assert again.status == 200
        assert str(read(again.parts[0].body).SOPInstanceUID) == metadata["00080018"]["Value"][0]


def test_series_and_instance_of_the_copy_only(server: Serving) -> None:
    third = exams.uid(UID, "series", 3)
    seen = retrieve(server.dicomweb(), f"/studies/{UID}/series/{third}")
    assert len(seen.parts) == 2
    assert patients(seen) == {COPY_ID}
    one = retrieve(server.dicomweb(), f"/studies/{UID}/series/{third}/instances/{exams.uid(third, 'instance', 2)}")
    assert len(one.parts) == 1
    frame = wire.get(
        server.dicomweb(), f"/studies/{UID}/series/{third}/instances/{exams.uid(third, 'instance', 2)}/frames/1"
    )
    assert [p.body for p in frame.parts] == [read(one.parts[0].body).PixelData]
    for unknown in (f"/studies/{UID}/series/1.2.3", f"/studies/{UID}/series/{third}/instances/1.2.3"):
        assert retrieve(server.dicomweb(), unknown).status == 404
        assert requests.get(f"{server.dicomweb()}{unknown}/metadata", timeout=20).status_code == 404


def test_instance_by_instance_where_holders_differ_inside_a_series(serve) -> None:
    uid = exams.uid("torn", "study")
    whole = exams.study(seed="torn", n_instances=4, rows=24, columns=24)
    with Holder(whole[:3]) as one, Holder(whole[1:]) as two:
        server = serve({"csrom41200": one.url, "cpsax18000": two.url})
        # Two people, as far as the sites' own ids go, but one by name, birth date and sex.
        seen = retrieve(server.dicomweb(), f"/studies/{uid}")
        assert seen.ended
        assert sorted(str(read(p.body).SOPInstanceUID) for p in seen.parts) == sops(whole)
        assert patients(seen) == {"4547@csrom41200"}
        metadata = requests.get(f"{server.dicomweb()}/studies/{uid}/metadata", timeout=20).json()
        assert sorted(m["00080018"]["Value"][0] for m in metadata) == sops(whole)
        # The instance that both have comes from the other where one fails.
        one.deliver = giving(500, b"", "text/plain")
        partly = retrieve(server.dicomweb(), f"/studies/{uid}")
        assert not (partly.status == 200 and (partly.ended or partly.closed))  # the first is only at the one that fails


@pytest.fixture
def pair() -> Iterator[tuple[Holder, Holder]]:
    with Holder(BOTH) as origin, Holder(COPIED) as copy:
        yield origin, copy


def serve_pair(serve, pair: tuple[Holder, Holder], **options: object) -> Serving:
    members = {"csrom41200": pair[0].url, "cpsax18000": pair[1].url}
    serving: Serving = serve(members, search={"deadline_s": 2, "breaker_failures": 1000}, **options)
    return serving


async def written(database: str, *, copies: int) -> None:
    """What is learnt is written aside."""
    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval("SELECT count(*) FROM study_copy") < copies:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def test_series_known_to_be_at_a_holder_that_is_down(serve, postgres, pair: tuple[Holder, Holder]) -> None:
    """What was learnt of a study outlives the process that learnt it: told with 206 and a warning."""
    database = postgres()
    first = serve_pair(serve, pair, database=database)
    assert len(retrieve(first.dicomweb(), f"/studies/{UID}").parts) == 6
    pair[1].searches = giving(503, b"", "text/plain")
    asyncio.run(written(database, copies=2))
    root = serve_pair(serve, pair, database=database).dicomweb()
    seen = retrieve(root, f"/studies/{UID}")
    assert (seen.status, seen.ended) == (206, True)
    assert sorted(str(read(p.body).SOPInstanceUID) for p in seen.parts) == sops(BOTH)
    assert patients(seen) == {COPY_ID}
    warning = "1 series that cpsax18000 had can't be had now: this is not all"
    assert warning in seen.headers["warning"]
    assert "1 of 2 sources did not answer: cpsax18000 (error)" in seen.headers["warning"]
    metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=20)
    assert metadata.status_code == 206
    assert sorted(m["00080018"]["Value"][0] for m in metadata.json()) == sops(BOTH)
    assert warning in metadata.headers["Warning"]
    # A series that is all there is whole.
    one = retrieve(root, f"/studies/{UID}/series/{exams.uid(UID, 'series', 1)}")
    assert (one.status, len(one.parts)) == (200, 2)


@pytest.mark.parametrize(("fails", "series"), [(0, 1), (1, 3)], ids=["first", "in the middle"])
def test_holder_that_fails_now_is_told_or_aborts(fails: int, series: int, serve, pair: tuple[Holder, Holder]) -> None:
    """Known before the first byte: 206 and a warning; behind it: an aborted transfer. Never a silent gap."""
    root = serve_pair(serve, pair).dicomweb()
    assert len(retrieve(root, f"/studies/{UID}").parts) == 6
    failing, other = pair[fails], pair[1 - fails]
    emetteur = ("csrom41200", "cpsax18000")[fails]
    failing.deliver = failing.describe = giving(503, b"", "text/plain")
    # Series are fetched in the order of their UIDs: the one that only this holder has comes first, or second.
    in_order = sorted({i.uids[1] for i in (*failing.held, *other.held)})
    only = next(i for i in failing.held if i.uids[1] == exams.uid(UID, "series", series))
    assert in_order.index(only.uids[1]) == fails
    seen = retrieve(root, f"/studies/{UID}")
    if fails == 0:
        assert (seen.status, seen.ended) == (206, True)
        assert sorted(str(read(p.body).SOPInstanceUID) for p in seen.parts) == sorted(i.sop for i in other.held)
        assert f"2 instances that {emetteur} had can't be had now: this is not all" in seen.headers["warning"]
    else:
        assert (seen.status, seen.ended, seen.closed) == (200, False, False)
    metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=20)
    assert metadata.status_code == 206
    assert sorted(m["00080018"]["Value"][0] for m in metadata.json()) == sorted(i.sop for i in other.held)
    assert f"2 instances that {emetteur} had can't be had now" in metadata.headers["Warning"]
    # Of what only it had, nothing is left.
    for below in (f"/series/{only.uids[1]}", f"/series/{only.uids[1]}/instances/{only.sop}"):
        lost = retrieve(root, f"/studies/{UID}{below}")
        assert (lost.status, lost.ended) == (502, True)
        assert emetteur in lost.headers["warning"]


def test_metadata_of_fewer_instances_than_there_are_are_not_taken_for_all(serve, pair: tuple[Holder, Holder]) -> None:
    async def forgetful(request: Request, connection: Connection, held: list[Held]) -> None:
        await describing()(request, connection, held[:1])

    root = serve_pair(serve, pair).dicomweb()
    second = exams.uid(UID, "series", 2)  # both have it
    pair[0].describe = pair[1].describe = forgetful
    pair[0].deliver = pair[1].deliver = giving(500, b"", "text/plain")  # else they are read from the instances
    assert requests.get(f"{root}/studies/{UID}/series/{second}/metadata", timeout=20).status_code == 502
    pair[1].describe = describing()
    metadata = requests.get(f"{root}/studies/{UID}/series/{second}/metadata", timeout=20)
    assert (metadata.status_code, len(metadata.json())) == (200, 2)
    assert "csrom41200 (error)" in metadata.headers["Warning"]


def test_metadata_that_holders_keep_back_are_read_from_their_instances(serve, pair: tuple[Holder, Holder]) -> None:
    async def forgetful(request: Request, connection: Connection, held: list[Held]) -> None:
        await describing()(request, connection, held[:1])

    root = serve_pair(serve, pair).dicomweb()
    pair[0].describe = pair[1].describe = forgetful
    metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=20)
    assert (metadata.status_code, len(metadata.json())) == (200, 6)
