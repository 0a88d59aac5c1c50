"""Strict traits of a person, compared: family and given name, birth date, sex. Pure.

Names count as the same whatever case, accents, hyphens, apostrophes and spaces. What stands behind the given name
(further components: second names, titles) is no strict trait and is not looked at.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

#: Letters that Unicode does not decompose, spelled out.
_LIGATURES = str.maketrans(
    {"œ": "oe", "æ": "ae", "ß": "ss", "ø": "o", "ð": "d", "þ": "th", "ł": "l", "đ": "d", "ı": "i"}
)
_DATE = re.compile(r"[0-9]{8}")
SEXES = ("M", "F")
#: Longer than any name that DICOM takes (PN, PS3.5 §6.2).
_NAME_MAX = 128


class Traits(NamedTuple):
    """`name` is normalised: `dupontlevy^marie`. Birth date YYYYMMDD; sex M, F or something else for "not known"."""

    name: str
    birth_date: str
    sex: str

    @property
    def family(self) -> str:
        return self.name.partition("^")[0]

    @property
    def given(self) -> str:
        return self.name.partition("^")[2]

    def __str__(self) -> str:
        return "|".join(self)

    @classmethod
    def read(cls, text: str) -> Traits:
        """From `str(traits)`."""
        return cls(*text.split("|"))


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """Case, accents and ligatures removed; punctuation kept. `É` → `e`, `Œ` → `oe`."""
    if text.isascii():
        return text.lower()
    # What compatibility forms stand for may have a case, and what that becomes may be composed (Unicode §3.13, D146).
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in plain if not unicodedata.combining(c)).translate(_LIGATURES)


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """`fold`, with everything but letters, digits and the component delimiter `^` removed.

    Trailing empty components go (PS3.5 §6.2.1.2): `DUPONT-LÉVY^Marie^^` → `dupontlevy^marie`.
    """
    return "".join(c for c in fold(text) if named(c) or c == "^").rstrip("^")


def named(c: str) -> bool:
    """Letters and digits; not the modifier letters, which people and phones write for an apostrophe."""
    return c.isalnum() and not "\u02b0" <= c <= "\u02ff"


def strict(name: str, birth_date: str, sex: str) -> Traits:
    """Strict traits from a normalised name and what a PACS says of the rest, which may be anything.

    A date in the form of ACR-NEMA or ISO 8601 is read; what is no date, or no sex, is not known.
    """
    if name.count("^") > 1:
        name = "^".join(name.split("^", 2)[:2]).rstrip("^")
    if not _DATE.fullmatch(birth_date):
        birth_date = birth_date.replace(".", "").replace("-", "")
        birth_date = birth_date if _DATE.fullmatch(birth_date) else ""
    return Traits(name[:_NAME_MAX], birth_date, sex if sex in SEXES else "")


def clearly_another(one: Traits, other: Traits) -> bool:
    """Are name and birth date of both known, and too different for one person's?"""
    known = all(t.name and _DATE.fullmatch(t.birth_date) for t in (one, other))
    return known and difference(one, other) is None


def difference(recorded: Traits, found: Traits) -> str | None:
    """What keeps `found` from being the recorded person: "" nothing, a phrase if it is little, None if he is another.

    Little is one letter of the name, a given name that one of the two has in part only, family and given name exchanged
    or not told apart, two exchanged digits of the birth date (or its day and month), or the sex. A sex that is not
    known makes nobody another person and nobody the same. A birth date that is not known hides nobody.
    """
    if not found.name or not _DATE.fullmatch(found.birth_date):
        return None
    of_names = _of_names(recorded.name, found.name)
    if of_names is None:
        return None
    of_dates = _of_dates(recorded.birth_date, found.birth_date)
    if of_dates is None:
        return None
    differences = [d for d in (of_names, of_dates) if d]
    known = found.sex in SEXES and recorded.sex in SEXES
    if known and found.sex != recorded.sex:
        differences.append("the sex differs")
    if len(differences) > 1:
        return None
    return differences[0] if differences else "" if known else "the sex is not known"


def _of_names(recorded: str, found: str) -> str | None:
    if recorded == found:
        return ""
    family, _, given = recorded.partition("^")
    found_family, divided, found_given = found.partition("^")
    if not divided and family + given == found:
        return "family and given name are not told apart"
    if one_edit(recorded, found):
        return "one letter of the name differs"
    if family == found_family and (given.startswith(found_given) or found_given.startswith(given)):
        return "one given name is a part of the other"
    if given and (family, given) == (found_given, found_family):
        return "family and given name are exchanged"
    return None


def _of_dates(recorded: str, found: str) -> str | None:
    if recorded == found:
        return ""
    if len(recorded) != 8:
        return None
    if recorded[:4] == found[:4] and recorded[4:6] == found[6:] and recorded[6:] == found[4:6]:
        return "day and month of the birth date are exchanged"
    places = [i for i in range(8) if recorded[i] != found[i]]
    if len(places) == 2 and recorded[places[0]] == found[places[1]] and recorded[places[1]] == found[places[0]]:
        return "two digits of the birth date are exchanged"
    return None


def one_edit(a: str, b: str) -> bool:
    """Is one letter more, fewer, another, or exchanged with its neighbour, and nothing else?"""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1 or a == b:
        return False
    start = 0
    while start < len(a) and a[start] == b[start]:
        start += 1
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    return a[start + 1 :] == b[start + 1 :] or (
        a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    )
