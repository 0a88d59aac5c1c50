"""Writing into rows and metadata whose they are and where they came from. Pure.

Nothing by which a member calls itself leaves: its URLs, hosts and AE titles are replaced or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from federation.identity import SCHEME, Identity, Naming, Record, first_of, text_of
from federation.model import Attributes, Level
from registry import Site


class Links(Protocol):
    """The façade's own URLs."""

    def retrieve_url(self, site: Site, study_uid: str, series_uid: str = "", instance_uid: str = "") -> str: ...

    def bulkdata_url(self, site: Site, study_uid: str, series_uid: str, instance_uid: str, link: str) -> str: ...


#: Where a member speaks of itself; also in nested data sets.
_SELF = ("00081190", "00080054", "0040E010", "00287FE0")


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


@lru_cache(maxsize=1024)
def _constant(vr: str, *values: str) -> dict[str, Any]:
    """An `element` that many rows share: nobody changes a row once it is tagged."""
    return element(vr, *values)


def institution_code(origin: Site) -> dict[str, Any]:
    """InstitutionCodeSequence with our one item. Shared by all that it is written into."""
    return _institution_code(origin.number, origin.name)


@lru_cache(maxsize=1024)
def _institution_code(number: int, name: str) -> dict[str, Any]:
    return element(
        "SQ",
        {
            "00080100": element("SH", str(number)),
            "00080102": element("SH", SCHEME),
            "00080104": element("LO", name[:64]),
        },
    )


def qualifiers(oid: str) -> dict[str, Any]:
    """IssuerOfPatientIDQualifiersSequence naming an assigning authority by its OID."""
    return element("SQ", {"00400032": element("UT", oid), "00400033": element("CS", "ISO")})


def other_id(ipp: str, authority: Site) -> Attributes:
    """One item of OtherPatientIDsSequence."""
    item: Attributes = {
        "00100020": element("LO", ipp),
        "00100021": _constant("LO", authority.emetteur),
        "00100022": _constant("CS", "TEXT"),
    }
    if authority.oid:
        item["00100024"] = qualifiers(authority.oid)
    return item


def tag_patient(attributes: Attributes, identity: Identity, naming: Naming) -> None:
    """PatientID, its issuer, the ids that it stands for, and the origin, in place."""
    main = identity.main
    patient_id = naming.patient_id(main)
    attributes["00100020"] = element("LO", patient_id) if patient_id else element("LO")
    if patient_id:
        attributes["00100021"] = _constant("LO", naming.issuer_of(main))
        oid = naming.issuer_oid(main)
        if oid:
            attributes["00100024"] = qualifiers(oid)
        else:
            attributes.pop("00100024", None)  # the one that stood there spoke of another issuer
    if naming.qualified:
        _append_ids(attributes, identity)
    origin = identity.origin
    attributes["00080082"] = institution_code(origin)
    if not text_of(attributes, "00080080"):
        attributes["00080080"] = _constant("LO", origin.name[:64])


def _append_ids(attributes: Attributes, identity: Identity) -> None:
    element_there = attributes.get("00101002")
    if element_there is None and len(identity.records) == 1:  # nearly all
        if identity.main.ipp:
            attributes["00101002"] = element("SQ", other_id(identity.main.ipp, identity.main.authority))
        return
    kept = (element_there or {}).get("Value")
    items = [i for i in kept if isinstance(i, dict)] if isinstance(kept, list) else []
    standing = {(text_of(i, "00100020"), text_of(i, "00100021")) for i in items}
    items += [
        other_id(ipp, record.authority)
        for ipp, record in _authorities(identity)
        if (ipp, record.authority.emetteur) not in standing
    ]
    if items:
        attributes["00101002"] = element("SQ", *items)


def _authorities(identity: Identity) -> list[tuple[str, Record]]:
    seen: dict[tuple[str, str], Record] = {}
    for record in identity.records:
        if record.ipp:
            seen.setdefault(record.id, record)
    return [(record.ipp, record) for record in seen.values()]


def tag_source(attributes: Attributes, level: Level, holders: Sequence[Site], links: Links, study_uid: str) -> None:
    """RetrieveAETitle (holders, preferred first), RetrieveURL of the preferred one, the character set."""
    attributes["00080005"] = _constant("CS", "ISO_IR 192")
    attributes["00080054"] = _constant("AE", *[s.emetteur for s in holders])
    series = text_of(attributes, "0020000E") if level is not Level.STUDY else ""
    instance = text_of(attributes, "00080018") if level is Level.INSTANCE else ""
    attributes["00081190"] = element("UR", links.retrieve_url(holders[0], study_uid, series, instance))


def scrub(attributes: Attributes, bulk: Callable[[str], str | None], *, top: bool = True) -> int:
    """Drop what a member says of itself and turn its bulk data references into ours, in place, nested too.

    `bulk` gives our URL for a member's, or None where it leads elsewhere. Returns how many references were lost.
    """
    lost = 0
    for tag in _SELF:
        attributes.pop(tag, None)
    if top:
        for tag in [t for t in attributes if t < "0003" and t.startswith("0002") and t != "00020010"]:
            del attributes[tag]
    contents: Iterable[Any] = attributes.values()
    for content in contents:
        if not isinstance(content, dict):  # in what is not a data set: the groups of a name
            continue
        if "BulkDataURI" in content:
            uri = content.pop("BulkDataURI")
            ours = bulk(uri) if isinstance(uri, str) else None
            if ours is None:
                lost += 1
            else:
                content["BulkDataURI"] = ours
        values = content.get("Value")
        for item in values if isinstance(values, list) else ():
            # Whatever VR it says: not all members say that it is a sequence. Nearly all are names, and nothing else.
            if isinstance(item, dict) and not (len(item) == 1 and isinstance(item.get("Alphabetic"), str)):
                lost += scrub(item, bulk, top=False)
    return lost


def no_bulk(_: str) -> str | None:
    return None


def first_number(attributes: Attributes, tag: str) -> int | None:
    value = first_of(attributes, tag)
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
