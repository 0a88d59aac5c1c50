"""Byte ranges of bulk data: of a real Orthanc, which has none, and of members that have them, rightly and wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from retrieve_archives import CT, FOLDERS, archives
from retrieve_bulk import OCTETS, PAYLOAD, SINGLE, STUDY, Bulk, N, assert_answers, parted, plain, sliced_parts
from retrieve_member import Deliver, Held, Holder, content_type, giving, multipart, read
from retrieve_process import ServeProcess
from support.peer import Connection, Request
from support.serving import Serving

FAR = 10**30
MB = 1 << 20
GROWTH_MB = 32
#: Range header → what of the body is to come: a slice, None = 416, "whole" = ignored.
ASKED: dict[str, slice | str | None] = {
    "bytes=0-0": slice(0, 1),
    "bytes=0-499": slice(0, 500),
    "bytes=4000-4999": slice(4000, 5000),
    f"bytes={N - 1}-{N - 1}": slice(N - 1, N),
    "bytes=-300": slice(N - 300, N),
    "bytes=9000-": slice(9000, N),
    "bytes=0-": slice(0, N),
    f"bytes=9000-{FAR}": slice(9000, N),
    f"bytes=-{FAR}": slice(0, N),
    f"bytes={N}-": None,
    f"bytes={N}-{N + 9}": None,
    f"bytes={FAR}-{FAR + 1}": None,
    "bytes=-0": None,
    "bytes=0-1,5-6": "whole",
    "bytes=6-5": "whole",
    "bytes=x-": "whole",
    "bytes": "whole",
    "lines=0-1": "whole",
    "": "whole",
}


async def chunked(_: Request, connection: Connection, __: list[Held]) -> None:
    """A body that says nowhere how long it is."""
    await connection.head(200, {"Content-Type": OCTETS, "Transfer-Encoding": "chunked"})
    for at in range(0, N, 999):
        piece = PAYLOAD[at : at + 999]
        await connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    await connection.send(b"0\r\n\r\n")


# Members ----------------------------------------------------------------------------------------------------------

MEMBERS: dict[str, tuple[Deliver, bool]] = {  # and whether the server has seen that it gives ranges
    "gives ranges": (plain(), True),
    "was not seen to give ranges": (plain(), False),
    "does not say so": (plain(accepts=""), True),
    "ignores ranges": (giving(200, PAYLOAD, OCTETS), True),
    "in parts": (parted(), False),
    "in parts, which is not known yet": (parted(), True),
}


@pytest.mark.parametrize("how", MEMBERS)
@pytest.mark.parametrize("asked", ASKED)
def test_range_is_the_slice(how: str, asked: str, bulk: Bulk) -> None:
    deliver, seen_before = MEMBERS[how]
    if seen_before:
        bulk.learn()
    assert_answers(bulk.get(deliver, Range=asked), PAYLOAD, ASKED[asked])


@pytest.fixture(scope="module")
def orthancs() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def real(orthancs: dict[str, OrthancServer], serve_module) -> tuple[str, bytes]:
    """→ the façade's URL of an Orthanc's bulk data, and what it is."""
    serving: Serving = serve_module({e: m.dicomweb_url for e, m in orthancs.items()}, folders=FOLDERS)
    dataset = read(CT.data[0])
    path = f"/studies/{CT.uid}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}/metadata"
    uri = requests.get(serving.dicomweb() + path, timeout=10).json()[0]["7FE00010"]["BulkDataURI"]
    return str(uri), bytes(dataset.PixelData)


def test_range_of_a_real_member_is_the_slice(real: tuple[str, bytes]) -> None:
    uri, pixels = real
    size = len(pixels)
    for asked, expected in {
        "bytes=0-499": slice(0, 500),
        "bytes=1000-1999": slice(1000, 2000),
        "bytes=-10": slice(size - 10, size),
        "bytes=100-": slice(100, size),
        f"bytes={size - 1}-{FAR}": slice(size - 1, size),
        f"bytes={size}-": None,
        f"bytes={FAR}-": None,
        "bytes=0-1,3-4": "whole",
        "bytes=nonsense": "whole",
        "": "whole",
    }.items():
        assert_answers(wire.get(uri, "", {**SINGLE, "Range": asked}), pixels, expected)
    parts = wire.get(uri, "", {"Range": "bytes=0-499"})
    assert (parts.status, [p.body for p in parts.parts]) == (200, [pixels])
    assert not {"accept-ranges", "content-range", "content-length"} & set(parts.headers)


def test_a_whole_download_in_ranges_is_the_whole(real: tuple[str, bytes]) -> None:
    uri, pixels = real
    pieces = []
    for at in range(0, len(pixels), 1500):
        seen = wire.get(uri, "", {**SINGLE, "Range": f"bytes={at}-{at + 1499}"})
        assert seen.status == 206
        pieces.append(seen.body)
    assert b"".join(pieces) == pixels


# What the member is asked for ---------------------------------------------------------------------------------------


def test_member_is_asked_for_ranges_only_once_it_was_seen_to_give_them_of_single_bodies(bulk: Bulk) -> None:
    bulk.get(plain(accepts=""), Range="bytes=5-9")
    bulk.get(plain(accepts="none"), Range="bytes=5-9")
    bulk.get(plain(), Range="bytes=5-9")
    assert bulk.asked() == [None, None, None]
    for asked, sent in (("bytes=05-009", "bytes=5-9"), ("bytes=9-", "bytes=9-"), ("bytes=-4", "bytes=-4")):
        assert bulk.get(plain(), Range=asked).status == 206
        assert bulk.asked() == [sent]
    assert bulk.get(plain(), Range="bytes=1-2,4-5").status == 200
    assert bulk.get(plain()).status == 200
    assert bulk.asked() == [None, None]


def test_parts_are_never_asked_for_in_ranges(bulk: Bulk) -> None:
    bulk.learn()
    bulk.holder.other = parted()
    assert wire.get(bulk.uri(), "", {"Range": "bytes=5-9"}).parts[0].body == PAYLOAD
    assert bulk.asked() == [None]


@pytest.mark.parametrize(
    "wrong",
    [
        sliced_parts,
        giving(206, PAYLOAD[5:10], OCTETS),  # does not say which
        giving(206, PAYLOAD[5:9], OCTETS, Content_Range=f"bytes 5-8/{N}"),  # others than were asked for
        giving(206, PAYLOAD[5:10], OCTETS, Content_Range=f"bytes 6-10/{N}"),
        giving(206, PAYLOAD[5:10], OCTETS, Content_Range="bytes 5-9/*"),
        giving(206, PAYLOAD[5:12], OCTETS, Content_Range=f"bytes 5-9/{N}"),
        giving(206, PAYLOAD[5:10], OCTETS, Content_Range=f"bytes 5-9/{N}", Content_Encoding="x-own"),
        giving(206, b"--x\r\n", "multipart/byteranges; boundary=x"),
        giving(416, b"", "text/plain", Content_Range="bytes */3"),
        giving(400, b"", "text/plain"),
        giving(501, b"", "text/plain"),
        giving(500, b"", "text/plain"),
    ],
)
def test_member_that_gives_no_such_range_is_asked_for_the_whole(wrong: Deliver, bulk: Bulk) -> None:
    bulk.learn()

    async def deliver(request: Request, connection: Connection, held: list[Held]) -> None:
        await (wrong if "range" in request.headers else parted())(request, connection, held)

    assert_answers(bulk.get(deliver, Range="bytes=5-9"), PAYLOAD, slice(5, 10))
    assert bulk.asked() == ["bytes=5-9", None]
    assert_answers(bulk.get(deliver, Range="bytes=5-9"), PAYLOAD, slice(5, 10))
    assert bulk.asked() == [None]  # it is believed no more


def test_range_that_is_shorter_than_it_says_is_broken_off(bulk: Bulk) -> None:
    bulk.learn()

    async def short(_: Request, connection: Connection, __: list[Held]) -> None:
        given = {"Content-Type": OCTETS, "Content-Range": f"bytes 0-{N - 1}/{N}", "Transfer-Encoding": "chunked"}
        await connection.head(206, given)
        await connection.send(f"{N - 9:x}\r\n".encode() + PAYLOAD[: N - 9] + b"\r\n0\r\n\r\n")

    seen = bulk.get(short, Range="bytes=0-")
    assert (seen.status, seen.ended) == (206, False)


# What members send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [parted(Content_Encoding="x-own"), giving(200, multipart([PAYLOAD[:9], PAYLOAD[9:]], "b"), content_type("b"))],
)
def test_body_whose_length_is_not_sure_is_ranged_only_where_the_range_is(wrong: Deliver, bulk: Bulk) -> None:
    for deliver in (chunked, wrong):
        for asked in ("", "bytes=5-", "bytes=-5", f"bytes=5-{2 << 20}"):
            seen = bulk.get(deliver, **({"Range": asked} if asked else {}))
            assert (seen.status, seen.ended, seen.body) == (200, True, PAYLOAD)
            assert not {"accept-ranges", "content-range", "content-length"} & set(seen.headers)
        seen = bulk.get(deliver, Range="bytes=5-19")
        assert (seen.status, seen.ended, seen.body) == (206, True, PAYLOAD[5:20])
        assert seen.headers["content-range"] == "bytes 5-19/*"
        assert_answers(bulk.get(deliver, Range=f"bytes=9000-{N}"), PAYLOAD, slice(9000, N))
        assert_answers(bulk.get(deliver, Range=f"bytes={N}-{N + 5}"), PAYLOAD, None)


def test_nothing_has_no_ranges(bulk: Bulk) -> None:
    assert_answers(bulk.get(parted(b""), Range="bytes=-5"), b"", "whole")
    assert_answers(bulk.get(parted(b""), Range="bytes=0-"), b"", None)
    assert_answers(bulk.get(parted(b"")), b"", "whole")


def test_two_parts_that_look_like_one_are_no_whole(bulk: Bulk) -> None:
    """The first says that it is as long as both, and what lies between them."""
    first, second = PAYLOAD[:100], PAYLOAD[100:]
    between = b"\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = multipart([first + between + second], "b", part_type=OCTETS)
    seen = bulk.get(giving(200, body, content_type("b", OCTETS)))
    assert not (seen.status == 200 and seen.ended)


@pytest.mark.parametrize("form", ["one body", "parts"])
@pytest.mark.parametrize("asked", ["", "bytes=5-9", "bytes=99999-"])
def test_a_members_own_206_is_no_range(asked: str, form: str, bulk: Bulk) -> None:
    """It means that something is missing: told as before where all is wanted, and never taken for the range."""
    some = multipart([PAYLOAD[:100]], "b", part_type=OCTETS)
    deliver = (
        giving(206, PAYLOAD[:100], OCTETS, ETag='"v1"', Accept_Ranges="bytes")
        if form == "one body"
        else giving(206, some, content_type("b", OCTETS), ETag='"v1"')
    )
    seen = bulk.get(deliver, **({"Range": asked} if asked else {}))
    assert seen.ended
    assert not {"content-range", "accept-ranges", "etag"} & set(seen.headers)
    if asked:
        assert seen.status == 502
    else:
        assert (seen.status, seen.body) == (206, PAYLOAD[:100])
        assert "this is not all" in seen.headers["warning"]


@pytest.mark.parametrize("cut", [100, 6000])
def test_member_that_breaks_off_never_looks_whole(cut: int, bulk: Bulk) -> None:
    async def breaks(_: Request, connection: Connection, __: list[Held]) -> None:
        await connection.head(200, {"Content-Type": OCTETS, "Content-Length": str(N)})
        await connection.send(PAYLOAD[:cut])
        await asyncio.sleep(0.2)
        connection.abort()

    seen = bulk.get(breaks, Range="bytes=5000-9999")
    if cut < 5000:
        assert (seen.status, seen.ended) == (502, True)  # before the first byte: said in full
    else:
        assert (seen.status, seen.ended) == (206, False)
    whole = bulk.get(breaks)
    assert (whole.status, whole.ended) == (200, False)


@dataclass
class Endless:
    """So many bytes as one body; `sent` counts those that went out."""

    size: int
    sent: int = 0

    async def __call__(self, _: Request, connection: Connection, __: list[Held]) -> None:
        await connection.head(200, {"Content-Type": OCTETS, "Content-Length": str(self.size)})
        block = bytes(1 << 18)
        for _ in range(self.size // len(block)):
            await connection.send(block)
            self.sent += len(block)


def test_member_is_let_go_once_the_range_has_passed(bulk: Bulk) -> None:
    deliver = Endless(1 << 31)
    bulk.holder.peer.closed_at.clear()
    seen = bulk.get(deliver, Range=f"bytes={1 << 20}-{(2 << 20) - 1}")
    assert (seen.status, len(seen.body), seen.ended) == (206, 1 << 20, True)
    assert seen.headers["content-range"] == f"bytes {1 << 20}-{(2 << 20) - 1}/{1 << 31}"
    for _ in range(200):
        if bulk.holder.peer.closed_at:
            break
        asyncio.run(asyncio.sleep(0.02))
    assert bulk.holder.peer.closed_at
    assert deliver.sent < 64 << 20  # what was under way, not two gigabytes


@pytest.mark.slow
def test_what_stands_before_a_range_is_not_held(tmp_path: Path) -> None:
    size = 256 * MB
    with Holder(STUDY) as holder, ServeProcess(tmp_path, {"csrom41200": holder.url}) as process:
        bulk = Bulk(holder, process)
        assert bulk.get(Endless(size), Range=f"bytes={8 * MB}-{16 * MB - 1}").status == 206  # what is loaded once, is
        before = process.rss_mb
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(bulk.get, Endless(size), Range=f"bytes={size - 8 * MB}-")
            most = before
            while not answer.done():
                most = max(most, process.rss_mb)
                time.sleep(0.05)
        assert (answer.result().status, len(answer.result().body), answer.result().ended) == (206, 8 * MB, True)
        assert most - before <= GROWTH_MB, f"{before:.0f} MB grew to {most:.0f} MB"


def test_head_fetches_nothing(bulk: Bulk) -> None:
    uri = bulk.uri()
    bulk.asked()
    answer = requests.head(uri, headers={**SINGLE, "Range": "bytes=0-1"}, timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, OPTIONS")
    assert bulk.asked() == []


def test_range_of_anything_else_is_ignored(bulk: Bulk) -> None:
    study, series, sop = bulk.holder.held[0].uids
    instance = f"{bulk.root}/studies/{study}/series/{series}/instances/{sop}"
    for url, accept in ((instance, "application/dicom"), (f"{instance}/metadata", "application/dicom+json")):
        seen = wire.get(url, "", {"Accept": accept, "Range": "bytes=0-9"})
        assert (seen.status, seen.ended) == (200, True)
        assert len(seen.body) > 10
        assert not {"accept-ranges", "content-range"} & set(seen.headers)
