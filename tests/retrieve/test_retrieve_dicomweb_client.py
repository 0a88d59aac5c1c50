"""dicomweb-client against the façade over real Orthancs, as its documentation has it, in every scope."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from imagora_demo.orthanc import OrthancServer
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import generate_frames
from retrieve_archives import CT, EXAMS, FOLDERS, MR, US, Exam, archives
from retrieve_member import read
from support.serving import Serving

STORED = (("application/dicom", "*"),)
CASES = [pytest.param(exam, scope, id=f"{name}{scope}") for name, exam in EXAMS.items() for scope in exam.scopes]


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def server(members: dict[str, OrthancServer], serve_module) -> Serving:
    urls = {emetteur: member.dicomweb_url for emetteur, member in members.items()}
    serving: Serving = serve_module(urls, folders=FOLDERS)
    return serving


def client(server: Serving, scope: str) -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False
    return DICOMwebClient(server.dicomweb(scope), session=session)


def by_sop(data: list[bytes]) -> dict[str, Dataset]:
    return {str(d.SOPInstanceUID): d for d in map(read, data)}


def check_instances(found: list[Dataset], exam: Exam) -> None:
    """The same instances with the same pixels, under the qualified PatientID."""
    stored = by_sop(exam.data)
    assert sorted(str(d.SOPInstanceUID) for d in found) == sorted(stored)
    for dataset in found:
        original = stored[str(dataset.SOPInstanceUID)]
        assert dataset.PatientID == exam.patient_id
        assert dataset.PatientName == original.PatientName
        assert dataset.PixelData == original.PixelData
        assert dataset.InstitutionCodeSequence[0].CodingSchemeDesignator == "99IMAGORA"


@pytest.mark.parametrize(("exam", "scope"), CASES)
def test_study_series_and_instance(exam: Exam, scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    found = dicomweb.search_for_studies(search_filters={"StudyInstanceUID": exam.uid})
    assert [row["00100020"]["Value"] for row in found] == [[exam.patient_id]]
    check_instances(dicomweb.retrieve_study(exam.uid, media_types=STORED), exam)
    series = [row["0020000E"]["Value"][0] for row in dicomweb.search_for_series(exam.uid)]
    every = [d for uid in series for d in dicomweb.retrieve_series(exam.uid, uid, media_types=STORED)]
    check_instances(every, exam)
    each = []
    for uid in series:
        for row in dicomweb.search_for_instances(exam.uid, uid):
            sop = row["00080018"]["Value"][0]
            each.append(dicomweb.retrieve_instance(exam.uid, uid, sop, media_types=STORED))
    check_instances(each, exam)
    assert len(list(dicomweb.iter_study(exam.uid, media_types=STORED))) == len(exam.data)


@pytest.mark.parametrize("scope", CT.scopes)
def test_default_transfer_syntax_is_explicit_little_endian(scope: str, server: Serving) -> None:
    for dataset in client(server, scope).retrieve_study(CT.uid):
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(("exam", "scope"), CASES)
def test_metadata(exam: Exam, scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    stored = by_sop(exam.data)
    whole = dicomweb.retrieve_study_metadata(exam.uid)
    by_series = [m for uid in series_of(exam) for m in dicomweb.retrieve_series_metadata(exam.uid, uid)]
    by_instance = [
        dicomweb.retrieve_instance_metadata(exam.uid, str(d.SeriesInstanceUID), sop) for sop, d in stored.items()
    ]
    for found in (whole, by_series, by_instance):
        assert sorted(m["00080018"]["Value"][0] for m in found) == sorted(stored)
        for metadata in found:
            dataset = Dataset.from_json(metadata, bulk_data_uri_handler=lambda _: b"")
            original = stored[str(dataset.SOPInstanceUID)]
            assert dataset.PatientID == exam.patient_id
            assert str(dataset.PatientName) == str(original.PatientName)
            assert metadata["00080054"]["Value"] == [exam.emetteur]
            assert metadata["00081190"]["Value"][0].startswith(server.dicomweb(f"/sites/{exam.emetteur}"))


@pytest.mark.parametrize("scope", CT.scopes)
def test_bulk_data_by_the_uri_that_metadata_give(scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    stored = by_sop(CT.data)
    for metadata in dicomweb.retrieve_study_metadata(CT.uid):
        uri = metadata["7FE00010"]["BulkDataURI"]
        assert uri.startswith(server.dicomweb(scope))
        assert dicomweb.retrieve_bulkdata(uri) == [stored[metadata["00080018"]["Value"][0]].PixelData]


def series_of(exam: Exam) -> list[str]:
    return list(dict.fromkeys(str(d.SeriesInstanceUID) for d in by_sop(exam.data).values()))


@pytest.mark.parametrize("scope", CT.scopes)
def test_native_frames(scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    for sop, dataset in by_sop(CT.data).items():
        frames = dicomweb.retrieve_instance_frames(CT.uid, str(dataset.SeriesInstanceUID), sop, [1])
        assert frames == [dataset.PixelData]


@pytest.mark.parametrize("scope", US.scopes)
def test_compressed_frames_in_the_order_asked(scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    ((sop, dataset),) = by_sop(US.data).items()
    streams = list(generate_frames(dataset.PixelData, number_of_frames=6))
    for numbers in ([1, 2, 3, 4, 5, 6], [5], [4, 2]):
        frames = dicomweb.retrieve_instance_frames(
            US.uid,
            str(dataset.SeriesInstanceUID),
            sop,
            numbers,
            media_types=(("image/jpeg", "1.2.840.10008.1.2.4.50"),),
        )
        assert [f.rstrip(b"\0") for f in frames] == [streams[n - 1].rstrip(b"\0") for n in numbers]


# Orthanc without further plugins decodes no JPEG 2000.
@pytest.mark.parametrize(("exam", "scope"), [c for c in CASES if c.values[0] is not MR])
def test_rendered(exam: Exam, scope: str, server: Serving) -> None:
    dicomweb = client(server, scope)
    sop, dataset = next(iter(by_sop(exam.data).items()))
    series = str(dataset.SeriesInstanceUID)
    pictures: list[Any] = [
        dicomweb.retrieve_instance_rendered(exam.uid, series, sop, media_types=("image/png",)),
        dicomweb.retrieve_instance_rendered(exam.uid, series, sop, media_types=("image/jpeg",)),
        dicomweb.retrieve_instance_frames_rendered(exam.uid, series, sop, [1], media_types=("image/png",)),
    ]
    for picture, kind in zip(pictures, ("PNG", "JPEG", "PNG"), strict=True):
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == (kind, (dataset.Columns, dataset.Rows))


def test_other_scopes_do_not_hold_it(server: Serving) -> None:
    for scope in ("/folders/mirc-centres-imagerie", "/sites/cpsax18000", "/sites/CIMTOURS"):
        with pytest.raises(requests.HTTPError) as refused:
            client(server, scope).retrieve_study(CT.uid)
        assert refused.value.response.status_code == 404
    check_instances(client(server, "/sites/CSROM41200").retrieve_study(CT.uid), CT)
    assert len(client(server, "/sites/cimtours").retrieve_study_metadata(MR.uid)) == 2
