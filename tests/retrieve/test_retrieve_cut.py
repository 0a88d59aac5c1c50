"""A member that breaks off never looks complete to a client, wherever it breaks off and however it frames."""

from __future__ import annotations

import asyncio
import http.client
import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type, delivering, framed, multipart, read
from support.peer import Connection, Request

SEED = 20260131
RANDOM_POINTS = 100
STUDY = exams.study(seed="cut", n_series=2, n_instances=2, rows=24, columns=24)
UID = exams.uid("cut", "study")
BOUNDARY = "a7c3e1f0-57b2-4c1d-9c5e-2f1d8e6b4a90"
BODY = multipart(STUDY, BOUNDARY)
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}


@dataclass
class Cut:
    """A delivery: what the member sends of its answer before it closes (or resets) the connection."""

    sends: bytes
    resets: bool = False

    async def __call__(self, _: Request, connection: Connection, __: list[Held]) -> None:
        await connection.send(self.sends)
        if self.resets:
            await asyncio.sleep(0.005)  # a reset overtakes bytes that are not yet read
            connection.abort()
        else:
            connection.writer.close()


@dataclass
class Answer:
    """A whole answer on the wire, and from which of its offsets on every instance has come."""

    framing: Framing
    whole: bytes
    complete_from: int
    first_head_end: int  # before it no byte can have been passed on
    near_boundaries: list[int]


def answer(framing: Framing) -> Answer:
    head = answer_head(framing, len(BODY), content_type(BOUNDARY))
    body, place = framed(BODY, framing)
    delimiter = f"--{BOUNDARY}".encode()
    offsets: set[int] = {0, 1, len(BODY) - 1, len(BODY)}
    closing = BODY.index(delimiter + b"--") + len(delimiter) + 2
    at = BODY.find(delimiter)
    while at >= 0:
        headers_end = BODY.find(b"\r\n\r\n", at) + 4
        around = [at - 3, at - 2, at - 1, at, at + 1, at + 2, at + len(delimiter) // 2, at + len(delimiter) - 1]
        around += range(at + len(delimiter), at + len(delimiter) + 5)  # behind the boundary, its dashes or line end
        if headers_end > 3:
            part = headers_end
            around += [at + len(delimiter) + 12, part - 5, part - 4, part - 3, part - 2, part - 1, part, part + 1]
            # preamble, prefix, file meta and data set up to patient and past it
            around += [part + 127, part + 128, part + 130, part + 132, part + 140, part + 200, part + 344, part + 600]
        offsets.update(o for o in around if 0 <= o <= len(BODY))
        at = BODY.find(delimiter, at + 1)
    near = {0, 1, len(head) // 2, len(head) - 2, len(head) - 1, len(head)} | {len(head) + place(o) for o in offsets}
    if framing is Framing.CHUNKED:
        end = len(head) + len(body)
        near |= {end - 1, end - 2, end - 3, end - 4, end - 5, end - 6, len(head) + 1, len(head) + 3}
    first_part = BODY.index(b"DICM")
    return Answer(
        framing=framing,
        whole=head + body,
        complete_from=len(head) + place(closing - 1) + 1,
        first_head_end=len(head) + place(first_part + 300),
        near_boundaries=sorted(n for n in near if n < len(head) + len(body)),
    )


def points(of: Answer) -> list[int]:
    """A hundred random ones and all that stand near a boundary."""
    dice = random.Random(f"{SEED}/{of.framing}")
    return sorted({*of.near_boundaries, *(dice.randrange(len(of.whole)) for _ in range(RANDOM_POINTS))})


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder(STUDY) as member:
        yield member


@pytest.fixture(scope="module")
def root(holder: Holder, serve_module) -> str:
    # The breaker would spare a member that fails so often.
    url: str = serve_module({"csrom41200": holder.url}, search={"breaker_failures": 1000, "deadline_s": 5}).dicomweb()
    return url


@pytest.fixture(scope="module")
def reference(root: str, holder: Holder) -> wire.Seen:
    holder.deliver = delivering()
    whole = wire.get(root, f"/studies/{UID}", MULTIPART)
    assert whole.status == 200
    assert whole.ended
    assert len(whole.parts) == len(STUDY)
    return whole


def is_beginning_of(seen: wire.Seen, reference: wire.Seen) -> bool:
    """The bytes that came are those of the whole answer, as far as they go."""
    return reference.body.replace(reference.boundary, seen.boundary).startswith(seen.body)


def with_http_client(root: str) -> tuple[int, bytes | None]:
    """→ (status, the body or None if reading it failed)."""
    address = urlsplit(root)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        connection.request("GET", f"{address.path}/studies/{UID}", headers=MULTIPART)
        response = connection.getresponse()
        try:
            return response.status, response.read()
        except (http.client.HTTPException, ConnectionError):
            return response.status, None
    finally:
        connection.close()


def with_requests(root: str) -> tuple[int, bytes | None]:
    try:
        response = requests.get(f"{root}/studies/{UID}", headers=MULTIPART, timeout=20)
    except requests.RequestException:
        return 200, None
    return response.status_code, response.content


@pytest.mark.parametrize("framing", list(Framing))
def test_cut_transfer_never_looks_complete(framing: Framing, root: str, holder: Holder, reference: wire.Seen) -> None:
    of = answer(framing)
    dice = random.Random(SEED)
    broken = 0
    for point in points(of):
        holder.deliver = Cut(of.whole[:point], resets=dice.random() < 0.3)
        seen = wire.get(root, f"/studies/{UID}", MULTIPART)
        where = f"{framing} cut at {point} of {len(of.whole)}: {seen.status}, {len(seen.body)} bytes"
        client = (with_http_client, with_requests)[point % 2]
        status, body = client(root)
        if point < of.complete_from:
            assert not (seen.status == 200 and (seen.ended or seen.closed)), where
            assert not (status == 200 and body is not None), f"{where} seen with {client.__name__}"
        elif seen.ended:
            assert seen.status == 200, where
            assert is_beginning_of(seen, reference), where
            assert len(seen.parts) == len(STUDY), where
        if seen.status == 200 and not seen.ended:
            broken += 1
            assert is_beginning_of(seen, reference), where
            assert not seen.closed, where
        elif seen.status != 200:
            # Nothing was passed on yet: a plain error, whole.
            assert point < of.first_head_end + 1000, where
            assert seen.status in (502, 504), where
            assert seen.ended, where
            assert seen.headers["content-type"] == "application/json", where
    assert broken > RANDOM_POINTS // 2  # most cuts fall where bytes had been passed on


async def test_aiohttp_raises_for_a_cut_transfer(root: str, holder: Holder) -> None:
    async with aiohttp.ClientSession() as session:
        for framing in Framing:
            of = answer(framing)
            dice = random.Random(f"aiohttp/{framing}")
            for point in dice.sample(range(of.first_head_end + 1000, of.complete_from), 15):
                holder.deliver = Cut(of.whole[:point])
                async with session.get(f"{root}/studies/{UID}", headers=MULTIPART) as response:
                    assert response.status == 200
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await response.read()


def test_cut_transfer_never_looks_complete_to_an_old_client(root: str, holder: Holder) -> None:
    """HTTP/1.0, as nginx speaks it unless told otherwise."""
    of = answer(Framing.CLOSE)
    holder.deliver = Cut(of.whole[: of.complete_from - 40])
    seen = wire.get(root, f"/studies/{UID}", MULTIPART, version="1.0")
    assert seen.status == 200
    assert not seen.ended
    assert not seen.closed


@pytest.mark.parametrize("framing", list(Framing))
def test_cut_single_instance_never_looks_complete(framing: Framing, root: str, holder: Holder) -> None:
    """Asked for as one part, it has no boundary of its own: only the framing tells its end."""
    instance = read(STUDY[0])
    path = f"/studies/{UID}/series/{instance.SeriesInstanceUID}/instances/{instance.SOPInstanceUID}"
    body = multipart(STUDY[:1], BOUNDARY)
    head = answer_head(framing, len(body), content_type(BOUNDARY))
    whole = head + framed(body, framing)[0]
    for cut in (len(head) + 1200, len(whole) - 900, len(whole) - 200, len(whole) - 60):
        holder.deliver = Cut(whole[:cut])
        seen = wire.get(root, path, {"Accept": DICOM})
        assert seen.status == 200
        assert seen.headers["content-type"].startswith(DICOM)
        assert not seen.ended
        assert len(seen.body) < len(STUDY[0]) + 600


@pytest.mark.parametrize("framing", list(Framing))
def test_member_that_answers_with_one_part_and_breaks_off(framing: Framing, root: str, holder: Holder) -> None:
    """Where the member sends neither a length, nor chunks, nor a boundary, its body can't be proven whole."""
    instance = read(STUDY[0])
    path = f"/studies/{UID}/series/{instance.SeriesInstanceUID}/instances/{instance.SOPInstanceUID}"
    whole = answer_head(framing, len(STUDY[0]), DICOM) + framed(STUDY[0], framing)[0]
    for accept in (DICOM, MULTIPART["Accept"]):
        holder.deliver = Cut(whole[:-500])
        seen = wire.get(root, path, {"Accept": accept})
        assert not (seen.status == 200 and (seen.ended or seen.closed)), accept
        holder.deliver = Cut(whole)
        seen = wire.get(root, path, {"Accept": accept})
        assert (seen.status, seen.ended) == (406 if framing is Framing.CLOSE else 200, True), accept


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("kind", ["frames/1", "rendered"])
def test_cut_frames_and_pictures_never_look_complete(kind: str, framing: Framing, root: str, holder: Holder) -> None:
    instance = read(STUDY[0])
    path = f"/studies/{UID}/series/{instance.SeriesInstanceUID}/instances/{instance.SOPInstanceUID}/{kind}"
    if kind == "rendered":
        body, type_ = b"\xff\xd8" + bytes(50_000), "image/jpeg"
    else:
        body = multipart([instance.PixelData], BOUNDARY, part_type="application/octet-stream")
        type_ = content_type(BOUNDARY, "application/octet-stream")
    whole = answer_head(framing, len(body), type_) + framed(body, framing)[0]
    holder.other = Cut(whole[:-300])
    seen = wire.get(root, path)
    assert not (seen.status == 200 and (seen.ended or seen.closed))


def test_cut_second_source_never_looks_complete(serve) -> None:
    """A study in two halves at two sites: the second breaks off when the first is long through."""
    uid = exams.uid("halves", "study")
    one = exams.study(seed="halves", rows=24, columns=24, n_instances=2)
    two = exams.study(seed="halves", rows=24, columns=24, n_instances=2, first_series=2)
    body = multipart(two, BOUNDARY)
    head = answer_head(Framing.CLOSE, 0, content_type(BOUNDARY))
    with Holder(one) as first, Holder(two) as second:
        root = serve({"csrom41200": first.url, "cpsax18000": second.url}, search={"breaker_failures": 1000}).dicomweb()
        whole = wire.get(root, f"/studies/{uid}", MULTIPART)
        assert whole.ended
        assert len(whole.parts) == 4
        for cut in (0, 20, len(head), len(head) + 100, len(head) + 900, len(head) + len(body) - 60):
            for holder in (first, second):  # the plan goes by series UID: either may come first
                holder.deliver = delivering()
            second.deliver = Cut((head + body)[:cut])
            seen = wire.get(root, f"/studies/{uid}", MULTIPART)
            assert not (seen.status == 200 and (seen.ended or seen.closed)), cut
