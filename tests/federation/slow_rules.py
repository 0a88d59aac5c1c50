"""What a requester is to get of a region: in plain words, slowly, without a line of the engine.

Every question looks at every exam and every refusal one by one. The people of `slow_region` are few, so what makes two
of them the same person, or nearly, is written down there by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from slow_region import FOLDER, NEAR, PEOPLE, SAME, SITES, TYPED, Ask, Get, Held, Refusal, Region, Who

# Whose a copy is ------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    ipp: str
    whose: str
    origin: str


def reading(copy: Held) -> Reading:
    """The origin is the site in our code, else the one behind the `@`, else the holder. The IPP is that of the site
    behind the `@`; of the coded one, where the data say so; else the holder's."""
    before, _, behind = copy.patient_id.rpartition("@")
    for site in SITES:
        if before and behind.lower() == site.lower():
            return Reading(before, site, copy.code or site)
    if copy.code and copy.code != copy.site:
        if copy.issuer == copy.code and copy.patient_id:
            return Reading(copy.patient_id, copy.code, copy.code)
        if copy.other is not None and copy.other[0] and copy.other[1] == copy.code:
            return Reading(copy.other[0], copy.code, copy.code)
    return Reading(copy.patient_id, copy.site, copy.code or copy.site)


def one_person(a: Held, b: Held) -> bool:
    """The same id of the same site, or equal name, birth date and sex with none missing."""
    if reading(a).ipp and reading(a)[:2] == reading(b)[:2]:
        return True
    p, q = PEOPLE[a.person], PEOPLE[b.person]
    return p[1:] == q[1:] and bool(p.born and p.sex)


@dataclass(frozen=True)
class Exam:
    """One study as one person's: all copies of it that are known."""

    copies: tuple[Held, ...]  # the one that names the patient first

    @property
    def study(self) -> str:
        return self.copies[0].study

    @property
    def origin(self) -> str:
        """What the copies name that name another site than their holder; else the first one's."""
        first = reading(self.copies[0]).origin
        named = [reading(c).origin for c in self.copies if reading(c).origin != c.site]
        return first if not named or first in named else named[0]

    @property
    def origin_is_a_guess(self) -> bool:
        """Several hospitals have it, and each looks as if it had made it."""
        return len({c.site for c in self.copies}) > 1 and all(reading(c).origin == c.site for c in self.copies)

    @property
    def patient_id(self) -> str:
        """As it is shown; without an IPP, `~none@` and the holder (what tells the study is left out here)."""
        ipp, whose, _ = reading(self.copies[0])
        return f"{ipp}@{whose}" if ipp else f"~none@{self.copies[0].site}"

    @property
    def ids(self) -> set[tuple[str, str]]:
        """Also the holder's own, which is not the bare number of another hospital's patient."""
        known = {reading(c)[:2] for c in self.copies}
        known |= {(c.patient_id, c.site) for c in self.copies if reading(c).ipp != c.patient_id}
        return {(ipp, site) for ipp, site in known if ipp}


def exams(copies: Iterable[Held]) -> list[Exam]:
    found = []
    for _, same_study in itertools.groupby(sorted(copies, key=lambda c: c.study), key=lambda c: c.study):
        people: list[list[Held]] = []
        for copy in same_study:
            mine = [p for p in people if any(one_person(copy, other) for other in p)]
            people = [p for p in people if p not in mine] + [[copy, *itertools.chain(*mine)]]
        found += [Exam(tuple(sorted(p, key=lambda c: _rank(c, p)))) for p in people]
    return found


def _rank(copy: Held, person: Sequence[Held]) -> tuple[int, int, str]:
    """The origin's own copy, if another holder says that it is; then copies under their origin's id; then registry
    order."""
    _, whose, origin = reading(copy)
    if origin == copy.site and any(c.site != copy.site and reading(c).origin == copy.site for c in person):
        rank = 0
    else:
        rank = 1 if whose == origin != copy.site else 2
    return rank, SITES.index(copy.site), copy.patient_id


# The rules ------------------------------------------------------------------------------------------------------


def may_see(region: Region, who: Who, exam: Exam, *, instances: bool = False) -> bool:
    """`instances`: the data of the instances are known too."""
    if who.home and who.home == made_at(region, exam):
        return True
    for refusal in region.refusals:
        if refusal.active and (_names(refusal, exam, instances) or _person_of(region, refusal, exam)):
            return False
    if _withheld(region, exam):
        return any(
            running and requester == who.id and (ipp, site) in exam.ids
            for requester, ipp, site, running in region.emergencies
        )
    return True


def made_at(region: Region, exam: Exam) -> str:
    """Whose people see it whatever is refused. Where the origin is a guess, a refusal of what one site's number names
    knows better; if they name several sites, or one that has no copy, it is nobody."""
    named = {r.site for r in region.refusals if r.active and r.site and _numbers(r, exam)}
    if not exam.origin_is_a_guess or not named:
        return exam.origin
    holders = {c.site for c in exam.copies}
    return named.pop() if len(named) == 1 and named <= holders else ""


def _names(refusal: Refusal, exam: Exam, instances: bool) -> bool:
    return _numbers(refusal, exam) or (
        refusal.ins and any(c.ins == "rows" or (instances and bool(c.ins)) for c in exam.copies)
    )


def _numbers(refusal: Refusal, exam: Exam) -> bool:
    """By study, by IPP or accession number of a site."""
    accessions = {(c.accession, s) for c in exam.copies if c.accession for s in (c.site, reading(c).origin)}
    return exam.study in refusal.studies or refusal.patient in exam.ids or refusal.accession in accessions


def _person_of(region: Region, refusal: Refusal, exam: Exam) -> bool:
    """He is the person, or may be and nobody said that he is not."""
    if refusal.person is None:
        return False
    for copy in exam.copies:
        if copy.person in SAME[refusal.person]:
            return True
        if copy.person in NEAR[refusal.person]:
            # A decision on a patient is on his traits: on both spellings of the same ones.
            said = [
                confirmed
                for (number, ipp, site, person), confirmed in region.decided.items()
                if number == refusal.number
                and (ipp, site) in exam.ids | {reading(exam.copies[0])[:2]}
                and PEOPLE[person][1:] == PEOPLE[copy.person][1:]
            ]
            if not said or any(said):
                return True
    return False


def _withheld(region: Region, exam: Exam) -> bool:
    origin, holders = exam.origin, {c.site for c in exam.copies}
    if any(region.holds.get((exam.study, site)) for site in holders | {origin}):
        return True
    return region.holds.get((exam.study, origin)) is None and region.defaults.get(origin, False)


# The answers ----------------------------------------------------------------------------------------------------


def left_out(ask: Ask | Get, who: Who) -> str:
    """The requester's own site, where a wide search that names no UID leaves its exams out; else "" for none."""
    wide = ask.scope in ("all", "folder")
    return who.home if isinstance(ask, Ask) and wide and not ask.names_uid and not ask.own_site else ""


def asked_sites(ask: Ask | Get, who: Who) -> list[str]:
    in_scope = [s for s in SITES if ask.scope == "all" or (ask.scope == "folder" and s in FOLDER) or s == ask.scope]
    return [s for s in in_scope if s != left_out(ask, who)]


def heard(region: Region, ask: Ask | Get, who: Who) -> list[Held]:
    """The copies at the sites that are asked and answer."""
    sites = [s for s in asked_sites(ask, who) if not region.habits_of(s).down]
    return [c for c in region.held if c.site in sites]


class Row(NamedTuple):
    uid: str
    patient_id: str


class Expected(NamedTuple):
    """`must` ⊆ rows ⊆ `may`. They differ only by copies that their holder files under an id of its own and that no
    other holder is there to tell of."""

    must: set[Row]
    may: set[Row]


def rows(region: Region, who: Who, ask: Ask) -> Expected:
    must, may = set[Row](), set[Row]()
    own = left_out(ask, who)
    for exam in exams(heard(region, ask, who)):
        if ask.study and exam.study != ask.study:
            continue
        if (own and exam.origin == own) or not may_see(region, who, exam):
            continue
        for copy in exam.copies:
            for uid in copy.uids(ask.level):
                if ask.series and not uid.startswith(ask.series):
                    continue
                row = Row(uid, exam.patient_id)
                if _matches(copy, ask.filters, by_itself=False):
                    may.add(row)
                if _matches(copy, ask.filters, by_itself=not region.habits_of(copy.site).ignores_filters):
                    must.add(row)
    return Expected(must, may)


def _matches(copy: Held, filters: Mapping[str, str], *, by_itself: bool) -> bool:
    """`by_itself`: by what the holder has written itself, not only by what it means."""
    return all(MATCH[tag](copy, wanted, by_itself) for tag, wanted in filters.items())


def _patient_id(copy: Held, wanted: str, by_itself: bool) -> bool:
    """A bare value finds that IPP everywhere, a qualified one that of one site; every holder's own id matches."""
    ipp, whose, _ = reading(copy)
    before, _, behind = wanted.rpartition("@")
    for site in SITES:
        if before and behind.lower() == site.lower():
            if by_itself:
                return copy.patient_id == f"{before}@{site}" or (copy.patient_id, copy.site) == (before, site)
            return (before, site) in {(ipp, whose), (copy.patient_id, copy.site)}
    if by_itself:
        return copy.patient_id == wanted or (copy.patient_id.startswith(f"{wanted}@") and ipp == wanted)
    return wanted in (ipp, copy.patient_id)


def _date(copy: Held, wanted: str, by_itself: bool) -> bool:
    first, _, last = wanted.partition("-")
    return first <= copy.date <= (last or first)


MATCH: Mapping[str, Callable[[Held, str, bool], bool]] = {
    "00100010": lambda copy, wanted, _: copy.person in TYPED[wanted],
    "00100020": _patient_id,
    "00100030": lambda copy, wanted, _: PEOPLE[copy.person].born == wanted,
    "0020000D": lambda copy, wanted, _: copy.study in wanted.split(","),
    "00080050": lambda copy, wanted, _: copy.accession == wanted,
    "00080020": _date,
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a retrieval is to give: `status` 200, 404, 409 or 503, and the rows of its metadata.

    `or_refused`: instances may tell what no row does, an INS or another origin. Then it depends on which holder is
    asked: each instance is shown as its own data say, and what of it must not be shown takes the whole with it.
    """

    status: int
    exam: Exam | None = None
    rows: set[Row] = field(default_factory=set)
    or_refused: bool = False


def metadata(region: Region, who: Who, get: Get) -> Given:
    sites = asked_sites(get, who)
    if sites and all(region.habits_of(s).down for s in sites):
        return Given(status=503)
    seen = [e for e in exams(heard(region, get, who)) if e.study == get.study and may_see(region, who, e)]
    if len(seen) != 1:
        return Given(status=409 if seen else 404)
    exam = seen[0]
    rows = {
        Row(f"{uid}.1", exam.patient_id) for c in exam.copies for uid in c.uids("series") if get.series in ("", uid)
    }
    odd = any(c.code and (reading(c).origin != exam.origin or not reading(c).ipp) for c in exam.copies)
    told = not may_see(region, who, exam, instances=True)
    if not rows or (told and not odd and all(c.ins for c in exam.copies)):
        return Given(status=404)
    return Given(status=200, exam=exam, rows=rows, or_refused=odd or told)


def is_hidden(region: Region, who: Who, study: str) -> bool:
    """Must nothing of a study be seen, whichever of its copies are known?"""
    copies = [c for c in region.held if c.study == study]
    return all(not may_see(region, who, exam) for some in _subsets(copies) for exam in exams(some))


def _subsets(copies: Sequence[Held]) -> Iterator[tuple[Held, ...]]:
    for number in range(1, len(copies) + 1):
        yield from itertools.combinations(copies, number)
