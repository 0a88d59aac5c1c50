"""What the members hold, and what must be true of it wherever it is shown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagora_demo import exams
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

#: EMETTEURs. The first is a real Orthanc, and the requester's own site.
HOME = "soak-home"
METRICS_TOKEN = "soak"
FAILING = ("soak-a", "soak-b", "soak-c", "soak-d")
SITES = (HOME, *FAILING)
OPPOSED = str(exams.uid("soak", "opposed"))
SHARED = str(exams.uid("soak", "shared"))
_SIDE = 96
PIXEL_BYTES = 2 * _SIDE * _SIDE
_ROW = (
    *("StudyDate", "StudyTime", "AccessionNumber", "Modality", "PatientName", "PatientID", "PatientBirthDate"),
    *("PatientSex", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SOPClassUID", "SOPInstanceUID"),
    "InstanceNumber",
)
_ROW_TAGS = tuple(f"{tag_for_keyword(keyword):08X}" for keyword in _ROW)


@dataclass(frozen=True)
class Held:
    """One instance."""

    data: bytes
    uids: tuple[str, str, str]
    patient_id: str
    described: dict[str, Any] = field(compare=False, repr=False)

    @property
    def pixels(self) -> bytes:
        return self.data[-PIXEL_BYTES:]


@dataclass(frozen=True)
class Study:
    """`patients`: the PatientIDs under which it may be shown. `pixels`: those of each of its instances."""

    uid: str
    holders: tuple[str, ...]
    patients: frozenset[str]
    pixels: Mapping[str, bytes]
    series: Mapping[str, str]  # of each instance


def studies_of(site: str, studies: int, instances: int) -> list[Held]:
    """One IPP stands for another person at each site. Two of the sites hold one study both; one is opposed."""
    held: list[Held] = []
    number = 401 + SITES.index(site)
    for n in range(studies):
        held += _made(
            str(exams.uid("soak", site, str(n))), f"{100 + n}", f"SOAK{number}^N{n}", f"19{40 + n:02}0101", instances
        )
    if site in FAILING[:2]:
        held += _made(SHARED, "4547", "SHARED^MARIE", "19600512", instances)
    if site == FAILING[2]:
        held += _made(OPPOSED, "666", "OPPOSED^PAUL", "19610512", instances)
    return held


def _made(study_uid: str, patient_id: str, name: str, born: str, instances: int) -> Iterable[Held]:
    for data in exams.iter_study(
        seed=study_uid,
        study_uid=study_uid,
        patient_id=patient_id,
        name=name,
        birth_date=born,
        n_instances=instances,
        rows=_SIDE,
        columns=_SIDE,
    ):
        ds = dcmread(io.BytesIO(data))
        uids = (str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))
        yield Held(data, uids, str(ds.PatientID), described(ds))


def described(ds: Dataset) -> dict[str, Any]:
    """As metadata: all but pixels."""
    kept = Dataset()
    for element in ds:
        if element.tag < 0x7FE0_0000:
            kept[element.tag] = element
    found: dict[str, Any] = kept.to_json_dict(bulk_data_threshold=1 << 30)
    return {**found, "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}


def row(held: Held) -> dict[str, Any]:
    return {tag: held.described[tag] for tag in _ROW_TAGS if tag in held.described}


def catalogue(held: Mapping[str, Iterable[Held]]) -> dict[str, Study]:
    """Studies by UID, of EMETTEUR → what it holds."""
    found: dict[str, dict[str, list[Held]]] = {}
    for site, mine in held.items():
        for one in mine:
            found.setdefault(one.uids[0], {}).setdefault(site, []).append(one)
    return {
        uid: Study(
            uid=uid,
            holders=tuple(by_site),
            patients=frozenset(f"{one.patient_id}@{site}" for site, mine in by_site.items() for one in mine),
            pixels={one.uids[2]: one.pixels for mine in by_site.values() for one in mine},
            series={one.uids[2]: one.uids[1] for mine in by_site.values() for one in mine},
        )
        for uid, by_site in found.items()
    }
