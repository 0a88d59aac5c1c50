"""Members whose answers lie ready in memory, so that what is measured is Imagora's own time and hardly theirs.

Arguments: port, and how many rows the three have together. `/EMETTEUR/dicom-web` knows searches for studies (by UIDs,
by name, by a range of dates), and frames, the same for all instances. Two more studies of the first are found only by
their UIDs.
"""

from __future__ import annotations

import asyncio
import fnmatch
import random
import sys
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import orjson
import uvloop
from imagora_demo import exams

NAMES = ("bench-a", "bench-b", "bench-c")
FRAMES_UID = str(exams.uid("bench", "frames"))
PROBE_UID = str(exams.uid("bench", "probe"))
_APART = (FRAMES_UID, PROBE_UID)
FRAME_BYTES = 32 << 10
_BOUNDARY = b"bench-shelf"


def study_uid(name: str, number: int) -> str:
    return str(exams.uid("bench", "shelf", name, number))


def all_uids(count: int) -> list[str]:
    """Of all members, which have `count` rows together."""
    return [study_uid(name, number) for name in NAMES for number in range(_share(name, count))]


def _share(name: str, count: int) -> int:
    return len(range(NAMES.index(name), count, len(NAMES)))


def rows_of(name: str, count: int) -> list[dict[str, Any]]:
    """What a PACS says of `count` studies, each of another patient."""
    dice = random.Random(name)
    return [_row(name, study_uid(name, number), number, dice) for number in range(count)]


def member_rows(count: int) -> list[dict[str, Any]]:
    """Of all members, which have `count` rows together."""
    return [row for name in NAMES for row in rows_of(name, _share(name, count))]


def all_rows(count: int) -> list[dict[str, Any]]:
    """The same, and the two that are found only by their UIDs."""
    return member_rows(count) + [_row_apart(uid, count) for uid in _APART]


def _row_apart(uid: str, count: int) -> dict[str, Any]:
    return _row(NAMES[0], uid, count, random.Random(uid))


def _row(name: str, uid: str, number: int, dice: random.Random) -> dict[str, Any]:
    family = dice.choice(exams.FAMILY_NAMES)
    if dice.random() < 0.75:
        family += f"-{dice.choice(exams.FAMILY_NAMES)}"
    time = f"{dice.randrange(7, 20):02}{dice.randrange(60):02}{dice.randrange(60):02}"
    return {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": {"vr": "DA", "Value": [exams.any_date(dice, 2015, 2025)]},
        "00080030": {"vr": "TM", "Value": [time]},
        "00080050": {"vr": "SH", "Value": [f"A{number:08}"]},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00080090": {"vr": "PN"},
        "00081030": {"vr": "LO", "Value": ["Scanner thoracique"]},
        "00081190": {"vr": "UR", "Value": [f"http://127.0.0.1/{name}/dicom-web/studies/{uid}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{family}^{dice.choice(exams.GIVEN_NAMES)}"}]},
        "00100020": {"vr": "LO", "Value": [str(90_000_000 + number)]},
        "00100030": {"vr": "DA", "Value": [exams.any_date(dice, 1930, 2019)]},
        "00100040": {"vr": "CS", "Value": [dice.choice("FM")]},
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00200010": {"vr": "SH"},
        "00201206": {"vr": "IS", "Value": [1]},
        "00201208": {"vr": "IS", "Value": [1]},
    }


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(rows: list[dict[str, Any]]) -> bytes:
    return _answer("application/dicom+json", orjson.dumps(rows))


def _frame() -> bytes:
    pixels = bytes(range(256)) * (FRAME_BYTES // 256)
    part = b"--" + _BOUNDARY + b"\r\nContent-Type: application/octet-stream\r\n\r\n" + pixels
    kind = f'multipart/related; type="application/octet-stream"; boundary={_BOUNDARY.decode()}'
    return _answer(kind, part + b"\r\n--" + _BOUNDARY + b"--\r\n")


def _matches(row: dict[str, Any], wanted: dict[str, str]) -> bool:
    if pattern := wanted.get("00100010"):
        name: str = row["00100010"]["Value"][0]["Alphabetic"]
        if not fnmatch.fnmatchcase(name.upper(), pattern.upper()):
            return False
    date: str = row["00080020"]["Value"][0]
    first, to, last = wanted.get("00080020", "-").partition("-")
    return first <= date <= (last or "99999999" if to else first)


class Shelf:
    """Answers, whole with their heads; ready from the second time on that somebody asks for them."""

    def __init__(self, count: int) -> None:
        self._rows = {name: rows_of(name, _share(name, count)) for name in NAMES}
        self._by_uid = {name: {row["0020000D"]["Value"][0]: row for row in rows} for name, rows in self._rows.items()}
        self._by_uid[NAMES[0]] |= {uid: _row_apart(uid, count) for uid in _APART}
        self._frame = _frame()
        self._ready: dict[str, bytes] = {}

    def answer(self, target: str) -> bytes:
        if "/frames/" in target:
            return self._frame
        if target not in self._ready:
            self._ready[target] = _json(self._found(target))
        return self._ready[target]

    def _found(self, target: str) -> list[dict[str, Any]]:
        parts = urlsplit(target)
        name = parts.path.split("/", 2)[1]
        wanted = {tag: values[0] for tag, values in parse_qs(parts.query).items()}
        if uids := wanted.get("0020000D"):
            known = self._by_uid.get(name, {})
            return [known[uid] for uid in uids.split(",") if uid in known]
        return [row for row in self._rows.get(name, ()) if _matches(row, wanted)]


class Connection(asyncio.Protocol):
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            self._transport.write(self._shelf.answer(head.split(b" ", 2)[1].decode("latin-1")))


async def _serve(port: int, shelf: Shelf) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(shelf), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    port, count = map(int, sys.argv[1:])
    uvloop.run(_serve(port, Shelf(count)))


if __name__ == "__main__":
    main()
