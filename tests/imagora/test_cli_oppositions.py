"""`imagora oppositions` as a correspondent runs it, on a real PostgreSQL and real Orthancs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from support import peer
from support.opposition_commands import BLO, DOC, INS, OUT, PERSON, REF, ROM, Imagora
from support.peer import Peer

from consent.model import NearMatch
from consent.oppositions import OppositionStore
from consent.traits import normalise, strict
from federation.identity import qualify
from registry.database import Database
from registry.store import LongPatientID, RegistryStore

IPP = ("--ipp", "4547", "--site", "csrom41200")


@pytest.fixture
def imagora(postgres: Callable[[], str], tmp_path: Path) -> Imagora:
    made = Imagora(postgres(), tmp_path)
    made.configure()
    made.register()
    return made


@pytest.fixture(scope="module")
def refusing(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Imagora:
    """For tests after which nothing is recorded."""
    made = Imagora(postgres(), tmp_path_factory.mktemp("refusing"))
    made.configure()
    made.register()
    return made


@pytest.fixture(scope="module")
def orthanc() -> Iterator[OrthancServer]:
    """A PACS that wants a password, as members do."""
    config = {"AuthenticationEnabled": True, "RegisteredUsers": {"imagora": "secret-word"}}
    with OrthancServer(name="opposed", config=config) as server:
        for seed, patient_id, accession in (("a", "4547", "A1"), ("b", "4547", "A2"), ("c", "4548", "A1")):
            server.upload(exams.light_study(f"opposed {seed}", patient_id=patient_id, accession=accession))
        yield server


def uids(*seeds: str) -> list[str]:
    return sorted(str(exams.uid(f"opposed {seed}", "study")) for seed in seeds)


def queue(imagora: Imagora, opposition: int, *ipps: str) -> None:
    """Note near matches at csblo41000, as a server does."""

    async def note() -> None:
        async with Database(imagora.database) as database:
            await OppositionStore(database).note_near_matches(
                [
                    NearMatch(
                        opposition=opposition,
                        emetteur="csblo41000",
                        ipp=ipp,
                        traits=strict(normalise("DUPOND-LÉVY^Marie"), "19600512", "F"),
                        name="DUPOND-LÉVY^Marie",
                        difference="one letter of the name differs",
                        study_uid="1.2.9",
                    )
                    for ipp in ipps
                ]
            )

    asyncio.run(note())


# Recording ----------------------------------------------------------------------------------------------------------


def test_each_kind_is_recorded_listed_and_traced(imagora: Imagora) -> None:
    ids = [
        imagora.add("--study", "1.2.3", "--reason", "Refus : oral, à l’accueil", "--on", "2026-01-31"),
        imagora.add("--study", "1.2.5", "--study", "1.2.4"),
        imagora.add("--accession", "A1", "--site", "CSROM41200"),
        imagora.add("--ipp", "4547@CSROM41200", "--site", "csrom41200"),
        imagora.add(*PERSON, by=REF),
        imagora.add(*PERSON, "--ins", "2 55 08 14 168 025 38", by=REF),
        imagora.add("--ins", INS, by=REF),
    ]
    found = imagora.listed()
    assert [o["id"] for o in found] == ids
    kinds = ["study", "study", "accession", "patient", "person", "person", "person"]
    assert [o["kind"] for o in found] == kinds
    assert (found[0]["declared_on"], found[0]["reason"]) == ("2026-01-31", "Refus : oral, à l’accueil")
    assert found[1]["study_uids"] == ["1.2.4", "1.2.5"]
    assert (found[2]["emetteur"], found[2]["accession"]) == ("csrom41200", "A1")
    assert (found[3]["emetteur"], found[3]["ipp"], found[3]["recorded_by"]) == ("csrom41200", "4547", ROM)
    assert (found[5]["name"], found[5]["birth_date"], found[5]["sex"], found[5]["ins"]) == (
        *("DUPONT-LÉVY^Marie", "19600512", "F", INS),
    )
    traces = imagora.traces()
    assert [(t["detail"]["action"], t["detail"]["opposition"], t["detail"]["kind"]) for t in traces] == [
        ("opposition-added", number, kind) for number, kind in zip(ids, kinds, strict=True)
    ]
    assert [t["requester_id"] for t in traces] == [ROM] * 4 + [REF] * 3
    assert [t["study_uid"] for t in traces[:2]] == ["1.2.3", ""]
    assert [(t["patient_id"], t["origin"]) for t in traces[2:5]] == [
        ("", "csrom41200"),
        ("4547@csrom41200", "csrom41200"),
        ("", ""),
    ]
    assert "DUPONT" not in str(traces)


def test_the_id_is_all_that_stands_on_standard_output(imagora: Imagora) -> None:
    result = imagora.oppositions("add", *PERSON, "--by", REF, "--channel", "oral")
    assert re.fullmatch(r"\d+\n", result.stdout)
    assert "DUPONT-LÉVY^Marie, born 19600512, F" in result.stderr
    assert "in the whole region" in result.stderr


def test_what_stands_already_is_told_with_its_id(imagora: Imagora) -> None:
    number = imagora.add(*IPP)
    for who, ipp in ((ROM, "4547"), (REF, "4547@csrom41200")):
        again = imagora.oppositions("add", "--ipp", ipp, "--site", "csrom41200", "--by", who, "--channel", "oral")
        assert (again.exit_code, again.stdout) == (0, f"{number}\n")
        assert f"Opposition {number} binds the same and stands already" in again.stderr
    assert len(imagora.listed()) == len(imagora.traces()) == 1


def test_a_table_shows_oppositions_to_people(imagora: Imagora) -> None:
    assert imagora.oppositions("list").stdout == "0 oppositions.\n"
    imagora.add(*IPP, "--reason", "by letter")
    lifted = imagora.add("--study", "1.2.3")
    imagora.oppositions("lift", str(lifted), "--by", ROM, "--reason", "agreed")
    lines = imagora.oppositions("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["ID", "BINDS", "STUDIES"]
    assert "IPP 4547 at csrom41200" in lines[1]
    assert "MARTIN CLAIRE (csrom41200)" in lines[1]
    assert "not all known yet" in lines[1]
    assert "by letter" in lines[1]
    assert lines[-1] == "1 opposition."
    everything = imagora.oppositions("list", "--all").stdout
    assert f"lifted {date.today()} by {ROM}" in everything
    assert everything.splitlines()[-1] == "2 oppositions; 1 lifted."


def test_those_of_one_site_are_listed(imagora: Imagora) -> None:
    ours, theirs = imagora.add(*IPP), imagora.add("--ipp", "1", "--site", "csblo41000", by=BLO)
    person = imagora.add("--ins", INS, by=REF)  # who is of csblo41000
    assert [o["id"] for o in imagora.listed("list", "--site", "CSROM41200")] == [ours]
    assert [o["id"] for o in imagora.listed("list", "--site", "csblo41000")] == [theirs, person]
    unknown = imagora.oppositions("list", "--site", "nowhere")
    assert (unknown.exit_code, "no site has the EMETTEUR 'nowhere'" in unknown.stderr) == (1, True)


# Studies that the site names ----------------------------------------------------------------------------------------


def test_the_site_says_at_once_which_studies_are_meant(imagora: Imagora, orthanc: OrthancServer) -> None:
    imagora.environment = {
        "IMAGORA_MEMBER_CSROM41200_USER": "imagora",
        "IMAGORA_MEMBER_CSROM41200_PASSWORD": "secret-word",
    }
    imagora.configure({"csrom41200": orthanc.dicomweb_url})
    said = imagora.oppositions("add", *IPP, "--by", ROM, "--channel", "form")
    assert "csrom41200 holds 2 studies under it now, bound wherever they are." in said.stderr
    imagora.add("--accession", "A2", "--site", "csrom41200")
    nobody = imagora.oppositions("add", "--ipp", "45470", "--site", "csrom41200", "--by", ROM, "--channel", "form")
    assert "holds 0 studies under it now: check that the IPP is right" in nobody.stderr
    patient, accession, none = imagora.listed()
    assert patient["studies_found"] == uids("a", "b")
    assert accession["studies_found"] == uids("b")
    assert none["studies_found"] == []
    assert all(o["resolved_at"] is not None for o in (patient, accession, none))
    assert "2" in imagora.oppositions("list").stdout.splitlines()[1].split()


def test_a_site_that_does_not_answer_does_not_hold_an_opposition_up(imagora: Imagora, orthanc: OrthancServer) -> None:
    imagora.configure({"csrom41200": orthanc.dicomweb_url, "csblo41000": "http://127.0.0.1:1/dicom-web"})
    refused = imagora.oppositions("add", *IPP, "--by", ROM, "--channel", "oral")  # without the password
    down = imagora.oppositions("add", "--accession", "A", "--site", "csblo41000", "--by", BLO, "--channel", "oral")
    for result, words in (
        (refused, "csrom41200 does not answer (refused): what it holds under this IPP is bound from now on"),
        (down, "csblo41000 does not answer (error): what it holds under this accession number is bound"),
    ):
        assert result.exit_code == 0, result.output
        assert words in result.stderr
    assert [o["resolved_at"] for o in imagora.listed()] == [None, None]
    assert len(imagora.traces()) == 2


def test_a_site_that_is_not_connected_is_told(imagora: Imagora) -> None:
    result = imagora.oppositions("add", *IPP, "--by", ROM, "--channel", "oral")
    assert "csrom41200 is not connected: what it holds under this IPP is bound from now on" in result.stderr


def test_studies_of_a_site_that_holds_some_back_are_bound(imagora: Imagora) -> None:
    row = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00100020": {"vr": "LO", "Value": ["4547"]}}

    async def behave(_: peer.Request, connection: peer.Connection) -> None:
        await connection.json([row], Warning='299 pacs "There are 7 additional results that can be requested"')

    with Peer(behave) as member:
        imagora.configure({"csrom41200": member.dicomweb_url})
        result = imagora.oppositions("add", *IPP, "--by", ROM, "--channel", "oral")
    assert "has more than it gives: these are bound, and the servers ask on" in result.stderr
    (opposition,) = imagora.listed()
    assert (opposition["studies_found"], opposition["resolved_at"]) == (["1.2.3"], None)


def test_a_long_ipp_is_taken_as_it_is_shown(imagora: Imagora) -> None:
    ipp = "L" * 60

    async def remember() -> str:
        async with Database(imagora.database) as database:
            store = RegistryStore(database)
            site = (await store.load()).site("csrom41200")
            assert site is not None
            hashed = qualify(ipp, site)
            await store.remember_long_patient_id(LongPatientID(hashed=hashed, ipp=ipp, emetteur="csrom41200"))
            return hashed

    hashed = asyncio.run(remember())
    imagora.add("--ipp", hashed, "--site", "csrom41200")
    assert [o["ipp"] for o in imagora.listed()] == [ipp]
    assert imagora.traces()[0]["patient_id"] == hashed


# What is refused ----------------------------------------------------------------------------------------------------

TOMORROW = f"{date.today() + timedelta(days=1):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing says what is opposed"),
        (("--study", "1.2", *IPP), "--ipp: stands beside study"),
        (("--ipp", "4547"), "--site: is missing"),
        (("--accession", "1"), "--site: is missing: say at which site this accession number is"),
        (("--study", "1.2", "--site", "csrom41200"), "--site: belongs to an accession number or an IPP only"),
        (("--study", "1.2.x"), "'1.2.x' is not a UID"),
        (("--ipp", "45\\47", "--site", "csrom41200"), "--ipp: '45\\\\47' is no such number"),
        (("--ipp", "4547@csblo41000", "--site", "csrom41200"), "one of csblo41000, not of csrom41200"),
        (("--ipp", " ", "--site", "csrom41200"), "--ipp: is empty"),
        (("--person", "DUPONT MARIE", *PERSON[2:]), "write FAMILY^GIVEN, as DUPONT^MARIE"),
        ((*PERSON[:2], "--born", "19600231", "--sex", "F"), "--born: 19600231 is no day of the calendar"),
        ((*PERSON[:2], "--born", TOMORROW, "--sex", "F"), "is in the future"),
        (PERSON[:4], "--sex: is missing"),
        (("--ins", INS[:-1] + "9"), "its key does not fit"),
        (("--study", "1.2", "--on", TOMORROW), "--on: "),
        (("--study", "1.2", "--reason", "a\nb"), "--reason: has a line break"),
        (("--study", "1.2", "--reason", "a\0b"), "--reason: has a line break or control character"),
        ((*PERSON[:4], "--sex", "X"), "--sex: 'X' is not a sex: write F or M"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(refusing: Imagora, arguments: tuple[str, ...], words: str) -> None:
    result = refusing.oppositions("add", *arguments, "--by", REF, "--channel", "oral")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert words in result.stderr
    assert refusing.listed("list", "--all") == refusing.traces() == []


def test_options_that_must_be_there_are_asked_for(imagora: Imagora) -> None:
    assert imagora.oppositions("add", "--study", "1.2", "--channel", "oral").exit_code == 2
    assert imagora.oppositions("add", "--study", "1.2", "--by", ROM).exit_code == 2
    wrong = imagora.oppositions("add", "--study", "1.2", "--by", "12", "--channel", "oral")
    assert (wrong.exit_code, "is not an RPPS" in wrong.stderr) == (2, True)
    nowhere = imagora.oppositions("add", "--ipp", "1", "--site", "nowhere", "--by", REF, "--channel", "oral")
    assert (nowhere.exit_code, "no site has the EMETTEUR 'nowhere'" in nowhere.stderr) == (1, True)


@pytest.mark.parametrize(
    ("by", "arguments", "words"),
    [
        (DOC, ("--study", "1.2"), "is no correspondent"),
        (DOC, IPP, "recorded by the MIRC correspondent of a site, for its own patients, or by the referent"),
        (BLO, IPP, "is recorded by the MIRC correspondent of csrom41200 or by the referent"),
        (BLO, ("--accession", "1", "--site", "csrom41200"), "the MIRC correspondent of csrom41200"),
        (ROM, PERSON, "is recorded by the referent"),
        (ROM, ("--ins", INS), "is recorded by the referent"),
        (OUT, IPP, "is suspended"),
        ("10009999999", IPP, "no practitioner has the RPPS 10009999999"),
    ],
)
def test_who_may_not_record_is_told_who_may(refusing: Imagora, by: str, arguments: tuple[str, ...], words: str) -> None:
    result = refusing.oppositions("add", *arguments, "--by", by, "--channel", "oral")
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert words in result.stderr
    assert refusing.listed() == refusing.traces() == []


def test_what_cannot_be_traced_is_not_done(imagora: Imagora) -> None:
    first = imagora.add(*IPP)
    key = imagora.state / "trace-key.pem"
    key.chmod(0o644)
    for refused in (
        imagora.oppositions("add", "--study", "1.2", "--by", ROM, "--channel", "oral"),
        imagora.oppositions("lift", str(first), "--by", ROM),
    ):
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "So nothing was changed" in refused.stderr
    assert [o["id"] for o in imagora.listed("list", "--all")] == [first]
    assert imagora.listed()[0]["id"] == first  # not lifted
    key.chmod(0o600)
    assert len(imagora.traces()) == 1
    again = imagora.oppositions("lift", str(first), "--by", ROM)
    assert (again.exit_code, imagora.listed()) == (0, [])


# Lifting ------------------------------------------------------------------------------------------------------------


def test_a_lifted_opposition_stays_in_the_record(imagora: Imagora) -> None:
    number = imagora.add(*IPP)
    lifted = imagora.oppositions("lift", str(number), "--by", ROM, "--reason", "agreed")
    assert (lifted.exit_code, lifted.stdout) == (0, f"Opposition {number} is lifted.\n")
    twice = imagora.oppositions("lift", str(number), "--by", ROM)
    assert twice.exit_code == 1
    assert f"opposition {number} was lifted already, by {ROM} on {date.today()}" in twice.stderr
    assert imagora.listed() == []
    (kept,) = imagora.listed("list", "--all")
    assert (kept["active"], kept["lifted_by"], kept["lift_reason"]) == (False, ROM, "agreed")
    assert [(t["detail"]["action"], t["patient_id"]) for t in imagora.traces()] == [
        ("opposition-added", "4547@csrom41200"),
        ("opposition-lifted", "4547@csrom41200"),
    ]
    assert imagora.add(*IPP) > number


def test_who_may_lift(imagora: Imagora) -> None:
    study, ours, person = imagora.add("--study", "1.2"), imagora.add(*IPP), imagora.add("--ins", INS, by=REF)
    for by, number, words in (
        (BLO, study, "was recorded at csrom41200"),
        (BLO, ours, "is lifted by the MIRC correspondent of csrom41200"),
        (ROM, person, "is lifted by the referent"),
        (DOC, ours, "is no correspondent"),
    ):
        result = imagora.oppositions("lift", str(number), "--by", by)
        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert len(imagora.listed()) == 3
    assert imagora.oppositions("lift", str(study), "--by", ROM).exit_code == 0
    assert imagora.oppositions("lift", str(ours), "--by", REF).exit_code == 0
    unknown = imagora.oppositions("lift", "4711", "--by", REF)
    assert (unknown.exit_code, "there is no opposition 4711" in unknown.stderr) == (1, True)
    assert imagora.oppositions("lift", "x", "--by", REF).exit_code == 2
    assert imagora.oppositions("lift", "99999999999999999999", "--by", REF).exit_code == 2


# The queue of near matches ------------------------------------------------------------------------------------------


def test_near_matches_are_reviewed_and_decided(imagora: Imagora) -> None:
    assert imagora.oppositions("review").stdout == "Nothing is to be decided.\n"
    number = imagora.add(*PERSON, by=REF)
    queue(imagora, number, "77", "78")
    first, second = imagora.listed("review")
    assert first["found"] == {
        "ipp": "77",
        "name": "DUPOND-LÉVY^Marie",
        "birth_date": "19600512",
        "sex": "F",
        "study_uid": "1.2.9",
    }
    assert (first["recorded"]["name"], first["difference"], first["emetteur"], first["opposition"]) == (
        *("DUPONT-LÉVY^Marie", "one letter of the name differs", "csblo41000", number),
    )
    assert imagora.listed("review", "--site", "csrom41200") == []
    shown = imagora.oppositions("review", "--site", "CSBLO41000").stdout.splitlines()
    assert "DUPOND-LÉVY^Marie 19600512 F" in shown[1]
    assert "DUPONT-LÉVY^Marie 19600512 F" in shown[1]
    assert shown[-1] == "2 to be decided."
    confirmed = imagora.oppositions("confirm", str(first["id"]), "--by", BLO)
    assert (
        confirmed.stdout
        == f"Near match {first['id']} is confirmed: this patient is the person of opposition {number}.\n"
    )
    assert imagora.oppositions("confirm", str(first["id"]), "--by", REF).stdout.endswith("is confirmed already.\n")
    dismissed = imagora.oppositions("dismiss", str(second["id"]), "--by", REF)
    assert f"this patient is not the person of opposition {number}" in dismissed.stdout
    assert imagora.listed("review") == []
    assert [m["status"] for m in imagora.listed("review", "--all")] == ["confirmed", "dismissed"]
    assert imagora.oppositions("dismiss", str(first["id"]), "--by", BLO).exit_code == 0  # revised
    assert [m["decided_by"] for m in imagora.listed("review", "--all")] == [BLO, REF]
    decisions = [t for t in imagora.traces() if "near_match" in t["detail"]]
    assert [(t["detail"]["action"], t["patient_id"], t["study_uid"], t["origin"]) for t in decisions] == [
        ("near-match-confirmed", "77@csblo41000", "1.2.9", "csblo41000"),
        ("near-match-dismissed", "78@csblo41000", "1.2.9", "csblo41000"),
        ("near-match-dismissed", "77@csblo41000", "1.2.9", "csblo41000"),
    ]


def test_a_decision_that_cannot_be_traced_is_none(imagora: Imagora) -> None:
    number = imagora.add(*PERSON, by=REF)
    queue(imagora, number, "77")
    (match,) = imagora.listed("review")
    (imagora.state / "trace-key.pem").chmod(0o644)
    for verb in ("confirm", "dismiss"):
        result = imagora.oppositions(verb, str(match["id"]), "--by", BLO)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "So nothing was changed" in result.stderr
    assert imagora.listed("review") == [match]


def test_near_matches_are_decided_where_the_patient_is(imagora: Imagora) -> None:
    number = imagora.add(*PERSON, by=REF)
    queue(imagora, number, "77")
    (match,) = imagora.listed("review")
    for by in (ROM, DOC):
        result = imagora.oppositions("dismiss", str(match["id"]), "--by", by)
        assert (result.exit_code, "the MIRC correspondent of csblo41000 decides this" in result.stderr) == (1, True)
    unknown = imagora.oppositions("confirm", "4711", "--by", BLO)
    assert (unknown.exit_code, "there is no near match 4711" in unknown.stderr) == (1, True)
    imagora.oppositions("lift", str(number), "--by", REF)
    moot = imagora.oppositions("confirm", str(match["id"]), "--by", BLO)
    assert (moot.exit_code, f"opposition {number} is lifted" in moot.stderr) == (1, True)
    assert imagora.listed("review") == []
    assert [m["opposition_lifted"] for m in imagora.listed("review", "--all")] == [True]


def test_local_patient_ids_are_traced_as_they_are_shown(imagora: Imagora) -> None:
    imagora.settings = '[search]\npatient_id = "local"'
    imagora.configure()
    imagora.add(*IPP)
    assert [(t["patient_id"], t["origin"]) for t in imagora.traces()] == [("4547", "csrom41200")]
