"""What is remembered of studies that several sites hold: an exam keeps its patient's id, whoever is down."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support.unasked import OnlySearched
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, SITES, TOURS, record

from federation.copies import Copies, Copy
from federation.identity import Id, Identity, Naming, Record, group, qualify
from federation.locate import Location, Locator
from federation.members import Members
from federation.model import Attributes, Deadline, MemberRows, Query, Target
from federation.tagging import element
from registry import Site

MARIE = {"name": "DUPONT^MARIE", "birth_date": "19600512", "sex": "F"}
QUALIFIED = Naming(qualified=True, issuer="IMAGORA")
AT_HOME = record("4547", ROMORANTIN, **MARIE)
AT_BLOIS = record("B99", BLOIS, **MARIE)
STRANGER = record("4547", TOURS, name="DURAND^PAUL")
UID = "1.2.3"


def learnt(*records: Record, series: dict[str, frozenset[str]] | None = None) -> Copies:
    copies = Copies()
    for identity in group(records, DIRECTORY):
        copies.learn(UID, identity, series)
    return copies


def test_a_silent_holder_s_record_is_remembered() -> None:
    copies = learnt(AT_HOME, AT_BLOIS, STRANGER)
    (absent,) = copies.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)
    assert (absent.holder, absent.id, absent.origin) == (ROMORANTIN, ("4547", "csrom41200"), ROMORANTIN)
    assert absent.study_uid == UID
    (identity,) = group([AT_BLOIS, absent], DIRECTORY)
    assert QUALIFIED.patient_id(identity.main) == "4547@csrom41200"


def test_nothing_is_remembered_of_other_people_or_studies() -> None:
    copies = learnt(AT_HOME, AT_BLOIS, STRANGER)
    assert copies.absent(UID, [STRANGER], {"CHUTours"}, DIRECTORY) == []
    assert copies.absent("1.2.4", [AT_BLOIS], {"csblo41000"}, DIRECTORY) == []
    assert copies.absent(UID, [record("B98", BLOIS, **MARIE)], {"csblo41000"}, DIRECTORY) == []


def test_what_a_holder_says_now_counts_and_not_what_it_said() -> None:
    copies = learnt(AT_HOME, AT_BLOIS)
    assert copies.absent(UID, [AT_BLOIS], {"csblo41000", "csrom41200"}, DIRECTORY) == []


def test_numbers_that_oppositions_name_are_remembered() -> None:
    at_home = replace(AT_HOME, accession="X1", ins=("255084958815780",))
    copies = learnt(at_home, AT_BLOIS)
    copies.learn(UID, Identity(records=(AT_HOME, AT_BLOIS)))  # by rows that don't give them
    (absent,) = copies.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)
    assert (absent.accession, absent.ins) == ("X1", ("255084958815780",))
    again = Copies(copies.take_pending())
    (absent,) = again.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)
    assert (absent.accession, absent.ins) == ("X1", ("255084958815780",))
    again.learn(UID, Identity(records=(replace(at_home, accession="X2"), AT_BLOIS)))
    (absent,) = again.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)
    assert absent.accession == "X2"


def test_a_study_at_one_holder_is_not_remembered() -> None:
    copies = learnt(AT_HOME)
    assert copies.take_pending() == []


def test_the_registry_is_told_once_of_what_is_new() -> None:
    woken: list[int] = []
    copies = Copies()
    copies.wake = lambda: woken.append(1)
    (identity,) = group([AT_HOME, AT_BLOIS], DIRECTORY)
    copies.learn(UID, identity)
    assert {(c.emetteur, c.patient_id, c.person) for c in copies.take_pending()} == {
        ("csrom41200", "4547", "4547@csrom41200"),
        ("csblo41000", "B99", "4547@csrom41200"),
    }
    copies.learn(UID, identity)
    assert copies.take_pending() == []
    copies.learn(UID, identity, {"csblo41000": frozenset({"1.2.3.1"})})
    (told,) = copies.take_pending()
    assert told.series == {"1.2.3.1"}
    copies.learn(UID, identity)  # not asked for its series now: they stay
    assert copies.take_pending() == []
    assert copies.series_at(UID, "csblo41000") == {"1.2.3.1"}
    assert copies.series_at(UID, "csrom41200") == frozenset()
    assert copies.series_at("9", "csblo41000") == frozenset()
    assert len(woken) == 2


def test_what_was_stored_comes_back() -> None:
    stored = learnt(AT_HOME, AT_BLOIS, series={"csrom41200": frozenset({"1"})}).take_pending()
    copies = Copies(stored)
    assert [r.holder for r in copies.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)] == [ROMORANTIN]
    assert copies.series_at(UID, "csrom41200") == {"1"}
    assert copies.take_pending() == []
    gone = Copies([Copy(study_uid=UID, emetteur="left", patient_id="1", person="p"), *stored])
    assert len(gone.absent(UID, [AT_BLOIS], {"csblo41000"}, DIRECTORY)) == 1  # a site that is no longer registered


def test_hashed_ids_are_understood() -> None:
    long = "x" * 60
    known: dict[str, Id] = {qualify(long, TOURS): (long, "CHUTours")}
    copies = learnt(record(long, TOURS, **MARIE), record(qualify(long, TOURS), ORLEANS, **MARIE))
    present = [record("other", ORLEANS)]
    assert copies.absent(UID, present, {"ch-orleans_45"}, DIRECTORY) == []
    mine = Record(
        holder=TOURS, raw_patient_id=long, ipp=long, authority=TOURS, origin=TOURS, name="x", birth_date="1", sex="F"
    )
    (absent,) = copies.absent(UID, [mine], {"CHUTours"}, DIRECTORY, known.get)
    assert absent.id == (long, "CHUTours")


def test_memory_is_bounded() -> None:
    copies = Copies(most=10)
    for n in range(50):
        (identity,) = group([AT_HOME, AT_BLOIS], DIRECTORY)
        copies.learn(f"1.{n}", identity)
    kept = [n for n in range(50) if copies.absent(f"1.{n}", [AT_BLOIS], {"csblo41000"}, DIRECTORY)]
    assert kept == list(range(40, 50))


_holders = st.lists(
    st.tuples(st.sampled_from(SITES), st.sampled_from(["own", "copy"])),
    min_size=2,
    max_size=4,
    unique_by=lambda t: t[0],
)


@given(_holders, st.data())
def test_the_patient_s_id_is_the_same_whoever_is_down(holders: list[tuple[Site, str]], data: st.DataObject) -> None:
    """As long as one holder of the study answers, and all have been seen together once."""
    records = [
        record("O1@ch-orleans_45" if how == "copy" and site is not ORLEANS else f"id{site.number}", site, **MARIE)
        for site, how in holders
    ]
    (identity,) = group(records, DIRECTORY)
    shown = QUALIFIED.patient_id(identity.main)
    copies = Copies()
    copies.learn(UID, identity)
    up = data.draw(st.lists(st.sampled_from(records), min_size=1, unique=True))
    absent = copies.absent(UID, up, {r.holder.emetteur for r in up}, DIRECTORY)
    known = {(r.holder.emetteur, r.raw_patient_id): r for r in [*absent, *up]}
    (again,) = group(known.values(), DIRECTORY)
    assert QUALIFIED.patient_id(again.main) == shown
    assert again.origin == identity.origin
    assert Identity(records=again.records).ids == again.ids
    assert set(again.ids) == set(identity.ids)


class Pacs(OnlySearched):
    """`federation.members.MemberClient` that gives all that it has."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.rows: list[Attributes] = []

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        return MemberRows(rows=list(self.rows))

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        raise AssertionError("no metadata are to be asked for in this test")


async def test_what_another_process_found_ends_a_word_of_absence() -> None:
    clients = {site.emetteur: Pacs(site) for site in (ROMORANTIN, BLOIS)}
    members = Members(lambda: DIRECTORY, lambda site: clients[site.emetteur], deadline_s=5.0)
    copies = Copies()
    locator = Locator(members, QUALIFIED, copies)

    async def located() -> Location:
        return await locator.locate([ROMORANTIN, BLOIS], UID, lambda _uid, _identities: True)

    row = {"0020000D": element("UI", UID), "00100020": element("LO", "4547")}
    clients["csrom41200"].rows = [row]
    assert len((await located()).hits) == 1
    clients["csblo41000"].rows = [{**row, "00100020": element("LO", "4547@csrom41200")}]
    assert len((await located()).hits) == 1  # it said that it has none
    copies.add(Copy(study_uid=UID, emetteur="csblo41000", patient_id="4547@csrom41200", person="4547@csrom41200"))
    assert len((await located()).hits) == 2
