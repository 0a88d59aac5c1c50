"""A range of bulk data is shown, refused, traced and cut as the whole is; its length and its tag tell nothing of what
is opposed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from enforced import AT_HOLDER, CODES, OUTSIDER, Ask, Exam, Region, of, seen, until
from retrieve import retrieve_wire as wire
from retrieve.retrieve_member import Deliver, Held
from support.peer import Connection, Request
from support.people import SOON_S

EXAM = Exam(seed="ranged", name="RANGED^MARIE")
UNKNOWN = Exam(seed="nobodysrange", name="NOBODY^X").uid
SINGLE = {"Accept": "application/octet-stream"}
PAYLOAD = bytes(range(256)) * 4
MB = 1 << 20


async def tagged(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.answer(200, PAYLOAD, "application/octet-stream", ETag='"v1"', Accept_Ranges="bytes")


def dripping(at_once: int) -> Deliver:
    """A gigabyte: so much at once, then ever less than is wanted."""

    async def deliver(_: Request, connection: Connection, __: list[Held]) -> None:
        await connection.head(200, {"Content-Type": "application/octet-stream", "Content-Length": str(1 << 30)})
        await connection.send(bytes(at_once))
        while True:
            await asyncio.sleep(0.05)
            await connection.send(bytes(1 << 10))

    return deliver


@pytest.fixture(scope="module")
def exam(region: Region) -> Region:
    region.upload(EXAM)
    region.tie_copies(EXAM)
    return region


@pytest.fixture
def member(exam: Region) -> Iterator[Callable[[Deliver], None]]:
    usual = exam.holder.other

    def give(deliver: Deliver) -> None:
        exam.holder.other = deliver

    give(tagged)
    yield give
    exam.holder.other = usual


def bulk(region: Region, study_uid: str, **headers: str) -> Ask:
    instance = of(study_uid)[1]
    token = region.key.seal(CODES, study_uid, f"{instance}/bulk/7fe00010")
    return Ask("", f"{instance}/bulkdata/{token}", {**SINGLE, **{k.replace("_", "-"): v for k, v in headers.items()}})


def asks(region: Region, study_uid: str, tag: str) -> dict[int, Ask]:
    """By the status that each has while the exam is shown."""
    return {
        206: bulk(region, study_uid, Range="bytes=5-9", If_Range=tag),
        416: bulk(region, study_uid, Range=f"bytes={len(PAYLOAD)}-"),
        304: bulk(region, study_uid, If_None_Match=tag),
        200: bulk(region, study_uid, Range="bytes=5-9", If_Range='"other"'),
    }


def test_range_is_refused_and_traced_as_the_whole_is(exam: Region, member: Callable[[Deliver], None]) -> None:
    whole = exam.get(bulk(exam, EXAM.uid))
    assert (whole.status_code, whole.content, whole.headers["Accept-Ranges"]) == (200, PAYLOAD, "bytes")
    tag = whole.headers["ETag"]
    for status, ask in asks(exam, EXAM.uid, tag).items():
        assert exam.get(ask).status_code == status

    number = exam.ledger.oppose(studies=[EXAM.uid])
    time.sleep(SOON_S)
    as_unknown = asks(exam, UNKNOWN, tag)
    for status, ask in asks(exam, EXAM.uid, tag).items():
        refused, reference = exam.get(ask), exam.get(as_unknown[status])
        assert refused.status_code == 404
        assert not {"ETag", "Accept-Ranges", "Content-Range"} & set(refused.headers)
        assert seen(refused, EXAM.uid) == seen(reference, UNKNOWN)
        kinds = [t["kind"] for t in exam.ledger.traces(refused.headers["X-Request-Id"])]
        assert kinds == ["refused"]
    exam.ledger.lift(number)
    time.sleep(SOON_S)


@pytest.mark.parametrize("status", [206, 416, 304])
def test_nothing_of_a_range_is_told_before_it_is_traced(
    status: int, exam: Region, member: Callable[[Deliver], None]
) -> None:
    """Each of an exam of its own, to a professional who has not asked for it yet: later asks are covered."""
    own = Exam(seed=f"traced{status}", name="TRACED^MARIE")
    exam.upload(own, CODES)
    tag = exam.get(bulk(exam, own.uid), requester=OUTSIDER).headers["ETag"]
    answer = exam.get(asks(exam, own.uid, tag)[status], requester=AT_HOLDER)
    assert answer.status_code == status
    (trace,) = exam.ledger.traces(answer.headers["X-Request-Id"])
    assert (trace["kind"], trace["outcome"], trace["requester_id"]) == ("accessed", "success", AT_HOLDER)
    assert (trace["study_uid"], list(trace["holders"])) == (own.uid, [CODES])


def test_exam_withdrawn_while_the_range_is_looked_for_looks_unknown(
    exam: Region, member: Callable[[Deliver], None]
) -> None:
    member(dripping(MB))
    exam.holder.peer.requests.clear()
    ask = bulk(exam, EXAM.uid, Range=f"bytes={512 * MB}-")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(exam.get_once, ask)
        until(lambda: any("/bulk/" in r.path for r in exam.holder.peer.requests))
        time.sleep(0.3)
        assert not answer.done()
        number = exam.ledger.oppose(studies=[EXAM.uid])
        refused = answer.result(20)
    reference = exam.get(bulk(exam, UNKNOWN, Range=f"bytes={512 * MB}-"))
    assert refused.status_code == 404
    assert seen(refused, EXAM.uid) == seen(reference, UNKNOWN)
    exam.ledger.lift(number)
    time.sleep(SOON_S)


def test_range_under_way_is_cut(exam: Region, member: Callable[[Deliver], None]) -> None:
    member(dripping(4 * MB))
    ask = bulk(exam, EXAM.uid, Range=f"bytes={MB}-{512 * MB}")
    headers = {**ask.headers, **exam.people.bearer(OUTSIDER)}
    with wire.connect(exam.servers[1].dicomweb(), ask.path, headers) as link:
        begun = link.recv(1 << 16)
        assert begun.startswith(b"HTTP/1.1 206")
        number = exam.ledger.oppose(studies=[EXAM.uid])
        time.sleep(SOON_S)
        cut = wire.read_to_end(link, begun)  # it would take hours
    assert not cut.ended
    assert len(cut.body) < 8 * MB
    exam.ledger.lift(number)
    time.sleep(SOON_S)
