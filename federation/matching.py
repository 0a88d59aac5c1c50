"""Does a row match what was asked? Applied here to every row, since members match as they like. Pure.

Matching is that of PS3.4 §C.2.2.2, made lenient where people type: text ignores case and accents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from federation import names
from federation.dictionary import vr_of
from federation.fuzzy import distance
from federation.fuzzy import patterns as near_patterns
from federation.identity import Identity, Naming, Record, qualify
from federation.model import Attributes
from federation.moments import Pair, combined, matches_pair, matches_range, to_ask
from federation.wildcards import regex
from registry import Directory, Site

PATIENT_ID = "00100020"
PATIENT_NAME = "00100010"
BIRTH_DATE = "00100030"
SEX = "00100040"
ISSUER = "00100021"
#: Attributes that we write ourselves: a member can't match them, so they are never asked of one.
OURS = frozenset({ISSUER, "00080054", "00080080", "00080082"})
#: A search that filters on nothing else finds every holder of a study by itself. What else a row says, one holder may
#: have otherwise: under one id another name, which may be the one of an opposition.
SAME_EVERYWHERE = frozenset({"0020000D"})
#: Each is a search of its own at every member. For more of them all that are hashed are asked for.
_HASHES_MAX = 16


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
    row: Attributes,
    filters: Mapping[str, str],
    record: Record,
    naming: Naming,
    directory: Directory,
    *,
    fuzzy: bool = False,
) -> bool:
    """All filters but those on attributes of ours, which are matched once the row is tagged. `fuzzy`: the patient's
    name may also be near."""
    pairs = combined(filters)
    if pairs and not all(_matches_pair(row, pair, record) for pair in pairs):
        return False
    together = {path for pair in pairs for path in (pair.date_path, pair.time_path)}
    for path, wanted in filters.items():
        if path in OURS or path.partition(".")[0] in OURS or path in together:
            continue
        if path == PATIENT_ID:
            if not matches_patient_id(wanted, record, naming, directory):
                return False
        elif path == PATIENT_NAME:
            value = name_value(row, record)
            if not (names.matches(wanted, value) or (fuzzy and distance(wanted, value) is not None)):
                return False
        elif path == BIRTH_DATE and BIRTH_DATE not in row:
            if not matches_range(wanted, record.birth_date):
                return False
        elif not matches_path(row, path, wanted):
            return False
    return True


def _matches_pair(row: Attributes, pair: Pair, record: Record) -> bool:
    if pair.date_path == BIRTH_DATE and BIRTH_DATE not in row:
        row = {**row, BIRTH_DATE: {"vr": "DA", "Value": [record.birth_date]}}
    return matches_pair(row, pair)


def name_value(row: Attributes, record: Record) -> Any:
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
    ipp = ipp.strip()
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
        if set("*?") & set(wanted):
            hashed = []  # that of a pattern is nobody's
        elif len(hashed) > _HASHES_MAX:
            hashed = ["~*"]
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
    filters: Mapping[str, str],
    member: Site,
    naming: Naming,
    directory: Directory,
    *,
    narrow: bool = False,
    fuzzy: bool = False,
    ignores_case: bool = False,
) -> list[dict[str, str]]:
    """The searches that `member` is to be asked for one query, whose rows together hold every match.

    `narrow` = the likely spellings of a name only, for when the wide patterns brought more than the cap. `fuzzy`: also
    of names that are near. `ignores_case` = it is sure that names match in any case, or the answer is but a first try.
    """
    # Of a date and time that are one range, members are asked for the date only (PS3.18 §8.3.4.1.1, note).
    times = {pair.time_path for pair in combined(filters)}
    asked = {p: to_ask(p, v) for p, v in filters.items() if p.partition(".")[0] not in OURS and p not in times}
    variants = [asked]
    name, wanted = asked.get(PATIENT_NAME), asked.get(PATIENT_ID)
    if name is not None and wanted is not None and not set("*?") & set(wanted):
        # One patient's rows are few. Each form of his id with each form of his name would be a flood of searches.
        variants = [_without(asked, PATIENT_NAME)]
    elif name is not None:
        if fuzzy:
            patterns = near_patterns(name, ignores_case=ignores_case, narrow=narrow)
        else:
            patterns = (names.narrow if narrow else names.widen)(name, ignores_case=ignores_case)
        variants = [
            {**v, PATIENT_NAME: p} if p.strip("*^") else _without(v, PATIENT_NAME) for v in variants for p in patterns
        ]
    if wanted is not None:
        variants = [
            {**v, PATIENT_ID: p} for v in variants for p in patient_ids_to_ask(wanted, member, naming, directory)
        ]
    return variants


def _without(filters: dict[str, str], tag: str) -> dict[str, str]:
    return {k: v for k, v in filters.items() if k != tag}
