"""Python's dicomweb-client: every method that it has, against the façade over real Orthancs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest
import requests
from clients_world import (
    CT,
    NEW,
    PNG,
    STORED,
    US,
    World,
    check_instances,
    check_metadata,
    check_picture,
    check_rows,
    read,
    world,
)
from dicomweb_client.api import DICOMwebClient
from pydicom.encaps import generate_frames

SERIES = next(iter(CT.series))
SOP = CT.series[SERIES][0]
ONE = (CT.uid, SERIES, SOP)
CINE = (US.uid, next(iter(US.series)), next(iter(US.stored)))
JPEG = (("image/jpeg", "1.2.840.10008.1.2.4.50"),)


@pytest.fixture(scope="module")
def running(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(postgres, tmp_path_factory.mktemp("clients")) as made:
        yield made


@pytest.fixture
def client(running: World) -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False
    return DICOMwebClient(running.root, session=session, headers=running.headers)


def refused(call: Callable[[], object], status: HTTPStatus) -> None:
    with pytest.raises(requests.HTTPError) as error:
        call()
    assert error.value.response.status_code == status


def search_for_studies(client: DICOMwebClient) -> None:
    born = {"PatientBirthDate": US.first.PatientBirthDate}
    rows = client.search_for_studies(search_filters=born, fields=["StudyDescription"], limit=1, offset=0)
    check_rows(rows, "0020000D", [US.uid])
    check_rows(rows, "00100020", [US.patient_id])
    assert client.search_for_studies(search_filters=born, offset=1) == []
    near = client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "ONEILE^ZOE"})
    check_rows(near, "0020000D", [US.uid])


def search_for_series(client: DICOMwebClient) -> None:
    check_rows(client.search_for_series(CT.uid), "0020000E", list(CT.series))
    assert len(client.search_for_series(CT.uid, limit=1, get_remaining=True)) == len(CT.series)
    check_rows(client.search_for_series(search_filters={"StudyInstanceUID": US.uid}), "0020000E", list(US.series))


def search_for_instances(client: DICOMwebClient) -> None:
    check_rows(client.search_for_instances(CT.uid), "00080018", list(CT.stored))
    check_rows(client.search_for_instances(CT.uid, SERIES), "00080018", CT.series[SERIES])
    check_rows(client.search_for_instances(search_filters={"StudyInstanceUID": US.uid}), "00080018", list(US.stored))


def retrieve_study(client: DICOMwebClient) -> None:
    check_instances(client.retrieve_study(CT.uid), CT, list(CT.stored))
    check_instances(client.retrieve_study(US.uid, media_types=STORED), US, list(US.stored))


def iter_study(client: DICOMwebClient) -> None:
    check_instances(list(client.iter_study(CT.uid)), CT, list(CT.stored))


def retrieve_series(client: DICOMwebClient) -> None:
    check_instances(client.retrieve_series(CT.uid, SERIES), CT, CT.series[SERIES])


def iter_series(client: DICOMwebClient) -> None:
    check_instances(list(client.iter_series(CT.uid, SERIES)), CT, CT.series[SERIES])


def retrieve_instance(client: DICOMwebClient) -> None:
    check_instances([client.retrieve_instance(*ONE)], CT, [SOP])
    refused(lambda: client.retrieve_instance(CT.uid, SERIES, f"{SOP}.1"), HTTPStatus.NOT_FOUND)


def retrieve_study_metadata(client: DICOMwebClient) -> None:
    check_metadata(client.retrieve_study_metadata(CT.uid), CT, list(CT.stored))


def retrieve_series_metadata(client: DICOMwebClient) -> None:
    check_metadata(client.retrieve_series_metadata(CT.uid, SERIES), CT, CT.series[SERIES])


def retrieve_instance_metadata(client: DICOMwebClient) -> None:
    check_metadata([client.retrieve_instance_metadata(*ONE)], CT, [SOP])


def retrieve_instance_frames(client: DICOMwebClient) -> None:
    assert client.retrieve_instance_frames(*ONE, [1]) == [CT.stored[SOP].PixelData]
    check_streams(client.retrieve_instance_frames(*CINE, [4, 2], media_types=JPEG), [4, 2])


def iter_instance_frames(client: DICOMwebClient) -> None:
    assert list(client.iter_instance_frames(*ONE, [1])) == [CT.stored[SOP].PixelData]
    check_streams(list(client.iter_instance_frames(*CINE, [1, 6], media_types=JPEG)), [1, 6])


def check_streams(found: list[bytes], numbers: list[int]) -> None:
    stored = list(generate_frames(US.first.PixelData, number_of_frames=6))
    assert [f.rstrip(b"\0") for f in found] == [stored[n - 1].rstrip(b"\0") for n in numbers]


def retrieve_instance_rendered(client: DICOMwebClient) -> None:
    check_picture(client.retrieve_instance_rendered(*ONE, media_types=(PNG,)), CT, "PNG")
    window = {"window": "40,400,linear"}
    check_picture(client.retrieve_instance_rendered(*ONE, media_types=("image/jpeg",), params=window), CT, "JPEG")


def retrieve_instance_frames_rendered(client: DICOMwebClient) -> None:
    check_picture(client.retrieve_instance_frames_rendered(*CINE, [3], media_types=(PNG,)), US, "PNG")


def retrieve_series_rendered(client: DICOMwebClient) -> None:
    check_picture(client.retrieve_series_rendered(CT.uid, SERIES, media_types=(PNG,)), CT, "PNG")


def bulk_data_uri(client: DICOMwebClient) -> str:
    uri: str = client.retrieve_instance_metadata(*ONE)["7FE00010"]["BulkDataURI"]
    return uri


def retrieve_bulkdata(client: DICOMwebClient) -> None:
    assert client.retrieve_bulkdata(bulk_data_uri(client)) == [CT.stored[SOP].PixelData]


def iter_bulkdata(client: DICOMwebClient) -> None:
    assert list(client.iter_bulkdata(bulk_data_uri(client))) == [CT.stored[SOP].PixelData]


def store_instances(client: DICOMwebClient) -> None:
    answer = client.store_instances([read(d) for d in NEW.data], study_instance_uid=NEW.uid)
    assert {str(item.ReferencedSOPInstanceUID) for item in answer.ReferencedSOPSequence} == set(NEW.stored)
    assert "FailedSOPSequence" not in answer
    check_instances(client.retrieve_study(NEW.uid), NEW, list(NEW.stored))


def delete_study(client: DICOMwebClient) -> None:
    refused(lambda: client.delete_study(CT.uid), HTTPStatus.METHOD_NOT_ALLOWED)


def delete_series(client: DICOMwebClient) -> None:
    refused(lambda: client.delete_series(CT.uid, SERIES), HTTPStatus.METHOD_NOT_ALLOWED)


def delete_instance(client: DICOMwebClient) -> None:
    refused(lambda: client.delete_instance(*ONE), HTTPStatus.METHOD_NOT_ALLOWED)


def lookup_keyword(client: DICOMwebClient) -> None:
    rows = client.search_for_series(CT.uid)
    assert {client.lookup_keyword(tag) for tag in rows[0]} >= {"PatientID", "SeriesInstanceUID", "RetrieveURL"}


def lookup_tag(client: DICOMwebClient) -> None:
    check_rows(client.search_for_series(CT.uid), client.lookup_tag("SeriesInstanceUID"), list(CT.series))


def set_chunk_size(client: DICOMwebClient) -> None:
    client.set_chunk_size(1000)  # smaller than an instance, and no divisor of it
    check_instances(client.retrieve_study(CT.uid), CT, list(CT.stored))


def set_http_retry_params(client: DICOMwebClient) -> None:
    """It asks again where it is told that it may be worth it, and what is refused for good is not that."""
    client.set_http_retry_params(retry=True, max_attempts=3, wait_exponential_multiplier=1)
    check_rows(client.search_for_series(CT.uid), "0020000E", list(CT.series))
    refused(lambda: client.retrieve_study(f"{CT.uid}.1"), HTTPStatus.NOT_FOUND)


METHODS: dict[str, Callable[[DICOMwebClient], None]] = {
    check.__name__: check
    for check in (
        search_for_studies,
        search_for_series,
        search_for_instances,
        retrieve_study,
        iter_study,
        retrieve_series,
        iter_series,
        retrieve_instance,
        retrieve_study_metadata,
        retrieve_series_metadata,
        retrieve_instance_metadata,
        retrieve_instance_frames,
        iter_instance_frames,
        retrieve_instance_rendered,
        retrieve_instance_frames_rendered,
        retrieve_series_rendered,
        retrieve_bulkdata,
        iter_bulkdata,
        store_instances,
        delete_study,
        delete_series,
        delete_instance,
        lookup_keyword,
        lookup_tag,
        set_chunk_size,
        set_http_retry_params,
    )
}


def test_no_method_is_left_out() -> None:
    """A version of the client with more of them needs more here."""
    public = {name for name, _ in inspect.getmembers(DICOMwebClient, callable) if not name.startswith("_")}
    assert public == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_method_gives_what_was_stored(method: str, client: DICOMwebClient) -> None:
    METHODS[method](client)


def test_nothing_was_deleted(client: DICOMwebClient, running: World) -> None:
    before = running.home.count()
    for method in ("delete_study", "delete_series", "delete_instance"):
        METHODS[method](client)
    assert running.home.count() == before
