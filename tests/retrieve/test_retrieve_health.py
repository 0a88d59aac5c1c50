"""What a failed retrieve says of a member, and what it does not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Framing, Holder, answer_head, content_type, giving, multipart
from test_retrieve_cut import Cut

STUDY = exams.study(seed="health", rows=64, columns=64)
STUDY_UID = exams.uid("health", "study")
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}


def state(answer: requests.Response) -> str:
    return answer.headers["Imagora-Sources"].split(";")[1]


@pytest.mark.parametrize(
    ("path", "deliver"),
    [
        ("/frames/1", giving(500, b"can't decode", "text/plain")),
        ("/rendered", giving(500, b"can't decode", "text/plain")),
        ("/metadata", giving(500, b"can't decode", "text/plain")),
        ("", giving(200, multipart([b"not dicom"], "b"), content_type("b"))),
        ("", giving(500, b"can't read", "text/plain")),
    ],
)
def test_one_bad_object_does_not_take_the_member_from_everyone(path: str, deliver, serve) -> None:
    with Holder(STUDY) as holder:
        holder.deliver = holder.other = holder.describe = deliver
        server = serve({"csrom41200": holder.url}, search={"breaker_failures": 2, "breaker_open_s": 60})
        study, series, sop = holder.held[0].uids
        url = f"{server.dicomweb()}/studies/{study}/series/{series}/instances/{sop}{path}"
        for _ in range(5):
            assert requests.get(url, timeout=10).status_code == 502
        answer = requests.get(f"{server.dicomweb()}/studies?StudyInstanceUID={study}", timeout=10)
        assert (answer.status_code, state(answer)) == (200, "ok")


@pytest.mark.parametrize(("failures", "then"), [(1, "skipped"), (2, "ok")])
def test_broken_transfer_counts_once(failures: int, then: str, serve) -> None:
    """Where it is the second part of a study that breaks off."""
    uid = exams.uid("health-halves", "study")
    halves = [exams.study(seed="health-halves", rows=64, columns=64, first_series=n) for n in (1, 2)]
    with Holder(halves[0]) as one, Holder(halves[1]) as two:
        members = {"csrom41200": one.url, "cpsax18000": two.url}
        server = serve(members, search={"breaker_failures": failures, "breaker_open_s": 60})
        assert len(wire.get(server.dicomweb(), f"/studies/{uid}", MULTIPART).parts) == 2
        # The plan goes by series UID: the one that comes last breaks off in its pixels.
        last = max((one, two), key=lambda holder: holder.held[0].uids[1])
        body = multipart([last.held[0].data], "b")
        last.deliver = Cut(answer_head(Framing.CLOSE, 0, content_type("b")) + body[:-3000])
        seen = wire.get(server.dicomweb(), f"/studies/{uid}", MULTIPART)
        assert (seen.status, seen.ended) == (200, False)
        scope = "/sites/csrom41200" if last is one else "/sites/cpsax18000"
        rows = requests.get(f"{server.dicomweb(scope)}/studies?StudyInstanceUID={uid}", timeout=10)
        assert state(rows) == then


@pytest.mark.parametrize("connections", [1, 3])
def test_a_member_has_no_more_connections_than_it_may(connections: int, serve) -> None:
    with Holder(STUDY) as holder:
        under_way: list[int] = []
        most: list[int] = []

        async def slowly(request, connection, held) -> None:
            under_way.append(1)
            most.append(len(under_way))
            await asyncio.sleep(0.1)
            under_way.pop()
            await connection.answer(200, multipart([h.data for h in held], "b"), content_type("b"))

        holder.deliver = slowly
        server = serve({"csrom41200": holder.url}, search={"member_connections": connections})
        url = f"{server.dicomweb('/sites/csrom41200')}/studies/{STUDY_UID}"
        with ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(lambda _: requests.get(url, headers=MULTIPART, timeout=20).status_code, range(6)))
        assert statuses == [200] * 6
        assert max(most) == connections
