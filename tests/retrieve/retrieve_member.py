"""A scripted member that holds instances: it answers searches rightly and retrieves as a test tells it to."""

from __future__ import annotations

import asyncio
import io
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from support.peer import Connection, Peer, Request

DICOM = "application/dicom"
_PATH = re.compile(
    r"/studies/(?P<study>[0-9.]+)(?:/series/(?P<series>[0-9.]+))?(?:/instances/(?P<instance>[0-9.]+))?(?P<rest>/.*)?"
)
_COLLECTION = re.compile(
    r"(?:/studies/(?P<study>[0-9.]+))?(?:/series/(?P<series>[0-9.]+))?/(?P<level>studies|series|instances)"
)
_ROW_KEYWORDS = [
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "InstitutionName",
    "InstitutionCodeSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDsSequence",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
]


class Framing(StrEnum):
    """How a body's end is told on the wire (RFC 9112 §6.3)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # by neither: only a closing boundary proves that the body is whole


@dataclass(frozen=True)
class Held:
    """One instance: its Part-10 bytes and what they say."""

    data: bytes
    dataset: Dataset

    @property
    def uids(self) -> tuple[str, str, str]:
        return (str(self.dataset.StudyInstanceUID), str(self.dataset.SeriesInstanceUID), self.sop)

    @property
    def sop(self) -> str:
        return str(self.dataset.SOPInstanceUID)


Deliver = Callable[[Request, Connection, list[Held]], Awaitable[None]]


def read(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data), force=True)


def multipart(
    parts: Iterable[bytes], boundary: str, *, part_type: str = DICOM, part_headers: Sequence[str] = ()
) -> bytes:
    """A body as Orthanc writes it: each part with Content-Type, Content-Length and MIME-Version."""
    body = b""
    for part in parts:
        lines = [f"--{boundary}", f"Content-Type: {part_type}", f"Content-Length: {len(part)}", *part_headers]
        body += "\r\n".join([*lines, "MIME-Version: 1.0", "", ""]).encode() + part + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def content_type(boundary: str, part_type: str = DICOM) -> str:
    return f'multipart/related; type="{part_type}"; boundary={boundary}'


def answer_head(framing: Framing, length: int, kind: str) -> bytes:
    """Status line and headers of a 200 with a body of `length` bytes."""
    how = {
        Framing.LENGTH: f"Content-Length: {length}",
        Framing.CHUNKED: "Transfer-Encoding: chunked",
        Framing.CLOSE: "Connection: close",
    }[framing]
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{how}\r\n\r\n".encode()


def framed(body: bytes, framing: Framing, *, chunk: int = 1000) -> tuple[bytes, Callable[[int], int]]:
    """→ (the body on the wire, where each of its offsets falls there)."""
    if framing is not Framing.CHUNKED:
        return body, lambda offset: offset
    wire, starts = b"", []
    for at in range(0, len(body), chunk):
        piece = body[at : at + chunk]
        wire += f"{len(piece):x}\r\n".encode()
        starts.append(len(wire))
        wire += piece + b"\r\n"

    def place(offset: int) -> int:
        index = min(offset // chunk, len(starts) - 1)
        return starts[index] + offset - index * chunk

    return wire + b"0\r\n\r\n", place


def delivering(framing: Framing = Framing.LENGTH) -> Deliver:
    """Gives what was asked for, in full."""

    async def deliver(_: Request, connection: Connection, instances: list[Held]) -> None:
        boundary = uuid.uuid4().hex
        body = multipart([i.data for i in instances], boundary)
        await connection.send(answer_head(framing, len(body), content_type(boundary)) + framed(body, framing)[0])
        if framing is Framing.CLOSE:
            connection.writer.close()

    return deliver


def describing(change: Callable[[dict[str, Any]], None] = lambda _: None) -> Deliver:
    """Metadata of what was asked for, each object changed in place."""

    async def deliver(_: Request, connection: Connection, instances: list[Held]) -> None:
        found = [described(i) for i in instances]
        for attributes in found:
            change(attributes)
        await connection.json(found)

    return deliver


def giving(status: int, body: bytes, kind: str, **headers: str) -> Deliver:
    """The same answer to every retrieve."""

    async def deliver(_: Request, connection: Connection, __: list[Held]) -> None:
        await connection.answer(status, body, kind, **headers)

    return deliver


async def never(_: Request, __: Connection, ___: list[Held]) -> None:
    await asyncio.sleep(3600)


@dataclass
class Holder:
    """A member. Each answer can be replaced at any time:

    `deliver` retrieves of instances, `searches` all searches, `describe` metadata, `other` whatever else lies below
    an instance (frames, bulk data, pictures).
    """

    data: Iterable[bytes] = ()
    deliver: Deliver = field(default_factory=delivering)
    other: Deliver = field(default_factory=lambda: giving(404, b"", "text/plain"))
    host: str = "127.0.0.1"
    searches: Deliver | None = None  # instead of the right answer to searches
    describe: Deliver = field(default_factory=describing)

    def __post_init__(self) -> None:
        self.held = [Held(data, read(data)) for data in self.data]
        self.peer = Peer(self._behave, host=self.host)

    def __enter__(self) -> Holder:
        self.peer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.__exit__()

    @property
    def url(self) -> str:
        return self.peer.dicomweb_url

    def retrieves(self) -> list[Request]:
        """What came that was no search."""
        return [r for r in self.peer.requests if _COLLECTION.fullmatch(r.path) is None]

    async def _behave(self, request: Request, connection: Connection) -> None:
        collection = _COLLECTION.fullmatch(request.path)
        if collection is not None:
            if self.searches is not None:
                await self.searches(request, connection, self.held)
            else:
                await self._search(request, connection, collection)
            return
        path = _PATH.fullmatch(request.path)
        chosen = [] if path is None else self._chosen(path["study"], path["series"], path["instance"])
        if path is None or not chosen:
            await connection.json({"error": "unknown"}, 404)
        elif path["rest"] is None:
            await self.deliver(request, connection, chosen)
        elif path["rest"] == "/metadata":
            await self.describe(request, connection, chosen)
        else:
            await self.other(request, connection, chosen)

    def _chosen(self, study: str | None, series: str | None, instance: str | None) -> list[Held]:
        wanted = (study, series, instance)
        return [i for i in self.held if all(w is None or w == uid for w, uid in zip(wanted, i.uids, strict=True))]

    async def _search(self, request: Request, connection: Connection, path: re.Match[str]) -> None:
        chosen = self._chosen(path["study"], path["series"], None)
        for name, place in (("0020000D", 0), ("StudyInstanceUID", 0), ("0020000E", 1), ("00080018", 2)):
            for value in request.values(name):
                chosen = [i for i in chosen if i.uids[place] in value.split(",")]
        level = ["studies", "series", "instances"].index(path["level"])
        rows = {(*i.uids[: level + 1], str(i.dataset.get("PatientID", ""))): row(i) for i in chosen}
        offset = int((request.values("offset") or ["0"])[0])
        limit = int((request.values("limit") or ["100000"])[0])
        await connection.json(list(rows.values())[offset : offset + limit])


def row(instance: Held) -> dict[str, Any]:
    """One row of a search, of whatever level."""
    found = Dataset()
    for keyword in _ROW_KEYWORDS:
        if keyword in instance.dataset:
            found[keyword] = instance.dataset[keyword]
    return _utf8(found)


def described(instance: Held) -> dict[str, Any]:
    """Metadata: all but pixels, which are left out."""
    found = Dataset()
    for element in instance.dataset:
        if element.tag < 0x7FE0_0000:
            found[element.tag] = element
    return _utf8(found)


def _utf8(dataset: Dataset) -> dict[str, Any]:
    json: dict[str, Any] = dataset.to_json_dict(bulk_data_threshold=1 << 30)
    json["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return json
