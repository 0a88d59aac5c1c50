"""Members that hold studies and fail at random: refused connections, faults, garbage, stalls, cut and dripping bodies.

What they never do is to tell that they lack what they hold: whatever is missing in an answer is then ours to tell.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from support.peer import Connection, Peer, Request

from imagora_soak.held import Held, row

_PATH = re.compile(r"/studies/([0-9.]+)(?:/series/([0-9.]+))?(?:/instances/([0-9.]+))?(/metadata)?")
_COLLECTION = re.compile(r"(?:/studies/([0-9.]+))?(?:/series/([0-9.]+))?/(studies|series|instances)")
_BOUNDARY = "soak-7d1f"
_RELATED = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
#: How often each thing happens to a request.
MOODS = {
    "well": 150,
    "fault": 6,
    "page": 4,
    "noise": 5,
    "cut": 8,
    "unclosed": 3,
    "silent": 3,
    "stuck": 4,
    "slow": 5,
    "reset": 3,
}
_STATUSES = (500, 502, 503, 429, 401, 400)


@dataclass
class Answer:
    content_type: str
    body: bytes
    status: int = 200


class Failing:
    """One such member. `held` are its instances, `name` its EMETTEUR, `without` moods that it never has."""

    def __init__(self, name: str, held: Sequence[Held], seed: int, without: Sequence[str]) -> None:
        self.name = name
        self.held = held
        self.moods: Counter[str] = Counter()
        self.calm = False  # answers well, whatever the dice say
        self._dice = random.Random(seed)
        self._weights = {mood: weight for mood, weight in MOODS.items() if mood not in without}
        self._peer = Peer(self._behave)

    def __enter__(self) -> Failing:
        self._peer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.__exit__()

    @property
    def url(self) -> str:
        return self._peer.dicomweb_url

    async def _behave(self, request: Request, connection: Connection) -> None:
        self._peer.requests.clear()
        self._peer.closed_at.clear()
        answer = self._answer(request)
        mood = "well" if self.calm else self._dice.choices(list(self._weights), list(self._weights.values()))[0]
        self.moods[mood] += 1
        await _MOODS[mood](connection, answer, self._dice)

    def _answer(self, request: Request) -> Answer:
        if collection := _COLLECTION.fullmatch(request.path):
            return self._search(request, *collection.groups())
        path = _PATH.fullmatch(request.path)
        study, series, instance, metadata = path.groups() if path is not None else (None,) * 4
        chosen = [h for h in self.held if _is(h, study, series, instance)] if path is not None else []
        if not chosen:
            return Answer("application/json", b"{}", 404)
        if metadata:
            return Answer("application/dicom+json", orjson.dumps([h.described for h in chosen]))
        return Answer(_RELATED, multipart(h.data for h in chosen))

    def _search(self, request: Request, study: str | None, series: str | None, level: str) -> Answer:
        chosen = [h for h in self.held if _is(h, study, series, None)]
        for number, names in enumerate((("0020000D", "StudyInstanceUID"), ("0020000E",), ("00080018",))):
            for value in (v for name in names for v in request.values(name)):
                chosen = [h for h in chosen if h.uids[number] in value.split(",")]
        depth = ["studies", "series", "instances"].index(level) + 1
        rows = {(*h.uids[:depth], h.patient_id): row(h) for h in chosen}
        limit = int((request.values("limit") or ["100000"])[0])
        offset = int((request.values("offset") or ["0"])[0])
        return Answer("application/dicom+json", orjson.dumps(list(rows.values())[offset : offset + limit]))

    def go_down(self) -> None:
        self._peer.go_down()

    def come_back(self) -> None:
        self._peer.come_back()


def _is(held: Held, *uids: str | None) -> bool:
    return all(wanted is None or wanted == uid for wanted, uid in zip(uids, held.uids, strict=True))


def multipart(parts: Iterable[bytes], boundary: str = _BOUNDARY) -> bytes:
    begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(begin + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


# Moods ----------------------------------------------------------------------------------------------------------------


async def _well(connection: Connection, answer: Answer, _: random.Random) -> None:
    await connection.answer(answer.status, answer.body, answer.content_type)


async def _fault(connection: Connection, _: Answer, dice: random.Random) -> None:
    await connection.answer(dice.choice(_STATUSES), b"busy", "text/plain")


async def _page(connection: Connection, answer: Answer, dice: random.Random) -> None:
    kind = dice.choice(["text/html", answer.content_type])
    await connection.answer(200, b"<html>log in</html>", kind)


async def _noise(connection: Connection, answer: Answer, dice: random.Random) -> None:
    """Some bytes of the answer are others, near its beginning, where it is read. It breaks off in its middle: nothing
    could tell that one which ends in order is not what is held."""
    body = bytearray(answer.body)
    for _ in range(dice.randrange(1, 9)):
        body[dice.randrange(min(len(body), 900))] = dice.randrange(256)
    await _head(connection, answer, len(body))
    await connection.send(bytes(body[: len(body) // 2]))
    connection.writer.close()


async def _cut(connection: Connection, answer: Answer, dice: random.Random) -> None:
    await _head(connection, answer, len(answer.body))
    await connection.send(answer.body[: dice.randrange(len(answer.body))])
    connection.writer.close()


async def _unclosed(connection: Connection, answer: Answer, dice: random.Random) -> None:
    """Well framed, and yet not whole: only what is in it tells."""
    await connection.answer(200, answer.body[: dice.randrange(1, max(2, len(answer.body) - 4))], answer.content_type)


async def _silent(connection: Connection, answer: Answer, dice: random.Random) -> None:
    await asyncio.sleep(3600)


async def _stuck(connection: Connection, answer: Answer, dice: random.Random) -> None:
    await _head(connection, answer, len(answer.body))
    await connection.send(answer.body[: dice.randrange(len(answer.body))])
    await asyncio.sleep(3600)


async def _slow(connection: Connection, answer: Answer, dice: random.Random) -> None:
    await _head(connection, answer, len(answer.body))
    piece = max(1, len(answer.body) // dice.randrange(5, 40))
    for at in range(0, len(answer.body), piece):
        await connection.send(answer.body[at : at + piece])
        await asyncio.sleep(0.05)


async def _reset(connection: Connection, _: Answer, dice: random.Random) -> None:
    if dice.random() < 0.5:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-")
    connection.abort()


async def _head(connection: Connection, answer: Answer, length: int) -> None:
    await connection.head(answer.status, {"Content-Type": answer.content_type, "Content-Length": str(length)})


_MOODS: dict[str, Callable[[Connection, Answer, random.Random], Any]] = {
    "well": _well,
    "fault": _fault,
    "page": _page,
    "noise": _noise,
    "cut": _cut,
    "unclosed": _unclosed,
    "silent": _silent,
    "stuck": _stuck,
    "slow": _slow,
    "reset": _reset,
}
