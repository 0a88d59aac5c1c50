"""A transfer under way is broken off within a second of the opposition, whether its client reads or not; and its client
can't take what it got for all."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from enforced import KEEPS, ORIGIN, Exam, Region, until
from pydicom import Dataset
from retrieve.retrieve_member import read
from slow_reader import LARGE, MB, Reader
from support.people import SOON_S

#: 150 MB, of which no more than a few are on their way when it is cut.
EXAM = Exam(seed="large", name="LARGE^MARIE", more={**LARGE, "n_instances": 150})
#: Two sites have this one.
COPIED = Exam(seed="largecopied", name="LARGE^MARTHE", more=LARGE)
#: Nobody opposes to this one.
OTHER = Exam(seed="largeother", name="LARGE^PAUL", birth_date="19710203", sex="M", more={**LARGE, "n_instances": 32})


class Wordy(Exam):
    """One whose metadata, and rows where they have its sequence, are a megabyte for each instance."""

    def at(self, emetteur: str) -> list[bytes]:
        return [_with_text(data) for data in super().at(emetteur)]


def _with_text(data: bytes) -> bytes:
    dataset = read(data)
    item = Dataset()
    item.TextValue = "x" * MB
    dataset.ContentSequence = [item]
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


#: More than kernels buffer.
WORDY = Wordy(seed="wordy", name="WORDY^MARIE", more={"n_instances": 32})
SIZE_OF = {e.seed: e.more["n_instances"] * MB for e in (EXAM, COPIED, OTHER)}


@pytest.fixture(scope="module")
def large(region: Region) -> Iterator[Region]:
    region.upload(EXAM, ORIGIN)
    region.upload(COPIED, ORIGIN, KEEPS)
    region.upload(OTHER, ORIGIN)
    region.upload(WORDY, ORIGIN)
    region.tie_copies(COPIED)
    return region


@pytest.mark.parametrize(
    ("exam", "scope", "kind", "reads"),
    [
        (EXAM, "", "study", True),
        (EXAM, "", "study", False),
        (COPIED, f"/sites/{KEEPS}", "patient", True),
        (EXAM, "", "hold", True),
    ],
    ids=["a slow client", "a client that does not read", "a copy at another site", "an exam withheld"],
)
def test_transfer_is_cut_within_a_second(exam: Exam, scope: str, kind: str, reads: bool, large: Region) -> None:
    reader, other = (Reader(large, e, s, reads=reads) for e, s in ((exam, scope), (OTHER, "")))
    time.sleep(0.5)
    if kind == "hold":
        large.ledger.hold(exam.uid, ORIGIN)
    else:
        studies, patient = ([exam.uid], None) if kind == "study" else ([], exam.patient)
        number = large.ledger.oppose(studies=studies, patient=patient)
    opposed_at = time.time()
    time.sleep(SOON_S)
    seen = reader.hurry()
    assert not seen.ended
    assert not seen.closed
    assert len(seen.body) < SIZE_OF[exam.seed] / 2

    def ends() -> list[float]:
        found = large.ledger.traces(reader.request_id)
        return [t["at"].timestamp() for t in found if (t["kind"], t["outcome"]) == ("transferred", "failure")]

    until(ends)
    assert ends()[0] < opposed_at + SOON_S

    # Other transfers go on.
    whole = other.hurry()
    assert whole.ended
    assert whole.closed
    assert len(whole.body) > SIZE_OF[OTHER.seed]
    if kind == "hold":
        large.ledger.hold(exam.uid, ORIGIN, "released")
    else:
        large.ledger.lift(number)
    time.sleep(SOON_S)


@pytest.mark.parametrize(
    "below", ["/metadata", "/instances?includefield=ContentSequence"], ids=["metadata", "rows of a search"]
)
def test_what_is_no_transfer_is_cut_too(below: str, large: Region) -> None:
    reader, other = (Reader(large, WORDY, "", reads=reads, below=below) for reads in (False, True))
    whole = other.hurry()
    size = int(whole.headers["content-length"])
    assert len(whole.body) == size > 32 * MB
    number = large.ledger.oppose(studies=[WORDY.uid])
    time.sleep(SOON_S)
    assert len(reader.hurry().body) < size / 2
    large.ledger.lift(number)
    time.sleep(SOON_S)
