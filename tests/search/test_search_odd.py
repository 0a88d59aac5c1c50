"""Odd rows and odd questions: nothing is lost, nobody is mixed up, nothing breaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from imagora_demo import exams
from region import STUDY, Row, get, row, rows_of, sources, strict, uids, value, values, warnings_of
from support import peer
from support.peer import Connection, Request
from support.serving import Serving, serving, settings_for

from consent import Decision, Exam, Requester

A, B = "csrom41200", "cschb41000"
LONG = "L" * 60
HASH = hashlib.sha256(rb"a\b@csrom41200").hexdigest()[:32]

ODD: list[Row] = [
    row("1.2.1", "1", t00100010={"vr": "PN", "Value": [None]}),
    row("1.2.2", None),
    row("1.2.3", t00100020={"vr": "LO"}),
    row("1.2.4", t00100020={"vr": "LO", "Value": [4547]}),
    row("1.2.5", "5", date="2024.01.02"),
    row("1.2.6", "6", date="garbage", time="25:61"),
    row("1.2.7", "7", t00080020={"vr": "DA", "Value": [20240101]}, t00080030={"vr": "TM", "Value": [101500]}),
    row("1.2.8", "8", t00201208={"vr": "IS", "Value": ["12"]}, t00201206={"vr": "IS", "Value": ["x"]}),
    row("1.2.9", "9@nowhere"),
    row("1.2.10", "9@"),
    row("1.2.11", "@csrom41200"),
    row("1.2.12", "a@b@csrom41200"),
    row("1.2.13", "13", "^^"),
    row("1.2.14", "14", "="),
    row("1.2.15", "15", ""),
    row("1.2.16", "16", "DUPONT^MARIE^^DR^"),
    row("1.2.17", LONG),
    row("1.2.18", LONG + "@csrom41200"),
    row("1.2.19", "é" * 60),
    row("1.2.20", "20"),
    row("1.2.20", "20"),
    row("1.2.20", "21", "DURAND^PAUL"),
    row("1.2.21 ", "22"),
    row("1.2.22\0", "23"),
    row("1.2.24", "*"),
    row("1.2.25", "a\\b"),
    row("1.2.26", " 26 "),
    row(
        "1.2.27",
        "27",
        t00080061={"vr": "CS", "Value": [None, "CT", None]},
        t00080082={"vr": "SQ", "Value": [None, {}, {"00080102": {"vr": "SH", "Value": ["99IMAGORA"]}}]},
        t00101002={"vr": "SQ", "Value": [None, {"00100020": {"vr": "LO"}}]},
        t00080050=None,
    ),
    row("1.2.28", "28", born="", sex="", t00080090={"vr": "PN", "Value": ["not an object"]}),
    row("1.2.29", "29", t00200010={"vr": "SH", "Value": None}),
]
del ODD[-3]["00080050"]
IDS = {
    "1.2.4": "4547@csrom41200",
    "1.2.9": "9@nowhere@csrom41200",
    "1.2.10": "9@@csrom41200",
    "1.2.11": "@csrom41200@csrom41200",
    "1.2.12": "a@b@csrom41200",
    "1.2.24": "*@csrom41200",
    # Readers of an instance would take it for two values: hashed, as one that is too long.
    "1.2.25": f"~{HASH}@csrom41200",
    "1.2.26": "26@csrom41200",
}


@pytest.fixture(scope="module")
def server(serve_module) -> Serving:
    other = [row("1.2.20", "30"), row("1.2.30", "31")]
    with peer.Peer(peer.rows(ODD)) as odd, peer.Peer(strict(other)) as plain:
        yield serve_module({A: odd.dicomweb_url, B: plain.dicomweb_url})


def test_odd_rows_are_all_shown_each_as_somebodys(server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/studies")
    found = rows_of(answer)
    expected = {value(r, STUDY).strip(" \0") for r in ODD} | {"1.2.30"}
    assert {value(r, STUDY) for r in found} == expected
    assert len(found) == len(expected) + 1  # two people under 1.2.20
    assert {value(r, STUDY): value(r, "00100020") for r in found if value(r, STUDY) in IDS} == IDS
    ids = [value(r, "00100020") for r in found]
    assert all(i and len(i) <= 64 and i.lower().endswith((A, B)) for i in ids)
    # Not even those who have no PatientID are put together; only 1.2.18 is the patient of 1.2.17.
    assert len(set(ids)) == len(ids) - 1
    assert sources(answer) == {A: ("ok", len(found) - 1), B: ("ok", 2)}


def test_odd_dates_do_not_come_before_true_ones(server: Serving) -> None:
    shown = uids(get(f"{server.dicomweb()}/studies"))
    assert shown[0] == "1.2.5"  # 2 January
    assert shown[-1] == "1.2.6"  # what is no date


def test_two_rows_of_one_study_in_one_member(server: Serving) -> None:
    found = rows_of(get(f"{server.dicomweb()}/studies?StudyInstanceUID=1.2.20"))
    shown = [(value(r, "00100020"), values(r, "00080054")) for r in found if value(r, STUDY) == "1.2.20"]
    assert sorted(shown) == [("20@csrom41200", [A, B]), ("21@csrom41200", [A])]


@pytest.mark.parametrize("study", IDS)
def test_exam_is_found_by_the_id_that_it_is_shown_under(study: str, server: Serving) -> None:
    assert uids(get(f"{server.dicomweb()}/studies", params={"PatientID": IDS[study]})).count(study) == 1


LONG_IDS = {"1.2.17": LONG, "1.2.19": "é" * 60}


def test_long_id_is_shown_hashed_and_found_by_it_even_after_a_restart(
    peers, postgres: Callable[[], str], tmp_path: Path
) -> None:
    members = peers(**{A: strict([r for r in ODD if value(r, STUDY) in LONG_IDS]), B: strict([row("1.3.1", LONG)])})
    settings, database = settings_for({s: m.dicomweb_url for s, m in members.items()}, tmp_path), postgres()
    with serving(settings, database) as server:
        shown = {value(r, STUDY): value(r, "00100020") for r in rows_of(get(f"{server.dicomweb()}/studies"))}
    assert all(i.startswith("~") and len(i) <= 64 for i in shown.values())
    assert len(set(shown.values())) == 3
    with serving(settings, database) as server:
        for study, patient_id in shown.items():
            found = uids(get(f"{server.dicomweb()}/studies", params={"PatientID": patient_id}))
            assert found == [study]
        for study, ipp in LONG_IDS.items():
            assert uids(get(f"{server.dicomweb()}/studies", params={"PatientID": f"{ipp}@{A}"})) == [study]


def test_exam_that_came_back_to_its_origin_through_us_is_found_there(peers, serve) -> None:
    members = peers(**{A: strict([row("1.2.1", "4547"), row("1.2.2", "4547@csrom41200")])})
    server = serve({A: members[A].dicomweb_url})
    for asked in ("4547", "4547@csrom41200", "4547@CSROM41200"):
        found = rows_of(get(f"{server.dicomweb()}/studies", params={"PatientID": asked}))
        assert {(value(r, STUDY), value(r, "00100020")) for r in found} == {
            ("1.2.1", "4547@csrom41200"),
            ("1.2.2", "4547@csrom41200"),
        }


QUERIES = [
    "limit=999999999",
    "PatientName=%5E",
    "PatientName=%3D",
    "PatientName=%5E%5E%5E",
    "PatientName=%5C",
    "PatientName=%00",
    "PatientName=" + "*a" * 1500,
    "PatientName=" + "%3F" * 300,
    "StudyDate=20240101-",
    "StudyDate=-20240101",
    "StudyDate=2024",
    "StudyTime=10:15",
    "StudyInstanceUID=" + ",".join(f"1.2.{n}" for n in range(400)),
    "ModalitiesInStudy=" + "%5C".join(["CT"] * 500),
    "PatientID=%5C",
    "PatientID=%2A%40csrom41200",
    "PatientID=%40csrom41200",
    "PatientID=9%40",
    "00090010=1",
    "7FE00010=1",
    "00400275.00400009=1",
    "00400275=1",
    "includefield=7FE00010",
    "includefield=" + ",".join(f"0018{n:04X}" for n in range(400)),
    "&&&",
    "=1",
    "%00=1",
    "TimezoneOffsetFromUTC=%2B0100",
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q[:40])
@pytest.mark.parametrize("level", ["studies", "instances"])
def test_odd_question_has_a_plain_answer(query: str, level: str, server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/{level}?{query}", timeout=5)
    assert answer.status_code in (200, 204, 503) if level == "instances" else (200, 204)
    for each in rows_of(answer) if answer.status_code != 503 else ():
        assert value(each, STUDY)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"[]", b"null", b"{}", b"[null]", b"[1]", b'"x"', b"[[]]", b"[{}]", b"[" * 5000]
)
def test_member_that_answers_with_other_json(body: bytes, peers, serve) -> None:
    async def answers(_: Request, connection: Connection) -> None:
        await connection.answer(200, body, "application/dicom+json")

    members = peers(**{A: answers, B: strict([row("1.2.3")])})
    server = serve({site: m.dicomweb_url for site, m in members.items()})
    answer = get(f"{server.dicomweb()}/studies")
    assert uids(answer) == ["1.2.3"]
    empty = json.loads(body) == [] if body.strip() in (b"[]",) else not body.strip()
    assert sources(answer)[A] == ("ok" if empty else "error", 0)
    assert bool(warnings_of(answer)) != empty


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("StudyDescription=Scanner%20thoracique", {"1.5.1"}),
        ("StudyDescription=Scanner+thoracique", {"1.5.1"}),
        ("StudyDescription=IRM%20c%C3%A9r%C3%A9brale", {"1.5.2"}),
        ("StudyDescription=IRM%20*", {"1.5.2"}),
        ("AccessionNumber=A%2F1%2B2", {"1.5.1"}),
        ("AccessionNumber=A%25%26%3D", {"1.5.2"}),
        ("AccessionNumber=A%20B", {"1.5.3"}),
        ("PatientID=45%2047", {"1.5.1"}),
        ("PatientID=45%2047%40csrom41200", {"1.5.1"}),
        ("PatientID=46%2347", {"1.5.2"}),
        ("ModalitiesInStudy=CT%5CMR", {"1.5.1", "1.5.2"}),
        ("PatientName=DUPONT%5EMARIE&StudyDescription=Scanner%20*", {"1.5.1"}),
        ("StudyDate=20240101-20240131&StudyDescription=Autre%20chose", set()),
        ("StudyDescription=Scanner%20cervical", set()),
    ],
)
def test_what_orthanc_does_not_decode_is_found_all_the_same(
    query: str, expected: set[str], orthanc_server: Serving
) -> None:
    answer = get(f"{orthanc_server.dicomweb()}/studies?{query}")
    assert set(uids(answer)) == expected
    assert warnings_of(answer) == []


@pytest.fixture(scope="module")
def orthanc_server(orthancs, serve_module) -> Serving:
    def made(number: int, patient_id: str, accession: str, description: str, modality: str) -> list[bytes]:
        return exams.light_study(
            study_uid=f"1.5.{number}",
            patient_id=patient_id,
            name="DUPONT^MARIE",
            accession=accession,
            description=description,
            modality=modality,
        )

    member = orthancs(
        {
            A: [
                *made(1, "45 47", "A/1+2", "Scanner thoracique", "CT"),
                *made(2, "46#47", "A%&=", "IRM cérébrale", "MR"),
                *made(3, "47", "A B", "Échographie", "US"),
            ]
        }
    )[A]
    running: Serving = serve_module({A: member.dicomweb_url})
    return running


NO_UIDS = [
    "abc",
    "../../1.2.3",
    "1.2.3/series",
    "1" * 65,
    "",
    None,
    12,
    "1.2 .3",
    "1.2.3\n4",
    ".",
    "..",
    "1..2",
    "1.2.",
]
LEFT_OUT = f"Rows of {A} were left out: they have no UID, or one that is none"


class Opposing:
    """To all exams of one IPP."""

    def decide(self, requester: Requester, exam: Exam, at: datetime) -> Decision:
        return Decision(permitted=("666", A) not in exam.ids)


def without_uid(uid: object, ipp: str, tag: str = STUDY, **more: object) -> Row:
    made = row("1.2.3", ipp, "NOBODY^NAMED")
    made.update({t.removeprefix("t"): content for t, content in more.items()})
    made[tag] = {"vr": "UI"} if uid is None else {"vr": "UI", "Value": [uid]}
    return made


@pytest.mark.parametrize("uid", NO_UIDS)
def test_rows_that_nobody_could_ask_for_are_left_out_and_that_is_said(uid: object, peers, serve) -> None:
    good = [row("1.2.1", "1"), row("1.2.02", "2")]  # leading zeros occur, and can be asked for
    members = peers(**{A: peer.rows([*good, without_uid(uid, "3")]), B: strict([row("1.2.5", "5")])})
    server = serve({s: m.dicomweb_url for s, m in members.items()}, policy=Opposing())
    answer = get(f"{server.dicomweb()}/studies")
    assert sorted(uids(answer)) == ["1.2.02", "1.2.1", "1.2.5"]
    assert warnings_of(answer) == [LEFT_OUT]
    assert "NOBODY" not in answer.text
    assert {s: status for s, (status, _) in sources(answer).items()} == {A: "ok", B: "ok"}
    # Of what may not be seen nothing is said.
    hidden = peers(**{A: peer.rows([*good, without_uid(uid, "666")])})
    answer = get(f"{serve({A: hidden[A].dicomweb_url}, policy=Opposing()).dicomweb()}/studies")
    assert sorted(uids(answer)) == ["1.2.02", "1.2.1"]
    assert warnings_of(answer) == []
    # A member none of whose rows has a UID doesn't know what it is asked.
    lost = peers(**{A: peer.rows([without_uid(uid, "3")]), B: strict([row("1.2.5", "5")])})
    answer = get(f"{serve({s: m.dicomweb_url for s, m in lost.items()}).dicomweb()}/studies")
    assert (uids(answer), sources(answer)[A][0]) == (["1.2.5"], "error")


def test_series_and_instances_without_uids_are_left_out(peers, serve) -> None:
    def below(uid: object, **more: object) -> Row:
        return without_uid(uid, "1", "0020000E", **more)

    members = peers(**{A: peer.rows([below("1.2.3.1"), below("x"), below(None)])})
    answer = get(f"{serve({A: members[A].dicomweb_url}).dicomweb()}/studies/1.2.3/series")
    assert [value(r, "0020000E") for r in rows_of(answer)] == ["1.2.3.1"]
    assert warnings_of(answer) == [LEFT_OUT]
    sop = {"t00080018": {"vr": "UI", "Value": ["1.2.3.1.1"]}}
    members = peers(
        **{A: peer.rows([below("1.2.3.1", **sop), below("1.2.3.1", t00080018={"vr": "UI", "Value": ["y"]})])}
    )
    answer = get(f"{serve({A: members[A].dicomweb_url}).dicomweb()}/studies/1.2.3/series/1.2.3.1/instances")
    assert [value(r, "00080018") for r in rows_of(answer)] == ["1.2.3.1.1"]
    assert warnings_of(answer) == [LEFT_OUT]
