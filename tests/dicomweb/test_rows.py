"""Bodies of metadata and search results."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import tracemalloc
import xml.etree.ElementTree as ET

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieve.retrieve_wire import parts_of
from starlette.types import Message
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.negotiate import ATTRIBUTES, DICOM_XML
from dicomweb.rows import Wishes, json_pieces, send_rows, xml_pieces
from dicomweb.wire.media import Offer
from dicomweb.wire.multipart import MultipartReader
from dicomweb.wire.xml import PIECE, native_model
from federation.model import Attributes

JSON, _, XML = ATTRIBUTES


def rows(number: int) -> list[Attributes]:
    return [
        {"00200013": {"vr": "IS", "Value": [n]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"DUPONT^{n}"}]}}
        for n in range(number)
    ]


@pytest.mark.parametrize("number", [0, 1, 2, 15, 16, 17, 32, 33, 5000])
def test_json_in_pieces_is_json_in_one(number: int) -> None:
    pieces = list(json_pieces(rows(number)))
    assert b"".join(pieces) == orjson.dumps(rows(number), option=orjson.OPT_SORT_KEYS)
    assert len(pieces) > (5 if number > 1000 else 0)
    assert all(len(piece) < 2 * PIECE for piece in pieces)


@pytest.mark.parametrize("number", [1, 2, 5000])
def test_xml_has_one_part_for_each_row(number: int) -> None:
    pieces = list(xml_pieces(rows(number), "bound", DICOM_XML))
    parts = parts_of(b"".join(pieces), b"bound")
    assert {part.type for part in parts} == {DICOM_XML}
    assert [part.body for part in parts] == [b"".join(native_model(row)) for row in rows(number)]
    assert all(len(piece) < 2 * PIECE for piece in pieces)
    assert number < 10 or len(pieces) > 10


def test_xml_of_no_rows_is_closed() -> None:
    body = b"".join(xml_pieces([], "bound", DICOM_XML))
    reader = MultipartReader(b"bound")
    assert (reader.feed(body), reader.complete) == ([], True)


class Client:
    """What `send_rows` sends, as a client takes it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.ended = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            assert len(self.headers) == len(message["headers"])
            return
        self.bodies.append(message["body"])
        self.ended += not message.get("more_body", False)

    @property
    def sent(self) -> bytes:
        return b"".join(self.bodies)

    @property
    def body(self) -> bytes:
        if self.headers.get("content-encoding") == "gzip":
            return gzip.decompress(self.sent)
        assert "content-encoding" not in self.headers
        return self.sent


async def answer(
    number: int,
    form: Offer = JSON,
    *,
    coded: bool = False,
    known: str = "",
    complete: bool = True,
    warning: bytes = b"",
    status: int = 200,
) -> Client:
    client = Client()
    headers = [(b"warning", warning)] if warning else []
    wishes = Wishes(gzip=coded, known=known)
    await send_rows(client.send, status, rows(number), headers, form, wishes, complete=complete)
    assert client.ended == 1
    return client


async def test_others_have_their_turn_while_a_long_body_is_made() -> None:
    for form, coded in itertools.product((JSON, XML), (False, True)):
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        client = await answer(20_000, form, coded=coded)
        task.cancel()
        assert len(client.body) > 20 * PIECE
        # In JSON once for making a piece and once for sending it; compressed, some pieces make one.
        assert turns >= len(client.body) // (2 * PIECE) / (4 if coded and form is XML else 1)


async def test_long_xml_is_not_held_whole() -> None:
    long, size = rows(20_000), 0

    async def send(message: Message) -> None:
        nonlocal size
        size += len(message.get("body", b""))

    tracemalloc.start()
    await send_rows(send, 200, long, [], XML, Wishes(), complete=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4


@pytest.mark.parametrize("form", [JSON, XML])
@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("number", [0, 3, 300, 5000])
async def test_bodies_are_whole_in_each_form_and_coding(form: Offer, coded: bool, number: int) -> None:
    client = await answer(number, form, coded=coded, complete=False, status=206, warning=b"x")
    assert (client.status, client.headers["warning"]) == (206, "x")
    if form is JSON:
        assert orjson.loads(client.body) == rows(number)
    elif number:
        boundary = client.headers["content-type"].partition("boundary=")[2].encode()
        parts = parts_of(client.body, boundary)
        assert len(parts) == number
        ET.fromstring(parts[-1].body)
    if len(client.bodies) == 1 or (form is JSON and not coded):
        assert int(client.headers["content-length"]) == len(client.sent)
    else:
        assert "content-length" not in client.headers
    if coded and number > 3:
        assert len(client.sent) < len(client.body) / 3
    if form is JSON:
        assert ("content-encoding" in client.headers) == (coded and number > 3)


async def test_what_is_kept_is_asked_for_again_and_again() -> None:
    for form, coded in itertools.product((JSON, XML), (False, True)):
        first = await answer(100, form, coded=coded)
        tag = first.headers["etag"]
        assert tag.startswith('W/"' if form is XML else '"')
        assert first.headers["cache-control"] == "no-store"
        assert {"accept", "accept-encoding"} <= set(first.headers["vary"].split(", "))
        for known in (tag, f'"other", {tag}', f'{tag},W/"x"', "*", tag.removeprefix("W/"), tag.replace("-gzip", "")):
            again = await answer(100, form, coded=coded, known=known)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
            assert "content-type" not in again.headers
            assert "content-encoding" not in again.headers
            assert again.headers["cache-control"] == "no-store"
            assert again.headers["vary"] == first.headers["vary"]
        for unknown in ('"other"', tag.strip('W/"'), "", tag[:-2] + '"', "nonsense"):
            assert (await answer(100, form, coded=coded, known=unknown)).body


async def test_each_representation_has_a_tag_of_its_own() -> None:
    plain, coded = await answer(100), await answer(100, coded=True)
    tags = {
        plain.headers["etag"],
        coded.headers["etag"],
        (await answer(100, XML)).headers["etag"],
        (await answer(100, ATTRIBUTES[1])).headers["etag"],
        (await answer(101)).headers["etag"],
        # A cache keeps the headers of what it has: another warning is another answer.
        (await answer(100, warning=b"299 imagora: x")).headers["etag"],
        (await answer(100, warning=b"299 imagora: y")).headers["etag"],
    }
    assert len(tags) == 7
    assert (await answer(100)).headers["etag"] == plain.headers["etag"]


async def test_what_misses_something_is_not_kept() -> None:
    for form in (JSON, XML):
        client = await answer(10, form, complete=False, known="*")
        assert client.status == 200
        assert client.headers["cache-control"] == "no-store"
        assert "etag" not in client.headers


_texts = st.lists(st.sampled_from([*'W/"-, *', "-gzip", "abc", "\0", "é"]), max_size=12).map("".join)


@given(_texts, st.sampled_from(["abc", "abd"]))
def test_any_list_of_tags_is_read(known: str, tag: str) -> None:
    has = Wishes(known=known).has(tag)
    assert not has or tag in known or known.strip() == "*"
    assert Wishes(known=f'{known.replace(chr(34), "")}, "{tag}"').has(tag)
