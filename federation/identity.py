"""Whose exam a row, a metadata object or an instance is: origin, qualified PatientID, same person or not.

Pure. What a member says of a study is a `Record`; records of one StudyInstanceUID that are the same person's
form one `Identity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from consent import ins
from federation.model import Attributes
from federation.names import alphabetic, normalise
from registry import Directory, Site

SCHEME = "99IMAGORA"
PATIENT_ID_MAX = 64  # LO, PS3.5 §6.2
#: An IPP is compared without the spaces that pad it.
Id = tuple[str, str]  # (IPP, EMETTEUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one holder says of one study: its own PatientID, and what that means region-wide."""

    holder: Site
    raw_patient_id: str
    ipp: str
    authority: Site  # whose IPP it is
    origin: Site  # who made the study
    name: str = ""  # normalised
    birth_date: str = ""
    sex: str = ""
    shown_name: str = ""  # as the holder spells it
    study_uid: str = ""
    accession: str = ""
    ins: tuple[str, ...] = ()  # in canonical form

    @property
    def id(self) -> Id:
        return (self.ipp, self.authority.emetteur)

    @property
    def own_id(self) -> Id:
        """The id under which the holder itself files the exam."""
        return (self.raw_patient_id, self.holder.emetteur)

    @property
    def traits(self) -> tuple[str, str, str] | None:
        """Normalised name, birth date and sex; None if one is missing."""
        if self.name and self.birth_date and self.sex:
            return (self.name, self.birth_date, self.sex)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One study as one person's: the records of all its holders, registry order, the identity's own first."""

    records: tuple[Record, ...]

    @property
    def main(self) -> Record:
        """The record whose id names the patient: the origin's, else the first holder's in registry order."""
        return self.records[0]

    @property
    def origin(self) -> Site:
        """The site that made the study: where a copy names another than its holder, that one."""
        named = [r.origin for r in self.records if r.origin.emetteur != r.holder.emetteur]
        if not named or any(site.emetteur == self.main.origin.emetteur for site in named):
            return self.main.origin
        return named[0]

    @property
    def origin_named(self) -> bool:
        """False where the origin is a guess: several sites hold the study, and none of their data name another one."""
        first = self.main.holder.emetteur
        alone = True
        for record in self.records:
            if record.origin.emetteur != record.holder.emetteur:
                return True
            alone = alone and record.holder.emetteur == first
        return alone

    @property
    def ids(self) -> tuple[Id, ...]:
        """Every (IPP, EMETTEUR) known for it, the main one first; without those that have no IPP."""
        return tuple(dict.fromkeys(r.id for r in self.records if r.ipp))

    def knows(self, raw_patient_id: str, holder: Site) -> bool:
        return any(r.holder.emetteur == holder.emetteur and r.raw_patient_id == raw_patient_id for r in self.records)


def text_of(attributes: Attributes, tag: str) -> str:
    """The first value of an attribute as stripped text; "" if it has none."""
    try:  # `first_of`, the quickest way: this is done a dozen times for every row
        values = attributes[tag]["Value"]
        value = values[0]
    except (KeyError, IndexError, TypeError):
        return ""
    if not isinstance(values, list):
        return ""
    return value.strip(" \0") if isinstance(value, str) else "" if value is None else str(value)


def single(values: Iterable[Any]) -> str:
    """The one value that several stand for, as they are written in an instance (PS3.5 §6.4)."""
    return "\\".join("" if v is None else str(v).strip(" \0") for v in values)


def first_of(attributes: Attributes, tag: str) -> Any:
    element = attributes.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def origin_code(attributes: Attributes, directory: Directory) -> Site | None:
    """The site named by our own InstitutionCodeSequence item (0008,0082), if there is one."""
    element = attributes.get("00080082")
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and text_of(item, "00080102") == SCHEME:
            site = site_of_code(text_of(item, "00080100"), directory)
            if site is not None:
                return site
    return None


def site_of_code(code: str, directory: Directory) -> Site | None:
    return directory.site_numbered(int(code)) if code.isdecimal() and len(code) <= 9 else None


def other_ids(attributes: Attributes) -> list[tuple[str, str]]:
    """(PatientID, IssuerOfPatientID) pairs of OtherPatientIDsSequence (0010,1002)."""
    element = attributes.get("00101002")
    items = element.get("Value") if isinstance(element, dict) else None
    return [
        (text_of(item, "00100020"), text_of(item, "00100021"))
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict)
    ]


def ins_in(attributes: Attributes) -> tuple[str, ...]:
    """INS numbers among a patient's ids: told by the assigning authority that qualifies them (0010,0024)."""
    element = attributes.get("00101002")
    items = element.get("Value") if isinstance(element, dict) else None
    found: list[str] = []
    for item in [attributes, *(items if isinstance(items, list) else ())]:
        if not isinstance(item, dict):
            continue
        qualifiers = first_of(item, "00100024")
        if isinstance(qualifiers, dict) and text_of(qualifiers, "00400032") in ins.OIDS:
            number = ins.canonical(text_of(item, "00100020"))
            if number is not None and number not in found:
                found.append(number)
    return tuple(found)


#: What a hashed PatientID stands for, if it is one of ours.
LongIds = Callable[[str], Id | None]


def no_long_ids(_: str) -> Id | None:
    return None


def resolve(
    raw_patient_id: str,
    holder: Site,
    directory: Directory,
    *,
    coded_origin: Site | None = None,
    issuer: str = "",
    others: Iterable[tuple[str, str]] = (),
    long_ids: LongIds = no_long_ids,
) -> tuple[str, Site, Site]:
    """→ (IPP, whose IPP it is, origin of the study).

    The origin is the coded one, else the registered EMETTEUR behind the last `@` of the PatientID, else the
    holder. An IPP belongs to the EMETTEUR behind its `@`; without one, to the coded origin only where the data
    say so (its issuer, or the id that we appended on the way out). Otherwise it is the holder's: a hospital that
    files a copy under its own IPP must not make that IPP look like one of the origin's.
    """
    ipp, at, suffix = raw_patient_id.rpartition("@")
    ipp = ipp.strip(" \0")  # spaces at the end of an id say nothing (PS3.5 table 6.2-1), also in front of ours
    if at:
        named = directory.site(suffix)
        if named is not None and ipp:
            known = long_ids(f"{ipp}@{named.emetteur}")
            if known is not None:
                return known[0], directory.site(known[1]) or named, coded_origin or named
            return ipp, named, coded_origin or named
    if coded_origin is not None and coded_origin.emetteur != holder.emetteur:
        if issuer.casefold() == coded_origin.emetteur.casefold() and raw_patient_id:
            return raw_patient_id, coded_origin, coded_origin
        for other, other_issuer in others:
            if other and other_issuer.casefold() == coded_origin.emetteur.casefold():
                return other, coded_origin, coded_origin
        return raw_patient_id, holder, coded_origin
    return raw_patient_id, holder, coded_origin or holder


def record_of(attributes: Attributes, holder: Site, directory: Directory, *, long_ids: LongIds = no_long_ids) -> Record:
    """Read a row or a metadata object of `holder`."""
    raw = text_of(attributes, "00100020")
    if "@" not in raw and "00080082" not in attributes:  # nearly all that a PACS made itself
        ipp, authority, origin = raw, holder, holder
    else:
        ipp, authority, origin = resolve(
            raw,
            holder,
            directory,
            coded_origin=origin_code(attributes, directory),
            issuer=text_of(attributes, "00100021"),
            others=other_ids(attributes),
            long_ids=long_ids,
        )
    name = alphabetic(first_of(attributes, "00100010"))
    return Record(
        holder=holder,
        raw_patient_id=raw,
        ipp=ipp,
        authority=authority,
        origin=origin,
        name=normalise(name),
        birth_date=text_of(attributes, "00100030"),
        sex=text_of(attributes, "00100040").upper(),
        shown_name=name,
        study_uid=text_of(attributes, "0020000D"),
        accession=text_of(attributes, "00080050"),
        ins=ins_in(attributes) if "00101002" in attributes or "00100024" in attributes else (),
    )


def instance_identity(
    located: Identity,
    own: Record,
    *,
    coded: bool,
) -> Identity:
    """Whose one instance is, that came with a study located as `located`'s.

    `own` is what the instance says of itself. It is given the located identity only if it bears an id that this
    identity is known by; else it stays its own, whatever study it came with. `coded` = it names its origin itself.
    """
    if not coded and located.knows(own.raw_patient_id, own.holder):
        return located
    if own.id in located.ids and own.origin.emetteur == located.origin.emetteur:
        return located
    return Identity(records=(own,))


def with_ins(identity: Identity, own: Record) -> Identity:
    """An identity, with what one of its instances alone tells: the patient's INS. Itself if that is nothing new."""
    known = {number for record in identity.records for number in record.ins}
    return identity if known.issuperset(own.ins) else Identity(records=(*identity.records, own))


def same_person(a: Record, b: Record) -> bool:
    """Same origin id, or equal normalised name, birth date and sex with none missing."""
    if a.ipp and a.id == b.id:
        return True
    return a.traits is not None and a.traits == b.traits


def group(records: Iterable[Record], directory: Directory) -> list[Identity]:
    """Put the records of one StudyInstanceUID together by person; identities in registry order of their first."""
    clusters: list[list[Record]] = []
    for record in sorted(records, key=lambda r: (directory.position(r.holder), r.raw_patient_id)):
        mine = [c for c in clusters if any(same_person(record, other) for other in c)]
        merged = [r for c in mine for r in c]
        clusters = [c for c in clusters if c not in mine]
        clusters.append([*merged, record])
    identities = [Identity(records=_ordered(cluster, directory)) for cluster in clusters]
    return sorted(identities, key=lambda i: min(directory.position(r.holder) for r in i.records))


def _ordered(cluster: Sequence[Record], directory: Directory) -> tuple[Record, ...]:
    """The origin's own record first; then those that carry the origin's id; then registry order."""

    def rank(record: Record) -> tuple[int, int, str]:
        if record.holder.emetteur == record.origin.emetteur and any(
            other.holder.emetteur != record.holder.emetteur and other.origin.emetteur == record.holder.emetteur
            for other in cluster
        ):
            first = 0  # it made the study, and another holder says so
        elif record.authority.emetteur == record.origin.emetteur != record.holder.emetteur:
            first = 1  # a copy that names its origin
        else:
            first = 2
        return (first, directory.position(record.holder), record.raw_patient_id)

    return tuple(sorted(cluster, key=rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How patients are named towards clients: `patient_id` = "qualified" | "local"."""

    qualified: bool
    issuer: str
    oid: str = ""
    long_ids: LongIds = no_long_ids
    note: Callable[[str, Id], None] = lambda _patient_id, _id: None  # told of every hashed form that is shown

    def patient_id(self, record: Record) -> str:
        """The PatientID shown for a record.

        Viewers group exams by PatientID, an empty one too: an exam without one gets one that no other exam has.
        """
        if not self.qualified:
            return record.ipp
        if not record.ipp:
            return nobody(record.study_uid, record.holder) if record.study_uid else ""
        shown = qualify(record.ipp, record.authority)
        if shown != f"{record.ipp}@{record.authority.emetteur}":
            self.note(shown, record.id)
        return shown

    def issuer_of(self, record: Record) -> str:
        return self.issuer if self.qualified else record.authority.emetteur

    def issuer_oid(self, record: Record) -> str:
        return (self.oid if self.qualified else record.authority.oid) or ""


def qualify(ipp: str, authority: Site) -> str:
    """`4547` of csrom41200 → `4547@csrom41200`; over 64 characters, or where it would be read as several values, a
    hashed form that keeps the EMETTEUR."""
    whole = f"{ipp}@{authority.emetteur}"
    if len(whole) <= PATIENT_ID_MAX and "\\" not in whole:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return f"~{digest}@{authority.emetteur}"


def nobody(study_uid: str, holder: Site) -> str:
    """The PatientID shown for one study of a patient whose holder gives no PatientID."""
    return f"~none.{hashlib.sha256(study_uid.encode()).hexdigest()[:16]}@{holder.emetteur}"
