"""Media types as clients really ask for them, over real Orthancs (PS3.18 §8.7, §10.4)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from pydicom.encaps import generate_frames
from retrieve_archives import CT, FOLDERS, MR, US, Exam, archives
from retrieve_member import read
from support.serving import Serving

EXPLICIT, JPEG, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
RELATED_DICOM = 'multipart/related; type="application/dicom"'
RELATED_OCTETS = 'multipart/related; type="application/octet-stream"'
#: Word for word as OHIF (cornerstone) sends it.
OHIF_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
OHIF_INSTANCE = "multipart/related; type=application/dicom; transfer-syntax=*"


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def root(members: dict[str, OrthancServer], serve_module) -> str:
    urls = {emetteur: member.dicomweb_url for emetteur, member in members.items()}
    serving: Serving = serve_module(urls, folders=FOLDERS)
    return serving.dicomweb()


def instance(exam: Exam) -> str:
    dataset = read(exam.data[0])
    return f"/studies/{exam.uid}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def ask(root: str, path: str, accept: str | None) -> wire.Seen:
    return wire.get(root, path, {} if accept is None else {"Accept": accept})


@pytest.mark.parametrize("exam", [CT, US, MR])
@pytest.mark.parametrize(
    "accept", [OHIF_INSTANCE, f"{RELATED_DICOM}; transfer-syntax=*", f'{RELATED_DICOM};transfer-syntax="*"']
)
def test_instances_as_stored(exam: Exam, accept: str, root: str) -> None:
    seen = ask(root, f"/studies/{exam.uid}", accept)
    stored = read(exam.data[0]).file_meta.TransferSyntaxUID
    assert (seen.status, seen.ended) == (200, True)
    assert seen.headers["content-type"].startswith(f"{RELATED_DICOM}; boundary=")
    assert [p.type for p in seen.parts] == [f"application/dicom; transfer-syntax={stored}"] * len(exam.data)


@pytest.mark.parametrize(
    "accept", [None, "*/*", "multipart/related", "*", RELATED_DICOM, f"{RELATED_DICOM}; transfer-syntax={EXPLICIT}"]
)
@pytest.mark.parametrize("exam", [CT, US])
def test_instances_are_explicit_little_endian_by_default(accept: str | None, exam: Exam, root: str) -> None:
    for path in (f"/studies/{exam.uid}", instance(exam)):
        seen = ask(root, path, accept)
        assert (seen.status, seen.ended) == (200, True)
        assert {p.type for p in seen.parts} == {f"application/dicom; transfer-syntax={EXPLICIT}"}
        assert all(read(p.body).file_meta.TransferSyntaxUID == EXPLICIT for p in seen.parts)


def test_instance_as_a_single_part(root: str) -> None:
    for accept, syntax in (("application/dicom", EXPLICIT), ("application/dicom; transfer-syntax=*", JPEG)):
        seen = ask(root, instance(US), accept)
        assert (seen.status, seen.ended) == (200, True)
        assert seen.headers["content-type"] == f"application/dicom; transfer-syntax={syntax}"
        assert seen.headers["content-location"].endswith(instance(US))
        dataset = read(seen.body)
        assert dataset.PatientID == US.patient_id
        assert dataset.file_meta.TransferSyntaxUID == syntax
    # More than one instance has no such form: it comes as parts.
    seen = ask(root, f"/studies/{CT.uid}", "application/dicom")
    assert (seen.status, len(seen.parts)) == (200, len(CT.data))


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom+xml",
        'multipart/related; type="application/dicom+xml"',
        "text/html",
        f"{RELATED_DICOM}; transfer-syntax=1.2.840.10008.1.2",
        f"{RELATED_DICOM}; transfer-syntax=1.2.840.10008.1.2.2",
        f"{RELATED_DICOM};q=0, image/png",
    ],
)
def test_what_no_one_can_give_is_not_acceptable(accept: str, root: str) -> None:
    seen = ask(root, f"/studies/{CT.uid}", accept)
    assert (seen.status, seen.ended) == (406, True)
    assert wire.json_of(seen)["error"]


def test_form_that_the_member_fails_to_make_is_not_acceptable(root: str) -> None:
    """Orthanc answers 500 for what it can't transcode, but gives it as it is stored: so it is well."""
    seen = ask(root, f"/studies/{CT.uid}", f"{RELATED_DICOM}; transfer-syntax={J2K}")
    assert (seen.status, seen.ended) == (406, True)
    assert "warning" not in seen.headers
    seen = ask(root, f"/studies/{CT.uid}", f"{RELATED_DICOM}; transfer-syntax={J2K}, {RELATED_DICOM};q=0.5")
    assert (seen.status, len(seen.parts)) == (200, len(CT.data))
    assert "warning" not in seen.headers


@pytest.mark.parametrize("below", ["/metadata", "/series", "/instances"])
def test_json_is_what_there_is_of_metadata_and_rows(below: str, root: str) -> None:
    for accept in (None, "*/*", "application/dicom+json", "application/*", "text/html, */*;q=0.1"):
        seen = ask(root, f"/studies/{CT.uid}{below}", accept)
        assert (seen.status, seen.headers["content-type"]) == (200, "application/dicom+json")
    seen = ask(root, f"/studies/{CT.uid}{below}", "application/json")
    assert (seen.status, seen.headers["content-type"]) == (200, "application/json")
    for accept in ("application/dicom+xml", "image/png", "application/dicom+json; charset=iso-8859-1"):
        assert ask(root, f"/studies/{CT.uid}{below}", accept).status == 406


def test_accept_parameter_stands_above_the_header(root: str) -> None:
    wanted = quote(OHIF_INSTANCE, safe="")
    seen = ask(root, f"{instance(US)}?accept={wanted}", "application/dicom+xml")
    assert (seen.status, seen.parts[0].type) == (200, f"application/dicom; transfer-syntax={JPEG}")
    # What the parameter names can't be had: the header's word (PS3.18 §8.7.8.1).
    assert ask(root, f"{instance(US)}?accept=application/dicom%2Bxml", RELATED_DICOM).status == 200
    assert ask(root, f"{instance(US)}?accept=application/dicom%2Bxml", None).status == 406
    assert ask(root, f"{instance(US)}?accept={wanted}&accept=image/png", RELATED_DICOM).status == 400
    picture = ask(root, f"{instance(US)}/rendered?accept=image/png", "image/jpeg")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")


def test_quality_ranks(root: str) -> None:
    both = f"{RELATED_DICOM};transfer-syntax={EXPLICIT};q=0.2, {RELATED_DICOM};transfer-syntax={JPEG};q=0.9"
    assert ask(root, instance(US), both).parts[0].type.endswith(JPEG)
    swapped = both.replace("q=0.2", "q=1.0")
    assert ask(root, instance(US), swapped).parts[0].type.endswith(EXPLICIT)


@pytest.mark.parametrize("accept", ["nonsense", "image/png; q=high", f"{RELATED_DICOM}; transfer-syntax=JPEG"])
def test_unreadable_accept_is_a_bad_request(accept: str, root: str) -> None:
    for path in (f"/studies/{CT.uid}", f"/studies/{CT.uid}/metadata", f"{instance(CT)}/frames/1"):
        assert ask(root, path, accept).status == 400


# Frames -----------------------------------------------------------------------------------------------------------


def test_frames_as_ohif_asks_for_them(root: str) -> None:
    native = ask(root, f"{instance(CT)}/frames/1", OHIF_FRAMES)
    (part,) = native.parts
    assert part.body == read(CT.data[0]).PixelData
    assert part.type == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    compressed = ask(root, f"{instance(US)}/frames/2,5", OHIF_FRAMES)
    streams = list(generate_frames(read(US.data[0]).PixelData, number_of_frames=6))
    assert [p.type for p in compressed.parts] == [f"image/jpeg; transfer-syntax={JPEG}"] * 2
    assert [p.body.rstrip(b"\0") for p in compressed.parts] == [streams[n].rstrip(b"\0") for n in (1, 4)]
    assert [p.location.rpartition("/")[2] for p in compressed.parts] == ["2", "5"]
    stored = ask(root, f"{instance(MR)}/frames/1", OHIF_FRAMES)
    assert [p.type for p in stored.parts] == [f"image/jp2; transfer-syntax={J2K}"]


@pytest.mark.parametrize("accept", [None, "*/*", RELATED_OCTETS, "multipart/related"])
def test_frames_are_uncompressed_by_default(accept: str | None, root: str) -> None:
    seen = ask(root, f"{instance(US)}/frames/1", accept)
    (part,) = seen.parts
    assert len(part.body) == 64 * 64
    assert part.type == f"application/octet-stream; transfer-syntax={EXPLICIT}"


def test_single_frame_as_a_single_part(root: str) -> None:
    seen = ask(root, f"{instance(CT)}/frames/1", "application/octet-stream")
    assert (seen.status, seen.ended) == (200, True)
    assert seen.headers["content-type"].startswith("application/octet-stream")
    assert seen.body == read(CT.data[0]).PixelData


@pytest.mark.parametrize("frames", ["0", "1,", "a", "-1", "1,1", "1-3", "1;2", "", "1,2," + "3" * 30])
def test_bad_frame_list(frames: str, root: str) -> None:
    assert ask(root, f"{instance(US)}/frames/{frames}", OHIF_FRAMES).status in ({400} if frames else {400, 404})


def test_frame_that_is_not_there(root: str) -> None:
    seen = ask(root, f"{instance(US)}/frames/7", OHIF_FRAMES)
    assert seen.ended
    assert 400 <= seen.status < 600
    assert seen.status in (400, 404, 406, 502)


# Rendered ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [(None, "image/jpeg"), ("*/*", "image/jpeg"), ("image/*", "image/jpeg"), ("image/png", "image/png")],
)
def test_rendered_is_jpeg_by_default(accept: str | None, kind: str, root: str) -> None:
    seen = ask(root, f"{instance(CT)}/rendered", accept)
    assert (seen.status, seen.headers["content-type"]) == (200, kind)
    assert seen.headers["content-location"].endswith(instance(CT))


BAD_PARAMETERS = [
    *("window=1", "window=1,2,curved", "window=a,b", "window=", "viewport=0,10", "viewport=abc", "viewport=10"),
    *("quality=0", "quality=101", "quality=best", "annotation=name"),
]


@pytest.mark.parametrize("query", BAD_PARAMETERS)
def test_bad_rendering_parameters(query: str, root: str) -> None:
    for path in (f"{instance(CT)}/rendered", f"{instance(CT)}/frames/1/rendered"):
        answer = requests.get(f"{root}{path}?{query}", timeout=10)
        assert answer.status_code == 400
        assert query.partition("=")[0] in answer.json()["error"]


def test_good_rendering_parameters(root: str) -> None:
    for query in ("window=40,400,linear", "quality=50", "viewport=32,32", "window=100,200,sigmoid&quality=90"):
        answer = requests.get(f"{root}{instance(CT)}/rendered?{query}", timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg"), answer.text


def test_dicom_and_rendered_types_are_not_to_be_mixed(root: str) -> None:
    for path in (f"{instance(CT)}/rendered", f"{instance(CT)}/frames/1/rendered", f"/studies/{CT.uid}/thumbnail"):
        assert ask(root, path, "image/png, application/dicom").status == 400


# What is not there ------------------------------------------------------------------------------------------------


def test_unknown_resources(root: str) -> None:
    series = instance(CT).partition("/instances")[0]
    for path in ("/studies/1.2.3", f"/studies/{CT.uid}/series/1.2.3", f"{series}/instances/1.2.3"):
        for below in ("", "/metadata", "/rendered"):
            seen = ask(root, path + below, None)
            assert (seen.status, seen.ended) == (404, True), path + below
            assert wire.json_of(seen)["error"]
    assert ask(root, f"{series}/instances/1.2.3/frames/1", None).status == 404
    assert ask(root, "/studies/not-a-uid", None).status == 400
    assert ask(root, "/nothing", None).status == 404
    other = root.replace("/dicom-web", "/sites/nobody/dicom-web")
    assert ask(other, f"/studies/{CT.uid}", None).status == 404
    assert ask(root.replace("/dicom-web", "/folders/none/dicom-web"), "/studies", None).status == 404


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "POST"])
def test_nothing_can_be_changed(method: str, root: str) -> None:
    for path in (f"/studies/{CT.uid}", instance(CT), f"/studies/{CT.uid}/metadata", f"{instance(CT)}/frames/1"):
        if (method, path) == ("POST", f"/studies/{CT.uid}"):
            continue  # there, instances are stored: nothing that is held changes
        answer = requests.request(method, root + path, timeout=10)
        assert answer.status_code == 405
        assert "GET" in answer.headers["Allow"]


# Multipart --------------------------------------------------------------------------------------------------------


def test_each_answer_has_a_boundary_of_its_own(root: str) -> None:
    boundaries = {ask(root, f"/studies/{CT.uid}", RELATED_DICOM).boundary for _ in range(5)}
    assert len(boundaries) == 5
    assert all(len(b) >= 32 for b in boundaries)


def test_each_part_names_its_type_and_a_place_of_ours(root: str) -> None:
    base = root.removesuffix("/dicom-web")
    for exam in (CT, US, MR):
        seen = ask(root, f"/studies/{exam.uid}", OHIF_INSTANCE)
        for part in seen.parts:
            sop = read(part.body).SOPInstanceUID
            assert part.location.startswith(f"{base}/sites/{exam.emetteur}/dicom-web/studies/{exam.uid}")
            assert part.location.endswith(f"/instances/{sop}")
            assert "transfer-syntax=" in part.type
            assert wire.get(part.location, "", {"Accept": OHIF_INSTANCE}).parts[0].body == part.body


def test_no_answer_names_a_member(members: dict[str, OrthancServer], root: str) -> None:
    """Neither its address, port, path nor name, errors included."""
    secrets = [b"zq-member", b"ZQ-member", b"127.0.0.2", b"Orthanc", b"orthanc"]
    secrets += [f":{member.port}".encode() for member in members.values()]
    series = instance(CT).partition("/instances")[0]
    for exam in (CT, US, MR):
        one = instance(exam)
        for path in (
            f"/studies/{exam.uid}",
            f"/studies/{exam.uid}/metadata",
            f"/studies/{exam.uid}/series",
            one,
            f"{one}/frames/1",
            f"{one}/frames/99",
            f"{one}/rendered",
            f"{one}/thumbnail",
            f"{one}/rendered?viewport=99999,99999",
            f"{series}/instances/1.2.3",
        ):
            for accept in (None, OHIF_FRAMES):
                seen = ask(root, path, accept)
                headers = repr(seen.headers).encode()
                texts = [headers, *(repr(p.headers).encode() for p in seen.parts)] if seen.closed else [headers]
                if "json" in seen.headers.get("content-type", ""):
                    texts.append(seen.body)
                for text in texts:
                    assert not [s for s in secrets if s in text], (path, accept, text[:400])
