"""Bulk data of a scripted member, as one body or in parts, with ranges or without."""

from __future__ import annotations

import re
from dataclasses import dataclass

import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import Deliver, Held, Holder, content_type, describing, giving, multipart
from retrieve_process import ServeProcess
from support.peer import Connection, Request
from support.serving import Serving

OCTETS = "application/octet-stream"
SINGLE = {"Accept": OCTETS}
STUDY = exams.study(seed="ranges", rows=16, columns=16)
UID = exams.uid("ranges", "study")
PAYLOAD = bytes(range(256)) * 40
N = len(PAYLOAD)


def plain(accepts: str = "bytes", tag: str = "", kind: str = OCTETS) -> Deliver:
    """One body, and ranges of it as a server of files has them. Says so in Accept-Ranges, or not."""

    async def deliver(request: Request, connection: Connection, _: list[Held]) -> None:
        headers = ({"Accept-Ranges": accepts} if accepts else {}) | ({"ETag": tag} if tag else {})
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        if asked is None:
            await connection.answer(200, PAYLOAD, kind, **headers)
            return
        first = int(asked[1]) if asked[1] else max(0, N - int(asked[2]))
        stop = min(int(asked[2]) + 1, N) if asked[1] and asked[2] else N
        if first >= N:
            await connection.answer(416, b"", "text/plain", Content_Range=f"bytes */{N}")
            return
        given = f"bytes {first}-{stop - 1}/{N}"
        await connection.answer(206, PAYLOAD[first:stop], kind, Content_Range=given, **headers)

    return deliver


def parted(payload: bytes = PAYLOAD, **headers: str) -> Deliver:
    return giving(200, multipart([payload], "b", part_type=OCTETS), content_type("b", OCTETS), **headers)


async def sliced_parts(request: Request, connection: Connection, __: list[Held]) -> None:
    """A server of files that keeps multipart bodies as files: its ranges are of these, boundaries and all."""
    body = multipart([PAYLOAD], "b", part_type=OCTETS)
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    if asked is None:
        await connection.answer(200, body, content_type("b", OCTETS), Accept_Ranges="bytes")
        return
    first, last = int(asked[1]), int(asked[2])
    given = f"bytes {first}-{last}/{len(body)}"
    await connection.answer(206, body[first : last + 1], content_type("b", OCTETS), Content_Range=given)


@dataclass
class Bulk:
    """Bulk data of a reference of its own, as one body. Members are remembered, references are not."""

    holder: Holder
    server: Serving | ServeProcess
    count: int = 0

    @property
    def root(self) -> str:
        return self.server.dicomweb if isinstance(self.server, ServeProcess) else self.server.dicomweb()

    def uri(self) -> str:
        study, series, sop = self.holder.held[0].uids
        self.count += 1
        own = f"/studies/{study}/series/{series}/instances/{sop}/bulk/{self.count}"
        self.holder.describe = describing(lambda a: a.update({"7FE00010": {"vr": "OW", "BulkDataURI": own}}))
        answer = requests.get(f"{self.root}/studies/{UID}/metadata", headers={"Cache-Control": "no-cache"}, timeout=10)
        return str(answer.json()[0]["7FE00010"]["BulkDataURI"])

    def get(self, deliver: Deliver, **headers: str) -> wire.Seen:
        self.holder.other = deliver
        return wire.get(self.uri(), "", {**SINGLE, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def asked(self) -> list[str | None]:
        """The ranges that the member was asked for, since this was asked last."""
        found = [r.headers.get("range") for r in self.holder.peer.requests if "/bulk/" in r.path]
        self.holder.peer.requests.clear()
        return found

    def learn(self) -> None:
        """Let the server see that the member gives ranges."""
        assert self.get(plain()).body == PAYLOAD
        self.asked()

    def unlearn(self) -> None:
        """Let it see that it does not, whatever it saw before."""
        assert self.get(sliced_parts, Range="bytes=0-1").body == PAYLOAD[:2]
        self.asked()


def assert_answers(seen: wire.Seen, body: bytes, expected: slice | str | None) -> None:
    total = len(body)
    assert seen.ended
    assert seen.headers["cache-control"] == "no-store"
    assert "imagora-sources" in seen.headers
    assert seen.headers["accept-ranges"] == "bytes"
    if expected is None:
        assert (seen.status, seen.headers["content-range"]) == (416, f"bytes */{total}")
        assert seen.headers["content-type"] == "application/json"
        assert set(wire.json_of(seen)) == {"error"}
        return
    assert seen.headers["content-type"] == OCTETS
    assert "content-location" in seen.headers
    assert int(seen.headers["content-length"]) == len(seen.body)
    if isinstance(expected, str):
        assert (seen.status, seen.body) == (200, body)
        assert "content-range" not in seen.headers
    else:
        assert (seen.status, seen.body) == (206, body[expected])
        assert seen.headers["content-range"] == f"bytes {expected.start}-{expected.stop - 1}/{total}"
