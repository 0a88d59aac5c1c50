"""Three real Orthancs and what they hold: one set for the tests that only read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

HISTORIQUE, CENTRES = "MIRC historique", "MIRC Centres Imagerie"
FOLDERS = {HISTORIQUE: ["csrom41200", "cpsax18000"], CENTRES: ["cimtours"]}


@dataclass(frozen=True)
class Exam:
    """One study of one site, and how it is shown through the façade."""

    emetteur: str
    folder: str  # slug
    data: list[bytes]
    uid: str
    patient_id: str  # as shown

    @property
    def scopes(self) -> list[str]:
        return ["", f"/folders/{self.folder}", f"/sites/{self.emetteur}"]


CT = Exam(
    "csrom41200",
    "mirc-historique",
    exams.study(seed="archive-ct", patient_id="4547", n_series=2, n_instances=3, institution="CH Fictif"),
    exams.uid("archive-ct", "study"),
    "4547@csrom41200",
)
US = Exam(
    "cpsax18000",
    "mirc-historique",
    exams.study(
        seed="archive-us",
        patient_id="4547",  # the same number as at the other site, another person
        name="O'NEIL^Zoé",
        birth_date="19880229",
        modality="US",
        bits=8,
        frames=6,
        transfer_syntax=JPEGBaseline8Bit,
        charset="ISO_IR 100",
    ),
    exams.uid("archive-us", "study"),
    "4547@cpsax18000",
)
MR = Exam(
    "cimtours",
    "mirc-centres-imagerie",
    exams.study(seed="archive-mr", patient_id="É-12", modality="MR", n_instances=2, transfer_syntax=JPEG2000Lossless),
    exams.uid("archive-mr", "study"),
    "É-12@cimtours",
)
EXAMS = {"CT": CT, "US": US, "MR": MR}


@contextmanager
def archives() -> Iterator[dict[str, OrthancServer]]:
    """EMETTEUR → its Orthanc, filled; names and paths are such that they would stand out in an answer."""
    servers = {
        exam.emetteur: OrthancServer(name=f"ZQ-member-{n}", host=f"127.0.0.{20 + n}", root=f"/zq-member-{n}/dicom-web")
        for n, exam in enumerate(EXAMS.values(), 1)
    }
    start_all(list(servers.values()))
    try:
        for exam in EXAMS.values():
            servers[exam.emetteur].upload(exam.data)
        yield servers
    finally:
        stop_all(list(servers.values()))
