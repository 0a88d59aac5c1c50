"""A member that gives another object than it was asked for, though the same patient's: nothing of it passes.

It may be of an exam that is refused, and who asked has not asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Deliver, Held, Holder, delivering, describing
from support.peer import Connection, Request

SITE = "csrom41200"
PERSON = {"patient_id": "4547", "name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
SIZE = {"rows": 16, "columns": 16}
OTHER_SIZE = {"rows": 16, "columns": 24}
SAID = "Refused: it is of another exam"
FORMS = ["", "/metadata", "/rendered", "/thumbnail"]
LEVELS = ["study", "series", "instance"]


def instead(of: Deliver, given: list[Held]) -> Deliver:
    """Always these."""

    async def deliver(request: Request, connection: Connection, _: list[Held]) -> None:
        await of(request, connection, given)

    return deliver


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    """One patient's two studies; the first is of two series of two instances."""
    first = exams.study(seed="misplaced", n_series=2, n_instances=2, **PERSON, **SIZE)
    other = exams.study(seed="misplaced-other", description=SAID, **PERSON, **OTHER_SIZE)
    with Holder([*first, *other]) as member:
        yield member


@pytest.fixture(scope="module")
def root(holder: Holder, serve_module) -> str:
    return str(serve_module({SITE: holder.url}).dicomweb())


@pytest.mark.parametrize(
    ("level", "form"), [(level, form) for level in LEVELS for form in FORMS] + [("instance", "/frames/1")]
)
def test_another_object_than_was_asked_for_does_not_pass(level: str, form: str, holder: Holder, root: str) -> None:
    study, series, sop = holder.held[0].uids
    strangers = {
        "study": [*holder.held[:4], holder.held[4]],
        "series": [*holder.held[:2], holder.held[2]],
        "instance": [holder.held[1]],
    }[level]
    path = {
        "study": f"/studies/{study}",
        "series": f"/studies/{study}/series/{series}",
        "instance": f"/studies/{study}/series/{series}/instances/{sop}",
    }[level]
    stray = strangers[-1]
    one = [stray] if form in ("/rendered", "/thumbnail", "/frames/1") else strangers
    holder.deliver, holder.describe = instead(delivering(), one), instead(describing(), strangers)
    accept = {"Accept": f'multipart/related; type="{DICOM}"'} if not form else {}
    try:
        seen = wire.get(root, path + form, {**accept, "Cache-Control": "no-cache"})
    finally:
        holder.deliver, holder.describe = delivering(), describing()
    assert seen.status == 502 or (form == "" and not seen.ended and not seen.closed)
    assert stray.sop.encode() not in seen.body
    assert SAID.encode() not in seen.body
    # As soon as the member is right again, all is there.
    again = requests.get(root + path + form, headers=accept, timeout=10)
    assert again.status_code == 200
    if form in ("", "/metadata"):
        assert again.content.count(sop.encode()) >= 1
