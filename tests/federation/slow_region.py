"""A region as the slow model of the rules sees it: people, what each hospital holds, what is refused, who asks what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: In registry order. Orléans tells cases apart in names, Tours is known not to, of the others it is not known.
ROMO, BLOIS, TOURS, ORLEANS = "csrom41200", "csblo41000", "CHUTours", "ch-orleans_45"
SITES = (ROMO, BLOIS, TOURS, ORLEANS)
FOLDER = (ROMO, BLOIS)


class Person(NamedTuple):
    """As a hospital writes him, and how his name reads without case, accents and hyphens."""

    name: str
    born: str
    sex: str
    plain: str


PEOPLE = (
    Person("DUPONT^MARIE", "19600412", "F", "dupont^marie"),
    Person("Dupont^Marïe", "19600412", "F", "dupont^marie"),
    Person("DUPOND^MARIE", "19600412", "F", "dupond^marie"),
    Person("DUPONT^MARIE", "19600421", "F", "dupont^marie"),
    Person("DUPONT^MARIE", "19600412", "", "dupont^marie"),
    Person("DUPONT^MARIE", "", "F", "dupont^marie"),
    Person("DUPONT^MARIE-LOUISE", "19600412", "F", "dupont^marielouise"),
    Person("MARTIN^PAUL", "19710203", "M", "martin^paul"),
    Person("MARIE^DUPONT", "19600412", "F", "marie^dupont"),
    Person("DUPOND^MARIE", "19600421", "F", "dupond^marie"),
    Person("DUPONT^MARIE", "19600412", "M", "dupont^marie"),
)
#: Whom an opposition may name, who else is that person to the letter, and who may be he.
SAME = {0: {0, 1}, 2: {2}, 7: {7}}
NEAR = {0: {2, 3, 4, 6, 8, 10}, 2: {0, 1, 4, 9}, 7: set[int]()}
#: Whom the names that are typed find.
TYPED: Mapping[str, set[int]] = {
    "DUPONT": {0, 1, 3, 4, 5, 6, 10},
    "dupont^marie": {0, 1, 3, 4, 5, 10},
    "DUPON*": {0, 1, 2, 3, 4, 5, 6, 9, 10},
    "Dupond^M*": {2, 9},
    "MARIE": {8},
    "MARTIN^PAUL": {7},
}
INS = "255084958815738"


@dataclass(frozen=True, kw_only=True)
class Held:
    """One study at one hospital: how it is filed there."""

    site: str
    study: str = "1.1"
    patient_id: str = "1"
    person: int = 0
    code: str = ""  # the EMETTEUR that our InstitutionCodeSequence names in it
    issuer: str = ""
    other: tuple[str, str] | None = None  # (PatientID, IssuerOfPatientID) of OtherPatientIDsSequence
    accession: str = ""
    date: str = "20240101"
    ins: str = ""  # "", "rows" or "instances": where the patient's INS stands
    series: tuple[int, ...] = (1,)

    def series_uid(self, number: int) -> str:
        return f"{self.study}.{number}"

    def uids(self, level: str) -> list[str]:
        if level == "study":
            return [self.study]
        return [self.series_uid(n) + (".1" if level == "instance" else "") for n in self.series]


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a hospital's PACS behaves."""

    down: bool = False
    fails_on_uids: bool = False  # at every question that names a study
    fails_at_metadata: bool = False
    ignores_limit: bool = False
    ignores_filters: bool = False
    terse: bool = False  # leaves the patient out of rows below the study
    nameless: bool = False  # leaves out of them what tells the person, but not the PatientID
    backwards: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An opposition. Any of what it names is enough. `studies` of one that names a site's number were found there."""

    number: int
    active: bool = True
    studies: tuple[str, ...] = ()
    accession: tuple[str, str] | None = None
    patient: tuple[str, str] | None = None
    person: int | None = None
    ins: bool = False

    @property
    def site(self) -> str:
        """Whose number it names."""
        named = self.patient or self.accession
        return named[1] if named else ""


@dataclass(frozen=True, kw_only=True)
class Region:
    """`decided`: (opposition, IPP, EMETTEUR, person) → confirmed. `holds`: (study, EMETTEUR) → withheld. `emergencies`:
    (requester, IPP, EMETTEUR, whether it runs)."""

    held: tuple[Held, ...] = ()
    habits: Mapping[str, Habits] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    decided: Mapping[tuple[int, str, str, int], bool] = field(default_factory=dict)
    holds: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    defaults: Mapping[str, bool] = field(default_factory=dict)
    emergencies: tuple[tuple[str, str, str, bool], ...] = ()

    def habits_of(self, site: str) -> Habits:
        return self.habits.get(site, Habits())


@dataclass(frozen=True, kw_only=True)
class Who:
    id: str = "10001234567"
    home: str = ""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A search. `scope`: "all", "folder" or an EMETTEUR. `study`, `series`: of a nested path."""

    level: str = "study"
    scope: str = "all"
    study: str = ""
    series: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    offset: int = 0
    own_site: bool = False

    @property
    def names_uid(self) -> bool:
        return bool(self.study) or "0020000D" in self.filters


@dataclass(frozen=True, kw_only=True)
class Get:
    """A retrieval of metadata: of a study, or of one of its series."""

    scope: str = "all"
    study: str = "1.1"
    series: str = ""
