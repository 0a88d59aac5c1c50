"""Pictures show what the instance says, whoever holds it: its window, and nothing of what is damaged. A member's own
picture is passed on only where none can be made here, and then the answer says so."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from imagora_demo import exams
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.pixels import apply_voi_lut
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from retrieve_member import Holder, delivering, giving, read
from support.elements import PATIENT_ID, element

SITE = "csrom41200"
EXPLICIT = "1.2.840.10008.1.2.1"
OWN = b"the member's own picture"
SIZE = {"rows": 48, "columns": 40}
WINDOW = {"WindowCenter": "300", "WindowWidth": "120", "RescaleIntercept": "0", "RescaleSlope": "1"}
SYNTAXES = {"native": EXPLICIT, "rle": RLELossless, "jpeg2000": JPEG2000Lossless, "jpeg": JPEGBaseline8Bit}


def written(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def shortened(syntax: str) -> bytes:
    """The second half of its pixels is lost; all else is as it should be."""
    dataset = read(exams.study(seed=f"short-{syntax}", transfer_syntax=syntax, bits=8, **SIZE)[0])
    pixels = bytes(dataset.PixelData)
    if syntax == EXPLICIT:
        dataset.PixelData = pixels[: len(pixels) // 4 * 2]
    else:
        fragment = b"".join(generate_fragments(pixels[8:] if pixels[4:8] == bytes(4) else pixels))
        dataset.PixelData = encapsulate([fragment[: len(fragment) // 4 * 2]])
        dataset["PixelData"].is_undefined_length = True
    return written(dataset)


WINDOWED = exams.study(seed="windowed", extra=WINDOW, **SIZE)[0]
SHORTENED = {name: shortened(syntax) for name, syntax in SYNTAXES.items()}
#: Nobody decodes it here.
UNKNOWN = read(exams.study(seed="unknown-syntax", transfer_syntax=JPEG2000Lossless, **SIZE)[0])
UNKNOWN.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
#: It names a second patient behind its pixels.
TWOFOLD = exams.study(seed="twofold", **SIZE)[0] + element(PATIENT_ID, "LO", b"4548")
HELD = {"windowed": WINDOWED, **SHORTENED, "unknown": written(UNKNOWN), "twofold": TWOFOLD}


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder(HELD.values(), other=giving(200, OWN, "image/jpeg")) as member:
        yield member


@pytest.fixture(scope="module")
def root(holder: Holder, serve_module) -> str:
    return str(serve_module({SITE: holder.url}, search={"deadline_s": 20}).dicomweb())


@pytest.fixture(autouse=True)
def right_again(holder: Holder) -> Iterator[None]:
    holder.peer.requests.clear()
    yield
    holder.deliver, holder.other = delivering(), giving(200, OWN, "image/jpeg")


def asked_for_pictures(holder: Holder) -> bool:
    return any(r.path.endswith(("/rendered", "/thumbnail")) for r in holder.retrieves())


def url(root: str, name: str, form: str = "/rendered", level: str = "instance") -> str:
    dataset = read(HELD[name])
    path = f"/studies/{dataset.StudyInstanceUID}"
    if level != "study":
        path += f"/series/{dataset.SeriesInstanceUID}"
    if level == "instance":
        path += f"/instances/{dataset.SOPInstanceUID}"
    return root + path + form


def get(url: str, accept: str = "image/jpeg") -> requests.Response:
    return requests.get(url, headers={"Accept": accept}, timeout=40)


def own(answer: requests.Response) -> bool:
    """It is the member's own picture, and says so."""
    said = f"The picture is of {SITE}'s own making" in answer.headers.get("Warning", "")
    assert said is (answer.content == OWN)
    return said


@pytest.mark.parametrize(
    ("level", "form"),
    [("instance", "/rendered"), ("instance", "/frames/1/rendered"), ("series", "/rendered"), ("study", "/rendered")],
)
def test_the_window_is_the_instances_own(level: str, form: str, root: str, holder: Holder) -> None:
    dataset = read(WINDOWED)
    low, high = 300 - 60, 300 + 60
    voi = apply_voi_lut(dataset.pixel_array, dataset)
    expected = (voi - voi.min()) / (voi.max() - voi.min()) * 255
    assert (dataset.pixel_array < low).sum() > 100
    assert (dataset.pixel_array > high).sum() > 100
    for accept, most in (("image/png", 1.0), ("image/jpeg", 6.0)):
        answer = get(url(root, "windowed", form, level), accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, accept)
        assert not own(answer)
        shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L")).astype(float)
        assert np.abs(shown - expected).mean() < most
    assert not asked_for_pictures(holder)


@pytest.mark.parametrize("form", ["/rendered", "/thumbnail", "/frames/1/rendered", "/frames/1/thumbnail"])
@pytest.mark.parametrize("name", SHORTENED)
def test_a_damaged_image_is_not_shown_in_part(name: str, form: str, root: str, holder: Holder) -> None:
    for accept in ("image/jpeg", "image/png", "image/gif"):
        answer = get(url(root, name, form), accept)
        assert answer.status_code == 502, answer.content[:100]
        assert not own(answer)
    assert not asked_for_pictures(holder)


def test_what_names_two_patients_has_no_picture(root: str, holder: Holder) -> None:
    answer = get(url(root, "twofold"))
    assert answer.status_code == 502
    assert not own(answer)
    assert not asked_for_pictures(holder)


def test_pixels_that_can_not_be_decoded_here_are_shown_as_the_member_does(root: str) -> None:
    for form in ("/rendered", "/thumbnail"):
        answer = get(url(root, "unknown", form))
        assert answer.status_code == 200
        assert own(answer)


@pytest.mark.parametrize("refusal", [404, 403, 406, 500])
def test_a_member_that_gives_pictures_only_is_used(refusal: int, root: str, holder: Holder) -> None:
    holder.deliver = giving(refusal, b"", "text/plain")
    answer = get(url(root, "windowed"))
    assert answer.status_code == 200
    assert own(answer)
    assert answer.headers["Imagora-Sources"].startswith(f"{SITE};ok")


@pytest.mark.parametrize("gives", ["no instance", "what can't be decoded"])
def test_no_picture_is_taken_from_who_sent_what_is_wrong(gives: str, holder: Holder, serve) -> None:
    """Nothing can be made of what another holder has, and it makes none itself."""
    dataset = read(HELD["unknown"])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        dataset[keyword].value = read(HELD["twofold"])[keyword].value
    with Holder([written(dataset)], other=giving(406, b"", "text/plain")) as other:
        if gives == "no instance":
            other.deliver = giving(406, b"", "text/plain")
        members = serve({SITE: holder.url, "cschb41000": other.url}, search={"deadline_s": 20})
        answer = get(url(str(members.dicomweb()), "twofold"))
    assert answer.status_code == (502 if gives == "no instance" else 406)
    assert answer.content != OWN
    assert not asked_for_pictures(holder)
    assert asked_for_pictures(other)


def test_a_film_is_the_members(root: str, holder: Holder) -> None:
    holder.other = giving(200, OWN, "video/mp4")
    answer = get(url(root, "windowed"), "video/mp4")
    assert [r.path.rpartition("/")[2] for r in holder.retrieves()] == ["rendered"]  # no instance for nothing
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert own(answer)


def test_what_nobody_can_make_is_refused(root: str, holder: Holder) -> None:
    holder.other = giving(406, b"", "text/plain")
    assert get(url(root, "unknown")).status_code == 406
    assert get(url(root, "windowed"), "video/mp4").status_code == 406
