"""What patients refuse, what is withheld and which emergencies run: in memory, by what an exam can be looked up under.

Every look-up is one of a few dictionary accesses, however many oppositions there are. Pure; `consent.reading` fills it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import prod
from typing import TypeAlias, TypeVar

from consent.model import Exam, NearMatch
from consent.traits import Traits, clearly_another, difference

K = TypeVar("K")

#: The oppositions, by number, that bind a key. Nearly every key is bound by one: then nothing more is kept.
Bound: TypeAlias = int | dict[int, None]


class Bindings(dict[K, Bound]):
    """Which oppositions bind a key."""

    def add(self, key: K, number: int) -> None:
        have = self.setdefault(key, number)
        if isinstance(have, dict):
            have[number] = None
        elif have != number:
            self[key] = {have: None, number: None}

    def discard(self, key: K, number: int) -> None:
        have = self.get(key)
        if have == number:
            del self[key]
        elif isinstance(have, dict):
            have.pop(number, None)
            if len(have) == 1:
                self[key] = next(iter(have))

    def first(self, keys: Iterable[K]) -> int | None:
        """An opposition that binds one of the keys."""
        for key in keys:
            if (bound := self.get(key)) is not None:
                return next(iter(numbers(bound)))
        return None

    def all(self, key: K) -> Collection[int]:
        return numbers(self.get(key))


def numbers(bound: Bound | None) -> Collection[int]:
    return () if bound is None else (bound,) if isinstance(bound, int) else bound


class Persons:
    """People by strict traits. Whoever differs a little from an exam's patient shares one of these with him: one of his
    names, family or given, and the birth date; the undivided name and the digits of the birth date; or, where a letter
    stands for the delimiter between the two names, half of the whole and the birth date.

    By hash, which spares a million texts; what is found is compared afterwards. Many share a given name and a birth
    date: beside each number stands the outline of the other name, so that only those are compared who may be meant.
    """

    def __init__(self) -> None:
        self._by_name: Bindings[int] = Bindings()
        self._by_digits: Bindings[int] = Bindings()
        # The halves of names that have a delimiter, and of those that have none.
        self._by_half: Bindings[int] = Bindings()
        self._by_half_undivided: Bindings[int] = Bindings()
        # What was found for whom lately: one patient has many exams, and a viewer asks for each of their frames.
        self._found: dict[Traits, Sequence[tuple[int, str]]] = {}
        #: For whom nothing was.
        self.nobodies: set[Traits] = set()
        # As texts: unlike tuples of a class of their own, the garbage collector needs not look at them.
        self._traits: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._traits)

    def add(self, number: int, traits: Traits) -> None:
        self._traits[number] = str(traits)
        self._forget()
        for index, key, value in self._places(number, traits):
            index.add(key, value)

    def discard(self, number: int, traits: Traits) -> None:
        if self._traits.pop(number, None) is None:
            return
        self._forget()
        for index, key, value in self._places(number, traits):
            index.discard(key, value)

    def _places(self, number: int, traits: Traits) -> Iterator[tuple[Bindings[int], int, int]]:
        """→ (index, key in it, what stands there)."""
        family, given, birth_date = traits.family, traits.given, traits.birth_date
        yield self._by_name, _key(family, birth_date), number << _OUTLINE | _outline(given)
        yield self._by_name, _key(given, birth_date), number << _OUTLINE | _outline(family)
        yield self._by_digits, _key(family + given, _digits(birth_date)), number
        halves = self._by_half if "^" in traits.name else self._by_half_undivided
        for key in _halves(traits.name, birth_date):
            yield halves, key, number

    def like(self, found: Traits) -> Sequence[tuple[int, str]]:
        """Oppositions of this person, and of who is nearly he: the number, and the difference ("" = none)."""
        if found in self.nobodies:
            return ()
        like = self._found.get(found)
        if like is None:
            if len(self._found) + len(self.nobodies) >= _FOUND_MAX:
                self._forget()
            like = self._look_up(found)
            if like:
                self._found[found] = like
            else:
                self.nobodies.add(found)
        return like

    def _forget(self) -> None:
        self._found.clear()
        self.nobodies.clear()

    def _look_up(self, found: Traits) -> Sequence[tuple[int, str]]:
        name, birth_date, _ = found
        digits = _digits(birth_date)
        if not name or not digits:
            return ()
        family, divided, given = name.partition("^")
        # `_key`, written out: this is done for every exam that is looked at.
        of_family = self._by_name.get(hash((family, birth_date)) & _60_BITS)
        of_given = self._by_name.get(hash((given, birth_date)) & _60_BITS)
        undivided = self._by_digits.get(hash((family + given, digits)) & _60_BITS)
        # A letter for the delimiter: then the other name has none.
        halves = self._by_half_undivided if divided else self._by_half
        of_halves = [b for k in _halves(name, birth_date) if (b := halves.get(k)) is not None] if halves else None
        if of_family is None and of_given is None and undivided is None and not of_halves:
            return ()
        worth = {*numbers(undivided), *(n >> _OUTLINE for n in numbers(of_family))}
        if of_given is not None:
            outline = _outline(family)
            worth.update(n >> _OUTLINE for n in numbers(of_given) if _may_be_one_edit(n, outline))
        for bound in of_halves or ():
            worth.update(numbers(bound))
        if not worth:
            return ()
        compared = [(n, difference(Traits.read(self._traits[n]), found)) for n in sorted(worth)]
        return [(number, told) for number, told in compared if told is not None]


_FOUND_MAX = 20_000
_60_BITS = (1 << 60) - 1  # what takes more is a larger object


def _key(*what: object) -> int:
    return hash(what) & _60_BITS


def _halves(name: str, birth_date: str) -> Sequence[int]:
    """Keys of the half that has no delimiter in it; of both, where there is none. Whoever has a letter for it has one
    of them too."""
    length = len(name)
    middle, delimiter = length // 2, name.find("^")
    keys = []
    if not 0 <= delimiter < middle:
        keys.append(hash((name[:middle], length, birth_date)) & _60_BITS)
    if delimiter < middle:
        keys.append(hash((length, name[middle:], birth_date)) & _60_BITS)
    return keys


_OUTLINE = 18  # bits


def _outline(name: str) -> int:
    """How long a name is, and its first and last letter, roughly: six bits each."""
    ends = (ord(name[0]) & 63) << 6 | ord(name[-1]) & 63 if name else 0
    return min(len(name), 63) << 12 | ends


def _may_be_one_edit(a: int, b: int) -> bool:
    """By their outlines (what stands above is not looked at), are two names the same, or nearly? One letter less, more
    or another, or two exchanged, leaves the first or the last as it was, but for names of two letters and fewer."""
    long, other = a >> 12 & 63, b >> 12 & 63
    differing = a ^ b
    return -1 <= long - other <= 1 and (not differing & 0o77 or not differing & 0o7700 or (long <= 2 and other <= 2))


#: Of four digits a number that is the same in whatever order they stand.
_UNORDERED = {
    f"{n:04}": prod((2, 3, 5, 7, 11, 13, 17, 19, 23, 29)[int(digit)] for digit in f"{n:04}") for n in range(10_000)
}


def _digits(birth_date: str) -> int:
    """The same for all dates of the same digits; 0 for what is no date."""
    if len(birth_date) != 8:
        return 0
    return _UNORDERED.get(birth_date[:4], 0) * _UNORDERED.get(birth_date[4:], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposition:
    """One opposition as it binds: any of its bindings is enough."""

    number: int
    active: bool
    studies: tuple[str, ...] = ()  # StudyInstanceUIDs
    found: tuple[tuple[str, Traits], ...] = ()  # further ones that its site holds, and whose they are there
    accession: tuple[str, str] | None = None  # (AccessionNumber, EMETTEUR)
    patient: tuple[str, str] | None = None  # (IPP, EMETTEUR)
    traits: Traits | None = None
    ins: str | None = None

    @property
    def emetteur(self) -> str | None:
        """The site whose number it names: its studies were found there."""
        named = self.patient or self.accession
        return named[1] if named is not None else None


_NOTHING: tuple[None, tuple[NearMatch, ...]] = (None, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """A vital emergency that a requester declared for one patient."""

    id: str
    requester_id: str
    patient: tuple[str, str]  # (IPP, EMETTEUR)
    expires_at: datetime


class Book:
    """Changed in place between two awaits: whoever decides sees all of a change or nothing of it."""

    def __init__(self) -> None:
        self._studies: Bindings[str] = Bindings()
        self._found: dict[str, dict[int, Traits]] = {}
        self._found_at: dict[int, str] = {}  # EMETTEUR; of oppositions that bind studies, and name a site
        self._accessions: Bindings[tuple[str, str]] = Bindings()
        self._patients: Bindings[tuple[str, str]] = Bindings()
        self._ins: Bindings[str] = Bindings()
        self._persons = Persons()
        self._decided: dict[tuple[int, str, str, str], bool] = {}  # near matches: confirmed or not
        self._holds: dict[tuple[str, str], bool] = {}  # (StudyInstanceUID, EMETTEUR) → withheld
        self._hold_defaults: dict[str, bool] = {}
        self._emergencies: dict[str, dict[str, Emergency]] = {}

    # Taking in ---------------------------------------------------------------------------------------------------

    def put(self, opposition: Opposition) -> None:
        """Add or remove one. Bindings only ever grow, so what was lifted comes with all that it ever bound."""
        number, emetteur = opposition.number, opposition.emetteur
        if opposition.active:
            if emetteur is not None and (opposition.studies or opposition.found):
                self._found_at[number] = emetteur
            for uid in opposition.studies:
                self._studies.add(uid, number)
            for uid, whose in opposition.found:
                self._found.setdefault(uid, {})[number] = whose
            if opposition.accession is not None:
                self._accessions.add(opposition.accession, number)
            if opposition.patient is not None:
                self._patients.add(opposition.patient, number)
            if opposition.ins is not None:
                self._ins.add(opposition.ins, number)
            if opposition.traits is not None:
                self._persons.add(number, opposition.traits)
            return
        self._found_at.pop(number, None)
        for uid in opposition.studies:
            self._studies.discard(uid, number)
        for uid, _ in opposition.found:
            bound = self._found.get(uid, {})
            bound.pop(number, None)
            if not bound:
                self._found.pop(uid, None)
        if opposition.accession is not None:
            self._accessions.discard(opposition.accession, number)
        if opposition.patient is not None:
            self._patients.discard(opposition.patient, number)
        if opposition.ins is not None:
            self._ins.discard(opposition.ins, number)
        if opposition.traits is not None:
            self._persons.discard(number, opposition.traits)

    def decide_near_match(self, number: int, emetteur: str, ipp: str, traits: str, *, confirmed: bool) -> None:
        """`traits` as `str(Traits)`."""
        self._decided[(number, emetteur, ipp, traits)] = confirmed

    def hold(self, study_uid: str, emetteur: str, *, withheld: bool) -> None:
        self._holds[(study_uid, emetteur)] = withheld

    def hold_by_default(self, emetteur: str, *, withheld: bool) -> None:
        self._hold_defaults[emetteur] = withheld

    def put_emergency(self, emergency: Emergency, at: datetime) -> None:
        running = {i: e for i, e in self._emergencies.get(emergency.requester_id, {}).items() if e.expires_at > at}
        if emergency.expires_at > at:
            running[emergency.id] = emergency
        if running:
            self._emergencies[emergency.requester_id] = running
        else:
            self._emergencies.pop(emergency.requester_id, None)

    # Looking up --------------------------------------------------------------------------------------------------

    def opposed(self, exam: Exam) -> tuple[int | None, tuple[NearMatch, ...]]:
        """→ (the opposition that binds an exam, None if none does; who in it may be the person of others)."""
        uid, patients = exam.study_uid, self._patients
        if (
            self._persons.nobodies.issuperset(exam.traits)
            and uid not in self._studies
            and uid not in self._found
            and not exam.ins
            and patients.keys().isdisjoint(exam.ids)
            and (not self._accessions or self._accessions.keys().isdisjoint(exam.accessions))
        ):
            return _NOTHING  # the quick way for nearly all: this is done for every row of a search
        number = self._studies.first((uid,))
        if number is None and uid in self._found:
            number = next(self._finders(exam), None)
        if number is None and patients:
            number = patients.first(exam.ids)
        if number is None and self._accessions:
            number = self._accessions.first(exam.accessions)
        if number is None and exam.ins:
            number = self._ins.first(exam.ins)
        if number is not None or not self._persons:
            return number, ()
        near: list[NearMatch] = []
        for traits in exam.traits:
            for candidate, told in self._persons.like(traits):
                if not told:
                    return candidate, ()
                confirmed = self._decision(candidate, exam, str(traits))
                if confirmed:
                    return candidate, ()
                if confirmed is None:
                    near.append(
                        NearMatch(
                            opposition=candidate,
                            emetteur=exam.main_id[1] or exam.origin.emetteur,
                            ipp=exam.main_id[0],
                            traits=traits,
                            name=exam.patient_name,
                            difference=told,
                            study_uid=exam.study_uid,
                        )
                    )
        return None, tuple(near)

    def by_ins(self, number: int, exam: Exam) -> bool:
        """Does this opposition name an INS that the exam bears?"""
        return any(number in self._ins.all(text) for text in exam.ins)

    def sites_named(self, exam: Exam) -> set[str]:
        """EMETTEURs of all sites whose number (an IPP, an accession number) an opposition names that binds the exam."""
        named = {key[1] for key in exam.ids if key in self._patients}
        named.update(key[1] for key in exam.accessions if key in self._accessions)
        if self._found_at:
            finders = [*self._studies.all(exam.study_uid), *self._finders(exam)]
            named.update(self._found_at[number] for number in finders if number in self._found_at)
        return named

    def _finders(self, exam: Exam) -> Iterator[int]:
        """Oppositions that found this study at their site, unless another person's exam bears the same UID here."""
        for number, whose in self._found.get(exam.study_uid, {}).items():
            if not exam.traits or not all(clearly_another(whose, traits) for traits in exam.traits):
                yield number

    def _decision(self, number: int, exam: Exam, traits: str) -> bool | None:
        """What was decided of this patient under any of his ids: that he is the person goes before that he is not."""
        ids = exam.ids | {exam.main_id if exam.main_id[1] else ("", exam.origin.emetteur)}
        said = [
            self._decided[(number, emetteur, ipp, traits)]
            for ipp, emetteur in ids
            if (number, emetteur, ipp, traits) in self._decided
        ]
        return any(said) if said else None

    def withheld(self, exam: Exam) -> bool:
        """Could the patient not be informed yet? By the word on the exam, else by its origin's default."""
        if not self._holds and not self._hold_defaults:
            return False
        origin = exam.origin.emetteur
        words = [self._holds.get((exam.study_uid, e)) for e in {origin, *(s.emetteur for s in exam.holders)}]
        if any(words):
            return True
        if self._holds.get((exam.study_uid, origin)) is False:
            return False
        return self._hold_defaults.get(origin, False)

    def emergency(self, requester_id: str, exam: Exam, at: datetime) -> str:
        """The id of a running emergency of this requester for the exam's patient; "" if there is none."""
        for emergency in self._emergencies.get(requester_id, {}).values():
            if emergency.expires_at > at and emergency.patient in exam.ids:
                return emergency.id
        return ""

    def emergencies(self, requester_id: str, at: datetime) -> list[str]:
        """All that this requester has running."""
        return [e.id for e in self._emergencies.get(requester_id, {}).values() if e.expires_at > at]
