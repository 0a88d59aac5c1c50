"""A large store to a slow PACS passes through: neither the server's memory nor, through it, the client runs ahead."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import store_wire as wire
from aiohttp import web
from imagora_demo import exams
from retrieve.retrieve_process import ServeProcess
from support.consenting import People
from support.threads import LoopThread

MB = 1 << 20
INSTANCES, INSTANCE_MB = 75, 4
SLOW_S, PACE = 6.0, 10 * MB  # at first the PACS takes 10 MB a second
GROWTH_MB = 48
DOCTOR = "10001234567"
TEMPLATE = exams.study(seed="large-store", rows=2048, columns=INSTANCE_MB * 256, bits=16)[0]
SOP = str(wire.read(TEMPLATE).SOPInstanceUID)


class SlowPacs:
    """Takes what it is sent, slowly at first, and says that it stored all of it. `taken` in bytes."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        async for chunk in request.content.iter_chunked(1 << 18):
            self.taken += len(chunk)
            if time.monotonic() - started < SLOW_S:
                await asyncio.sleep(len(chunk) / PACE)
        item = [{"00081155": {"vr": "UI", "Value": [uid(n)]}} for n in range(INSTANCES)]
        return web.Response(
            text=json.dumps({"00081199": {"vr": "SQ", "Value": item}}), content_type="application/dicom+json"
        )


def uid(number: int) -> str:
    return SOP[:-4] + f"{number + 1000}"


def _warm(server: ServeProcess, people: People) -> requests.Response:
    return wire.post(f"{server.dicomweb}/studies", wire.body([b"warm"]), people.bearer(DOCTOR))


@pytest.mark.slow
def test_a_large_store_to_a_slow_pacs_holds_memory_flat(postgres, tmp_path: Path) -> None:
    pacs, thread = SlowPacs(), LoopThread("slow-pacs")

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(pacs))  # type: ignore[arg-type]
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = thread.run(start())
    port = runner.addresses[0][1]
    people, url = People(tmp_path / "issuer"), postgres()
    server = ServeProcess(
        tmp_path,
        {"csrom41200": f"http://127.0.0.1:{port}/dicom-web"},
        environment={"IMAGORA_DATABASE__URL": url},
        auth=people.auth,
    )
    sent = most = 0
    ahead = 0

    def body() -> Iterator[bytes]:
        nonlocal sent, ahead
        for number in range(INSTANCES):
            part = TEMPLATE.replace(SOP.encode(), uid(number).encode())
            piece = f"--{wire.BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
            for at in range(0, len(piece), MB):
                yield piece[at : at + MB]
                sent += min(MB, len(piece) - at)
                ahead = max(ahead, sent - pacs.taken)
        yield f"--{wire.BOUNDARY}--\r\n".encode()

    try:
        with server:
            people.register(url, {DOCTOR: "csrom41200"})
            until = time.monotonic() + 5
            while (answer := _warm(server, people)).status_code == 403 and time.monotonic() < until:
                time.sleep(0.1)  # he is known within a second
            assert answer.status_code == 409
            before = server.rss_mb
            done = threading.Event()

            def look() -> None:
                nonlocal most
                while not done.wait(0.05):
                    most = max(most, server.rss_mb)

            looking = threading.Thread(target=look)
            looking.start()
            try:
                answer = wire.post(f"{server.dicomweb}/studies", body(), people.bearer(DOCTOR))
            finally:
                done.set()
                looking.join()
    finally:
        thread.run(runner.cleanup())
        thread.close()
    assert answer.status_code == 200, answer.text[:500]
    assert len(wire.stored(answer.json())) == INSTANCES
    assert sent >= INSTANCES * INSTANCE_MB * MB
    assert most - before <= GROWTH_MB, f"{before:.0f} MB grew to {most:.0f} MB"
    assert ahead < 48 * MB, f"the client was {ahead / MB:.0f} MB ahead of the PACS"
