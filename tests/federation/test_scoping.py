"""Which sites a request addresses, and whether it says enough to be sent to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, SITES, TOURS

from consent import Requester
from federation.errors import NotFound
from federation.model import Level, Query, Scope, ScopeKind
from federation.scoping import has_patient_criterion, own_site_left_out, sites_in
from registry import Directory, Folder, SiteStatus

ALL = Scope()
SITE = Scope(ScopeKind.SITE, "csrom41200")
FOLDER = Scope(ScopeKind.FOLDER, "mirc-historique")


def query(scope: Scope = ALL, **filters: str) -> Query:
    return Query(level=Level.STUDY, scope=scope, filters={k.removeprefix("t"): v for k, v in filters.items()})


def test_scopes() -> None:
    assert sites_in(ALL, DIRECTORY) == SITES
    assert sites_in(FOLDER, DIRECTORY) == (ROMORANTIN, BLOIS)
    assert sites_in(Scope(ScopeKind.FOLDER, "mirc-centres-imagerie"), DIRECTORY) == ()
    assert sites_in(SITE, DIRECTORY) == (ROMORANTIN,)
    assert sites_in(Scope(ScopeKind.SITE, "CSROM41200"), DIRECTORY) == (ROMORANTIN,)
    for scope in (Scope(ScopeKind.SITE, "nowhere"), Scope(ScopeKind.FOLDER, "nowhere"), Scope(ScopeKind.SITE, "")):
        with pytest.raises(NotFound):
            sites_in(scope, DIRECTORY)


def test_only_members_with_an_address_are_asked() -> None:
    asked = Directory(
        [
            replace(ROMORANTIN, status=SiteStatus.SUSPENDED),
            replace(BLOIS, status=SiteStatus.UNREFERENCED),
            replace(TOURS, dicomweb=None),
            ORLEANS,
        ],
        [Folder(name="MIRC historique")],
    )
    assert sites_in(ALL, asked) == (ORLEANS,)
    assert sites_in(SITE, asked) == ()
    assert sites_in(FOLDER, asked) == ()


@pytest.mark.parametrize(
    ("filters", "enough"),
    [
        ({}, False),
        ({"t00080060": "CT", "t00080020": "20200101"}, False),
        ({"t0020000D": "1.2"}, True),
        ({"t0020000E": "1.2"}, True),
        ({"t00080018": "1.2"}, True),
        ({"t00080050": "A1"}, True),
        ({"t00080050": "A*"}, True),
        ({"t00080050": "*?"}, False),
        ({"t00100020": "4547"}, True),
        ({"t00100020": "4547@csrom41200"}, True),
        ({"t00100020": "45*"}, False),
        ({"t00100020": "454?"}, False),
        ({"t00100010": "DU*"}, True),
        ({"t00100010": "D*U*"}, True),
        ({"t00100010": "D*"}, False),
        ({"t00100010": "D*^MARIE"}, False),
        ({"t00100010": "*^MARIE"}, False),
        ({"t00100010": "É’"}, False),
        ({"t00100010": "山田"}, True),
        ({"t00100030": "19600512"}, False),
        ({"t00100030": "19600512", "t00100010": "*^M*"}, True),
        ({"t00100030": "19600512", "t00100010": "*^*"}, False),
    ],
)
def test_what_says_enough_of_a_patient(filters: dict[str, str], enough: bool) -> None:
    assert has_patient_criterion(query(**filters)) is enough


def test_a_uid_of_the_path_says_enough() -> None:
    assert has_patient_criterion(replace(query(), study_uid="1.2"))


def test_the_own_site_is_left_out_of_wide_searches() -> None:
    at_home, nowhere = Requester(id="1", home=BLOIS), Requester(id="2")
    assert own_site_left_out(query(), at_home, include=False) == BLOIS
    assert own_site_left_out(query(FOLDER), at_home, include=False) == BLOIS
    assert own_site_left_out(query(), nowhere, include=False) is None
    assert own_site_left_out(query(), at_home, include=True) is None
    assert own_site_left_out(query(SITE), at_home, include=False) is None
    assert own_site_left_out(query(t0020000D="1.2"), at_home, include=False) is None
    assert own_site_left_out(replace(query(), study_uid="1.2"), at_home, include=False) is None


def test_scopes_in_words() -> None:
    assert [str(s) for s in (ALL, FOLDER, SITE)] == ["all", "folder:mirc-historique", "site:csrom41200"]
    assert [s.wide for s in (ALL, FOLDER, SITE)] == [True, True, False]
