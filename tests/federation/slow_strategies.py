"""Regions of the slow model, and what is asked of them, as Hypothesis makes them up."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from slow_region import NEAR, PEOPLE, SAME, SITES, TYPED, Ask, Get, Habits, Held, Refusal, Region, Who
from slow_rules import Exam, reading

STUDIES = ("1.1", "1.2", "1.3")
IPPS = ("1", "2", "9")
RPPS = ("10001234567", "10001234568")

sites = st.sampled_from(SITES)
studies = st.sampled_from(STUDIES)
qualified = st.builds("{}@{}".format, st.sampled_from(IPPS), sites)
patient_ids = st.one_of(st.sampled_from(IPPS), st.sampled_from(IPPS), qualified, st.sampled_from(["5@nowhere", ""]))
people = st.sampled_from([0, 0, 0, *range(1, len(PEOPLE))])
accessions = st.sampled_from(["", "", "X1", "X2"])
some_series = st.sampled_from([(1,), (1,), (2,), (1, 2)])


@st.composite
def originals(draw: st.DrawFn, study: str, site: str) -> Held:
    return Held(
        site=site,
        study=study,
        patient_id=draw(patient_ids),
        person=draw(people),
        accession=draw(accessions),
        date=draw(st.sampled_from(["20240101", "20240102"])),
        ins=draw(st.sampled_from(["", "", "", "rows", "instances"])),
        series=draw(some_series),
    )


@st.composite
def copies(draw: st.DrawFn, made: Held, site: str) -> Held:
    """Of an exam that another site made: through us, under the holder's own number, or with nothing that tells."""
    way = draw(st.sampled_from(["ours", "ours", "coded", "issuer", "other", "filed anew", "odd", "stranger"]))
    if way == "stranger":
        return draw(originals(made.study, site))
    person = draw(st.sampled_from([made.person, made.person, made.person, *SAME.get(made.person, ())]) | people)
    copy = replace(made, site=site, person=person, accession=draw(accessions), series=draw(some_series))
    if way == "ours":
        return replace(copy, patient_id=Exam((made,)).patient_id if reading(made).ipp else "9")
    if way == "issuer":
        return replace(copy, code=made.site, issuer=made.site)
    copy = replace(copy, patient_id=draw(patient_ids))
    if way == "other":
        return replace(copy, code=made.site, other=(made.patient_id, made.site))
    return replace(copy, code={"coded": made.site, "filed anew": "", "odd": draw(sites)}[way])


@st.composite
def exams_held(draw: st.DrawFn, study: str) -> list[Held]:
    first, *more = draw(st.permutations(SITES))
    made = draw(originals(study, first))
    return [made, *(draw(copies(made, site)) for site in more[: draw(st.integers(0, 2))])]


@st.composite
def refusals(draw: st.DrawFn, number: int, copy: Held) -> Refusal:
    """That binds a copy, or might."""
    refusal = Refusal(number=number, active=draw(st.sampled_from([True] * 5 + [False])))
    by = draw(st.sampled_from(["study", "patient", "filed as", "accession", "person", "person", "person", "ins"]))
    if by == "study":
        return replace(refusal, studies=(copy.study,))
    if by in ("patient", "filed as", "accession"):
        refusal = replace(refusal, studies=draw(st.sampled_from([(), (), (copy.study,)])))
    if by == "patient":
        return replace(refusal, patient=reading(copy)[:2] if reading(copy).ipp else ("1", copy.site))
    if by == "filed as":
        return replace(refusal, patient=(copy.patient_id, copy.site))
    if by == "accession":
        return replace(refusal, accession=(copy.accession or "X1", draw(st.sampled_from([copy.site, *SITES]))))
    if by == "ins":
        return replace(refusal, ins=True)
    return replace(refusal, person=draw(st.sampled_from(sorted(SAME))), ins=draw(st.sampled_from([False] * 5 + [True])))


@st.composite
def regions(draw: st.DrawFn, habits: st.SearchStrategy[Habits]) -> Region:
    held = [copy for study in STUDIES[: draw(st.integers(1, 3))] for copy in draw(exams_held(study))]
    some = st.sampled_from(held)
    filed = some.map(lambda c: reading(c)[:2]) | some.map(lambda c: (c.patient_id, c.site))
    refused = [draw(refusals(n, draw(some))) for n in range(1, 1 + draw(st.integers(0, 3)))]
    decided = {}
    for refusal in refused:
        for copy in held:
            if refusal.person is not None and copy.person in NEAR[refusal.person] and draw(st.booleans()):
                who = {1: 0}.get(copy.person, copy.person)  # these two read alike
                decided[(refusal.number, *draw(filed), who)] = draw(st.sampled_from([False, False, True]))
    return Region(
        held=tuple(held),
        habits=draw(st.dictionaries(sites, habits, max_size=2)),
        refusals=tuple(refused),
        decided=decided,
        holds=draw(st.dictionaries(some.map(lambda c: (c.study, c.site)), st.booleans(), max_size=2)),
        defaults=draw(st.dictionaries(some.map(lambda c: c.site), st.booleans(), max_size=1)),
        emergencies=tuple(
            (draw(st.sampled_from(RPPS)), *draw(filed), draw(st.sampled_from([True, True, False])))
            for _ in range(draw(st.integers(0, 2)))
        ),
    )


whos = st.builds(Who, id=st.sampled_from(RPPS), home=st.just("") | sites)
scopes = st.sampled_from(["all", "all", "folder", *SITES])
FILTERS = {
    "00100010": st.sampled_from(sorted(TYPED)),
    "00100020": st.sampled_from(IPPS) | qualified,
    "00100030": st.sampled_from(["19600412", "19600421"]),
    "0020000D": st.lists(studies, min_size=1, unique=True).map(",".join),
    "00080050": st.sampled_from(["X1", "X2"]),
    "00080020": st.sampled_from(["20240101", "20240101-20240102"]),
}


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    tags = draw(st.lists(st.sampled_from(sorted(FILTERS)), max_size=2, unique=True))
    nested = draw(st.sampled_from(["", "", "study", "series"]))
    study = draw(studies) if nested else ""
    level = draw(st.sampled_from(["study", "study", "series", "instance"]))
    if nested:
        level = "instance" if nested == "series" else draw(st.sampled_from(["series", "instance"]))
        tags = [t for t in tags if t != "0020000D"]
    return Ask(
        level=level,
        scope=draw(scopes),
        study=study,
        series=f"{study}.{draw(st.integers(1, 2))}" if nested == "series" else "",
        filters={tag: draw(FILTERS[tag]) for tag in tags},
        limit=draw(st.none() | st.integers(0, 2)),
        offset=draw(st.integers(0, 1)),
        own_site=draw(st.booleans()),
    )


@st.composite
def gets(draw: st.DrawFn) -> Get:
    study = draw(studies)
    return Get(scope=draw(scopes), study=study, series=f"{study}.1" if draw(st.integers(0, 3)) == 0 else "")


requests = st.tuples(whos, asks() | gets())


@st.composite
def habits(draw: st.DrawFn, *, fails_on_uids: bool) -> Habits:
    """Who matches nothing must at least say what its rows are of; and who does not, must answer when asked for it."""
    fails = fails_on_uids and draw(st.booleans())
    ignores = draw(st.booleans())
    return Habits(
        down=draw(st.sampled_from([False, False, False, True])),
        fails_on_uids=fails,
        fails_at_metadata=draw(st.sampled_from([False, False, True])),
        ignores_limit=draw(st.booleans()),
        ignores_filters=ignores,
        terse=draw(st.booleans()) and not ignores and not fails,
        nameless=draw(st.booleans()) and not fails,
        backwards=draw(st.booleans()),
    )
