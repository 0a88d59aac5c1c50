"""Names are found however they are typed and however they are stored, in any character set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from region import STUDY, Row, get, row, rows_of, sources, strict, value
from support.peer import Connection, Peer, Request
from support.serving import Serving, serving, settings_for

from registry import Quirks
from registry.database import Database
from registry.store import RegistryStore

#: Stored spellings, by character set.
LATIN, UTF8 = "ISO_IR 100", "ISO_IR 192"
JAPANESE, LATIN_JAPANESE = ["", "ISO 2022 IR 87"], ["ISO 2022 IR 100", "ISO 2022 IR 87"]
DUPONT = [
    ("DUPONT-LÉVY^MARIE", LATIN),
    ("Dupont-Lévy^Marie", UTF8),
    ("Dupont Lévy^Marie", LATIN),
    ("dupont lévy^marie", UTF8),
    ("DUPONT LEVY^MARIE", LATIN),
    ("DUPONTLEVY^Marie", UTF8),
    ("DUPONT - LEVY^MARIE", LATIN),
    ("Dupont-Le\u0301vy^Marie", UTF8),  # the accent as a character of its own
    ("Dupont‑Lévy^Marie", UTF8),  # a hyphen that does not break
    ("DUPONT-LEVY^MARIE=山田^花子", JAPANESE),
    ("Dupont-Lévy^Marie=山田^花子", LATIN_JAPANESE),
]
ONEIL = [
    ("O'NEIL^JOHN", LATIN),
    ("O'Neil^John", UTF8),
    ("O’Neil^John", UTF8),
    ("ONEIL^JOHN", LATIN),
    ("O NEIL^JOHN", LATIN),
    ("O'Néil^John", LATIN),
    ("oneil^john", UTF8),
    ("ONeil^John=大^ニール", JAPANESE),
]
YAMADA = [
    ("YAMADA^TAROU=山田^太郎=やまだ^たろう", JAPANESE),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", UTF8),
    ("=山田^太郎=やまだ^たろう", JAPANESE),
]
OTHERS = [("DUPONT^MARIE", LATIN), ("LEVY^MARIE", LATIN), ("DUPOND-LEVY^MARIE", LATIN), ("NEIL^JOHN", UTF8)]
OTHERS += [("ONEILL^JOHN", LATIN), ("山本^太郎", UTF8), ("ŒUVRE^ÉLOÏSE", UTF8)]

FIND_DUPONT = [
    "DUPONT-LÉVY",
    "DUPONT-LEVY",
    "dupont-lévy",
    "Dupont Lévy",
    "dupont levy",
    "DUPONT LEVY",
    "DUPONTLEVY*",
    "dupontlévy*",
    "DUPONTLEVY",
    "dupont-levy^m*",
    "Dupont-Lévy^Marie",
    "DUPONTLÉVY^MARIE",
    "dupontl?vy*",
    "dupont*levy",
]
FIND_ONEIL = [
    "O'Neil",
    "o'neil",
    "O'NEIL",
    "ONEIL",
    "oneil",
    "O’Neil",
    "o neil",
    "O-NEIL^J*",
    "Onéil^John",
    "O`Neil^J?hn",
]
FIND_YAMADA = ["山田", "山田^太郎", "山*", "*田^太郎", "やまだ", "やまだ^たろう"]


def stored(site: str) -> dict[str, tuple[str, str]]:
    """Study UID → (stored name, who it is), at one site."""
    return {
        str(exams.uid(site, who, number)): (name, who)
        for who, names in (("dupont", DUPONT), ("oneil", ONEIL), ("yamada", YAMADA), ("other", OTHERS))
        for number, (name, _) in enumerate(names)
    }


def instances(site: str) -> list[bytes]:
    made = []
    for who, names in (("dupont", DUPONT), ("oneil", ONEIL), ("yamada", YAMADA), ("other", OTHERS)):
        for number, (name, charset) in enumerate(names):
            made += exams.light_study(
                study_uid=str(exams.uid(site, who, number)),
                name=name,
                charset=charset,
                patient_id=f"{who}-{number}",
                description="Scanner thoracique",
            )
    return made


def groups(name: str) -> dict[str, str]:
    return {
        g: text for g, text in zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False) if text
    }


def json_row(uid: str, name: str) -> Row:
    return row(uid, uid[-8:], t00100010={"vr": "PN", "Value": [groups(name)]})


CASES = ("as-installed", "any-case", "telling")
SITES = (*CASES, "strict")


@pytest.fixture(scope="module")
def members(orthancs) -> dict[str, OrthancServer]:
    """Orthancs that tell cases apart and that don't."""
    servers: dict[str, OrthancServer] = orthancs(
        {site: instances(site) for site in CASES},
        {
            "any-case": {"config": {"DicomWeb": {"QidoCaseSensitive": False}}},
            "telling": {"config": {"CaseSensitivePN": True, "DicomWeb": {"QidoCaseSensitive": True}}},
        },
    )
    return servers


@pytest.fixture(scope="module")
def region(members: dict[str, OrthancServer], serve_module) -> Iterator[Serving]:
    """The Orthancs and a scripted member that takes every letter as it is."""
    literal = strict([json_row(uid, name) for uid, (name, _) in stored("strict").items()])
    with Peer(literal) as scripted:
        urls = {site: member.dicomweb_url for site, member in members.items()}
        yield serve_module({**urls, "strict": scripted.dicomweb_url})


@pytest.fixture(scope="module")
def checked(
    members: dict[str, OrthancServer], postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """Only Orthancs that are known to ignore cases, so that more of a name can be asked of them."""
    urls: dict[str, str | None] = {site: members[site].dicomweb_url for site in ("as-installed", "any-case")}
    settings, database = settings_for(urls, tmp_path_factory.mktemp("checked")), postgres()

    async def learn() -> None:
        async with Database(database) as opened:
            store = RegistryStore(opened, node="IMAGORA")
            await store.seed(settings.registry_sites(), settings.registry_folders())
            for site in urls:
                await store.save_quirks(site, Quirks(names_ignore_case=True))

    asyncio.run(learn())
    with serving(settings, database) as server:
        yield server


def test_members_tell_cases_apart_as_they_are_set_to(members: dict[str, OrthancServer]) -> None:
    found = {site: len(get(f"{m.dicomweb_url}/studies?PatientName=dupont*").json()) for site, m in members.items()}
    assert found["telling"] < found["any-case"], found


def missed(server: Serving, pattern: str, who: str) -> tuple[set[str], set[str]]:
    """→ (spellings of `who` that are not found, names of others that are), each with its site."""
    answer = get(f"{server.dicomweb()}/studies", params={"PatientName": pattern})
    answer.content.decode("utf-8")
    found = {value(r, STUDY) for r in rows_of(answer)}
    assert {status for status, _ in sources(answer).values()} == {"ok"}
    at = {site: stored(site) for site in sources(answer)}
    right = {uid for names in at.values() for uid, (_, whose) in names.items() if whose == who}
    named = {uid: f"{site}: {name}" for site, names in at.items() for uid, (name, _) in names.items()}
    return {named[u] for u in right - found}, {named[u] for u in found - right}


@pytest.mark.parametrize("pattern", FIND_DUPONT)
def test_compound_accented_name_is_found_in_every_spelling(pattern: str, region: Serving) -> None:
    assert missed(region, pattern, "dupont") == (set(), set())


@pytest.mark.parametrize("pattern", FIND_ONEIL)
def test_name_with_an_apostrophe_is_found_in_every_spelling(pattern: str, region: Serving) -> None:
    assert missed(region, pattern, "oneil") == (set(), set())


@pytest.mark.parametrize("pattern", FIND_YAMADA)
def test_japanese_name_is_found_by_each_of_its_groups(pattern: str, region: Serving) -> None:
    not_found, wrong = missed(region, pattern, "yamada")
    assert all("山" in w or "田" in w for w in wrong)  # 山田^花子, 山本^太郎
    # The scripted member matches the alphabetic group only: it can't be made to find the others by them.
    assert {n for n in not_found if not n.startswith("strict")} == set()


@pytest.mark.parametrize(
    ("pattern", "with_others"),
    [("dup*levy", "DUPOND"), ("*levy^marie", "LEVY"), ("dupon?levy", "DUPOND"), ("dupont*", "DUPONT")],
)
def test_wildcards_find_every_spelling_and_what_else_they_cover(
    pattern: str, with_others: str, region: Serving
) -> None:
    not_found, wrong = missed(region, pattern, "dupont")
    assert not_found == set()
    assert wrong
    assert all(with_others in w for w in wrong)


@pytest.mark.parametrize("who", ["dupont", "oneil", "yamada"])
def test_members_that_are_known_to_ignore_cases_find_the_same(who: str, checked: Serving) -> None:
    for pattern in {"dupont": FIND_DUPONT, "oneil": FIND_ONEIL, "yamada": FIND_YAMADA}[who]:
        not_found, wrong = missed(checked, pattern, who)
        assert (not_found, who == "yamada" or wrong == set()) == (set(), True), pattern


@pytest.mark.parametrize("pattern", ["yamada", "YAMADA^TAROU", "Yamada^T*"])
def test_romanised_name_is_found_where_it_is_stored(pattern: str, region: Serving) -> None:
    not_found, wrong = missed(region, pattern, "yamada")
    assert wrong == set()
    assert all(": =" in n for n in not_found)


def test_rows_show_the_members_spelling_in_utf_8(region: Serving, members: dict[str, OrthancServer]) -> None:
    answer = get(f"{region.dicomweb()}/studies")
    found = {value(r, STUDY): r for r in rows_of(answer)}
    assert all(value(r, "00080005") == "ISO_IR 192" for r in found.values())
    for site in SITES:
        for uid, (name, _) in stored(site).items():
            if (name, LATIN_JAPANESE) not in DUPONT:  # this Orthanc does not know how to mix Latin-1 with Kanji
                shown = {group: text for group, text in value(found[uid], "00100010").items() if text}
                assert shown == groups(name), (site, name)
                assert next(iter(groups(name).values())).encode() in answer.content
    for site, member in members.items():
        for own in get(f"{member.dicomweb_url}/studies").json():
            assert found[value(own, STUDY)]["00100010"] == own["00100010"], site


@pytest.mark.parametrize("charset", ["", "; charset=iso-8859-1", "; charset=windows-1252", "; charset=utf-8"])
def test_member_that_sends_json_in_latin_1_is_read(charset: str, peers, serve) -> None:
    rows = [row("1.2.1", "1", "DUPONT-LÉVY^MARIE"), row("1.2.2", "2", "GUÉRIN^Noël")]
    body = json.dumps(rows, ensure_ascii=False).encode("latin-1")

    async def latin(_: Request, connection: Connection) -> None:
        await connection.answer(200, body, f"application/dicom+json{charset}")

    members = peers(csrom41200=latin)
    server = serve({"csrom41200": members["csrom41200"].dicomweb_url})
    answer = get(f"{server.dicomweb()}/studies", params={"PatientName": "dupont levy"})
    assert [value(r, "00100010") for r in rows_of(answer)] == [{"Alphabetic": "DUPONT-LÉVY^MARIE"}]
    assert "DUPONT-LÉVY".encode() in answer.content
    assert sources(answer) == {"csrom41200": ("ok", 1)}
