"""A poor member, which gives instances and rows and nothing else, looks through the façade as a good one does."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from retrieve_member import DICOM, Holder, giving, read

EXPLICIT = "1.2.840.10008.1.2.1"
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
OCTETS = 'multipart/related; type="application/octet-stream"'
#: Series by what it is stored as.
KINDS = {
    "plain": exams.study(seed="made-plain", n_instances=3, rows=40, columns=48),
    "jpeg2000": exams.study(seed="made-j2k", n_instances=2, rows=40, columns=48, transfer_syntax=JPEG2000Lossless),
    "rle": exams.study(seed="made-rle", n_instances=1, rows=40, columns=48, transfer_syntax=RLELossless),
}


def turned(data: bytes, syntax: str) -> bytes:
    """An instance in implicit VR, or in big endian."""
    dataset = read(data)
    dataset.PixelData = bytes(dataset.PixelData)
    array = dataset.pixel_array
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = array.astype(array.dtype.newbyteorder(">")).tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    for _ in dataset.iterall():
        pass  # read, so that nothing is written as it came
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


KINDS["implicit"] = [turned(d, ImplicitVRLittleEndian) for d in exams.study(seed="made-implicit", n_instances=2)]
KINDS["big-endian"] = [turned(d, ExplicitVRBigEndian) for d in exams.study(seed="made-big", n_instances=2)]
SICK = bytearray(exams.study(seed="made-sick", transfer_syntax=JPEG2000Lossless, rows=64, columns=64)[0])
_SIZE = SICK.index(b"\xff\x4f\xff\x51") + 4  # where the codestream tells its own size
SICK[_SIZE : _SIZE + 30] = bytes(30)


@pytest.fixture(scope="module")
def poor() -> Iterator[Holder]:
    data = [*(d for kind in KINDS.values() for d in kind), bytes(SICK)]
    with Holder(data, describe=giving(404, b"", "text/plain"), other=giving(406, b"", "text/plain")) as member:
        yield member


@pytest.fixture(scope="module")
def root(poor: Holder, serve_module) -> str:
    url: str = serve_module({"csrom41200": poor.url}, search={"deadline_s": 20}).dicomweb()
    return url


def path(data: bytes, level: str = "instance") -> str:
    dataset = read(data)
    parts = {
        "study": f"/studies/{dataset.StudyInstanceUID}",
        "series": f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}",
    }
    parts["instance"] = f"{parts['series']}/instances/{dataset.SOPInstanceUID}"
    return parts[level]


def get(url: str, accept: str = "", **params: str) -> requests.Response:
    return requests.get(url, headers={"Accept": accept} if accept else {}, params=params, timeout=40)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("media_type", "form"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF")])
def test_pictures(root: str, kind: str, media_type: str, form: str) -> None:
    data = KINDS[kind][0]
    answer = get(f"{root}{path(data)}/rendered", media_type)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type), answer.text[:300]
    picture = Image.open(io.BytesIO(answer.content))
    dataset = read(data)
    assert (picture.format, picture.size) == (form, (dataset.Columns, dataset.Rows))
    assert len(picture.convert("L").getcolors(1 << 16) or ()) > 1  # no empty picture
    assert "warning" not in answer.headers


def test_pictures_are_as_wished(root: str) -> None:
    url = f"{root}{path(KINDS['plain'][0])}/rendered"
    small = get(url, "image/png", viewport="24,24")
    assert max(Image.open(io.BytesIO(small.content)).size) == 24
    windows = [get(url, "image/png", window=w).content for w in ("40,400,linear", "40,400", "1000,10,linear")]
    assert windows[0] == windows[1] != windows[2]
    part = get(f"{url}", "image/jpeg", viewport="20,20,10,10,20,20", quality="40", annotation="patient")
    assert Image.open(io.BytesIO(part.content)).size == (20, 20)
    for wrong in ({"quality": "0"}, {"window": "a,b"}, {"viewport": "0,1"}):
        refused = get(url, "image/jpeg", **wrong)
        assert refused.status_code == 400
        assert next(iter(wrong)) in refused.json()["error"]


@pytest.mark.parametrize("level", ["study", "series", "instance"])
@pytest.mark.parametrize("form", ["thumbnail", "rendered"])
def test_every_level_has_its_picture(root: str, level: str, form: str) -> None:
    answer = get(f"{root}{path(KINDS['plain'][0], level)}/{form}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    picture = Image.open(io.BytesIO(answer.content))
    assert max(picture.size) == (128 if form == "thumbnail" and max(picture.size) > 48 else 48) or form == "thumbnail"


def test_a_frame_has_its_pictures(root: str) -> None:
    for form in ("thumbnail", "rendered"):
        answer = get(f"{root}{path(KINDS['jpeg2000'][0])}/frames/1/{form}")
        assert answer.headers["content-type"] == "image/jpeg"
    beyond = get(f"{root}{path(KINDS['jpeg2000'][0])}/frames/2/rendered")
    assert beyond.status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_frames_decoded(root: str, kind: str) -> None:
    data = KINDS[kind][0]
    seen = wire.get(root, f"{path(data)}/frames/1", {"Accept": OCTETS})
    assert (seen.status, seen.ended) == (200, True), seen.body[:300]
    (part,) = seen.parts
    assert part.type == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    assert part.location.endswith(f"{path(data)}/frames/1")
    expected = pixel_array(io.BytesIO(data))
    assert (np.frombuffer(part.body, expected.dtype.newbyteorder("<")).reshape(expected.shape) == expected).all()


@pytest.mark.parametrize(
    ("kind", "accept", "media_type", "syntax"),
    [
        ("jpeg2000", f"{OCTETS}; transfer-syntax=*", "application/octet-stream", JPEG2000Lossless),
        ("jpeg2000", 'multipart/related; type="image/jp2"', "image/jp2", JPEG2000Lossless),
        ("rle", f"{OCTETS}; transfer-syntax=*", "application/octet-stream", RLELossless),
        ("plain", f"{OCTETS}; transfer-syntax=*", "application/octet-stream", EXPLICIT),
    ],
)
def test_frames_as_they_are_stored(root: str, kind: str, accept: str, media_type: str, syntax: str) -> None:
    data = KINDS[kind][0]
    seen = wire.get(root, f"{path(data)}/frames/1", {"Accept": accept})
    (part,) = seen.parts
    assert part.type == f"{media_type}; transfer-syntax={syntax}"
    dataset = read(data)
    stored = (
        next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        if syntax != EXPLICIT
        else dataset.PixelData
    )
    assert part.body.rstrip(b"\0") == stored.rstrip(b"\0")


def test_a_form_that_is_not_stored_is_refused(root: str) -> None:
    refused = get(f"{root}{path(KINDS['rle'][0])}/frames/1", 'multipart/related; type="image/jls"')
    assert refused.status_code == 406


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_metadata(root: str, kind: str, level: str) -> None:
    data = KINDS[kind]
    answer = get(f"{root}{path(data[0], level)}/metadata")
    assert answer.status_code == 200, answer.text[:300]
    made = {row["00080018"]["Value"][0]: row for row in answer.json()}
    expected = {str(read(d).SOPInstanceUID): read(d) for d in (data[:1] if level == "instance" else data)}
    assert made.keys() == expected.keys()
    for sop, row in made.items():
        assert row["00280010"]["Value"] == [expected[sop].Rows]
        assert row["00100020"]["Value"] == [f"{expected[sop].PatientID}@csrom41200"]
        assert row["00080082"]["Value"][0]["00080100"]["Value"] == ["401"]
        assert "Value" not in row.get("7FE00010", {})
        assert "InlineBinary" not in row.get("7FE00010", {})


@pytest.mark.parametrize("kind", ["implicit", "big-endian"])
@pytest.mark.parametrize("syntax", ["", "; transfer-syntax=*"])
def test_instances_that_cannot_be_tagged_as_they_are_come_in_another_syntax(root: str, kind: str, syntax: str) -> None:
    data = KINDS[kind]
    seen = wire.get(root, path(data[0], "study"), {"Accept": MULTIPART["Accept"] + syntax})
    assert (seen.status, seen.ended) == (200, True), seen.body[:300]
    got = {str(read(p.body).SOPInstanceUID): read(p.body) for p in seen.parts}
    assert len(got) == len(data)
    for part in seen.parts:
        assert part.type == f"{DICOM}; transfer-syntax={EXPLICIT}"
    for sent in map(read, data):
        dataset = got[str(sent.SOPInstanceUID)]
        assert dataset.PatientID == f"{sent.PatientID}@csrom41200"
        assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
        assert (dataset.pixel_array == sent.pixel_array).all()


def test_a_sick_instance_is_said_to_be_so_and_harms_no_other(root: str) -> None:
    sick = get(f"{root}{path(bytes(SICK))}/rendered")
    assert sick.status_code == 502
    assert "instance" in sick.json()["error"]
    assert get(f"{root}{path(KINDS['jpeg2000'][0])}/rendered").status_code == 200


def test_each_instance_is_fetched_once_for_a_picture(root: str, poor: Holder) -> None:
    poor.peer.requests.clear()
    get(f"{root}{path(KINDS['plain'][0])}/rendered", "image/png")
    fetched = [r.path for r in poor.retrieves()]
    assert fetched.count(path(KINDS["plain"][0])) == 1
