"""Which studies an IPP or an accession number names: asked of a real Orthanc and of scripted members."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import date
from typing import Any

import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support import peer
from support.peer import Connection, Peer, Request
from support.tracing import traced

from consent.bindings import Binding, Channel, Declaration, OppositionKind
from consent.oppositions import OppositionStore
from dicomweb.client import DicomWebMember
from federation.binding import Bound, Incomplete, studies_of_accession, studies_of_patient
from federation.errors import MemberFault, MemberGarbage, MemberSkipped, MemberTimeout, MemberUnreachable
from federation.identity import Naming, qualify
from federation.members import Members
from imagora.resolver import Resolver
from registry import Directory, Role, Site
from registry.database import Database
from registry.practitioners import PractitionerStore
from registry.store import RegistryStore

BY = "10001234567"
LONG = "L" * 60
NAMING = Naming(qualified=True, issuer="IMAGORA")
Row = dict[str, Any]


def site(url: str | None, emetteur: str = "csrom41200", number: int = 423) -> Site:
    return Site(emetteur=emetteur, number=number, name=f"Hôpital {emetteur}", dicomweb=url)


def directory_of(url: str | None) -> Directory:
    return Directory([site(url), site(None, "csblo41000", 410)])


def members_of(directory: Callable[[], Directory], deadline_s: float = 10.0) -> Members:
    return Members(directory, DicomWebMember, deadline_s=deadline_s, breaker_open_s=0.05)


async def ask(
    url: str,
    *,
    ipp: str | None = None,
    accession: str = "",
    within_s: float | None = None,
    naming: Naming = NAMING,
) -> Bound:
    directory = directory_of(url)
    members = members_of(lambda: directory)
    try:
        if ipp is not None:
            return await studies_of_patient(members, naming, directory.sites[0], ipp, within_s=within_s)
        return await studies_of_accession(members, naming, directory.sites[0], accession, within_s=within_s)
    finally:
        await members.aclose()


def uids(*seeds: str) -> tuple[str, ...]:
    return tuple(sorted(str(exams.uid(seed, "study")) for seed in seeds))


# One question -------------------------------------------------------------------------------------------------------


def of_blois(dataset: Dataset, _series: int, _instance: int) -> None:
    """A copy that names its origin itself, filed under a number of its holder's."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "410", "99IMAGORA", "Blois"
    dataset.InstitutionCodeSequence = Sequence([code])


@pytest.fixture(scope="module")
def orthanc() -> Iterator[OrthancServer]:
    """Four studies of one patient, and others that are nearly his."""
    with OrthancServer(name="resolved") as server:
        long_form = qualify(LONG, site(None))
        for seed, patient_id, accession, more in (
            ("one", "A4547", "ACC1", {}),
            ("two", "A4547", "ACC2", {}),
            ("came back", "A4547@csrom41200", "ACC1", {}),
            ("refiled", "A4547", "X9", {"finish": of_blois}),
            ("of another site", "A4547@csblo41000", "ACC10", {}),
            ("longer", "A45470", "ACC 1", {}),
            ("small letters", "a4547", "acc1", {}),
            ("long", long_form, "L1", {}),
        ):
            server.upload(exams.light_study(seed, patient_id=patient_id, accession=accession, **more))
        yield server


async def test_an_ipp_names_what_the_site_files_under_it(orthanc: OrthancServer) -> None:
    bound = await ask(orthanc.dicomweb_url, ipp="A4547")
    assert bound == Bound(study_uids=uids("one", "two", "came back", "refiled"))
    assert bound.whose == dict.fromkeys(bound.study_uids, "dupontlevy^marie|19600512|F")


async def test_an_accession_number_is_taken_to_the_letter(orthanc: OrthancServer) -> None:
    assert await ask(orthanc.dicomweb_url, accession="ACC1") == Bound(study_uids=uids("one", "came back"))
    assert await ask(orthanc.dicomweb_url, accession="ACC 1") == Bound(study_uids=uids("longer"))
    assert await ask(orthanc.dicomweb_url, accession="ACC3") == Bound()


async def test_a_long_ipp_is_found_in_its_hashed_form(orthanc: OrthancServer) -> None:
    known = {qualify(LONG, site(None)): (LONG, "csrom41200")}
    naming = Naming(qualified=True, issuer="IMAGORA", long_ids=known.get)
    assert await ask(orthanc.dicomweb_url, ipp=LONG, naming=naming) == Bound(study_uids=uids("long"))


def row(uid: str, patient_id: str | None = "1", accession: str | None = None) -> Row:
    made: Row = {"0020000D": {"vr": "UI", "Value": [uid]}}
    if patient_id is not None:
        made["00100020"] = {"vr": "LO", "Value": [patient_id]}
    if accession is not None:
        made["00080050"] = {"vr": "SH", "Value": [accession]}
    return made


def capped(rows: list[Row]) -> peer.Behaviour:
    """Gives these rows whatever the offset, and says that there are more."""

    async def behave(_: Request, connection: Connection) -> None:
        await connection.json(rows, Warning='299 pacs "There are 7 additional results that can be requested"')

    return behave


async def failing(_: Request, connection: Connection) -> None:
    await connection.answer(500, b"", "text/plain")


async def test_a_member_that_holds_rows_back_is_told_with_what_it_gave() -> None:
    with Peer(capped([row("1.2.3"), row("1.2.4", "2")])) as member:
        bound = await ask(member.dicomweb_url, ipp="1")
    assert bound.study_uids == ("1.2.3",)
    assert isinstance(bound.error, Incomplete)


@pytest.mark.parametrize("rows", [[row("1.2.3", None)], [row("", "1")], [row("1.2.3", "1"), row("1.2.4", None)]])
async def test_rows_that_name_no_patient_or_study_are_not_taken_for_an_answer(rows: list[Row]) -> None:
    with Peer(peer.rows(rows)) as member:
        bound = await ask(member.dicomweb_url, ipp="1")
    assert bound.study_uids == ()
    assert isinstance(bound.error, MemberGarbage)


@pytest.mark.parametrize(
    ("behave", "error"), [(failing, MemberFault), (peer.silent, MemberTimeout), (peer.garbage, MemberGarbage)]
)
async def test_a_member_that_cannot_say_is_told(behave: peer.Behaviour, error: type[Exception]) -> None:
    with Peer(behave) as member:
        bound = await ask(member.dicomweb_url, accession="A", within_s=0.5)
    assert bound.study_uids == ()
    assert isinstance(bound.error, error)


async def test_a_member_that_is_down_is_told() -> None:
    bound = await ask("http://127.0.0.1:1/dicom-web", ipp="1")
    assert isinstance(bound.error, MemberUnreachable)


# The resolver -------------------------------------------------------------------------------------------------------


class Region:
    """A database, the sites in it, and resolvers that run until the test ends."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.database = database
        self.store = OppositionStore(database)
        self._stack = stack
        self.members: list[Members] = []

    async def seed(self, **urls: str) -> None:
        sites = [site(url, emetteur, number) for number, (emetteur, url) in enumerate(urls.items(), 401)]
        await RegistryStore(self.database).seed(sites)
        await PractitionerStore(self.database).add(
            rpps=BY, name="MARTIN^CLAIRE", site=sites[0].emetteur, role=Role.REFERENT
        )
        self.directory = await RegistryStore(self.database).load()

    async def oppose(self, kind: OppositionKind, number: str, emetteur: str = "csrom41200") -> int:
        named = {"ipp": number} if kind is OppositionKind.PATIENT else {"accession": number}
        binding = Binding(kind=kind, emetteur=emetteur, **named)
        said = Declaration(binding=binding, declared_on=date(2026, 1, 1), channel=Channel.ORAL)
        return (await self.store.add(said, BY, traced=traced)).id

    async def run(self, *, rest_s: float = 0.05) -> None:
        members = members_of(lambda: self.directory, 2.0)
        self.members.append(members)
        self._stack.push_async_callback(members.aclose)
        resolver = Resolver(self.database, members, NAMING, pace_s=0.01, pause_s=0.02, rest_s=rest_s)
        await self._stack.enter_async_context(resolver)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.02)

    async def resolved(self, *ids: int) -> bool:
        return all([(await self.store.get(number)).resolved_at is not None for number in ids])


@pytest.fixture
async def region(postgres: Callable[[], str]) -> AsyncIterator[Region]:
    url = await asyncio.to_thread(postgres)
    async with Database(url) as database, AsyncExitStack() as stack:
        yield Region(database, stack)


async def test_oppositions_find_their_studies(region: Region, orthanc: OrthancServer) -> None:
    await region.seed(csrom41200=orthanc.dicomweb_url)
    patient = await region.oppose(OppositionKind.PATIENT, "A4547")
    accession = await region.oppose(OppositionKind.ACCESSION, "ACC2")
    none = await region.oppose(OppositionKind.PATIENT, "nobody")
    await region.run()
    await region.until(lambda: region.resolved(patient, accession, none))
    assert (await region.store.get(patient)).found == uids("one", "two", "came back", "refiled")
    assert (await region.store.get(accession)).found == uids("two")
    assert (await region.store.get(none)).found == ()
    later = await region.oppose(OppositionKind.ACCESSION, "ACC1")  # recorded while it runs
    await region.until(lambda: region.resolved(later))
    assert (await region.store.get(later)).found == uids("one", "came back")


async def test_a_site_that_is_down_is_asked_once_it_is_up(region: Region, caplog: pytest.LogCaptureFixture) -> None:
    with OrthancServer(name="down") as server:
        server.upload(exams.light_study("down", patient_id="SECRET-IPP"))
        await region.seed(csrom41200=server.dicomweb_url)
        await asyncio.to_thread(server.kill)
        number = await region.oppose(OppositionKind.PATIENT, "SECRET-IPP")
        with caplog.at_level(logging.DEBUG):
            await region.run()

            async def refused() -> bool:
                return "cannot say which studies oppositions name" in caplog.text

            await region.until(refused)
            assert not await region.resolved(number)
            await asyncio.to_thread(server.start)
            await region.until(lambda: region.resolved(number))
        assert (await region.store.get(number)).found == uids("down")
        assert "csrom41200" in caplog.text
        assert "SECRET" not in caplog.text
        assert uids("down")[0] not in caplog.text


async def test_a_site_that_fails_is_left_alone_and_holds_up_no_other(region: Region) -> None:
    with Peer(failing) as ill, Peer(peer.rows([])) as well:
        await region.seed(csrom41200=ill.dicomweb_url, csblo41000=well.dicomweb_url)
        waiting = [await region.oppose(OppositionKind.ACCESSION, str(n)) for n in range(5)]
        others = [await region.oppose(OppositionKind.ACCESSION, str(n), "csblo41000") for n in range(5)]
        await region.run(rest_s=600.0)
        await region.until(lambda: region.resolved(*others))
        await asyncio.sleep(0.3)  # fifteen looks for work
        assert len(ill.requests) == 1
        assert not any([await region.resolved(number) for number in waiting])


async def test_one_question_that_a_site_cannot_take_lets_the_next_go_first(region: Region) -> None:
    async def behave(request: Request, connection: Connection) -> None:
        if "bad" in request.values("00080050"):
            await failing(request, connection)
        else:
            await connection.json([row("1.2.3", accession="good")])

    with Peer(behave) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        bad = await region.oppose(OppositionKind.ACCESSION, "bad")
        good = await region.oppose(OppositionKind.ACCESSION, "good")
        await region.run()
        await region.until(lambda: region.resolved(good))
        assert not await region.resolved(bad)


async def test_what_a_site_gives_of_more_is_bound_and_asked_again(region: Region) -> None:
    with Peer(capped([row("1.2.3")])) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        number = await region.oppose(OppositionKind.PATIENT, "1")
        await region.run()

        async def bound() -> bool:
            return (await region.store.get(number)).found == ("1.2.3",)

        await region.until(bound)
        assert not await region.resolved(number)


async def test_processes_share_the_work(region: Region) -> None:
    with Peer(peer.rows([])) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        numbers = [await region.oppose(OppositionKind.ACCESSION, f"A{n}") for n in range(12)]
        for _ in range(3):
            await region.run()
        await region.until(lambda: region.resolved(*numbers))
        asked = [request.values("00080050")[0] for request in member.requests]
        assert sorted(asked) == sorted(f"A{n}" for n in range(12))


async def test_sites_that_are_not_asked_and_oppositions_that_were_lifted_are_left_alone(region: Region) -> None:
    with Peer(peer.rows([])) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        await region.database.execute(
            "INSERT INTO site (emetteur, number, name, status, dicomweb)"
            " VALUES ('csblo41000', 9, 'x', 'suspended', $1)",
            member.dicomweb_url,
        )
        region.directory = await RegistryStore(region.database).load()
        lifted = await region.oppose(OppositionKind.ACCESSION, "lifted")
        await region.store.lift(lifted, BY, traced=traced)
        await region.oppose(OppositionKind.ACCESSION, "suspended", "csblo41000")
        asked = await region.oppose(OppositionKind.ACCESSION, "asked")
        await region.run()
        await region.until(lambda: region.resolved(asked))
        assert [request.values("00080050") for request in member.requests] == [["asked"]]


async def test_a_lost_database_stops_nothing(region: Region, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(peer.rows([])) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        number = await region.oppose(OppositionKind.ACCESSION, "A")
        await region.database.aclose()
        await region.run()

        async def told() -> bool:
            return "oppositions cannot be resolved" in caplog.text

        await region.until(told)
        await region.database.open()
        await region.until(lambda: region.resolved(number))

        async def told_again() -> bool:  # after the answer is recorded, so maybe after it is seen
            return "oppositions are resolved again" in caplog.text

        await region.until(told_again)
        assert caplog.text.count("cannot be resolved") == 1


async def test_an_open_breaker_is_not_asked_through(region: Region) -> None:
    with Peer(peer.rows([])) as member:
        await region.seed(csrom41200=member.dicomweb_url)
        members = Members(lambda: region.directory, DicomWebMember, deadline_s=2.0, breaker_failures=1)
        members.breaker(region.directory.sites[0]).failed("MemberTimeout")
        bound = await studies_of_accession(members, NAMING, region.directory.sites[0], "A")
        assert isinstance(bound.error, MemberSkipped)
        assert member.requests == []
