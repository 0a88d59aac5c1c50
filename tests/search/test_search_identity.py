"""Whose exam a row is: colliding IPPs, studies held twice, one UID for two people, copies that came through us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from region import STUDY, Row, get, row, rows_of, sources, strict, uids, value, values, warnings_of
from support.serving import Serving, serving, settings_for

A, B, C = "csrom41200", "cschb41000", "csorl45100"
NUMBERS = {A: "401", B: "402", C: "403"}


def origin(emetteur: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = NUMBERS[emetteur], "99IMAGORA", emetteur
    return Sequence([item])


def other_id(ipp: str, emetteur: str) -> Sequence:
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID = ipp, emetteur, "TEXT"
    return Sequence([item])


DUPONT = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
MARTIN = {"name": "MARTIN^PAUL", "birth_date": "19710203", "sex": "M"}
ANNE = {"name": "DURAND^ANNE", "birth_date": "19500101", "sex": "F"}
THROUGH_US = {
    "IssuerOfPatientID": "IMAGORA",
    "InstitutionCodeSequence": origin(A),
    "OtherPatientIDsSequence": other_id("4547", A),
}
OF_DUPONT, OF_MARTIN = exams.uid("collision", A), exams.uid("collision", B)
SHARED, CLASH = exams.uid("shared"), exams.uid("clash")
COPY, ORPHAN, FOREIGN = (exams.uid(n) for n in ("copy", "orphan", "foreign"))


def made(uid: str, patient_id: str, who: dict[str, str], **more: object) -> list[bytes]:
    return exams.light_study(study_uid=uid, patient_id=patient_id, **who, **more)


@pytest.fixture(scope="module")
def members(orthancs) -> dict[str, OrthancServer]:
    servers: dict[str, OrthancServer] = orthancs(
        {
            A: [
                *made(OF_DUPONT, "4547", DUPONT),
                *made(SHARED, "100", ANNE, n_series=2, n_instances=2, accession="A-1"),
                *made(CLASH, "300", {"name": "PETIT^LUC", "birth_date": "19800101", "sex": "M"}),
                *made(COPY, "4547", DUPONT),
            ],
            B: [
                *made(OF_MARTIN, "4547", MARTIN),
                *made(
                    SHARED,
                    "9-200",
                    ANNE | {"name": "Durand^Anne"},
                    n_series=2,
                    first_series=2,
                    n_instances=2,
                    accession="B-1",
                    modality="MR",
                ),
                *made(CLASH, "301", {"name": "LEROY^ANNE", "birth_date": "19810101", "sex": "F"}),
            ],
            C: [
                *made(COPY, "4547@csrom41200", DUPONT, extra=THROUGH_US),
                *made(ORPHAN, "4547@csrom41200", DUPONT, extra=THROUGH_US),
                *made(FOREIGN, "4547@elsewhere", MARTIN),
            ],
        }
    )
    return servers


@pytest.fixture(scope="module")
def server(members: dict[str, OrthancServer], serve_module) -> Serving:
    running: Serving = serve_module({site: m.dicomweb_url for site, m in members.items()})
    return running


@pytest.fixture
def all_up(members: dict[str, OrthancServer]) -> Iterator[dict[str, OrthancServer]]:
    """Members that a test may kill: they are back after it."""
    yield members
    for member in members.values():
        member.start()


def one(server: Serving, query: str, scope: str = "", path: str = "studies") -> Row:
    found = rows_of(get(f"{server.dicomweb(scope)}/{path}?{query}"))
    assert len(found) == 1, [value(r, STUDY) for r in found]
    return found[0]


def patients(server: Serving, query: str, scope: str = "") -> set[tuple[str, str]]:
    """(study, PatientID) of every row."""
    found = rows_of(get(f"{server.dicomweb(scope)}/studies?{query}"))
    assert len({value(r, STUDY) for r in found}) == len(found)
    return {(value(r, STUDY), value(r, "00100020")) for r in found}


# Two people who share an IPP ------------------------------------------------------------------------------------


def test_one_ipp_at_two_sites_is_two_patients(server: Serving) -> None:
    dupont, martin = (one(server, f"StudyInstanceUID={uid}") for uid in (OF_DUPONT, OF_MARTIN))
    assert value(dupont, "00100020") == "4547@csrom41200"
    assert value(martin, "00100020") == "4547@cschb41000"
    for found, site in ((dupont, A), (martin, B)):
        assert value(found, "00100021") == "IMAGORA"
        assert [(value(i, "00100020"), value(i, "00100021")) for i in values(found, "00101002")] == [("4547", site)]
        code = value(found, "00080082")
        assert (value(code, "00080100"), value(code, "00080102")) == (NUMBERS[site], "99IMAGORA")
        assert values(found, "00080054") == [site]


def test_bare_ipp_finds_both_and_a_qualified_one_its_patient(server: Serving) -> None:
    of_dupont = {(uid, "4547@csrom41200") for uid in (OF_DUPONT, COPY, ORPHAN)}
    assert patients(server, "PatientID=4547") == of_dupont | {(OF_MARTIN, "4547@cschb41000")}
    for spelled in ("csrom41200", "CSROM41200", "CsRom41200"):
        assert patients(server, f"PatientID=4547@{spelled}") == of_dupont
        assert patients(server, f"00100020=4547%40{spelled}") == of_dupont
    assert patients(server, "PatientID=4547@CSCHB41000") == {(OF_MARTIN, "4547@cschb41000")}
    assert patients(server, "PatientID=4547@csorl45100") == set()
    assert patients(server, "PatientID=45*@cschb41000") == {(OF_MARTIN, "4547@cschb41000")}


def test_a_site_shows_the_same_ids_as_all(server: Serving) -> None:
    query = f"StudyInstanceUID={OF_DUPONT},{OF_MARTIN},{COPY},{ORPHAN}"
    everywhere = patients(server, query)
    assert len(everywhere) == 4
    for site in (A, B, C):
        assert patients(server, query, f"/sites/{site}") <= everywhere
    assert patients(server, "PatientID=4547", f"/sites/{B}") == {(OF_MARTIN, "4547@cschb41000")}
    assert patients(server, "PatientID=4547@csrom41200", f"/sites/{B}") == set()
    assert (ORPHAN, "4547@csrom41200") in patients(server, "PatientID=4547@csrom41200", f"/sites/{C}")


# One study at two sites -----------------------------------------------------------------------------------------

BY = [f"StudyInstanceUID={SHARED}", "PatientName=DURAND*", "PatientBirthDate=19500101", "PatientID=100"]
BY += ["PatientID=9-200", "PatientID=100@csrom41200", "PatientID=9-200@CSCHB41000", "AccessionNumber=A-1"]
BY += ["AccessionNumber=B-1", "ModalitiesInStudy=MR", "ModalitiesInStudy=CT", "ModalitiesInStudy=CT&PatientName=DURAND"]


@pytest.mark.parametrize("query", BY)
def test_study_held_twice_is_one_row_of_both_however_found(query: str, server: Serving) -> None:
    found = [r for r in rows_of(get(f"{server.dicomweb()}/studies?{query}")) if value(r, STUDY) == SHARED]
    assert len(found) == 1
    both = found[0]
    assert value(both, "00100020") == "100@csrom41200"
    assert value(both, "00100010") == {"Alphabetic": "DURAND^ANNE"}
    assert values(both, "00080054") == [A, B]
    assert value(both, "00081190") == f"{server.dicomweb(f'/sites/{A}')}/studies/{SHARED}"
    assert (value(both, "00201206"), value(both, "00201208")) == (3, 6)
    assert values(both, "00080061") == ["CT", "MR"]
    ids = {(value(i, "00100020"), value(i, "00100021")) for i in values(both, "00101002")}
    assert ids == {("100", A), ("9-200", B)}


def shared_series(number: int) -> str:
    return str(exams.uid(SHARED, "series", number))


def test_series_of_a_study_held_twice_are_the_union(server: Serving) -> None:
    expected = {1: ([A], 2), 2: ([A, B], 2), 3: ([B], 2)}
    for url in (f"studies/{SHARED}/series", f"series?StudyInstanceUID={SHARED}"):
        found = rows_of(get(f"{server.dicomweb()}/{url}"))
        assert [value(r, "00200011") for r in found] == [1, 2, 3]
        for each in found:
            number = value(each, "00200011")
            assert value(each, "0020000E") == shared_series(number)
            assert (values(each, "00080054"), value(each, "00201209")) == expected[number]
            assert value(each, "00100020") == "100@csrom41200"
            site = expected[number][0][0]
            assert (
                value(each, "00081190")
                == f"{server.dicomweb(f'/sites/{site}')}/studies/{SHARED}/series/{shared_series(number)}"
            )
    instances = rows_of(get(f"{server.dicomweb()}/studies/{SHARED}/instances"))
    assert len(instances) == len({value(r, "00080018") for r in instances}) == 6
    assert {value(r, "00100020") for r in instances} == {"100@csrom41200"}


@pytest.mark.parametrize("query", ["Modality=MR", f"SeriesInstanceUID={shared_series(3)}", "SeriesNumber=3"])
def test_series_that_one_holder_has_is_the_same_patients(query: str, server: Serving) -> None:
    for level, tag in (("series", "0020000E"), ("instances", "00080018")):
        found = [r for r in rows_of(get(f"{server.dicomweb()}/{level}?{query}")) if value(r, STUDY) == SHARED]
        assert found
        assert {value(r, "00100020") for r in found} == {"100@csrom41200"}
        assert len({value(r, tag) for r in found}) == len(found)


@pytest.mark.parametrize("stopped", [A, B])
def test_row_keeps_its_patient_when_a_holder_is_down_and_after_a_restart(
    stopped: str, all_up: dict[str, OrthancServer], postgres: Callable[[], str], tmp_path: Path
) -> None:
    settings = settings_for({site: m.dicomweb_url for site, m in all_up.items()}, tmp_path)
    database = postgres()
    left = B if stopped == A else A

    def shown(server: Serving) -> None:
        for url in (f"studies?StudyInstanceUID={SHARED}", "studies?PatientName=durand", f"studies/{SHARED}/series"):
            answer = get(f"{server.dicomweb()}/{url}")
            assert {value(r, "00100020") for r in rows_of(answer)} == {"100@csrom41200"}, url
            assert {a for r in rows_of(answer) for a in values(r, "00080054")} == {left}
            assert any(f"{stopped} (" in w for w in warnings_of(answer))
        # Under the id of the holder that is down it is found only where that id is known to be its.
        assert {value(r, "00100020") for r in rows_of(get(f"{server.dicomweb()}/studies?PatientID=9-200"))} <= {
            "100@csrom41200"
        }
        metadata = get(f"{server.dicomweb()}/studies/{SHARED}/metadata")
        assert {value(r, "00100020") for r in metadata.json()} == {"100@csrom41200"}

    with serving(settings, database) as server:
        assert value(one(server, f"StudyInstanceUID={SHARED}"), "00100020") == "100@csrom41200"
        all_up[stopped].kill()
        shown(server)
    with serving(settings, database) as server:
        shown(server)
    all_up[stopped].start()
    all_up[left].kill()
    with serving(settings, database) as server:
        assert value(one(server, f"StudyInstanceUID={SHARED}"), "00100020") == "100@csrom41200"


def test_a_site_shows_the_patient_that_all_show(server: Serving) -> None:
    """The row of all sites leads to one of them, whose answers must be about the same patient."""
    assert value(one(server, f"StudyInstanceUID={SHARED}"), "00100020") == "100@csrom41200"
    for site in (A, B):
        for path in (f"studies?StudyInstanceUID={SHARED}", f"studies/{SHARED}/series", f"studies/{SHARED}/metadata"):
            found = rows_of(get(f"{server.dicomweb(f'/sites/{site}')}/{path}"))
            assert {value(r, "00100020") for r in found} == {"100@csrom41200"}, path
            assert {a for r in found for a in values(r, "00080054")} == {site}


# Two people under one UID ---------------------------------------------------------------------------------------


def test_two_people_under_one_uid_are_two_rows(server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/studies?StudyInstanceUID={CLASH}")
    found = rows_of(answer)
    assert {(value(r, "00100020"), tuple(values(r, "00080054")), value(r, "00081190")) for r in found} == {
        ("300@csrom41200", (A,), f"{server.dicomweb(f'/sites/{A}')}/studies/{CLASH}"),
        ("301@cschb41000", (B,), f"{server.dicomweb(f'/sites/{B}')}/studies/{CLASH}"),
    }
    assert all((value(r, "00201206"), value(r, "00201208")) == (1, 1) for r in found)
    assert warnings_of(answer) == [
        "1 StudyInstanceUID stand for different patients at different sites: open each through its own RetrieveURL"
    ]


@pytest.mark.parametrize("path", ["", "/series", "/instances", "/metadata", "/rendered", "/thumbnail"])
def test_two_people_under_one_uid_are_refused_where_one_is_meant(path: str, server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/studies/{CLASH}{path}")
    assert answer.status_code == 409
    body = answer.json()
    assert body["urls"] == [f"{server.dicomweb(f'/sites/{s}')}/studies/{CLASH}" for s in (A, B)]
    for url, name in zip(body["urls"], ("PETIT^LUC", "LEROY^ANNE"), strict=True):
        whole = get(url)
        assert whole.status_code == 200
        assert name.encode() in whole.content
        assert [value(r, "00100010")["Alphabetic"] for r in rows_of(get(f"{url}/metadata"))] == [name]
        assert len(rows_of(get(f"{url}/series"))) == 1


def test_a_name_finds_its_own_of_two_people_under_one_uid(server: Serving) -> None:
    for query in ("PatientName=LEROY", "PatientID=301", "PatientID=301@cschb41000"):
        found = [r for r in rows_of(get(f"{server.dicomweb()}/studies?{query}")) if value(r, STUDY) == CLASH]
        assert [value(r, "00100020") for r in found] == ["301@cschb41000"]
        assert values(found[0], "00080054") == [B]


# Copies that came through us ------------------------------------------------------------------------------------


def test_copy_is_not_qualified_twice_and_counts_as_its_origins(server: Serving) -> None:
    for uid, holders in ((COPY, [A, C]), (ORPHAN, [C])):
        found = one(server, f"StudyInstanceUID={uid}")
        assert value(found, "00100020") == "4547@csrom41200"
        assert values(found, "00080054") == holders
        code = value(found, "00080082")
        assert (value(code, "00080100"), value(code, "00080102")) == (NUMBERS[A], "99IMAGORA")
        ids = [(value(i, "00100020"), value(i, "00100021")) for i in values(found, "00101002")]
        assert ids == [("4547", A)]


def test_copy_refiled_under_the_holders_own_ipp_counts_as_its_origins(peers, serve) -> None:
    """Orthanc gives no sequences in a search; a PACS that does tells whose a copy is, whatever its PatientID."""
    code = {"00080100": {"vr": "SH", "Value": ["401"]}, "00080102": {"vr": "SH", "Value": ["99IMAGORA"]}}
    other = {"00100020": {"vr": "LO", "Value": ["4547"]}, "00100021": {"vr": "LO", "Value": [A]}}
    refiled = row(
        "1.2.9",
        "C-77",
        t00100021={"vr": "LO", "Value": ["ORLEANS"]},
        t00080082={"vr": "SQ", "Value": [code]},
        t00101002={"vr": "SQ", "Value": [other]},
    )
    members = peers(**{A: strict([row("1.2.8", "4547")]), C: strict([refiled, row("1.2.7", "4547")])})
    server = serve({site: m.dicomweb_url for site, m in members.items()})
    for scope in ("", f"/sites/{C}"):
        for query in ("PatientID=C-77", "PatientID=C-77@csorl45100", "StudyInstanceUID=1.2.9"):
            found = one(server, query, scope)
            assert value(found, "00100020") == "4547@csrom41200"
            assert value(value(found, "00080082"), "00080100") == "401"
            assert values(found, "00080054") == [C]
            assert [(value(i, "00100020"), value(i, "00100021")) for i in values(found, "00101002")] == [("4547", A)]
    assert patients(server, "PatientID=4547@csorl45100") == {("1.2.7", "4547@csorl45100")}


def test_institution_and_holder_can_be_searched_for(server: Serving) -> None:
    uid = f"StudyInstanceUID={COPY},{OF_MARTIN}"
    assert {u for u, _ in patients(server, f"{uid}&00080054={C}")} == {COPY}
    assert {u for u, _ in patients(server, f"{uid}&RetrieveAETitle={B}")} == {OF_MARTIN}
    assert {u for u, _ in patients(server, f"{uid}&00080082.00080100={NUMBERS[A]}")} == {COPY}
    assert {u for u, _ in patients(server, f"{uid}&InstitutionName=h%C3%B4pital%20csrom*")} == {COPY}
    assert {u for u, _ in patients(server, f"{uid}&IssuerOfPatientID={A}")} == {COPY}


def test_suffix_of_no_site_is_part_of_the_ipp(server: Serving) -> None:
    assert patients(server, "PatientID=4547@elsewhere") == {(FOREIGN, "4547@elsewhere@csorl45100")}
    assert patients(server, "PatientID=4547@elsewhere@csorl45100") == {(FOREIGN, "4547@elsewhere@csorl45100")}


def test_source_rows_count_what_each_holder_has(server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/studies?StudyInstanceUID={SHARED},{CLASH},{COPY},{OF_MARTIN}")
    assert len(uids(answer)) == 5
    assert sources(answer) == {A: ("ok", 3), B: ("ok", 3), C: ("ok", 1)}
