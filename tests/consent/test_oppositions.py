"""Oppositions and the queue of near matches in a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from support.tracing import traced

from consent.bindings import Binding, Channel, Declaration, OppositionKind
from consent.model import NearMatch, Unavailable
from consent.oppositions import (
    AlreadyLifted,
    NearMatchStatus,
    NothingToDecide,
    OppositionStore,
    Recorded,
    UnknownNearMatch,
    UnknownOpposition,
)
from consent.traits import normalise, strict
from registry import Role, Site
from registry.database import Database, DatabaseError
from registry.practitioners import PractitionerStore
from registry.store import RegistryStore

BY, OTHER = "10001234567", "10001234568"
SITES = [
    Site(emetteur="csrom41200", number=423, name="Romorantin (CH)"),
    Site(emetteur="csblo41000", number=410, name="Blois (CH)"),
]


def declare(binding: Binding) -> Declaration:
    return Declaration(binding=binding, declared_on=date(2026, 2, 3), channel=Channel.LETTER, reason="a reason")


def patient(ipp: str, site: str = "csrom41200") -> Declaration:
    return declare(Binding(kind=OppositionKind.PATIENT, emetteur=site, ipp=ipp))


def accession(number: str) -> Declaration:
    return declare(Binding(kind=OppositionKind.ACCESSION, emetteur="csrom41200", accession=number))


def studies(*uids: str) -> Declaration:
    return declare(Binding(kind=OppositionKind.STUDY, study_uids=tuple(sorted(uids))))


def person(name: str = "DUPONT^MARIE", born: str = "19600512", ins: str | None = None) -> Declaration:
    return declare(Binding(kind=OppositionKind.PERSON, name=name, birth_date=born, sex="F", ins=ins))


ALL_KINDS = (
    studies("1.2.3", "1.2.4"),
    accession("A-1"),
    patient("4547"),
    person(),
    person(ins="255081416802538"),
    declare(Binding(kind=OppositionKind.PERSON, ins="255081416802538")),
)


@pytest.fixture
async def store(database: Database) -> OppositionStore:
    await RegistryStore(database).seed(SITES)
    people = PractitionerStore(database)
    await people.add(rpps=BY, name="MARTIN^CLAIRE", site="csrom41200", role=Role.CORRESPONDENT)
    await people.add(rpps=OTHER, name="PETIT^LUC", site="csblo41000", role=Role.REFERENT)
    return OppositionStore(database)


async def consent_epoch(database: Database) -> int:
    return int(await database.fetchval("SELECT consent FROM epoch"))


def near(opposition: int, ipp: str = "77", site: str = "csblo41000", name: str = "DUPOND^MARIE") -> NearMatch:
    return NearMatch(
        opposition=opposition,
        emetteur=site,
        ipp=ipp,
        traits=strict(normalise(name), "19600512", "F"),
        name=name,
        difference="one letter of the name differs",
        study_uid="1.2.9",
    )


# Recording ----------------------------------------------------------------------------------------------------------


async def test_every_kind_is_recorded_as_it_was_declared(store: OppositionStore) -> None:
    recorded = [await store.add(declaration, BY, traced=traced) for declaration in ALL_KINDS]
    assert all(r.new for r in recorded)
    assert [r.id for r in recorded] == sorted(r.id for r in recorded)
    found = await store.all()
    for opposition, said, r in zip(found, ALL_KINDS, recorded, strict=True):
        assert opposition.id == r.id
        assert (opposition.binding, opposition.declared_on, opposition.channel, opposition.reason) == (
            *(said.binding, said.declared_on, said.channel, said.reason),
        )
        assert (opposition.recorded_by, opposition.recorder, opposition.recorded_at_site) == (
            *(BY, "MARTIN^CLAIRE", "csrom41200"),
        )
        assert opposition.active
        assert opposition.resolved_at is None
        assert await store.get(r.id) == opposition


async def test_what_binds_the_same_stands_already(store: OppositionStore) -> None:
    ids = [(await store.add(declaration, BY, traced=traced)).id for declaration in ALL_KINDS]
    again = [await store.add(declaration, OTHER, traced=traced) for declaration in ALL_KINDS]
    assert again == [Recorded(number, new=False) for number in ids]
    assert await store.add(person("dupont^Marie^^MME"), BY, traced=traced) == Recorded(ids[3], new=False)
    assert await store.standing(ALL_KINDS[2].binding) == ids[2]
    for another in (
        studies("1.2.3"),
        studies("1.2.3", "1.2.4", "1.2.5"),
        patient("4547", "csblo41000"),
        patient("A-1"),
        accession("4547"),
        person("DUPONT^MARIA"),
        person(born="19600513"),
        person(ins="2600514168025" + "00"),
    ):
        assert await store.standing(another.binding) is None
        assert (await store.add(another, BY, traced=traced)).new
    assert len(await store.all()) == len(ALL_KINDS) + 8


async def test_what_was_lifted_does_not_stand(store: OppositionStore) -> None:
    first = await store.add(patient("4547"), BY, traced=traced)
    await store.lift(first.id, BY, traced=traced)
    second = await store.add(patient("4547"), BY, traced=traced)
    assert second.new
    assert second.id > first.id


async def test_two_who_record_the_same_at_once_record_one(store: OppositionStore) -> None:
    both = await asyncio.gather(*(store.add(patient("4547"), BY, traced=traced) for _ in range(6)))
    assert len({r.id for r in both}) == 1
    assert sorted(r.new for r in both) == [False] * 5 + [True]


async def test_a_site_has_its_own_and_what_its_people_recorded(store: OppositionStore) -> None:
    ours = [(await store.add(d, BY, traced=traced)).id for d in (patient("1"), studies("1.2.3"))]
    theirs = [(await store.add(d, OTHER, traced=traced)).id for d in (patient("1", "csblo41000"), person())]
    for_us = (await store.add(patient("2"), OTHER, traced=traced)).id
    assert [o.id for o in await store.all("csrom41200")] == [*ours, for_us]
    assert [o.id for o in await store.all("csblo41000")] == theirs


async def test_ten_thousand_are_recorded_in_one_transaction(store: OppositionStore, database: Database) -> None:
    many = [
        (
            patient(str(n)),
            accession(f"A{n}"),
            studies(f"1.2.{n}", f"1.3.{n}"),
            person(
                born=f"19{n % 80 + 10}0512", name=f"D{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}^M"
            ),
        )[n % 4]
        for n in range(10_000)
    ]
    recorded = await store.add_all(many, BY, traced=traced)
    assert all(r.new for r in recorded)
    assert (
        await database.fetchval("SELECT count(DISTINCT (changed, recorded_at)) FROM opposition WHERE kind <> 'study'")
        == 1
    )
    found = {o.id: o.binding for o in await store.all()}
    assert [found[r.id] for r in recorded] == [d.binding for d in many]
    epoch = await consent_epoch(database)
    assert await store.add_all(many, BY, traced=traced) == [Recorded(r.id, new=False) for r in recorded]
    assert await consent_epoch(database) == epoch


async def test_a_table_that_says_the_same_twice_records_it_once(store: OppositionStore) -> None:
    await store.add(patient("2"), BY, traced=traced)
    a, b, c, d = await store.add_all([patient("1"), studies("1.2"), patient("1"), patient("2")], BY, traced=traced)
    assert (a.new, b.new, c.new, d.new) == (True, True, False, False)
    assert c.id == a.id
    assert (await store.get(a.id)).binding.ipp == "1"
    assert (await store.get(b.id)).binding.study_uids == ("1.2",)


async def test_one_that_cannot_be_recorded_takes_all_with_it(store: OppositionStore) -> None:
    with pytest.raises(DatabaseError):
        await store.add_all([patient("1"), patient("2", "nowhere")], BY, traced=traced)
    with pytest.raises(DatabaseError):
        await store.add(patient("1"), "10009999999", traced=traced)
    assert await store.all() == ()


# What PostgreSQL itself keeps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "DELETE FROM opposition",
        "TRUNCATE opposition CASCADE",
        "UPDATE opposition SET ipp = '4548'",
        "UPDATE opposition SET reason = ''",
        "UPDATE opposition SET declared_on = now()",
        "UPDATE opposition SET recorded_by = '10001234568'",
        "DELETE FROM opposition_study",
        "UPDATE opposition_study SET study_uid = '1.2.5'",
        "DELETE FROM near_match",
    ],
)
async def test_nothing_that_was_recorded_is_changed_or_deleted(
    store: OppositionStore, database: Database, command: str
) -> None:
    recorded = await store.add(patient("4547"), BY, found=["1.2.3"], traced=traced)
    await store.note_near_matches([near(recorded.id)])
    before = await store.all()
    with pytest.raises(DatabaseError, match="SQLSTATE 42501"):
        await database.execute(command)
    assert await store.all() == before


async def test_a_lifted_one_stays_lifted_as_it_is(store: OppositionStore, database: Database) -> None:
    number = (await store.add(patient("4547"), BY, traced=traced)).id
    lifted = await store.lift(number, OTHER, "agreed", traced=traced)
    assert (lifted.lifted_by, lifted.lift_reason, lifted.active) == (OTHER, "agreed", False)
    with pytest.raises(AlreadyLifted, match=rf"opposition {number} was lifted already, by {OTHER}"):
        await store.lift(number, BY, traced=traced)
    for change in ("lifted_at = NULL, lifted_by = NULL", "lifted_by = '10001234567'", "lift_reason = ''"):
        with pytest.raises(DatabaseError, match="lifted, never changed"):
            await database.execute(f"UPDATE opposition SET {change}")
    assert await store.all() == ()
    assert await store.all(lifted=True) == (lifted,)
    with pytest.raises(UnknownOpposition, match="no opposition 99"):
        await store.lift(99, BY, traced=traced)


async def test_each_change_bumps_the_epoch_and_stamps_what_changed(store: OppositionStore, database: Database) -> None:
    async def changed(work: Awaitable[object]) -> bool:
        before = await consent_epoch(database)
        await work
        after = await consent_epoch(database)
        stamps = [
            r["changed"]
            for r in await database.fetch("SELECT changed FROM opposition UNION SELECT changed FROM near_match")
        ]
        assert after == before or before < max(stamps) <= after
        return after > before

    assert await changed(store.add(patient("4547"), BY, traced=traced))
    number = (await store.all())[0].id
    assert not await changed(store.add(patient("4547"), BY, traced=traced))
    assert await changed(store.bind_studies(number, ["1.2.3"]))
    assert not await changed(store.bind_studies(number, ["1.2.3"]))
    assert await changed(store.bind_studies(number, ["1.2.3"], resolved=True))
    assert not await changed(store.note_near_matches([near(number)]))
    (match,) = await store.near_matches()
    assert await changed(store.decide(match.id, NearMatchStatus.CONFIRMED, OTHER, traced=traced))
    assert not await changed(store.decide(match.id, NearMatchStatus.CONFIRMED, BY, traced=traced))
    assert await changed(store.lift(number, BY, traced=traced))
    assert not await changed(store.bind_studies(number, ["1.2.4"], resolved=True))


async def test_a_change_without_a_trace_is_none(store: OppositionStore, database: Database) -> None:
    number = (await store.add(person(), BY, traced=traced)).id
    await store.note_near_matches([near(number)])
    (match,) = await store.near_matches()

    async def state() -> tuple[object, ...]:
        return (await store.all(lifted=True), await store.near_matches(decided=True), await consent_epoch(database))

    before = await state()
    told: list[tuple[object, ...]] = []

    async def lost(*what: object) -> None:
        # Nobody else sees the change while its trace is being written.
        assert await state() == before
        told.append(what)
        raise Unavailable("no database")

    for change in (
        lambda: store.add(patient("4547"), BY, found=["1.2.3"], traced=lost),
        lambda: store.add_all([patient("1"), person(), patient("2")], BY, traced=lost),
        lambda: store.lift(number, BY, traced=lost),
        lambda: store.decide(match.id, NearMatchStatus.DISMISSED, OTHER, traced=lost),
    ):
        with pytest.raises(Unavailable):
            await change()
        assert await state() == before
    (added,), (imported,), *others = told
    assert isinstance(added, Recorded)
    assert isinstance(imported, list)
    assert (len(imported), others) == (2, [(), ()])
    # What changes nothing needs no trace.
    assert await store.add(person(), BY, traced=lost) == Recorded(number, new=False)
    assert await store.add_all([person()], BY, traced=lost) == [Recorded(number, new=False)]


# Studies that sites find --------------------------------------------------------------------------------------------


async def test_studies_found_are_bound_with_it(store: OppositionStore) -> None:
    at_once = await store.get((await store.add(patient("1"), BY, found=["1.2.4", "1.2.3"], traced=traced)).id)
    assert at_once.found == ("1.2.3", "1.2.4")
    assert at_once.resolved_at == at_once.recorded_at
    none_yet = await store.get((await store.add(patient("2"), BY, found=[], traced=traced)).id)
    assert (none_yet.found, none_yet.resolved_at) == ((), none_yet.recorded_at)
    part = await store.get((await store.add(patient("4"), BY, found=["1.2.7"], whole=False, traced=traced)).id)
    assert (part.found, part.resolved_at) == (("1.2.7",), None)
    later = (await store.add(patient("3"), BY, traced=traced)).id
    await store.bind_studies(later, ["1.2.5", "no uid", "1.2.5"])
    assert (await store.get(later)).found == ("1.2.5",)
    assert (await store.get(later)).resolved_at is None
    await store.bind_studies(later, [], resolved=True)
    assert (await store.get(later)).resolved_at is not None


async def test_one_is_taken_by_one_process_and_then_by_none(store: OppositionStore) -> None:
    ids = [
        (await store.add(d, BY, traced=traced)).id
        for d in (patient("1"), accession("A"), patient("2", "csblo41000"), studies("1.2"), person())
    ]
    sites = ["csrom41200", "csblo41000"]
    async with store.take_unresolved(sites) as one:
        assert one is not None
        async with store.take_unresolved(sites) as two:
            assert two is not None
            assert [(t.id, t.kind, t.number) for t, _ in (one, two)] == [
                (ids[0], OppositionKind.PATIENT, "1"),
                (ids[1], OppositionKind.ACCESSION, "A"),
            ]
            # Who lifts, or binds, does not wait for whoever asks the site.
            async with asyncio.timeout(5):
                await store.lift(ids[1], BY, traced=traced)
                await store.bind_studies(ids[0], ["1.2.8"])
            async with store.take_unresolved(sites[:1]) as three:
                assert three is None
            await two[1](["1.2.9"], resolved=True)
        await one[1](["1.2.9"], resolved=True)
    assert (await store.get(ids[0])).found == ("1.2.8", "1.2.9")
    assert (await store.get(ids[1])).found == ()  # it was lifted meanwhile
    async with store.take_unresolved(sites, [ids[2]]) as four:
        assert four is None
    async with store.take_unresolved(sites) as five:
        assert five is not None
        assert five[0].id == ids[2]


async def test_what_a_site_said_a_day_ago_is_asked_again_after_what_it_never_said(
    store: OppositionStore, tamper: Callable[..., Awaitable[None]]
) -> None:
    old, older, recent, never = [
        (await store.add(patient(str(n)), BY, found=None if n == 3 else [], traced=traced)).id for n in range(4)
    ]
    await tamper(
        f"UPDATE opposition SET resolved_at = now() - interval '2 days' WHERE id = {old}",
        f"UPDATE opposition SET resolved_at = now() - interval '3 days' WHERE id = {older}",
    )
    order = []
    for _ in range(4):
        async with store.take_unresolved(["csrom41200"]) as taken:
            if taken is not None:
                order.append(taken[0].id)
                await taken[1]([], resolved=True)
    assert order == [never, older, old]
    assert recent not in order


async def test_a_site_that_did_not_say_all_is_asked_again(store: OppositionStore) -> None:
    number = (await store.add(patient("1"), BY, traced=traced)).id
    async with store.take_unresolved(["csrom41200"]) as taken:
        assert taken is not None
        await taken[1](["1.2.3"], resolved=False)
    async with store.take_unresolved(["csrom41200"]) as taken:
        assert taken is not None
        assert taken[0].id == number
    assert (await store.get(number)).found == ("1.2.3",)


# Near matches -------------------------------------------------------------------------------------------------------


async def test_near_matches_are_queued_once_and_decided(store: OppositionStore) -> None:
    number = (await store.add(person(), BY, traced=traced)).id
    await store.note_near_matches([near(number), near(number), near(number, "78", "csrom41200")])
    await store.note_near_matches([replace(near(number), study_uid="1.2.10"), near(number, name="DUPON^MARIE")])
    await store.note_near_matches([])
    first, second, third = await store.near_matches()
    assert (first.ipp, first.name, first.birth_date, first.sex, first.study_uid, first.status) == (
        *("77", "DUPOND^MARIE", "19600512", "F", "1.2.9", NearMatchStatus.PENDING),
    )
    assert (first.recorded_name, first.recorded_birth_date, first.recorded_sex) == ("DUPONT^MARIE", "19600512", "F")
    assert (second.emetteur, third.name) == ("csrom41200", "DUPON^MARIE")
    assert await store.near_matches("csrom41200") == (second,)
    assert await store.decide(first.id, NearMatchStatus.DISMISSED, OTHER, traced=traced)
    assert await store.near_matches() == (second, third)
    decided = await store.near_match(first.id)
    assert (decided.status, decided.decided_by) == (NearMatchStatus.DISMISSED, OTHER)
    assert await store.near_matches(decided=True) == (decided, second, third)
    assert not await store.decide(first.id, NearMatchStatus.DISMISSED, BY, traced=traced)
    assert (await store.near_match(first.id)) == decided
    assert await store.decide(first.id, NearMatchStatus.CONFIRMED, BY, traced=traced)  # revised
    assert (await store.near_match(first.id)).decided_by == BY
    await store.note_near_matches([near(number)])  # seen again: the decision stays
    assert (await store.near_match(first.id)).status is NearMatchStatus.CONFIRMED


async def test_a_lifted_opposition_leaves_nothing_to_decide(store: OppositionStore) -> None:
    number = (await store.add(person(), BY, traced=traced)).id
    await store.note_near_matches([near(number)])
    (match,) = await store.near_matches()
    await store.lift(number, BY, traced=traced)
    assert await store.near_matches() == ()
    assert [m.id for m in await store.near_matches(decided=True)] == [match.id]
    with pytest.raises(NothingToDecide, match=f"opposition {number} is lifted"):
        await store.decide(match.id, NearMatchStatus.CONFIRMED, BY, traced=traced)
    with pytest.raises(UnknownNearMatch, match="no near match 99"):
        await store.decide(99, NearMatchStatus.CONFIRMED, BY, traced=traced)


async def test_what_members_send_can_be_queued(store: OppositionStore) -> None:
    number = (await store.add(person(), BY, traced=traced)).id
    await store.note_near_matches([near(number, ipp="7\0", name="DU\ud800PONT^MARIE")])
    (match,) = await store.near_matches()
    assert (match.ipp, match.name) == ("7\ufffd", "DU?PONT^MARIE")
    assert match.found_at <= datetime.now(UTC)
