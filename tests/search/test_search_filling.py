"""Counts, modalities and what was asked for, where rows lack them: told by what is below, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from imagora_demo import exams
from pydicom.dataset import Dataset
from region import Row, get, rows_of, value, values, warnings_of
from support.peer import Behaviour, Connection, Peer, Request
from support.picky import Picky, instance
from support.serving import Serving

from federation import filling

SITE = "csrom41200"
MODALITIES, SERIES_COUNT, INSTANCE_COUNT, IN_SERIES_COUNT = "00080061", "00201206", "00201208", "00201209"
PROCEDURE, REQUEST, REGION = "00081032", "00400275", "00082218"


def bare(study: str, series: str, number: int, modality: str = "CT") -> Row:
    """An instance of which nothing is counted."""
    made = instance(study, series, f"{series}.{number}")
    made["00080060"] = {"vr": "CS", "Value": [modality]}
    return {tag: content for tag, content in made.items() if tag not in (MODALITIES, INSTANCE_COUNT)}


HELD = [
    *(bare("1.2.1", "1.2.1.1", n) for n in (1, 2)),
    bare("1.2.1", "1.2.1.2", 1, "SR"),
    bare("1.2.2", "1.2.2.1", 1, "MR"),
]


def started(serve: Any, behave: Behaviour, peers: Any) -> tuple[str, Peer]:
    member = peers(**{SITE: behave})[SITE]
    return serve({SITE: member.dicomweb_url}).dicomweb(), member


POOR = [{}, {"lists": ()}, {"across": False}, {"limit": False, "offset": False}]


@pytest.mark.parametrize("poor", POOR, ids=str)
def test_series_and_instances_are_counted_where_the_member_does_not(peers, serve, poor: dict[str, Any]) -> None:
    root, _ = started(serve, Picky(HELD, **poor), peers)
    answer = get(f"{root}/studies")
    counted = {
        value(r, "0020000D"): (values(r, MODALITIES), value(r, SERIES_COUNT), value(r, INSTANCE_COUNT))
        for r in rows_of(answer)
    }
    assert counted == {"1.2.1": (["CT", "SR"], 2, 3), "1.2.2": (["MR"], 1, 1)}
    assert warnings_of(answer) == []
    series = rows_of(get(f"{root}/studies/1.2.1/series"))
    assert {value(r, "0020000E"): value(r, IN_SERIES_COUNT) for r in series} == {"1.2.1.1": 2, "1.2.1.2": 1}


def test_only_rows_of_the_page_are_counted_and_those_of_the_next_with_it(peers, serve) -> None:
    root, member = started(serve, Picky(HELD), peers)
    first = rows_of(get(f"{root}/studies", params={"limit": 1}))
    asked = [uid for request in member.requests for uid in request.values("0020000D")]
    assert asked == [value(first[0], "0020000D")]
    second = rows_of(get(f"{root}/studies", params={"limit": 1, "offset": 1}))
    assert value(second[0], SERIES_COUNT) is not None
    assert value(second[0], "0020000D") != value(first[0], "0020000D")


def test_what_members_count_is_believed_and_nobody_is_asked_again(peers, serve) -> None:
    whole = [{**r, MODALITIES: {"vr": "CS", "Value": ["CT"]}} for r in HELD]
    whole = [{**r, SERIES_COUNT: {"vr": "IS", "Value": [7]}, INSTANCE_COUNT: {"vr": "IS", "Value": [8]}} for r in whole]
    root, member = started(serve, Picky(whole), peers)
    assert {value(r, INSTANCE_COUNT) for r in rows_of(get(f"{root}/studies"))} == {8}
    assert [request.path for request in member.requests] == ["/studies"]


def test_a_member_that_cannot_tell_is_named_and_its_rows_come_all_the_same(peers, serve) -> None:
    root, _ = started(serve, Picky(HELD, across=False, below=False), peers)
    answer = get(f"{root}/studies")
    assert len(rows_of(answer)) == 2
    assert warnings_of(answer) == [f"includefield: 2 rows of {SITE} lack attributes that could not be completed now"]


def test_a_member_that_hangs_holds_the_answer_up_for_a_moment_only(
    peers, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "FILL_S", 0.3)
    picky = Picky(HELD)

    async def hanging(request: Request, connection: Connection) -> None:
        if request.path.endswith("/series"):
            await asyncio.sleep(3600)
        await picky(request, connection)

    root, _ = started(serve, hanging, peers)
    answer = get(f"{root}/studies", timeout=8)  # the member has ten seconds
    assert len(rows_of(answer)) == 2
    assert warnings_of(answer) == [f"includefield: 2 rows of {SITE} lack attributes that could not be completed now"]
    assert len(rows_of(get(f"{root}/studies"))) == 2


# What was asked for -----------------------------------------------------------------------------------------------


def code(meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", meaning
    return item


def described(dataset: Dataset, series: int, number: int) -> None:
    dataset.ProcedureCodeSequence = [code("Scanner du thorax")]
    request = Dataset()
    request.ScheduledProcedureStepID = f"STEP{series}"
    dataset.RequestAttributesSequence = [request]
    dataset.AnatomicRegionSequence = [code(f"{series}.{number}")]


@pytest.fixture(scope="module")
def orthanc(orthancs, serve_module) -> Serving:
    """It gives no sequences in rows."""
    data = exams.light_study("filling", n_series=2, n_instances=2, finish=described)
    data += exams.light_study("filling-none", patient_id="2")
    members = orthancs({SITE: data})
    running: Serving = serve_module({SITE: members[SITE].dicomweb_url})
    return running


def test_sequences_are_read_from_an_instance(orthanc: Serving) -> None:
    study = exams.uid("filling", "study")
    answer = get(f"{orthanc.dicomweb()}/studies?includefield=ProcedureCodeSequence,RequestAttributesSequence")
    by_study = {value(r, "0020000D"): r for r in rows_of(answer)}
    assert value(by_study[study], PROCEDURE)["00080104"]["Value"] == ["Scanner du thorax"]
    assert all(REQUEST not in r for r in by_study.values())  # it is of series
    assert PROCEDURE not in by_study[exams.uid("filling-none", "study")]
    assert warnings_of(answer) == []  # that it has none is known


def test_sequences_of_series_and_instances_are_their_own(orthanc: Serving) -> None:
    study = exams.uid("filling", "study")
    root = f"{orthanc.dicomweb()}/studies/{study}"
    steps = [value(r, REQUEST)["00400009"]["Value"][0] for r in rows_of(get(f"{root}/series?includefield={REQUEST}"))]
    assert sorted(steps) == ["STEP0", "STEP1"]
    regions = [
        value(r, REGION)["00080104"]["Value"][0] for r in rows_of(get(f"{root}/instances?includefield={REGION}"))
    ]
    assert sorted(regions) == ["0.0", "0.1", "1.0", "1.1"]


def test_nothing_is_read_that_was_not_asked_for(orthanc: Serving) -> None:
    assert all(PROCEDURE not in r for r in rows_of(get(f"{orthanc.dicomweb()}/studies")))


def test_so_many_rows_are_completed_one_by_one_and_the_others_told(
    peers, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "FILL_S", 30.0)
    held = [
        {**instance(f"1.3.{n}", f"1.3.{n}.1", f"1.3.{n}.1.1"), SERIES_COUNT: {"vr": "IS", "Value": [1]}}
        for n in range(filling.SINGLY_MAX + 3)
    ]
    sequence = {"vr": "SQ", "Value": [{"00080104": {"vr": "LO", "Value": ["Scanner"]}}]}
    root, _ = started(serve, Picky(held, metadata=[{**r, PROCEDURE: sequence} for r in held]), peers)
    answer = get(f"{root}/studies?includefield={PROCEDURE}")
    completed = [PROCEDURE in r for r in rows_of(answer)]
    assert completed == [True] * filling.SINGLY_MAX + [False] * 3  # those in front come first
    assert warnings_of(answer) == [f"includefield: 3 rows of {SITE} lack attributes that could not be completed now"]
