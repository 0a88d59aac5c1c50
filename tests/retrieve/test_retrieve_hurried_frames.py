"""Frames of a study that was just located do not wait for a member that hangs."""

from __future__ import annotations

import time

import requests
from support import peer
from support.peer import Connection, Peer, Request

ROW = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100020": {"vr": "LO", "Value": ["1"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT^MARIE"}]},
}
FRAME = b"--b\r\nContent-Type: application/octet-stream\r\n\r\n0123\r\n--b--\r\n"


async def holder(request: Request, connection: Connection) -> None:
    if "/frames/" in request.path:
        await connection.answer(200, FRAME, 'multipart/related; type="application/octet-stream"; boundary=b')
    else:
        await connection.json([ROW])


def test_frames_do_not_wait_for_a_hanging_member(serve) -> None:
    with Peer(holder) as good, Peer(peer.silent) as hanging:
        members = {"good": good.dicomweb_url, "hanging": hanging.dicomweb_url}
        server = serve(members, search={"deadline_s": 1.5, "breaker_failures": 1000})
        frame = f"{server.dicomweb()}/studies/1.2.3/series/1.2.4/instances/1.2.5/frames/1"
        first = requests.get(frame, timeout=10)
        assert first.status_code == 200
        slowest = 0.0
        for _ in range(10):
            started = time.monotonic()
            answer = requests.get(frame, timeout=10)
            slowest = max(slowest, time.monotonic() - started)
            assert answer.status_code == 200
            assert "hanging (timeout)" in answer.headers["Warning"]
        assert slowest < 1.0  # the deadline, had they waited
