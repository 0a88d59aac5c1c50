"""Does a row match what was asked? Applied here to every row, since members match as they like. Pure.

Matching is that of PS3.4 §C.2.2.2, made lenient where people type: text ignores case and accents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydicom.datadict import dictionary_VR

from federation import names
from federation.identity import Identity, Naming, Record, qualify
from federation.model import Attributes
from federation.wildcards import regex
from registry import Directory, Site

PATIENT_ID = "00100020"
PATIENT_NAME = "00100010"
BIRTH_DATE = "00100030"
SEX = "00100040"
ISSUER = "00100021"
#: Attributes that we write ourselves: a member can't match them, so they are never asked of one.
OURS = frozenset({ISSUER, "00080054", "00080080", "00080082"})
#: Attributes that are the same at every holder of a study, or that make two holders' records one person's: a
#: search that filters on nothing else finds every holder by itself. None of series or instances is among them:
#: holders may have different ones.
SAME_EVERYWHERE = frozenset({"0020000D", "00080020", "00080030", PATIENT_NAME, BIRTH_DATE, SEX})


@lru_cache(maxsize=4096)
def vr_of(tag: str) -> str:
    """The dictionary's VR of a tag (`00100010`), `UN` if it is not in it."""
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "UN"


@lru_cache(maxsize=1024)
def _text_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(regex(names.fold(pattern).strip()), re.DOTALL)


def matches_text(pattern: str, value: str) -> bool:
    """Wildcard matching of one value, whatever case and accents."""
    return _text_pattern(pattern).fullmatch(names.fold(value).strip()) is not None


def matches_exact_or_wild(pattern: str, value: str) -> bool:
    """Wildcard matching that tells cases apart: identifiers."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == value
    return re.fullmatch(regex(pattern), value, re.DOTALL) is not None


def matches_range(wanted: str, value: str) -> bool:
    """Dates and times: one value, `a-b`, `-b`, `a-`. A shorter bound stands for the whole period that it names."""
    value = value.replace(":", "").replace(".", "") if ":" in value else value.replace(".", "")
    if not value:
        return False
    low, dash, high = wanted.replace(":", "").replace(".", "").partition("-")
    if not dash:
        return value.startswith(low) or (low.startswith(value) and set(low[len(value) :]) <= {"0"})
    return (not low or value.ljust(len(low), "0") >= low) and (not high or value[: len(high)] <= high)


def matches_value(tag: str, wanted: str, values: list[Any]) -> bool:
    """Does any of an attribute's values match?"""
    vr = vr_of(tag)
    if vr == "PN":
        return any(names.matches(wanted, v) for v in values)
    texts = [str(v) for v in values if v is not None]
    if vr == "UI":
        uids = set(re.split(r"[\\,]", wanted))
        return any(t in uids for t in texts)
    if vr in ("DA", "TM", "DT"):
        return any(matches_range(wanted, t) for t in texts)
    alternatives = wanted.split("\\") if vr == "CS" else [wanted]
    return any(matches_text(a, t) for a in alternatives for t in texts)


def matches_path(row: Attributes, path: str, wanted: str) -> bool:
    """Does `row` match at a tag path? True where the member gave no such attribute: it matched, we can't tell."""
    tag, dot, rest = path.partition(".")
    element = row.get(tag)
    if not isinstance(element, dict):
        return True
    values = element.get("Value")
    values = values if isinstance(values, list) else []
    if dot:
        items = [v for v in values if isinstance(v, dict)]
        return any(matches_path(item, rest, wanted) for item in items)
    if not values:
        # Present and empty: only a universal pattern matches nothing at all.
        return wanted.strip("*") == ""
    return matches_value(tag, wanted, values)


def matches_row(
    row: Attributes, filters: Mapping[str, str], record: Record, naming: Naming, directory: Directory
) -> bool:
    """All filters but those on attributes of ours, which are matched once the row is tagged."""
    for path, wanted in filters.items():
        if path in OURS or path.partition(".")[0] in OURS:
            continue
        if path == PATIENT_ID:
            if not matches_patient_id(wanted, record, naming, directory):
                return False
        elif path == PATIENT_NAME:
            if not names.matches(wanted, _name_value(row, record)):
                return False
        elif path == BIRTH_DATE and BIRTH_DATE not in row:
            if not matches_range(wanted, record.birth_date):
                return False
        elif not matches_path(row, path, wanted):
            return False
    return True


def _name_value(row: Attributes, record: Record) -> Any:
    element = row.get(PATIENT_NAME)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if values else record.shown_name


def matches_tagged(row: Attributes, filters: Mapping[str, str], identity: Identity) -> bool:
    """The filters on attributes that we write: origin, holders, institution, issuer."""
    for path, wanted in filters.items():
        if path == ISSUER:
            emetteurs = {r.authority.emetteur for r in identity.records}
            shown = row.get(ISSUER, {}).get("Value", [])
            if not any(matches_text(wanted, v) for v in [*shown, *emetteurs]):
                return False
        elif path == "00080054":
            if not any(matches_text(wanted, v) for v in row.get("00080054", {}).get("Value", [])):
                return False
        elif path.partition(".")[0] in OURS and not matches_path(row, path, wanted):
            return False
    return True


def split_qualified(value: str, directory: Directory) -> tuple[str, Site] | None:
    """`4547@csrom41200` → (`4547`, Romorantin); None if nothing registered stands behind the last `@`."""
    ipp, at, suffix = value.rpartition("@")
    site = directory.site(suffix) if at and ipp else None
    return (ipp, site) if site is not None else None


def matches_patient_id(wanted: str, record: Record, naming: Naming, directory: Directory) -> bool:
    """A bare value finds that IPP everywhere, a qualified one finds one patient. Every holder's own id matches."""
    qualified = split_qualified(wanted, directory)
    if qualified is not None:
        ipp, site = qualified
        ids = {(record.ipp, record.authority.emetteur), record.own_id}
        if any(matches_exact_or_wild(ipp, i) and e == site.emetteur for i, e in ids if i):
            return True
        return naming.patient_id(record) == f"{ipp}@{site.emetteur}"  # the hashed form of a long one
    return any(
        value and matches_exact_or_wild(wanted, value)
        for value in (record.ipp, record.raw_patient_id, naming.patient_id(record))
    )


def patient_ids_to_ask(wanted: str, member: Site, naming: Naming, directory: Directory) -> list[str]:
    """What to ask `member` for, so that its answers hold every row that `matches_patient_id`.

    But for copies that a holder files under an id of its own: these are found through the holders of the others.
    """
    qualified = split_qualified(wanted, directory)
    if qualified is None:
        # Copies that came through us bear their origin behind an `@`; of an over-long id, a hash of both.
        hashed = [q for s in directory.sites if (q := qualify(wanted, s)) != f"{wanted}@{s.emetteur}"]
        return [wanted] if wanted.endswith("*") else [wanted, f"{wanted}@*", *hashed]
    ipp, site = qualified
    known = naming.long_ids(f"{ipp}@{site.emetteur}")
    if known is not None:
        ipp = known[0]
    copy = qualify(ipp, site) if "*" not in ipp else f"{ipp}@{site.emetteur}"
    if member.emetteur == site.emetteur:
        return [ipp, copy]  # its own exams may have come back to it
    return [copy] if naming.qualified else [copy, ipp]


def filters_for(
    filters: Mapping[str, str], member: Site, naming: Naming, directory: Directory, *, narrow: bool = False
) -> list[dict[str, str]]:
    """The searches that `member` is to be asked for one query, whose rows together hold every match.

    `narrow` = the likely spellings of a name only, for when the wide patterns brought more than the cap.
    """
    asked = {p: v for p, v in filters.items() if p.partition(".")[0] not in OURS}
    variants = [asked]
    name = asked.get(PATIENT_NAME)
    if name is not None:
        patterns = (names.narrow if narrow else names.widen)(name, ignores_case=member.quirks.names_ignore_case)
        variants = [
            {**v, PATIENT_NAME: p} if p.strip("*^") else _without(v, PATIENT_NAME) for v in variants for p in patterns
        ]
    wanted = asked.get(PATIENT_ID)
    if wanted is not None:
        variants = [
            {**v, PATIENT_ID: p} for v in variants for p in patient_ids_to_ask(wanted, member, naming, directory)
        ]
    return variants


def _without(filters: dict[str, str], tag: str) -> dict[str, str]:
    return {k: v for k, v in filters.items() if k != tag}
