"""A server over three real Orthancs, and a professional who works at the site of one of them: what clients of others'
making are let loose on."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pydicom
import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit
from support.consenting import People
from support.serving import Serving, serving, settings_for

HOME, OTHER, THIRD = "csrom41200", "cpsax18000", "cimtours"
DOCTOR = "10001234567"
#: The client's own choice of pictures and of instances as they are stored.
PNG, STORED = "image/png", (("application/dicom", "*"),)


@dataclass(frozen=True)
class Exam:
    """One study as it was stored, and the id under which its patient is shown."""

    uid: str
    patient_id: str
    data: Sequence[bytes]

    @property
    def stored(self) -> dict[str, Dataset]:
        """SOPInstanceUID → what was stored."""
        return {str(d.SOPInstanceUID): d for d in map(read, self.data)}

    @property
    def first(self) -> Dataset:
        return next(iter(self.stored.values()))

    @property
    def series(self) -> dict[str, list[str]]:
        """SeriesInstanceUID → its SOPInstanceUIDs."""
        found: dict[str, list[str]] = {}
        for sop, dataset in self.stored.items():
            found.setdefault(str(dataset.SeriesInstanceUID), []).append(sop)
        return found


def _exam(seed: str, patient_id: str, shown: str, **parameters: Any) -> Exam:
    return Exam(exams.uid(seed, "study"), shown, exams.study(seed=seed, patient_id=patient_id, **parameters))


CT = _exam("clients-ct", "4547", f"4547@{HOME}", n_series=2, n_instances=3)
US = _exam(
    "clients-us",
    "4547",
    f"4547@{OTHER}",
    name="O'NEIL^Zoé",
    birth_date="19880229",
    modality="US",
    bits=8,
    frames=6,
    transfer_syntax=JPEGBaseline8Bit,
)
#: Nobody holds it before a client stores it.
NEW = _exam("clients-new", "77", f"77@{HOME}", n_instances=2, rows=16, columns=16)


@dataclass(frozen=True)
class World:
    server: Serving
    people: People
    home: OrthancServer

    @property
    def root(self) -> str:
        return self.server.dicomweb()

    @property
    def headers(self) -> dict[str, str]:
        return self.people.bearer(DOCTOR)


@contextmanager
def world(postgres: Callable[[], str], folder: Path) -> Iterator[World]:
    servers = {emetteur: OrthancServer(name=emetteur) for emetteur in (HOME, OTHER, THIRD)}
    start_all(list(servers.values()))
    try:
        servers[HOME].upload(CT.data)
        servers[OTHER].upload(US.data)
        people = People(folder / "issuer")
        url = postgres()
        members: dict[str, str | None] = {emetteur: server.dicomweb_url for emetteur, server in servers.items()}
        with serving(settings_for(members, folder, auth=people.auth), url) as server:
            people.register(url, {DOCTOR: HOME})
            made = World(server, people, servers[HOME])
            wait_until_known(made)
            yield made
    finally:
        stop_all(list(servers.values()))


def wait_until_known(made: World) -> None:
    """A running server hears of a new professional a moment later."""
    until = time.monotonic() + 10
    address = f"{made.root}/studies?StudyInstanceUID={CT.uid}"
    while requests.get(address, headers=made.headers, timeout=20).status_code == HTTPStatus.FORBIDDEN:
        assert time.monotonic() < until
        time.sleep(0.05)


# What comes back ------------------------------------------------------------------------------------------------


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def check_instances(found: Sequence[Dataset], exam: Exam, expected: Sequence[str]) -> None:
    """These instances, each once, with the pixels that were stored, under the patient's id as it is shown."""
    assert sorted(str(d.SOPInstanceUID) for d in found) == sorted(expected)
    for dataset in found:
        original = exam.stored[str(dataset.SOPInstanceUID)]
        assert dataset.PatientID == exam.patient_id
        assert dataset.PatientName == original.PatientName
        assert dataset.PixelData == original.PixelData


def check_metadata(found: Sequence[dict[str, Any]], exam: Exam, expected: Sequence[str]) -> None:
    assert sorted(m["00080018"]["Value"][0] for m in found) == sorted(expected)
    for metadata in found:
        original = exam.stored[metadata["00080018"]["Value"][0]]
        dataset = Dataset.from_json(metadata, bulk_data_uri_handler=lambda _: b"")
        assert dataset.PatientID == exam.patient_id
        assert str(dataset.PatientName) == str(original.PatientName)
        assert dataset.Rows == original.Rows


def check_rows(found: Sequence[dict[str, Any]], tag: str, expected: Sequence[str]) -> None:
    assert sorted(row[tag]["Value"][0] for row in found) == sorted(expected)


def check_picture(found: bytes, exam: Exam, kind: str, *, within: int | None = None) -> None:
    """A picture of its kind that shows something, as large as the image, or with sides of no more than `within`."""
    picture = Image.open(io.BytesIO(found))
    assert picture.format == kind
    if within is None:
        assert picture.size == (exam.first.Columns, exam.first.Rows)
    else:
        assert max(picture.size) <= within
    assert len(picture.convert("L").getcolors(1 << 16) or ()) > 1
