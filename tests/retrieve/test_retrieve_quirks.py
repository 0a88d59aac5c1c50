"""Members that do it in their own way, and are understood."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from pydicom.uid import DeflatedExplicitVRLittleEndian
from retrieve_member import (
    DICOM,
    Framing,
    Held,
    Holder,
    content_type,
    delivering,
    described,
    framed,
    giving,
    multipart,
    read,
)
from support.peer import Connection, Request

STUDY = exams.study(seed="quirks", n_instances=3, rows=48, columns=48)
UID = exams.uid("quirks", "study")
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
PLAIN = multipart(STUDY, "b")


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder(STUDY) as member:
        yield member


@pytest.fixture(scope="module")
def root(holder: Holder, serve_module) -> str:
    url: str = serve_module({"csrom41200": holder.url}, search={"deadline_s": 5}).dicomweb()
    return url


@pytest.fixture(scope="module")
def expected(root: str, holder: Holder) -> list[bytes]:
    holder.deliver = delivering()
    return [p.body for p in wire.get(root, f"/studies/{UID}", MULTIPART).parts]


def bare(parts: list[bytes], boundary: str = "b") -> bytes:
    """Parts without any header."""
    return b"".join(b"--%s\r\n\r\n%s\r\n" % (boundary.encode(), p) for p in parts) + b"--%s--" % boundary.encode()


BODIES = {
    "as Orthanc does": (PLAIN, content_type("b")),
    "with a preamble": (b"This is multipart.\r\n\r\n" + PLAIN, content_type("b")),
    "with an empty line first": (b"\r\n" + PLAIN, content_type("b")),
    "with an epilogue": (PLAIN + b"the end\r\n" * 500, content_type("b")),
    "without the last line end": (PLAIN[:-2], content_type("b")),
    "without part headers": (bare(STUDY), content_type("b")),
    "with padding behind the boundary": (PLAIN.replace(b"--b\r\n", b"--b \t\r\n"), content_type("b")),
    "with a quoted boundary": (multipart(STUDY, "a b:c"), f'multipart/related; boundary="a b:c"; type="{DICOM}"'),
    "with a long boundary": (multipart(STUDY, "x" * 150), content_type("x" * 150)),
    "without the type": (PLAIN, "multipart/related; boundary=b"),
    "with an unquoted type": (PLAIN, f"Multipart/Related;BOUNDARY=b;type={DICOM}"),
    "with a type that holds the syntax": (
        PLAIN,
        f'multipart/related; type="{DICOM}; transfer-syntax=1.2.840.10008.1.2.1"; boundary=b',
    ),
    "with lower case headers": (PLAIN.replace(b"Content-Type", b"content-type"), content_type("b")),
    "with octet streams as parts": (multipart(STUDY, "b", part_type="application/octet-stream"), content_type("b")),
}


@pytest.mark.parametrize("way", BODIES)
@pytest.mark.parametrize("framing", list(Framing))
def test_bodies_as_members_write_them(
    way: str, framing: Framing, root: str, holder: Holder, expected: list[bytes]
) -> None:
    body, kind = BODIES[way]

    async def deliver(_: Request, connection: Connection, __: list[Held]) -> None:
        how = {
            Framing.LENGTH: {"Content-Length": str(len(body))},
            Framing.CHUNKED: {"Transfer-Encoding": "chunked"},
            Framing.CLOSE: {"Connection": "close"},
        }[framing]
        await connection.head(200, {"Content-Type": kind, **how})
        sent, _place = framed(body, framing, chunk=777)
        for at in range(0, len(sent), 1111):  # in small pieces, each on its own
            await connection.send(sent[at : at + 1111])
        if framing is Framing.CLOSE:
            connection.writer.close()

    holder.deliver = deliver
    seen = wire.get(root, f"/studies/{UID}", MULTIPART)
    assert (seen.status, seen.ended) == (200, True)
    assert [p.body for p in seen.parts] == expected


@pytest.mark.parametrize("damaged", [b"--x\r\n", b"-xb\r\n", b"x-b\r\n", b"--bx\r\n"])
@pytest.mark.parametrize("body", [PLAIN, bare(STUDY)], ids=["as Orthanc does", "without part headers"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_instance_is_lost_with_the_boundary_before_it(
    place: int, body: bytes, damaged: bytes, root: str, holder: Holder
) -> None:
    pieces = body.split(b"--b\r\n")
    assert len(pieces) == 4
    sent = b"--b\r\n".join(pieces[: place + 1]) + damaged + b"--b\r\n".join(pieces[place + 1 :])
    holder.deliver = giving(200, sent, content_type("b"))
    seen = wire.get(root, f"/studies/{UID}", MULTIPART)
    assert seen.status == 502 or not (seen.ended or seen.closed)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_body_that_was_compressed_without_being_asked(
    coding: str, root: str, holder: Holder, expected: list[bytes]
) -> None:
    """It is relayed as it was before: a compressed body without its header breaks viewers."""
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[coding]
    holder.deliver = giving(200, compress(PLAIN), content_type("b"), Content_Encoding=coding)
    seen = wire.get(root, f"/studies/{UID}", MULTIPART)
    assert holder.retrieves()[-1].headers["accept-encoding"] == "identity"
    assert (seen.status, seen.ended) == (200, True)
    assert "content-encoding" not in seen.headers
    assert [p.body for p in seen.parts] == expected
    # Cut, it is as broken as any other.
    holder.deliver = giving(200, compress(PLAIN)[:-300], content_type("b"), Content_Encoding=coding)
    cut = wire.get(root, f"/studies/{UID}", MULTIPART)
    assert not (cut.status == 200 and (cut.ended or cut.closed))


def test_one_instance_as_a_single_body(root: str, holder: Holder, expected: list[bytes]) -> None:
    """Asked for parts, the member answers with the instance itself; the client gets what it asked for."""
    study, series, sop = holder.held[0].uids
    holder.deliver = giving(200, STUDY[0], DICOM)
    path = f"/studies/{study}/series/{series}/instances/{sop}"
    seen = wire.get(root, path, MULTIPART)
    assert [p.body for p in seen.parts] == expected[:1]
    single = wire.get(root, path, {"Accept": DICOM})
    assert (single.status, single.ended, single.body) == (200, True, expected[0])


def test_deflated_instances_are_tagged_and_stay_deflated(serve) -> None:
    data = exams.study(
        seed="deflated", n_instances=2, rows=200, columns=200, transfer_syntax=DeflatedExplicitVRLittleEndian
    )
    with Holder(data) as deflated:
        root = serve({"csrom41200": deflated.url}).dicomweb()
        accept = {"Accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
        seen = wire.get(root, f"/studies/{exams.uid('deflated', 'study')}", accept)
    assert (seen.status, seen.ended) == (200, True)
    for part, original in zip(seen.parts, data, strict=True):
        assert part.type.endswith(DeflatedExplicitVRLittleEndian)
        assert len(part.body) % 2 == 0
        dataset = read(part.body)
        assert dataset.PatientID == "4547@csrom41200"
        assert dataset.PixelData == read(original).PixelData


def test_metadata_as_members_write_them(root: str, holder: Holder) -> None:
    study, series, sop = holder.held[0].uids
    row = b'{"0020000D":{"vr":"UI","Value":["%s"]},"00080018":{"vr":"UI","Value":["%s"]}}' % (
        study.encode(),
        sop.encode(),
    )
    before = holder.describe
    try:
        for body, kind in (
            (row, "application/json"),  # no array around the one
            (b"[%s]" % row, "application/dicom+json; charset=utf-8"),
            (b" \n[%s]\n" % row, "application/dicom+json"),
        ):
            holder.describe = giving(200, body, kind)
            answer = requests.get(f"{root}/studies/{study}/series/{series}/instances/{sop}/metadata", timeout=10)
            assert [m["00080018"]["Value"] for m in answer.json()] == [[sop]]
    finally:
        holder.describe = before


def test_member_that_gives_a_part_and_says_so(serve) -> None:
    """dcm4chee answers 206 where objects are no longer there: that is passed on, not taken for all."""

    async def partly(request: Request, connection: Connection, held: list[Held]) -> None:
        if request.path.endswith("/metadata"):
            body, kind = json.dumps([described(held[0])]).encode(), "application/dicom+json"
        else:
            body, kind = multipart([held[0].data], "b"), content_type("b")
        await connection.answer(206, body, kind, Warning="299 pacs: Objects no longer accessible")

    with Holder(STUDY, deliver=partly) as one, Holder(STUDY) as other:
        one.describe = partly
        root = serve({"csrom41200": one.url}).dicomweb()
        seen = wire.get(root, f"/studies/{UID}", MULTIPART)
        assert (seen.status, seen.ended, len(seen.parts)) == (206, True, 1)
        assert "csrom41200" in seen.headers["warning"]
        assert "this is not all" in seen.headers["warning"]
        metadata = requests.get(f"{root}/studies/{UID}/metadata", timeout=10)
        assert (metadata.status_code, len(metadata.json())) == (206, 1)
        assert "this is not all" in metadata.headers["Warning"]
        # Where another holder has all, it comes from there.
        both = serve({"csrom41200": one.url, "cpsax18000": other.url}).dicomweb()
        metadata = requests.get(f"{both}/studies/{UID}/metadata", timeout=10)
        assert (metadata.status_code, len(metadata.json())) == (200, len(STUDY))
        whole = wire.get(both, f"/studies/{UID}", MULTIPART)
        assert (whole.status, whole.ended, len(whole.parts)) == (200, True, len(STUDY))
