"""The rules against a slow model of them that looks at every opposition one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import BLOIS, ROMORANTIN, TOURS

from consent import Exam, Requester
from consent.book import Bindings, Book, Emergency, Opposition
from consent.policy import Rules
from consent.traits import Traits, difference
from registry import Site

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SITES = (BLOIS, ROMORANTIN, TOURS)
UIDS = ("1.1", "1.2", "1.3")
IPPS = ("1", "2")
PEOPLE = (
    Traits("dupont^marie", "19600412", "F"),
    Traits("dupond^marie", "19600412", "F"),
    Traits("dupont^marie", "19600421", "F"),
    Traits("dupont^marie", "19600412", ""),
    Traits("dupont^marie", "19600413", "F"),
    Traits("dupont^marie", "", "F"),
    Traits("marie^dupont", "19600412", "F"),
    Traits("dupontmarie", "19600412", "F"),
    Traits("martin^paul", "19600412", "M"),
)
INS = "255084958815780"

ids = st.tuples(st.sampled_from(IPPS), st.sampled_from([s.emetteur for s in SITES]))
oppositions = st.builds(
    Opposition,
    number=st.integers(1, 6),
    active=st.booleans(),
    studies=st.lists(st.sampled_from(UIDS), max_size=2).map(tuple),
    found=st.lists(st.tuples(st.sampled_from(UIDS), st.sampled_from((*PEOPLE, Traits("", "", "")))), max_size=1).map(
        tuple
    ),
    accession=st.none() | ids,
    patient=st.none() | ids,
    traits=st.none() | st.sampled_from(PEOPLE[:2]),
    ins=st.none() | st.just(INS),
)


@st.composite
def exams(draw: st.DrawFn) -> Exam:
    origin: Site = draw(st.sampled_from(SITES))
    holders = tuple(draw(st.lists(st.sampled_from(SITES), min_size=1, max_size=3, unique=True)))
    known = frozenset(draw(st.lists(ids, max_size=3)))
    return Exam(
        study_uid=draw(st.sampled_from(UIDS)),
        origin=origin,
        patient_id="",
        ids=known,
        main_id=draw(st.sampled_from(sorted(known))) if known else ("", origin.emetteur),
        holders=holders,
        accessions=frozenset(draw(st.lists(ids, max_size=1))),
        traits=tuple(draw(st.lists(st.sampled_from(PEOPLE), max_size=2, unique=True))),
        ins=frozenset(draw(st.lists(st.just(INS), max_size=1))),
        origin_named=draw(st.booleans()),
    )


requesters = st.builds(
    Requester, id=st.sampled_from(["10001234567", "10001234568"]), home=st.none() | st.sampled_from(SITES)
)


@given(
    given_oppositions=st.lists(oppositions, max_size=5, unique_by=lambda o: o.number),
    decided=st.dictionaries(st.tuples(st.integers(1, 6), ids, st.sampled_from(PEOPLE)), st.booleans(), max_size=3),
    holds=st.dictionaries(
        st.tuples(st.sampled_from(UIDS), st.sampled_from([s.emetteur for s in SITES])), st.booleans(), max_size=3
    ),
    defaults=st.dictionaries(st.sampled_from([s.emetteur for s in SITES]), st.booleans(), max_size=2),
    emergencies=st.lists(
        st.builds(
            Emergency,
            id=st.sampled_from(["a", "b"]),
            requester_id=st.sampled_from(["10001234567", "10001234568"]),
            patient=ids,
            expires_at=st.sampled_from([NOON - timedelta(hours=1), NOON + timedelta(hours=1)]),
        ),
        max_size=2,
        unique_by=lambda e: e.id,
    ),
    exam=exams(),
    requester=requesters,
    lifted_before=st.booleans(),
)
@settings(max_examples=1500, deadline=None)
def test_they_decide_as_the_slow_model_does(
    given_oppositions, decided, holds, defaults, emergencies, exam, requester, lifted_before
) -> None:
    book = Book()
    for opposition in given_oppositions:
        if lifted_before:  # what was lifted and what stands come in any order, and more than once
            book.put(Opposition(**{**_fields(opposition), "active": not opposition.active}))
        book.put(opposition)
        book.put(opposition)
    for (number, (ipp, emetteur), traits), confirmed in decided.items():
        book.decide_near_match(number, emetteur, ipp, str(traits), confirmed=confirmed)
    for (uid, emetteur), withheld in holds.items():
        book.hold(uid, emetteur, withheld=withheld)
    for emetteur, withheld in defaults.items():
        book.hold_by_default(emetteur, withheld=withheld)
    for emergency in emergencies:
        book.put_emergency(emergency, NOON)

    decision = Rules(book).decide(requester, exam, NOON)

    binding, near, named = set[int](), set[int](), set[str]()
    for o in given_oppositions:
        if not o.active:
            continue
        sites = {key[1] for key in (o.patient,) if key in exam.ids}
        sites |= {key[1] for key in (o.accession,) if key in exam.accessions}
        site = next((key[1] for key in (o.patient, o.accession) if key), None)
        if exam.study_uid in o.studies or sites or o.ins in exam.ins:
            binding.add(o.number)
        if exam.study_uid in o.studies and site:
            sites.add(site)
        for uid, whose in o.found:
            strangers = [t for t in exam.traits if whose.birth_date and t.birth_date and difference(whose, t) is None]
            if uid == exam.study_uid and (not exam.traits or len(strangers) < len(exam.traits)):
                binding.add(o.number)
                sites |= {site} if site else set()
        named |= sites
        for traits in exam.traits if o.traits is not None else ():
            told = difference(o.traits, traits)
            said = [decided[k] for i in {*exam.ids, exam.main_id} if (k := (o.number, i, traits)) in decided]
            if told == "" or (told and any(said)):
                binding.add(o.number)
            elif told and not said:
                near.add(o.number)
    origin = exam.origin.emetteur
    words = {e: holds.get((exam.study_uid, e)) for e in {origin, *(s.emetteur for s in exam.holders)}}
    withheld = any(words.values()) or (words[origin] is None and defaults.get(origin, False))
    urgent = {
        e.id for e in emergencies if e.requester_id == requester.id and e.expires_at > NOON and e.patient in exam.ids
    }
    made_at: str | None = origin
    if named and not exam.origin_named:
        made_at = next(iter(named)) if len(named) == 1 and named <= {s.emetteur for s in exam.holders} else None
    if requester.home is not None and requester.home.emetteur == made_at:
        assert decision.permitted
        assert not decision.emergency
    elif binding:
        assert not decision.permitted
        assert decision.opposition in binding
    elif near:
        assert not decision.permitted
        assert {m.opposition for m in decision.near} == near
    elif withheld:
        assert decision.permitted == bool(urgent)
        assert decision.emergency in (urgent or {""})
    else:
        assert decision.permitted


def _fields(opposition: Opposition) -> dict[str, object]:
    return {name: getattr(opposition, name) for name in Opposition.__dataclass_fields__}


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(1, 4)), max_size=30))
def test_bindings_are_a_map_of_sets(steps: list[tuple[bool, str, int]]) -> None:
    bindings: Bindings[str] = Bindings()
    model: dict[str, set[int]] = {"a": set(), "b": set()}
    for add, key, number in steps:
        if add:
            bindings.add(key, number)
            model[key].add(number)
        else:
            bindings.discard(key, number)
            model[key].discard(number)
        for k, numbers in model.items():
            assert set(bindings.all(k)) == numbers
            assert bindings.first([k]) in (numbers or {None})
        assert len(bindings) == sum(1 for numbers in model.values() if numbers)
