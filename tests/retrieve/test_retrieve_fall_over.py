"""Before the first byte a holder that fails is replaced by the next, and the answer names it."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from retrieve_member import (
    DICOM,
    Deliver,
    Framing,
    Held,
    Holder,
    answer_head,
    content_type,
    delivering,
    giving,
    multipart,
    never,
    read,
)
from support.peer import Connection, Request
from support.serving import Serving

STUDY = exams.study(seed="fallover", n_instances=2, rows=24, columns=24)
OCTETS = "application/octet-stream"
UID = exams.uid("fallover", "study")
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
IMPLICIT, BIG_ENDIAN = (
    [exams.to_bytes(read(data), syntax) for data in exams.study(seed="fallover", n_instances=2, rows=24, columns=24)]
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian)
)
GARBAGE = b"\x00\xff\x13 not DICOM at all " * 40


async def resets(_: Request, connection: Connection, __: list[Held]) -> None:
    connection.abort()


async def closes(_: Request, connection: Connection, __: list[Held]) -> None:
    connection.writer.close()


async def closes_after_its_head(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.send(answer_head(Framing.CLOSE, 0, content_type("b")))
    connection.writer.close()


async def cut_in_its_first_head(_: Request, connection: Connection, held: list[Held]) -> None:
    body = multipart([held[0].data], "b")
    await connection.send(answer_head(Framing.CLOSE, 0, content_type("b")) + body[: body.index(b"DICM") + 100])
    connection.writer.close()


async def silent_after_its_head(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.send(answer_head(Framing.CLOSE, 0, content_type("b")))
    await asyncio.sleep(3600)


async def drips(_: Request, connection: Connection, held: list[Held]) -> None:
    await connection.send(answer_head(Framing.CLOSE, 0, content_type("b")))
    for byte in multipart([held[0].data], "b"):
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.5)


async def speaks_no_http(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    connection.writer.close()


async def another_instance(_: Request, connection: Connection, __: list[Held]) -> None:
    stranger = exams.study(seed="somebody else", rows=24, columns=24)
    body = multipart(stranger, "b")
    await connection.answer(200, body, content_type("b"))


def body_of(parts: list[bytes]) -> Deliver:
    return giving(200, multipart(parts, "b"), content_type("b"))


#: What a holder does → how the answer names it. "" = it did answer, only not with this.
FAILURES: dict[str, tuple[Deliver, str]] = {
    "resets": (resets, "error"),
    "closes": (closes, "error"),
    "closes after its head": (closes_after_its_head, "error"),
    "is cut in its first head": (cut_in_its_first_head, "error"),
    "never answers": (never, "timeout"),
    "is silent after its head": (silent_after_its_head, "timeout"),
    "drips": (drips, "timeout"),
    "speaks no HTTP": (speaks_no_http, "error"),
    "fails": (giving(500, b"", "text/plain"), "error"),
    "is busy": (giving(503, b"", "text/plain"), "error"),
    "wants to know who asks": (giving(401, b"", "text/plain"), "refused"),
    "says no": (giving(403, b"", "text/plain"), "refused"),
    "redirects": (giving(302, b"", "text/plain", Location="http://127.0.0.1:1/"), "error"),
    "sends a page": (giving(200, b"<html>welcome</html>", "text/html"), "error"),
    "sends JSON": (giving(200, b"[]", "application/dicom+json"), "error"),
    "sends parts of another type": (giving(200, multipart([GARBAGE], "b"), content_type("b", "image/jpeg")), "error"),
    "sends no parts": (giving(200, b"--b--\r\n", content_type("b")), "error"),
    "names no boundary": (giving(200, multipart(STUDY, "b"), "multipart/related"), "error"),
    "uses another boundary": (giving(200, multipart(STUDY, "other"), content_type("b")), "error"),
    "sends what is no DICOM": (body_of([GARBAGE]), "error"),
    "sends an empty body": (giving(200, b"", content_type("b")), ""),
    "no longer has it": (giving(404, b"", "text/plain"), ""),
    "lacks the form": (giving(406, b"", "text/plain"), ""),
}


@pytest.fixture(scope="module")
def holders() -> Iterator[tuple[Holder, Holder]]:
    with Holder(STUDY) as first, Holder(STUDY) as second:
        yield first, second


@pytest.fixture(scope="module")
def server(holders: tuple[Holder, Holder], serve_module) -> Serving:
    first, second = holders
    members = {"csrom41200": first.url, "cpsax18000": second.url}
    serving: Serving = serve_module(members, search={"deadline_s": 1.0, "breaker_failures": 1000})
    return serving


def sources(headers: dict[str, str]) -> dict[str, str]:
    items = (item.split(";") for item in headers["imagora-sources"].split(", "))
    return {emetteur: status for emetteur, status, *_ in items}


@pytest.mark.parametrize("failure", FAILURES)
def test_next_holder_gives_it_and_the_answer_names_the_first(
    failure: str, holders: tuple[Holder, Holder], server: Serving
) -> None:
    first, second = holders
    deliver, status = FAILURES[failure]
    second.deliver = delivering()
    first.deliver = delivering()
    whole = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
    assert whole.ended
    first.deliver = deliver
    started = time.monotonic()
    seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
    assert time.monotonic() - started < 5
    assert seen.status == 200
    assert seen.ended
    # The same but for the URLs of the parts: they lead to the holder that gave it.
    assert [p.body for p in seen.parts] == [p.body for p in whole.parts]
    assert all("/sites/cpsax18000/" in p.location for p in seen.parts)
    assert sources(seen.headers) == {"csrom41200": status or "ok", "cpsax18000": "ok"}
    if status:
        assert f"1 of 2 sources did not answer: csrom41200 ({status})" in seen.headers["warning"]
    else:
        assert "warning" not in seen.headers


@pytest.mark.parametrize("failure", FAILURES)
def test_no_other_holder_is_a_plain_error(failure: str, holders: tuple[Holder, Holder], server: Serving) -> None:
    first, second = holders
    deliver, status = FAILURES[failure]
    expected = {"timeout": 504, "error": 502, "refused": 502, "": 406}[status]
    if failure in ("no longer has it", "sends an empty body"):
        expected = 404
    first.deliver = second.deliver = deliver
    for scope in ("", "/sites/csrom41200"):
        seen = wire.get(server.dicomweb(scope), f"/studies/{UID}", MULTIPART)
        assert (seen.status, seen.ended) == (expected, True)
        assert set(wire.json_of(seen)) == {"error"}
        assert seen.headers["content-type"] == "application/json"
        for shown in (seen.body, repr(seen.headers).encode()):
            assert str(first.peer._port).encode() not in shown
            assert b"OpenSSH" not in shown
        assert ("retry-after" in seen.headers) == (expected >= 500)


def test_implicit_is_asked_for_again_in_explicit(holders: tuple[Holder, Holder], server: Serving) -> None:
    """As stored may be what can't be tagged: the same holder is asked for Explicit VR Little Endian."""
    first, _ = holders

    async def as_stored_or_explicit(request: Request, connection: Connection, held: list[Held]) -> None:
        stored = "transfer-syntax=*" in request.headers["accept"]
        body = multipart(IMPLICIT if stored else [i.data for i in held], "b")
        await connection.answer(200, body, content_type("b"))

    first.deliver = as_stored_or_explicit
    asked = len(first.retrieves())
    accept = {"Accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
    seen = wire.get(server.dicomweb("/sites/csrom41200"), f"/studies/{UID}", accept)
    assert seen.status == 200
    assert [p.type for p in seen.parts] == [f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.1"] * 2
    assert len(first.retrieves()) == asked + 2
    assert "warning" not in seen.headers


@pytest.mark.parametrize("other", [IMPLICIT, BIG_ENDIAN], ids=["implicit", "big endian"])
def test_what_cannot_be_tagged_as_it_comes_is_turned_behind_the_first_part_too(
    other: list[bytes], holders: tuple[Holder, Holder], server: Serving
) -> None:
    first, second = holders
    first.deliver = body_of([STUDY[0], other[1]])
    second.deliver = delivering()
    seen = wire.get(server.dicomweb("/sites/csrom41200"), f"/studies/{UID}", MULTIPART)
    assert (seen.status, seen.ended) == (200, True)
    assert [str(read(p.body).PatientID) for p in seen.parts] == ["4547@csrom41200"] * 2
    sent = [read(STUDY[0]), read(other[1])]
    assert [read(p.body).pixel_array.tolist() for p in seen.parts] == [d.pixel_array.tolist() for d in sent]


@pytest.mark.parametrize(
    "deliver",
    [another_instance, body_of([STUDY[0], STUDY[0]]), body_of([STUDY[0]]), body_of([])],
    ids=["another study's", "one twice", "one too few", "none"],
)
def test_holder_that_sends_other_instances_than_it_has_never_looks_complete(
    deliver: Deliver, holders: tuple[Holder, Holder], server: Serving
) -> None:
    """Where two holders were asked what they have, the answer is held to that."""
    first, second = holders
    first.deliver = deliver
    second.deliver = delivering()
    seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
    if seen.ended:
        assert seen.status == 200
        assert sorted(str(read(p.body).SOPInstanceUID) for p in seen.parts) == sorted(i.sop for i in second.held)
    else:
        assert not seen.closed


@pytest.mark.parametrize("form", ["/metadata", "/frames/1", "/rendered", "/thumbnail"])
@pytest.mark.parametrize("failure", ["never answers", "resets", "fails", "sends a page", "no longer has it"])
def test_other_forms_fall_over_too(form: str, failure: str, holders: tuple[Holder, Holder], server: Serving) -> None:
    first, second = holders
    deliver, status = FAILURES[failure]
    study, series, sop = second.held[0].uids
    first.other = first.describe = deliver
    pictured = form in ("/rendered", "/thumbnail")  # made from the instance
    first.deliver, second.deliver = deliver if pictured else delivering(), delivering()
    if form == "/frames/1":
        second.other = giving(
            200,
            multipart([b"pixels"], "b", part_type="application/octet-stream"),
            content_type("b", "application/octet-stream"),
        )
    try:
        seen = wire.get(server.dicomweb(), f"/studies/{study}/series/{series}/instances/{sop}{form}")
    finally:
        first.describe, first.deliver = Holder().describe, delivering()
    assert (seen.status, seen.ended) == (200, True)
    if form == "/metadata":
        assert [m["00080018"]["Value"] for m in wire.json_of(seen)] == [[sop]]
    elif form == "/frames/1":
        assert [p.body for p in seen.parts] == [b"pixels"]
    else:
        assert Image.open(io.BytesIO(seen.body)).format == "JPEG"
    assert sources(seen.headers)["csrom41200"] == (status or "ok")


def test_holder_that_was_skipped_is_asked_last(serve) -> None:
    """An open breaker costs no time: the study comes from the other holder at once."""
    with Holder(STUDY) as first, Holder(STUDY) as second:
        members = {"csrom41200": first.url, "cpsax18000": second.url}
        server = serve(members, search={"deadline_s": 2.0, "breaker_failures": 1, "breaker_open_s": 60})
        assert wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART).ended
        first.deliver = never
        wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
        asked = len(first.retrieves())
        started = time.monotonic()
        seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
        assert time.monotonic() - started < 1.5
        assert seen.ended
        assert len(seen.parts) == 2
        assert len(first.retrieves()) == asked


def test_all_members_down_is_told_quickly(serve) -> None:
    server = serve({"csrom41200": "http://127.0.0.1:1/a", "cpsax18000": "http://127.0.0.1:1/b"})
    for below in ("", "/metadata", "/series/1.2/instances/1.3/frames/1"):
        answer = requests.get(f"{server.dicomweb()}/studies/{UID}{below}", timeout=10)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "2 of 2 sources did not answer" in answer.headers["Warning"]
