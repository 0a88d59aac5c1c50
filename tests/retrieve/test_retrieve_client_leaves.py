"""A client that leaves: the member's connection closes within a second, whatever was going on."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type, multipart
from support import peer
from support.peer import Connection, Peer, Request

STUDY = exams.study(seed="leaving", n_instances=2, rows=32, columns=32)
UID = exams.uid("leaving", "study")
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
BOUNDARY = "b0b2f7c4d1"


async def endless(_: Request, connection: Connection, instances: list[Held]) -> None:
    """Sends a first instance and then an image without end."""
    start = multipart([instances[0].data], BOUNDARY).removesuffix(f"--{BOUNDARY}--\r\n".encode())
    await connection.send(answer_head(Framing.CLOSE, 0, content_type(BOUNDARY)) + start)
    await connection.send(f"--{BOUNDARY}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + instances[1].data)
    while True:
        await connection.send(bytes(1 << 16))


async def silent_after_a_head(_: Request, connection: Connection, instances: list[Held]) -> None:
    """Sends one instance, begins another, and falls silent."""
    body = multipart([i.data for i in instances], BOUNDARY)
    await connection.send(answer_head(Framing.CHUNKED, 0, content_type(BOUNDARY)))
    piece = body[: len(body) - 900]
    await connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    await asyncio.sleep(3600)


async def silent_before_its_first_part(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.send(answer_head(Framing.CLOSE, 0, content_type(BOUNDARY)))
    await asyncio.sleep(3600)


async def silent(_: Request, connection: Connection, __: list[Held]) -> None:
    await asyncio.sleep(3600)


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder(STUDY) as member:
        yield member


@pytest.fixture(scope="module")
def root(holder: Holder, serve_module) -> str:
    url: str = serve_module({"csrom41200": holder.url}, search={"deadline_s": 30}).dicomweb()
    return url


def until(true: Callable[[], object], within_s: float = 5.0) -> float:
    """Wait for it; → seconds that it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < within_s, "it did not come"
        time.sleep(0.01)
    return time.monotonic() - started


def leave(link: socket.socket, *, abruptly: bool) -> float:
    if abruptly:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, as of a killed client
    link.close()
    return time.monotonic()


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize(
    ("deliver", "answered"),
    [(endless, True), (silent_after_a_head, True), (silent_before_its_first_part, False), (silent, False)],
)
def test_leaving_client_closes_the_members_connection(
    deliver: Callable[..., object], answered: bool, abruptly: bool, root: str, holder: Holder
) -> None:
    holder.deliver = deliver  # type: ignore[assignment]
    holder.peer.closed_at.clear()
    retrieves = len(holder.retrieves())
    link = wire.connect(root, f"/studies/{UID}", MULTIPART)
    if answered:
        assert link.recv(1000).startswith(b"HTTP/1.1 200")
    until(lambda: len(holder.retrieves()) > retrieves)
    time.sleep(0.2)
    assert not holder.peer.closed_at  # not before the client leaves
    left = leave(link, abruptly=abruptly)
    until(lambda: holder.peer.closed_at)
    assert holder.peer.closed_at[0] - left < 1.0


@pytest.mark.parametrize("path", ["/frames/1", "/rendered", "/metadata"])
def test_leaving_client_stops_other_forms_too(path: str, root: str, holder: Holder) -> None:
    study, series, sop = holder.held[0].uids
    holder.other = holder.describe = silent
    holder.peer.closed_at.clear()
    retrieves = len(holder.retrieves())
    link = wire.connect(root, f"/studies/{study}/series/{series}/instances/{sop}{path}")
    until(lambda: len(holder.retrieves()) > retrieves)
    left = leave(link, abruptly=False)
    until(lambda: holder.peer.closed_at)
    assert holder.peer.closed_at[0] - left < 1.0


@pytest.mark.parametrize(
    "path",
    [
        "/studies?PatientID=1",  # searching
        "/studies/1.2.3.4",  # locating
        "/studies/1.2.3.5/metadata",
        "/studies/1.2.3.6/series/1.2.3.7/instances/1.2.3.8/frames/1",
    ],
)
@pytest.mark.parametrize("behave", [peer.silent, peer.dripping])
def test_leaving_client_stops_searching_and_locating(path: str, behave: peer.Behaviour, serve) -> None:
    with Peer(behave) as silent_member:
        server = serve({"csrom41200": silent_member.dicomweb_url}, search={"deadline_s": 30})
        link = wire.connect(server.dicomweb(), path)
        until(lambda: silent_member.requests)
        time.sleep(0.2)
        assert not silent_member.closed_at
        left = leave(link, abruptly=False)
        until(lambda: silent_member.closed_at)
        assert silent_member.closed_at[0] - left < 1.0


def test_locating_goes_on_for_the_client_that_stays(serve) -> None:
    """Two clients wait for one member's word; one leaves, the other is served."""
    release = asyncio.Event()

    async def late(request: Request, connection: Connection, held: list[Held]) -> None:
        await release.wait()
        holder.searches = None
        await holder._behave(request, connection)

    with Holder(STUDY, searches=late) as holder:
        server = serve({"csrom41200": holder.url}, search={"deadline_s": 30})
        links = [wire.connect(server.dicomweb(), f"/studies/{UID}", MULTIPART) for _ in range(2)]
        until(lambda: holder.peer.requests)
        time.sleep(0.2)
        assert len(holder.peer.requests) == 1  # they share the question
        leave(links[0], abruptly=False)
        time.sleep(0.3)
        assert not holder.peer.closed_at
        holder.peer._thread.loop.call_soon_threadsafe(release.set)
        with links[1] as link:
            seen = wire.read_to_end(link)
        assert seen.ended
        assert len(seen.parts) == len(STUDY)
