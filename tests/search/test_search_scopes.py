"""Who is asked: scopes, the requester's own site, searches that name no patient, and requests that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from region import get, remaining, row, rows_of, sources, strict, tree, uids, warnings_of
from support.peer import Peer
from support.serving import Serving, settings_for
from support.threads import LoopThread

from consent import Open, Requester
from dicomweb.links import FacadeLinks
from federation.model import Level, Query, Scope, ScopeKind
from federation.search import Answer
from imagora.app import running
from imagora.metrics import Metrics
from registry.database import Database
from registry.store import RegistryStore

FOLDERS = {"MIRC historique": ["csrom41200", "cschb41000"], "MIRC Centres Imagerie": ["cicim28000"], "Vide": []}
STUDY_AT = {"csrom41200": "1.1", "cschb41000": "1.2", "cicim28000": "1.3", "csorl45100": "1.4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Two servers over the same four members: one asks for a patient in wide searches."""

    server: Serving
    careful: Serving
    members: dict[str, Peer]

    def asked(self) -> list[str]:
        """The members that were asked since this was last called."""
        asked = [site for site, member in self.members.items() if member.requests]
        for member in self.members.values():
            member.requests.clear()
        return asked


@pytest.fixture(scope="module")
def everything(serve_module) -> Iterator[Region]:
    """Four sites in two folders and none, one study each."""
    with ExitStack() as stack:
        members = {site: stack.enter_context(Peer(tree([row(uid, site[-5:])]))) for site, uid in STUDY_AT.items()}
        urls = {**{site: member.dicomweb_url for site, member in members.items()}, "sansadresse": None}
        yield Region(
            server=serve_module(urls, folders=FOLDERS),
            careful=serve_module(urls, folders=FOLDERS, search={"require_patient_criterion": True}),
            members=members,
        )


@pytest.fixture
def region(everything: Region) -> Region:
    everything.asked()
    return everything


def test_a_scope_asks_its_own_sites_and_no_other(region: Region) -> None:
    scopes = {
        "": ["1.1", "1.2", "1.3", "1.4"],
        "/folders/mirc-historique": ["1.1", "1.2"],
        "/folders/mirc-centres-imagerie": ["1.3"],
        "/sites/csorl45100": ["1.4"],
        "/sites/CsRom41200": ["1.1"],
        "/sites/CSCHB41000": ["1.2"],
    }
    for scope, expected in scopes.items():
        answer = get(f"{region.server.dicomweb(scope)}/studies")
        assert sorted(uids(answer)) == expected
        assert region.asked() == [s for s, uid in STUDY_AT.items() if uid in expected]
        assert list(sources(answer)) == [s for s, uid in STUDY_AT.items() if uid in expected]


@pytest.mark.parametrize("path", ["studies", "series", "instances", "studies/1.1", "studies/1.1/series"])
@pytest.mark.parametrize("scope", ["/sites/nowhere", "/folders/nowhere", "/folders/MIRC%20historique", "/sites/%40"])
def test_unknown_scope_is_not_found(scope: str, path: str, region: Region) -> None:
    answer = get(f"{region.server.dicomweb(scope)}/{path}")
    assert answer.status_code == 404
    assert "error" in answer.json()
    assert region.asked() == []


@pytest.mark.parametrize("scope", ["/folders/vide", "/sites/sansadresse"])
@pytest.mark.parametrize("path", ["studies", "series", "studies/1.1/series", "studies/1.1/instances"])
def test_scope_without_a_connected_source_says_so(scope: str, path: str, region: Region) -> None:
    answer = get(f"{region.server.dicomweb(scope)}/{path}")
    assert (answer.status_code, answer.json()) == (200, [])
    assert warnings_of(answer) == ["No source is connected in this scope"]


ENOUGH = [
    "StudyInstanceUID=1.2.3",
    "00080050=A123",
    "PatientID=4547",
    "PatientID=4547%40csrom41200",
    "PatientName=DU",
    "PatientName=DU*",
    "PatientName=*DU*",
    "PatientName=%C3%89l%5E",
    "PatientName=Li",
    "PatientBirthDate=19600512&PatientName=D*",
    "PatientBirthDate=19600512&PatientName=%5EM*",
]
TOO_LITTLE = [
    "",
    "limit=25",
    "StudyDate=20240101",
    "ModalitiesInStudy=CT",
    "PatientName=*",
    "PatientName=D*",
    "PatientName=%5EMARIE",
    "PatientName=**",
    "PatientName=%3F%3F",
    "PatientName=*-*",
    "PatientID=*",
    "PatientID=45*",
    "PatientID=%3F",
    "PatientBirthDate=19600512",
    "PatientBirthDate=19600512&PatientName=*",
    "00080050=*",
    "00080050=%3F%3F*",
    "StudyInstanceUID=",
    "PatientSex=F",
    "PatientNam=DUPONT",
]


@pytest.mark.parametrize("query", TOO_LITTLE)
def test_wide_search_that_names_no_patient_reaches_nobody(query: str, region: Region) -> None:
    for scope in ("", "/folders/mirc-historique"):
        for level in ("studies", "series", "instances"):
            answer = get(f"{region.careful.dicomweb(scope)}/{level}?{query}")
            assert (answer.status_code, answer.json()) == (200, []), (scope, level)
            assert any("names no patient" in w for w in warnings_of(answer))
    assert region.asked() == []


def test_one_site_alone_answers_without_a_patient(region: Region) -> None:
    assert uids(get(f"{region.careful.dicomweb('/sites/csrom41200')}/studies")) == ["1.1"]


@pytest.mark.parametrize("query", ["StudyInstanceUID=*", "StudyInstanceUID=%2C", "StudyInstanceUID=%5C"])
def test_uid_that_is_none_does_not_stand_for_a_patient(query: str, region: Region) -> None:
    answer = get(f"{region.careful.dicomweb()}/studies?{query}")
    assert answer.status_code in (200, 400)
    assert answer.status_code == 400 or answer.json() == []
    assert region.asked() == []


def test_wide_search_that_names_a_patient_reaches_all(region: Region) -> None:
    for query in ENOUGH:
        answer = get(f"{region.careful.dicomweb()}/studies?{query}")
        assert not any("names no patient" in w for w in warnings_of(answer)), query
        assert region.asked() == list(STUDY_AT), query


# The requester's own site ---------------------------------------------------------------------------------------


@pytest.fixture
def as_requester(postgres: Callable[[], str], tmp_path: Path) -> Callable[..., Answer]:
    """Searches in the engine itself, for somebody whose home is csrom41200."""

    def search(
        members: dict[str, str], query: Query, *, own_site: bool | None = None, setting: str = "exclude"
    ) -> Answer:
        settings = settings_for(dict(members), tmp_path, search={"own_site": setting})
        url = postgres()

        async def work() -> Answer:
            async with Database(url) as database:
                await RegistryStore(database, node="IMAGORA").seed(
                    settings.registry_sites(), settings.registry_folders()
                )
            async with running(settings, url, Metrics(dict), Open()) as (server, key):
                home = server.registry.directory.site("csrom41200")
                assert home is not None
                return await server.searcher.search(
                    Requester(id="10001234567", home=home),
                    query,
                    FacadeLinks(base="http://127.0.0.1:1", prefix="", key=key),
                    request_id="1",
                    asked_as="/studies",
                    own_site=own_site,
                )

        thread = LoopThread("engine")
        try:
            return thread.run(work())
        finally:
            thread.close()

    return search


OWN = [row("1.1", "11")]
OTHERS = [row("2.1", "21"), row("2.2", "11@csrom41200"), row("2.3", "23")]
WIDE = Query(level=Level.STUDY, scope=Scope())


def found(answer: Answer) -> set[str]:
    return {r["0020000D"]["Value"][0] for r in answer.rows}


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        (WIDE, {}, {"2.1", "2.3"}),
        (WIDE, {"own_site": True}, {"1.1", "2.1", "2.2", "2.3"}),
        (Query(level=Level.STUDY, scope=Scope(ScopeKind.SITE, "csrom41200")), {}, {"1.1"}),
        (Query(level=Level.STUDY, scope=Scope(), filters={"0020000D": "1.1,2.2"}), {}, {"1.1", "2.2"}),
    ],
    ids=["left out", "asked for", "own site alone", "named"],
)
def test_own_exams_in_a_search(
    query: Query, options: dict[str, Any], expected: set[str], peers, as_requester: Callable[..., Answer]
) -> None:
    members = peers(csrom41200=strict(OWN), cschb41000=strict(OTHERS))
    answer = as_requester({s: m.dicomweb_url for s, m in members.items()}, query, **options)
    assert found(answer) == expected
    said = any("your own site, csrom41200, are left out" in n for n in answer.report.notices)
    assert said == (expected == {"2.1", "2.3"})
    assert bool(members["csrom41200"].requests) == (expected != {"2.1", "2.3"})
    if said:
        assert answer.report.sources["cschb41000"].rows == 2


def test_own_exams_are_there_where_the_settings_include_them(peers, as_requester: Callable[..., Answer]) -> None:
    members = peers(csrom41200=strict(OWN), cschb41000=strict(OTHERS))
    urls = {s: m.dicomweb_url for s, m in members.items()}
    assert found(as_requester(urls, WIDE, setting="include")) == {"1.1", "2.1", "2.2", "2.3"}
    assert found(as_requester(urls, WIDE, setting="include", own_site=False)) == {"2.1", "2.3"}


def test_own_site_alone_in_a_folder_leaves_nobody_to_ask(peers, as_requester: Callable[..., Answer]) -> None:
    members = peers(csrom41200=strict(OWN))
    answer = as_requester({s: m.dicomweb_url for s, m in members.items()}, WIDE)
    assert (answer.rows, answer.asked) == ([], False)
    assert answer.report.notices == [
        "Exams of your own site, csrom41200, are left out: ask with own_site=include",
        "No source is connected in this scope",
    ]


# Requests that are wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("offset=-1", "offset"),
        ("offset=1.5", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("own_site=perhaps", "own_site"),
        ("StudyDate=2024-13", "StudyDate"),
        ("StudyDate=yesterday", "StudyDate"),
        ("StudyDate=20240101-20240201-20240301", "StudyDate"),
        ("StudyDate=-", "StudyDate"),
        ("00080030=noon", "00080030"),
        ("StudyInstanceUID=1.2.x", "StudyInstanceUID"),
        ("0020000D=" + "1" * 65, "0020000D"),
        ("SeriesNumber=one", "SeriesNumber"),
        ("0010001=1", "0010001"),
        ("00100010.1=1", "1"),
        ("includefield=0010001", "0010001"),
        ("PatientName=A&00100010=B", "00100010"),
        ("PatientName=%FF", "PatientName"),
        ("PatientID=" + "1" * 5000, "PatientID"),
    ],
)
def test_malformed_value_is_refused_by_name(query: str, named: str, region: Region) -> None:
    answer = get(f"{region.server.dicomweb()}/studies?{query}")
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert region.asked() == []


def test_unknown_parameter_is_ignored_and_named(region: Region) -> None:
    answer = get(f"{region.server.dicomweb()}/studies?PatientNam=X&foo%0d%0abar=1&PatientID=41200")
    assert uids(answer) == ["1.1"]
    assert warnings_of(answer) == ["Unknown parameter ignored: PatientNam", "Unknown parameter ignored: foo??bar"]
    assert not any("PatientNam" in dict(r.query) for member in region.members.values() for r in member.requests)


def test_fuzzy_matching_without_a_name_changes_nothing(region: Region) -> None:
    for flag in ("false", "true"):
        answer = get(f"{region.server.dicomweb()}/studies?PatientID=41200&fuzzymatching={flag}")
        assert (uids(answer), warnings_of(answer)) == (["1.1"], [])


@pytest.mark.parametrize(
    ("accept", "status", "given"),
    [
        (None, 200, "application/dicom+json"),
        ("*/*", 200, "application/dicom+json"),
        ("application/dicom+json", 200, "application/dicom+json"),
        ("application/json", 200, "application/json"),
        ("text/html, application/json;q=0.5", 200, "application/json"),
        ("application/xml", 406, None),
        ("text/html", 406, None),
    ],
)
def test_media_type_of_an_answer(accept: str | None, status: int, given: str | None, region: Region) -> None:
    answer = get(f"{region.server.dicomweb()}/studies", Accept=accept)  # None: no such header
    assert answer.status_code == status
    if given is not None:
        assert answer.headers["Content-Type"].partition(";")[0] == given
        assert len(rows_of(answer)) == 4
        assert remaining(answer) == (0, False)


def test_study_uid_in_the_path_must_be_one(region: Region) -> None:
    assert get(f"{region.server.dicomweb()}/studies/1.2.x/series").status_code == 400
    assert get(f"{region.server.dicomweb()}/studies/1.1/series?StudyInstanceUID=1.2").status_code == 400
    assert len(rows_of(get(f"{region.server.dicomweb()}/studies/1.1/series?StudyInstanceUID=1.1"))) == 1
