"""Series and instances, below a study and by themselves: order, parents' attributes, pages."""

from __future__ import annotations

import pytest
from imagora_demo import exams
from pydicom.dataset import Dataset
from region import (
    INSTANCE,
    SERIES,
    STUDY,
    Row,
    get,
    instance_row,
    remaining,
    row,
    rows_of,
    series_row,
    sources,
    strict,
    uids,
    value,
    values,
    walk,
)
from support.serving import Serving

A, B = "csrom41200", "cschb41000"
CHEST, HEAD = str(exams.uid("chest")), str(exams.uid("head"))
NUMBERS = {CHEST: (10, 2, None), HEAD: (2, 1)}
PER_SERIES = 3


def renumbered(study: str):
    def finish(dataset: Dataset, series: int, instance: int) -> None:
        dataset.SeriesNumber = NUMBERS[study][series]
        dataset.InstanceNumber = (11, 2, None)[instance]

    return finish


def made(study: str, **more: object) -> list[bytes]:
    return exams.light_study(
        study_uid=study,
        n_series=len(NUMBERS[study]),
        n_instances=PER_SERIES,
        finish=renumbered(study),
        accession="ACC-1",
        study_id="S1",
        description="Scanner thoracique",
        extra={"SeriesDescription": "Fenêtre pulmonaire", "ReferringPhysicianName": "HOUSE^GREGORY"},
        **more,
    )


@pytest.fixture(scope="module")
def server(orthancs, serve_module) -> Serving:
    members = orthancs({A: made(CHEST), B: made(HEAD, patient_id="77", name="MARTIN^PAUL", study_date="20230101")})
    running: Serving = serve_module({site: m.dicomweb_url for site, m in members.items()})
    return running


STUDY_RETURN_KEYS = ["00080020", "00080030", "00080050", "00080090", "00100010", "00100020", "00100030", "00100040"]
STUDY_RETURN_KEYS += [STUDY, "00200010"]
SERIES_RETURN_KEYS = ["00080060", SERIES, "00200011", "0008103E"]
INSTANCE_RETURN_KEYS = ["00080016", INSTANCE, "00200013"]
OURS = {"00080005": "ISO_IR 192", "00080054": A, "00100020": "4547@csrom41200", "00100021": "IMAGORA"}


def numbers(found: list[Row], tag: str) -> list[int | None]:
    return [value(r, tag) for r in found]


def test_study_rows_have_the_standards_return_keys(server: Serving) -> None:
    found = rows_of(get(f"{server.dicomweb()}/studies?StudyInstanceUID={CHEST}"))[0]
    assert {t for t in [*STUDY_RETURN_KEYS, "00080061", "00201206", "00201208", "00081190"] if t not in found} == set()
    assert (value(found, "00201206"), value(found, "00201208")) == (3, 9)
    assert {t: value(found, t) for t in OURS} == OURS


@pytest.mark.parametrize("path", [f"studies/{CHEST}/series", f"series?StudyInstanceUID={CHEST}"])
def test_series_come_by_number_with_their_studys_attributes(path: str, server: Serving) -> None:
    answer = get(f"{server.dicomweb()}/{path}")
    found = rows_of(answer)
    assert numbers(found, "00200011") == [2, 10, None]
    for each in found:
        assert {t for t in [*STUDY_RETURN_KEYS, *SERIES_RETURN_KEYS, "00201209", "00081190"] if t not in each} == set()
        assert value(each, "00201209") == PER_SERIES
        assert value(each, "00100010") == {"Alphabetic": "DUPONT-LÉVY^Marie"}
        assert value(each, "0008103E") == "Fenêtre pulmonaire"
        url = f"{server.dicomweb(f'/sites/{A}')}/studies/{CHEST}/series/{value(each, SERIES)}"
        assert value(each, "00081190") == url
        assert {t: value(each, t) for t in OURS} == OURS
    assert sources(answer)[A] == ("ok", 3)


@pytest.mark.parametrize("path", [f"studies/{CHEST}/instances", f"instances?StudyInstanceUID={CHEST}"])
def test_instances_come_by_number_with_their_parents_attributes(path: str, server: Serving) -> None:
    found = rows_of(get(f"{server.dicomweb()}/{path}"))
    assert numbers(found, "00200013") == [2, 2, 2, 11, 11, 11, None, None, None]
    assert [value(r, INSTANCE) for r in found[:3]] == sorted(value(r, INSTANCE) for r in found[:3])
    for each in found:
        keys = [*STUDY_RETURN_KEYS, *SERIES_RETURN_KEYS, *INSTANCE_RETURN_KEYS, "00081190"]
        assert {t for t in keys if t not in each} == set()
        url = f"{server.dicomweb(f'/sites/{A}')}/studies/{CHEST}/series/{value(each, SERIES)}/instances"
        assert value(each, "00081190") == f"{url}/{value(each, INSTANCE)}"
        assert {t: value(each, t) for t in OURS} == OURS


def test_instances_of_one_series(server: Serving) -> None:
    series = uids(get(f"{server.dicomweb()}/studies/{CHEST}/series"), SERIES)[0]
    nested = rows_of(get(f"{server.dicomweb()}/studies/{CHEST}/series/{series}/instances"))
    assert numbers(nested, "00200013") == [2, 11, None]
    assert {value(r, SERIES) for r in nested} == {series}
    relational = rows_of(get(f"{server.dicomweb()}/instances?SeriesInstanceUID={series}"))
    assert [value(r, INSTANCE) for r in relational] == [value(r, INSTANCE) for r in nested]
    none = get(f"{server.dicomweb()}/studies/{HEAD}/series/{series}/instances")
    assert none.status_code == 204


@pytest.mark.parametrize(
    ("path", "tag", "count"),
    [("series", SERIES, 5), ("instances", INSTANCE, 15), (f"studies/{CHEST}/instances", INSTANCE, 9)],
)
def test_pages_of_series_and_instances_give_each_once(path: str, tag: str, count: int, server: Serving) -> None:
    url = f"{server.dicomweb()}/{path}"
    found = walk(url, 2, lambda answer, so_far: None)
    assert len(found) == len({value(r, tag) for r in found}) == count
    assert [value(r, tag) for r in walk(url, 4)] == [value(r, tag) for r in found]
    first = get(url, params={"limit": 2})
    assert remaining(first) == (count - 2, False)
    assert sum(rows for _, rows in sources(first).values()) == count


def test_series_of_all_sites_come_by_number(server: Serving) -> None:
    assert numbers(rows_of(get(f"{server.dicomweb()}/series")), "00200011") == [1, 2, 2, 10, None]


def test_filters_below_the_study(server: Serving) -> None:
    base = server.dicomweb()
    assert numbers(rows_of(get(f"{base}/studies/{CHEST}/series?SeriesNumber=10")), "00200011") == [10]
    assert numbers(rows_of(get(f"{base}/series?SeriesNumber=2&PatientID=4547")), "00200011") == [2]
    assert len(rows_of(get(f"{base}/series?PatientName=dupont%20levy"))) == 3
    assert len(rows_of(get(f"{base}/series?PatientID=77@{B}&Modality=CT"))) == 2
    assert len(rows_of(get(f"{base}/series?StudyDate=20230101"))) == 2
    assert get(f"{base}/series?Modality=MR").status_code == 204
    assert get(f"{base}/studies/{CHEST}/series?Modality=MR").status_code == 204
    assert len(rows_of(get(f"{base}/studies/{CHEST}/series?SeriesDescription=Fen*"))) == 3
    sop = uids(get(f"{base}/instances?InstanceNumber=11&StudyInstanceUID={HEAD}"), INSTANCE)
    assert len(sop) == 2
    assert uids(get(f"{base}/instances?SOPInstanceUID={','.join(sop)}"), INSTANCE) == sorted(sop)
    assert len(rows_of(get(f"{base}/studies/{CHEST}/instances?InstanceNumber=11"))) == 3


def test_fields_are_included_by_tag_and_keyword(server: Serving) -> None:
    def has(query: str, level: str) -> Row:
        return rows_of(get(f"{server.dicomweb()}/{level}?StudyInstanceUID={CHEST}&{query}"))[0]

    assert value(has("includefield=StudyDescription", "studies"), "00081030") == "Scanner thoracique"
    assert value(has("includefield=00081030%2C00080070", "studies"), "00081030") == "Scanner thoracique"
    assert value(has("includefield=Manufacturer&includefield=Rows", "series"), "00080070") == "Fictive"
    assert value(has("includefield=00280010", "instances"), "00280010") == 8
    assert value(has("includefield=all", "studies"), "00081030") == "Scanner thoracique"
    assert value(has("StudyDescription=", "studies"), "00081030") == "Scanner thoracique"


def test_search_below_an_unknown_study_finds_nothing(server: Serving) -> None:
    for path in ("studies/1.2.3/series", "studies/1.2.3/instances", "studies/1.2.3/series/1.2/instances"):
        answer = get(f"{server.dicomweb()}/{path}")
        assert answer.status_code == 204
        assert sources(answer) == {A: ("ok", 0), B: ("ok", 0)}


def test_rows_of_another_study_that_a_member_gives_are_not_shown(peers, serve) -> None:
    """A member that ignores the path and the filters."""
    mine, other = row("1.2.1", "1"), row("1.2.2", "2")
    series = [series_row(mine, "1.2.1.1"), series_row(other, "1.2.2.1")]
    below = [instance_row(s, f"{value(s, SERIES)}.1") for s in series]

    async def careless(request, connection) -> None:
        found = {"studies": [mine, other], "series": series, "instances": below}
        await connection.json(found[request.path.rpartition("/")[2]])

    members = peers(csrom41200=careless)
    server = serve({"csrom41200": members["csrom41200"].dicomweb_url})
    base = server.dicomweb()
    assert uids(get(f"{base}/studies/1.2.1/series"), SERIES) == ["1.2.1.1"]
    assert uids(get(f"{base}/series?StudyInstanceUID=1.2.2"), SERIES) == ["1.2.2.1"]
    assert uids(get(f"{base}/studies/1.2.1/series/1.2.1.1/instances"), INSTANCE) == ["1.2.1.1.1"]
    assert uids(get(f"{base}/studies/1.2.1/series/1.2.2.1/instances"), INSTANCE) == []
    assert uids(get(f"{base}/studies?PatientID=2"), STUDY) == ["1.2.2"]
    assert uids(get(f"{base}/instances?PatientID=1"), INSTANCE) == ["1.2.1.1.1"]


def test_same_series_at_two_holders_is_one_row(peers, serve) -> None:
    both = {site: row("1.2.1", "1", "DUPONT^MARIE") for site in (A, B)}
    members = peers(
        **{
            site: strict(
                [study],
                [series_row(study, "1.2.1.1", number=1), series_row(study, f"1.2.1.{only}", number=2)],
                [instance_row(series_row(study, s), f"{s}.{n}") for s, n in found],
            )
            for (site, study), only, found in zip(
                both.items(),
                (2, 3),
                ([("1.2.1.1", 1), ("1.2.1.1", 2), ("1.2.1.2", 1)], [("1.2.1.1", 2), ("1.2.1.1", 3), ("1.2.1.3", 1)]),
                strict=True,
            )
        }
    )
    server = serve({site: m.dicomweb_url for site, m in members.items()})
    for path in ("studies/1.2.1/series", "series?PatientID=1"):
        found = rows_of(get(f"{server.dicomweb()}/{path}"))
        assert [(value(r, SERIES), values(r, "00080054"), value(r, "00201209")) for r in found] == [
            ("1.2.1.1", [A, B], 3),
            ("1.2.1.2", [A], 1),
            ("1.2.1.3", [B], 1),
        ]
    for path in ("studies/1.2.1/instances", "studies/1.2.1/series/1.2.1.1/instances", "instances?PatientID=1"):
        found = rows_of(get(f"{server.dicomweb()}/{path}"))
        held = {value(r, INSTANCE): values(r, "00080054") for r in found}
        assert len(held) == len(found) == (3 if "series" in path else 5)
        assert held["1.2.1.1.2"] == [A, B]
        assert held["1.2.1.1.3"] == [B]
