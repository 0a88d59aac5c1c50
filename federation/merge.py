"""From many members' rows to one list: one row per study (series, instance) and person, ordered, cut. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.identity import Identity, Record, group, text_of
from federation.model import Attributes, Level
from federation.tagging import element, first_number
from registry import Directory, Site

UID_OF = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}
#: Counts that only the union of all holders' instances gives (tag → what it counts).
COUNTS = {"00201206": "series", "00201208": "instances", "00201209": "instances"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One member's row and whose it is. `matched` False = only known to complete another holder's row."""

    record: Record
    row: Attributes
    study_uid: str
    matched: bool = True

    @property
    def holder(self) -> Site:
        return self.record.holder


@dataclass(slots=True, kw_only=True)
class Merged:
    """One study (series, instance) of one person, with all the holders that answered for it."""

    study_uid: str
    uid: str  # of the level asked
    identity: Identity
    hits: list[Hit]  # identity order: the preferred holder's first
    row: Attributes
    holders: tuple[Site, ...]  # in the same order


def merge(
    level: Level, hits: Iterable[Hit], directory: Directory, known: Mapping[str, Sequence[Record]] | None = None
) -> list[Merged]:
    """Put together what is one thing of one person; what is not the same person's stays apart.

    `known` are records of holders that did not give a row now: they count for the identity, not as holders.
    """
    by_study: dict[str, list[Hit]] = {}
    for hit in hits:
        by_study.setdefault(hit.study_uid, []).append(hit)
    merged: list[Merged] = []
    for study_uid, mine in by_study.items():
        if len(mine) == 1 and not (known and study_uid in known):  # nearly all
            hit = mine[0]
            if hit.matched:
                merged.append(_merged(text_of(hit.row, UID_OF[level]), Identity(records=(hit.record,)), mine))
            continue
        records = {_key(h.record): h.record for h in mine}
        for record in (known or {}).get(study_uid, ()):
            records.setdefault(_key(record), record)
        if len(records) == 1:
            identities = [Identity(records=tuple(records.values()))]
        else:
            identities = group(records.values(), directory)
        merged += [m for i in identities for m in _of_identity(level, i, mine)]
    return merged


def _key(record: Record) -> tuple[str, str]:
    return (record.holder.emetteur, record.raw_patient_id)


def _of_identity(level: Level, identity: Identity, hits: Sequence[Hit]) -> list[Merged]:
    rank = {_key(r): i for i, r in enumerate(identity.records)}
    mine = sorted((h for h in hits if _key(h.record) in rank), key=lambda h: rank[_key(h.record)])
    by_uid: dict[str, list[Hit]] = {}
    for hit in mine:
        by_uid.setdefault(text_of(hit.row, UID_OF[level]), []).append(hit)
    return [_merged(uid, identity, hs) for uid, hs in by_uid.items() if any(h.matched for h in hs)]


def _merged(uid: str, identity: Identity, hits: list[Hit]) -> Merged:
    holders = tuple({h.holder.emetteur: h.holder for h in hits}.values())
    return Merged(study_uid=hits[0].study_uid, uid=uid, identity=identity, hits=hits, row=_union(hits), holders=holders)


def _union(hits: Sequence[Hit]) -> Attributes:
    """The preferred holder's attributes; what it lacks from the others; sets and counts of all."""
    row = dict(hits[0].row)
    for hit in hits[1:]:
        for tag, content in hit.row.items():
            if not row.get(tag, {}).get("Value"):
                row[tag] = content
    if len(hits) > 1:
        modalities = sorted({m for h in hits for m in h.row.get("00080061", {}).get("Value", ()) if m})
        if modalities:
            row["00080061"] = element("CS", *modalities)
        for tag in COUNTS:
            numbers = [n for n in (first_number(h.row, tag) for h in hits) if n is not None]
            if numbers:
                row[tag] = element("IS", max(numbers))  # the union is counted where holders' inventories are known
    return row


def ordered(level: Level, rows: Iterable[Merged]) -> list[Merged]:
    """Studies newest first, undated last; series and instances by number, unnumbered last; UIDs decide ties."""
    if level is Level.STUDY:
        items = sorted(rows, key=_tie)
        items.sort(key=lambda m: (_date(m.row), _time(m.row)), reverse=True)
        return items
    number = "00200011" if level is Level.SERIES else "00200013"
    return sorted(rows, key=lambda m: (*_number(m.row, number), *_tie(m)))


def _tie(m: Merged) -> tuple[str, ...]:
    """No two rows are alike in all of these, so that the order is the same whoever answers first."""
    return (m.uid, m.holders[0].emetteur, m.study_uid, m.hits[0].record.raw_patient_id)


def _date(row: Attributes) -> str:
    text = text_of(row, "00080020")
    # ACR-NEMA and ISO 8601 forms
    return text if text.isdecimal() else _digits(text.replace(".", "").replace("-", ""))


def _time(row: Attributes) -> str:
    return _digits(text_of(row, "00080030").replace(":", ""))


def _digits(text: str) -> str:
    """What begins with no number is no date or time, and sorts as none."""
    return text if text[:2].isdecimal() else ""


def _number(row: Attributes, tag: str) -> tuple[int, int]:
    number = first_number(row, tag)
    return (1, 0) if number is None else (0, number)


def page(rows: Sequence[Any], offset: int, limit: int | None) -> tuple[list[Any], int]:
    """→ (the rows of the page, how many remain after it)."""
    cut = list(rows[offset:] if limit is None else rows[offset : offset + limit])
    return cut, max(0, len(rows) - offset - len(cut))
