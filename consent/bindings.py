"""What an opposition binds, and how it is written down: values and checks, no I/O.

The command line and imported tables apply the same rules. A problem is told as (field, one sentence that says what to
do); the fields are `FIELDS`, named as the columns of a table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TypeVar

from consent import ins
from consent.model import Requester
from consent.traits import Traits, normalise, strict
from registry import Directory, Role

T = TypeVar("T")

FIELDS = ("study", "accession", "ipp", "site", "person", "born", "sex", "ins", "channel", "on", "reason")
#: One of these says what is opposed; the last two may stand together.
NAMING = ("study", "accession", "ipp", "person", "ins")

_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)*")  # PS3.5 §9.1
_DATES = (
    re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})", re.ASCII),
    re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})", re.ASCII),
    re.compile(r"(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4})", re.ASCII),
)
#: Nobody who was born earlier has exams: such a year is mistyped, and would bind nobody.
_FIRST_YEAR = 1850
_NUMBER_MAX = 64  # LO, PS3.5 §6.2; accession numbers are longer than SH allows at some sites
_NAME_MAX = 64  # one component group of PN
_REASON_MAX = 2000
_STUDIES_MAX = 1000
_INS = re.compile(r"[0-9]{5}(?:[0-9]{2}|2A|2B)[0-9]{8}")
#: PatientIDs that the façade makes up (`federation.identity`).
_OURS = re.compile(r"~([0-9a-f]{32}|none\.[0-9a-f]{16})")


class OppositionKind(StrEnum):
    STUDY = "study"  # studies, by UID
    ACCESSION = "accession"  # the studies of an accession number at a site
    PATIENT = "patient"  # the exams of an IPP at a site
    PERSON = "person"  # everything of a person, region-wide


class Channel(StrEnum):
    """How the patient said so."""

    LETTER = "letter"
    FORM = "form"
    ORAL = "oral"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an opposition binds. Which of the others are set follows from `kind`."""

    kind: OppositionKind
    study_uids: tuple[str, ...] = ()  # as named, sorted
    emetteur: str | None = None
    accession: str | None = None
    ipp: str | None = None
    name: str | None = None  # as recorded: FAMILY^GIVEN
    birth_date: str | None = None  # YYYYMMDD
    sex: str | None = None  # F, M
    ins: str | None = None

    @property
    def traits(self) -> Traits | None:
        if self.name is None or self.birth_date is None or self.sex is None:
            return None
        return strict(normalise(self.name), self.birth_date, self.sex)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for two bindings that bind the same: names are compared as strict traits are."""
        if self.kind is OppositionKind.STUDY:
            return (self.kind, *self.study_uids)
        traits = str(self.traits) if self.traits is not None else ""
        return (self.kind, self.emetteur or "", self.accession or self.ipp or "", traits, self.ins or "")

    def __str__(self) -> str:
        """In words, for the correspondent. Holds patient data: never for a log."""
        match self.kind:
            case OppositionKind.STUDY:
                more = f" and {len(self.study_uids) - 1} more" if len(self.study_uids) > 1 else ""
                return f"study {self.study_uids[0] if self.study_uids else ''}{more}"
            case OppositionKind.ACCESSION:
                return f"accession number {self.accession} at {self.emetteur}"
            case OppositionKind.PATIENT:
                return f"IPP {self.ipp} at {self.emetteur}"
            case OppositionKind.PERSON:
                person = f"{self.name}, born {self.birth_date}, {self.sex}" if self.name is not None else ""
                return ", ".join(filter(None, (person, f"INS {self.ins}" if self.ins is not None else "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a patient said, when, and how."""

    binding: Binding
    declared_on: date
    channel: Channel
    reason: str = ""


class BadDeclaration(ValueError):
    """It cannot be recorded as it is: (field, what is wrong and what to do) of each problem."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems))
        self.problems = tuple(problems)


# Who may ------------------------------------------------------------------------------------------------------------


def why_not_record(requester: Requester, binding: Binding) -> str | None:
    """Why this person may not record an opposition with this binding, and who may; None if he may."""
    return _why_not(requester, binding, "recorded")


def why_not_lift(requester: Requester, binding: Binding, recorded_at: str) -> str | None:
    """As `why_not_record`. What binds studies is lifted by the site (EMETTEUR) that was told, or by the referent."""
    why = _why_not(requester, binding, "lifted")
    if why is not None or requester.role is Role.REFERENT or binding.kind is not OppositionKind.STUDY:
        return why
    if requester.home is not None and requester.home.emetteur == recorded_at:
        return None
    return (
        f"{requester.id} is of another site: this was recorded at {recorded_at}, and is lifted by the MIRC "
        f"correspondent of {recorded_at} or by the referent"
    )


def _why_not(requester: Requester, binding: Binding, verb: str) -> str | None:
    if requester.role is Role.REFERENT:
        return None
    if requester.role is not Role.CORRESPONDENT or requester.home is None:
        return (
            f"{requester.id} is no correspondent: oppositions are {verb} by the MIRC correspondent of a site, for its "
            "own patients, or by the referent"
        )
    home = requester.home.emetteur
    if binding.kind is OppositionKind.PERSON:
        return (
            f"{requester.id} is correspondent of {home}: what binds a person region-wide, by name or INS, is {verb} by "
            "the referent; a correspondent's oppositions name an IPP, an accession number or a study"
        )
    if binding.emetteur is not None and binding.emetteur != home:
        return (
            f"{requester.id} is correspondent of {home}: an opposition at {binding.emetteur} is {verb} by the MIRC "
            f"correspondent of {binding.emetteur} or by the referent"
        )
    return None


def why_not_decide(requester: Requester, emetteur: str) -> str | None:
    """Why this person may not say whether a patient of a site is the person of an opposition; None if he may."""
    if requester.role is Role.REFERENT:
        return None
    if requester.role is Role.CORRESPONDENT and requester.home is not None and requester.home.emetteur == emetteur:
        return None
    return f"{requester.id} may not: the MIRC correspondent of {emetteur} decides this, or the referent"


# Reading ------------------------------------------------------------------------------------------------------------


def read_declaration(fields: Mapping[str, str], today: date) -> Declaration:
    """A declaration as typed, its site not looked up yet: see `located`. Raises `BadDeclaration` with all problems."""
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    problems: list[tuple[str, str]] = []

    def read(field: str, check: Callable[[str], T]) -> T | None:
        if field not in given:
            return None
        try:
            return check(given[field])
        except ValueError as error:
            problems.append((field, str(error)))
            return None

    kind = _kind(given, problems)
    studies = read("study", check_studies)
    binding = Binding(
        kind=kind,
        study_uids=studies or (),
        emetteur=given.get("site"),
        accession=read("accession", check_number),
        ipp=read("ipp", check_number),
        name=read("person", check_person),
        birth_date=read("born", lambda value: check_birth_date(value, today)),
        sex=read("sex", check_sex),
        ins=read("ins", check_ins),
    )
    channel = read("channel", _channel)
    if "channel" not in given:
        problems.append(("channel", f"is missing: write {', '.join(Channel)}"))
    declared_on = read("on", lambda value: check_past(value, today)) or today
    reason = read("reason", check_reason) or ""
    if problems or channel is None:
        raise BadDeclaration(problems)
    return Declaration(binding=binding, declared_on=declared_on, channel=channel, reason=reason)


def _kind(given: Mapping[str, str], problems: list[tuple[str, str]]) -> OppositionKind:
    """What is opposed, by the fields that are there, each with what belongs to it."""
    named = [name for name in NAMING if name in given]
    if not named:
        problems.append(("study", f"nothing says what is opposed: give one of {', '.join(NAMING)}"))
        return OppositionKind.STUDY
    if len(named) > 1 and named != ["person", "ins"]:
        problems.append(
            (named[1], f"stands beside {named[0]}: give one of them, and the other in an opposition by itself")
        )
    local = named[0] in ("accession", "ipp")
    if local and "site" not in given:
        problems.append(("site", f"is missing: say at which site this {_WORDS[named[0]]} is"))
    if not local and "site" in given:
        problems.append(("site", "belongs to an accession number or an IPP only: leave it out"))
    if "person" in given:
        problems.extend(
            (name, "is missing: a name alone is no person") for name in ("born", "sex") if name not in given
        )
    else:
        problems.extend(
            (name, "belongs to person: leave it out, or name the person") for name in ("born", "sex") if name in given
        )
    return _KINDS[named[0]]


_WORDS = {"accession": "accession number", "ipp": "IPP"}
_KINDS = {
    "study": OppositionKind.STUDY,
    "accession": OppositionKind.ACCESSION,
    "ipp": OppositionKind.PATIENT,
    "person": OppositionKind.PERSON,
    "ins": OppositionKind.PERSON,
}


def located(binding: Binding, directory: Directory, long_ids: Mapping[str, tuple[str, str]]) -> Binding:
    """With the site in the registry's case, and the IPP without the site's name behind it: people copy the PatientID
    as they see it, `IPP@EMETTEUR` or the hashed form of a long one (`long_ids`: → (IPP, EMETTEUR)).

    Raises `BadDeclaration`.
    """
    if binding.emetteur is None:
        return binding
    site = directory.site(binding.emetteur)
    if site is None:
        raise BadDeclaration(
            [("site", f"no site has the EMETTEUR {binding.emetteur!r}: `imagora sites list` shows all")]
        )
    ipp = binding.ipp
    if ipp is not None:
        ipp, owner = long_ids.get(ipp) or _split(ipp, directory)
        if _OURS.fullmatch(ipp):
            text = "is shown for a patient whose own IPP is too long, or missing: give that IPP, or the study's UID"
            raise BadDeclaration([("ipp", text)])
        if owner and owner != site.emetteur:
            text = f"this patient is one of {owner}, not of {site.emetteur}: correct the site, or the IPP"
            raise BadDeclaration([("ipp", text)])
    return replace(binding, emetteur=site.emetteur, ipp=ipp)


def _split(ipp: str, directory: Directory) -> tuple[str, str]:
    """`4547@csrom41200` → (`4547`, `csrom41200`); (IPP, "") if no EMETTEUR stands behind the last `@`."""
    bare, _, suffix = ipp.rpartition("@")
    owner = directory.site(suffix) if bare.strip() else None
    return (bare.strip(), owner.emetteur) if owner is not None else (ipp, "")


# Checks: the value as it is stored, or `ValueError` with one sentence that says what to do --------------------------


def check_studies(value: str) -> tuple[str, ...]:
    """One StudyInstanceUID or several, separated by spaces. Sorted, each once."""
    uids = sorted(set(value.split()))
    for uid in uids:
        if not _UID.fullmatch(uid):
            raise ValueError(
                f"{_shown(uid)} is not a UID: digits and points, at most 64; several are separated by spaces"
            )
    if len(uids) > _STUDIES_MAX:
        raise ValueError(f"names {len(uids)} studies: at most {_STUDIES_MAX} in one opposition")
    return tuple(uids)


def check_number(value: str) -> str:
    """An IPP or an accession number, to the letter."""
    if len(value) > _NUMBER_MAX or "\\" in value or not value.isprintable():
        raise ValueError(
            f"{_shown(value)} is no such number: at most {_NUMBER_MAX} characters, no backslash, nothing invisible"
        )
    if "*" in value or "?" in value:
        raise ValueError(f"{_shown(value)} has * or ? in it: an opposition names one patient or exam, to the letter")
    return value


def check_person(value: str) -> str:
    """`FAMILY^GIVEN`, both with letters; what stands behind the given name is kept and not compared."""
    if len(value) > _NAME_MAX or "\\" in value or "=" in value or not _is_text(value):
        raise ValueError(f"{_shown(value)} is not a name: at most {_NAME_MAX} characters, without backslash or =")
    family, hat, given = value.partition("^")
    if not hat:
        raise ValueError(
            f"{_shown(value)} does not tell family and given name apart: write FAMILY^GIVEN, as DUPONT^MARIE"
        )
    for part, what in ((family, "family"), (given.partition("^")[0], "given")):
        if not any(c.isalpha() for c in normalise(part)):
            raise ValueError(f"{_shown(value)} has no {what} name: write FAMILY^GIVEN, as DUPONT^MARIE")
    return value


def check_sex(value: str) -> str:
    if value.upper() not in ("F", "M"):
        raise ValueError(f"{_shown(value)} is not a sex: write F or M")
    return value.upper()


def check_ins(value: str) -> str:
    """13 characters and the key: 97 less the rest of the number divided by 97. Spaces between groups are left out."""
    plain = "".join(value.split()).upper()
    if len(plain) != 15 or not plain.isascii() or not _INS.fullmatch(plain):
        raise ValueError(f"{_shown(value)} is not an INS: 13 digits (2A or 2B for Corsica) and its key of 2")
    if ins.key_of(plain[:13]) != plain[13:]:
        raise ValueError(f"{_shown(value)} is not an INS: its key does not fit its number, so a character is mistyped")
    return plain


def check_day(value: str) -> date:
    for form in _DATES:
        if match := form.fullmatch(value):
            try:
                return date(int(match["year"]), int(match["month"]), int(match["day"]))
            except ValueError:
                raise ValueError(f"{value} is no day of the calendar: correct it") from None
    raise ValueError(f"{_shown(value)} is not a date: write 1960-05-12, 19600512 or 12/05/1960")


def check_past(value: str, today: date) -> date:
    day = check_day(value)
    if day > today:
        raise ValueError(f"{value} is in the future: correct it")
    return day


def check_birth_date(value: str, today: date) -> str:
    """YYYYMMDD."""
    day = check_past(value, today)
    if day.year < _FIRST_YEAR:
        raise ValueError(f"{value} is too long ago for a birth date: correct the year")
    return f"{day:%Y%m%d}"


def check_reason(value: str) -> str:
    if not _is_text(value):
        raise ValueError("has a line break or control character in it: write it on one line")
    if len(value) > _REASON_MAX:
        raise ValueError(f"is {len(value)} characters long: at most {_REASON_MAX}")
    return value


def _channel(value: str) -> Channel:
    try:
        return Channel(value.lower())
    except ValueError:
        raise ValueError(f"{_shown(value)} is not a channel: write {', '.join(Channel)}") from None


def _is_text(value: str) -> bool:
    """Without control characters, line breaks, and halves of surrogate pairs, which cannot be stored."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value)


def _shown(value: str) -> str:
    """As an error repeats it: cut, and with what is invisible made visible."""
    return ascii(value[:80]) if not _is_text(value) else repr(value[:80])
