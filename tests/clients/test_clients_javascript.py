"""npm's dicomweb-client, which OHIF is built on: every method that it has, against the façade over real Orthancs."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from clients_node import node
from clients_world import (
    CT,
    NEW,
    PNG,
    US,
    World,
    check_instances,
    check_metadata,
    check_picture,
    check_rows,
    read,
    world,
)
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian

#: Whatever a server makes by itself, it fits into this many pixels each way.
THUMBNAIL = 256
SCRIPT = Path(__file__).with_name("dicomweb_client.cjs")
PACKAGES = Path(__file__).parents[2] / "node_modules"
SERIES = next(iter(CT.series))
SOP = CT.series[SERIES][0]
STUDY = {"studyInstanceUID": CT.uid}
OF_SERIES = {**STUDY, "seriesInstanceUID": SERIES}
ONE = {**OF_SERIES, "sopInstanceUID": SOP}
CINE = {
    "studyInstanceUID": US.uid,
    "seriesInstanceUID": next(iter(US.series)),
    "sopInstanceUID": next(iter(US.stored)),
}
JPEG = [{"mediaType": "image/jpeg", "transferSyntaxUID": "1.2.840.10008.1.2.4.50"}]
EITHER = [{"mediaType": "application/octet-stream", "transferSyntaxUID": "*"}, *JPEG]
AS_PNG = [{"mediaType": PNG}]


class Client:
    """`client.method(**options)` → what the client's promise gave; what is no success raises `Refused`."""

    def __init__(self, running: World) -> None:
        self.running = running

    def run(self, calls: list[dict[str, Any]]) -> Any:
        asked = {"url": self.running.root, "headers": self.running.headers, "calls": calls}
        done = subprocess.run(
            [node(), str(SCRIPT)], input=json.dumps(asked).encode(), capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return json.loads(done.stdout, object_hook=_bytes)

    def call(self, method: str, options: dict[str, Any], singlepart: str | bool = False) -> Any:
        answer = self.run([{"method": method, "options": options, "singlepart": singlepart}])["answers"][0]
        if "status" in answer:
            raise Refused(answer["status"])
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda **options: self.call(method, options)


class Refused(Exception):
    """The server's status."""


def _bytes(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["$bytes"]) if "$bytes" in found else found


def buffers(data: list[bytes]) -> list[dict[str, str]]:
    return [{"$bytes": base64.b64encode(d).decode()} for d in data]


@pytest.fixture(scope="module")
def client(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    missing = [name for name in ("dicomweb-client", "xhr2") if not (PACKAGES / name / "package.json").is_file()]
    assert not missing, f"not in node_modules: {', '.join(missing)}. Run scripts/setup --tests"
    with world(postgres, tmp_path_factory.mktemp("clients")) as made:
        yield Client(made)


def search_for_studies(client: Client) -> None:
    born = {"PatientBirthDate": US.first.PatientBirthDate, "includefield": "00081030,00080060", "limit": 5}
    found = client.searchForStudies(queryParams=born)
    check_rows(found, "0020000D", [US.uid])
    check_rows(found, "00100020", [US.patient_id])
    near = {"PatientName": "ONEILE^ZOE", "fuzzymatching": True}
    check_rows(client.searchForStudies(queryParams=near), "0020000D", [US.uid])
    assert client.searchForStudies(queryParams={"PatientName": "PERSONNE^NUL"}) == []


def search_for_series(client: Client) -> None:
    check_rows(client.searchForSeries(**STUDY), "0020000E", list(CT.series))
    across = {"queryParams": {"StudyInstanceUID": US.uid}}
    check_rows(client.searchForSeries(**across), "0020000E", list(US.series))


def search_for_instances(client: Client) -> None:
    check_rows(client.searchForInstances(**STUDY), "00080018", list(CT.stored))
    check_rows(client.searchForInstances(**OF_SERIES), "00080018", CT.series[SERIES])
    across = {"queryParams": {"StudyInstanceUID": US.uid}}
    check_rows(client.searchForInstances(**across), "00080018", list(US.stored))


def retrieve_study(client: Client) -> None:
    check_instances([*map(read, client.retrieveStudy(**STUDY))], CT, list(CT.stored))
    # It can't name a transfer syntax: what is asked for without one comes in Explicit VR Little Endian.
    (cine,) = map(read, client.retrieveStudy(studyInstanceUID=US.uid))
    assert cine.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (cine.PatientID, cine.SOPInstanceUID) == (US.patient_id, US.first.SOPInstanceUID)
    # Decoders of JPEG may differ by a level or two.
    assert np.abs(cine.pixel_array.astype(int) - US.first.pixel_array).max() <= 2


def retrieve_series(client: Client) -> None:
    check_instances([*map(read, client.retrieveSeries(**OF_SERIES))], CT, CT.series[SERIES])


def retrieve_instance(client: Client) -> None:
    check_instances([read(client.retrieveInstance(**ONE))], CT, [SOP])
    with pytest.raises(Refused, match="404"):
        client.retrieveInstance(**{**ONE, "sopInstanceUID": f"{SOP}.1"})


def retrieve_study_metadata(client: Client) -> None:
    check_metadata(client.retrieveStudyMetadata(**STUDY), CT, list(CT.stored))


def retrieve_series_metadata(client: Client) -> None:
    check_metadata(client.retrieveSeriesMetadata(**OF_SERIES), CT, CT.series[SERIES])


def retrieve_instance_metadata(client: Client) -> None:
    check_metadata(client.retrieveInstanceMetadata(**ONE), CT, [SOP])


def retrieve_instance_frames(client: Client) -> None:
    assert client.retrieveInstanceFrames(**ONE, frameNumbers=[1]) == [CT.stored[SOP].PixelData]
    stored = list(generate_frames(US.first.PixelData, number_of_frames=6))
    for media_types in (JPEG, EITHER):
        frames = client.retrieveInstanceFrames(**CINE, frameNumbers=[4, 2], mediaTypes=media_types)
        assert [f.rstrip(b"\0") for f in frames] == [stored[n - 1].rstrip(b"\0") for n in (4, 2)]


def retrieve_instance_rendered(client: Client) -> None:
    check_picture(*client.retrieveInstanceRendered(**ONE), CT, "JPEG")
    window = {"window": "40,400,linear"}
    check_picture(*client.retrieveInstanceRendered(**ONE, mediaTypes=AS_PNG, queryParams=window), CT, "PNG")


def retrieve_instance_thumbnail(client: Client) -> None:
    check_picture(*client.retrieveInstanceThumbnail(**ONE), CT, "JPEG", within=THUMBNAIL)
    small = client.retrieveInstanceThumbnail(**ONE, mediaTypes=AS_PNG, queryParams={"viewport": "16,16"})
    check_picture(*small, CT, "PNG", within=16)


def retrieve_instance_frames_rendered(client: Client) -> None:
    check_picture(*client.retrieveInstanceFramesRendered(**CINE, frameNumbers=[3], mediaTypes=AS_PNG), US, "PNG")


def retrieve_instance_frames_thumbnail(client: Client) -> None:
    check_picture(*client.retrieveInstanceFramesThumbnail(**CINE, frameNumbers=[3]), US, "JPEG", within=THUMBNAIL)


def retrieve_bulk_data(client: Client) -> None:
    uri = client.retrieveInstanceMetadata(**ONE)[0]["7FE00010"]["BulkDataURI"]
    assert client.retrieveBulkData(BulkDataURI=uri) == [CT.stored[SOP].PixelData]
    # As OHIF asks for it.
    assert client.call("retrieveBulkData", {"BulkDataURI": uri}, "bulkdata,video") == [CT.stored[SOP].PixelData]


def build_instance_wado_uri_url(client: Client) -> None:
    """The address that it builds has WADO-URI at the service's root, where PS3.18 §9 leaves the path open."""
    address = client.buildInstanceWadoURIUrl(**ONE).replace(client.running.root, f"{client.running.server.url}/wado")
    answer = requests.get(address, headers=client.running.headers, timeout=20)
    check_instances([read(answer.content)], CT, [SOP])


def store_instances(client: Client) -> None:
    answer = json.loads(client.storeInstances(datasets=buffers(list(NEW.data)), studyInstanceUID=NEW.uid))
    assert {item["00081155"]["Value"][0] for item in answer["00081199"]["Value"]} == set(NEW.stored)
    assert "00081198" not in answer
    check_instances([*map(read, client.retrieveStudy(studyInstanceUID=NEW.uid))], NEW, list(NEW.stored))


METHODS: dict[str, Callable[[Client], None]] = {
    "searchForStudies": search_for_studies,
    "searchForSeries": search_for_series,
    "searchForInstances": search_for_instances,
    "retrieveStudy": retrieve_study,
    "retrieveSeries": retrieve_series,
    "retrieveInstance": retrieve_instance,
    "retrieveStudyMetadata": retrieve_study_metadata,
    "retrieveSeriesMetadata": retrieve_series_metadata,
    "retrieveInstanceMetadata": retrieve_instance_metadata,
    "retrieveInstanceFrames": retrieve_instance_frames,
    "retrieveInstanceRendered": retrieve_instance_rendered,
    "retrieveInstanceThumbnail": retrieve_instance_thumbnail,
    "retrieveInstanceFramesRendered": retrieve_instance_frames_rendered,
    "retrieveInstanceFramesThumbnail": retrieve_instance_frames_thumbnail,
    "retrieveBulkData": retrieve_bulk_data,
    "buildInstanceWadoURIUrl": build_instance_wado_uri_url,
    "storeInstances": store_instances,
}
#: What says nothing to a server.
OWN = {"setDebug", "getDebug", "setVerbose", "getVerbose"}


def test_lock_names_no_registry() -> None:
    """Whatever registry npm is set up for brings the packages, and their checksums tell that they are the ones."""
    lock = (PACKAGES.parent / "package-lock.json").read_text()
    assert "://" not in lock
    packages = {name: entry for name, entry in json.loads(lock)["packages"].items() if name}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())


def test_no_method_is_left_out(client: Client) -> None:
    """A version of the client with more of them needs more here."""
    assert set(client.run([])["methods"]) == {*METHODS, *OWN}


@pytest.mark.parametrize("method", METHODS)
def test_method_gives_what_was_stored(method: str, client: Client) -> None:
    METHODS[method](client)
