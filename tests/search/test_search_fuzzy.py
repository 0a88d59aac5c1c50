"""`fuzzymatching=true`: names that sound alike or differ by a letter are found, whatever members can, nearest first."""

from __future__ import annotations

import pytest
from dicomweb_client.api import DICOMwebClient
from imagora_demo import exams
from region import Row, get, row, rows_of, strict, value, warnings_of
from support.serving import Serving

NAMES = ["DUPONT^MARIE", "DUPOND^MARIE", "Dupont-Lévy^Marie", "DUMONT^MARIE", "DURAND^MARIE", "MARIE^DUPONT"]
NAMES += ["LEFEBVRE^ÉMILE", "Lefèvre^Emile", "MARTIN^ANNE"]


def studies(site: str) -> list[Row]:
    return [row(exams.uid("fuzzy", site, n), str(n), name, date=f"202401{n + 1:02}") for n, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def server(orthancs, serve_module) -> Serving:
    """One real Orthanc that tells accents apart."""
    content = [
        instance
        for n, name in enumerate(NAMES)
        for instance in exams.light_study(
            study_uid=str(exams.uid("fuzzy", "orthanc", n)),
            patient_id=str(n),
            name=name,
            charset="ISO_IR 192",
            study_date=f"202401{n + 1:02}",
        )
    ]
    members = orthancs({"csrom41200": content})
    serving: Serving = serve_module({"csrom41200": members["csrom41200"].dicomweb_url})
    return serving


def found(url: str, name: str, fuzzy: str = "true") -> list[str]:
    answer = get(url, params={"PatientName": name, "fuzzymatching": fuzzy})
    assert not [w for w in warnings_of(answer) if "fuzzy" in w]
    return [value(r, "00100010")["Alphabetic"] for r in rows_of(answer)]


CASES = [
    # Literal matches first, then the nearest; the newest first among those that are as near.
    ("DUPOND^MARIE", ["DUPOND^MARIE", "Dupont-Lévy^Marie", "DUPONT^MARIE", "MARIE^DUPONT"]),
    ("dupont", ["DUPONT^MARIE", "MARIE^DUPONT", "Dupont-Lévy^Marie", "DUPOND^MARIE", "DUMONT^MARIE"]),
    ("*dupond*", ["DUPOND^MARIE", "MARIE^DUPONT", "Dupont-Lévy^Marie", "DUPONT^MARIE"]),
    ("lefebvre^emile", ["LEFEBVRE^ÉMILE", "Lefèvre^Emile"]),
    ("MARTAIN^ANE", ["MARTIN^ANNE"]),
    ("GARCIA", []),
]


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_near_names_are_found_at_a_real_pacs_nearest_first(server: Serving, name: str, expected: list[str]) -> None:
    answered = found(f"{server.dicomweb()}/studies", name)
    assert sorted(answered[: len(expected)]) == sorted(expected)
    assert answered[:1] == expected[:1]


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_near_names_are_found_at_a_member_that_takes_every_letter_as_it_is(
    peers, serve, name: str, expected: list[str]
) -> None:
    members = peers(csrom41200=strict(studies("strict")))
    url = f"{serve({'csrom41200': members['csrom41200'].dicomweb_url}).dicomweb()}/studies"
    answered = found(url, name)
    assert sorted(answered[: len(expected)]) == sorted(expected)
    assert answered[:1] == expected[:1]


def test_without_it_names_match_literally(server: Serving) -> None:
    url = f"{server.dicomweb()}/studies"
    assert found(url, "DUPOND^MARIE", "false") == ["DUPOND^MARIE"]
    assert found(url, "MARTAIN^ANE", "false") == []


def test_dicomweb_client_asks_for_it(server: Serving) -> None:
    client = DICOMwebClient(server.dicomweb())
    rows = client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "MARTAIN^ANE"})
    assert [value(r, "00100010")["Alphabetic"] for r in rows] == ["MARTIN^ANNE"]


def test_pages_go_by_nearness_too(server: Serving) -> None:
    url = f"{server.dicomweb()}/studies"
    whole = found(url, "DUPOND^MARIE")
    paged = [
        value(r, "00100010")["Alphabetic"]
        for offset in range(len(whole))
        for r in rows_of(
            get(url, params={"PatientName": "DUPOND^MARIE", "fuzzymatching": "true", "limit": 1, "offset": offset})
        )
    ]
    assert paged == whole


def test_series_are_found_by_a_near_name(server: Serving) -> None:
    rows = rows_of(get(f"{server.dicomweb()}/series", params={"PatientName": "MARTAIN^ANE", "fuzzymatching": "true"}))
    assert [value(r, "00100010")["Alphabetic"] for r in rows] == ["MARTIN^ANNE"]
