"""Tagging one instance: whose it is by its own head, and the elements that say so. Pure."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from federation.identity import SCHEME, Identity, Naming, Record, instance_identity, resolve, site_of_code
from federation.names import normalise
from federation.part10 import BadPart10, Changes, Head, encode_element, encode_item
from registry import Directory, Site

_CHARACTER_SET = 0x0008_0005
_INSTITUTION_NAME = 0x0008_0080
_INSTITUTION_CODE = 0x0008_0082
_NAME, _PATIENT_ID, _ISSUER, _QUALIFIERS = 0x0010_0010, 0x0010_0020, 0x0010_0021, 0x0010_0024
_BIRTH_DATE, _SEX, _OTHER_IDS = 0x0010_0030, 0x0010_0040, 0x0010_1002
_READ = (
    _CHARACTER_SET,
    _INSTITUTION_NAME,
    _INSTITUTION_CODE,
    _NAME,
    _PATIENT_ID,
    _ISSUER,
    _OTHER_IDS,
    _BIRTH_DATE,
    _SEX,
)
SOP_INSTANCE_UID = 0x0008_0018
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x09}

#: The identity of an instance that is not the one expected of its study: may it be passed on?
Stranger = Callable[[Identity], None]


class InstanceTagger:
    """Tags the instances of one study from one holder.

    An instance that bears another PatientID than the study was located under is never given that identity: it is
    qualified by its own, after `stranger` has let it through (which raises if it must not pass).
    """

    def __init__(
        self, identity: Identity, holder: Site, directory: Directory, naming: Naming, stranger: Stranger
    ) -> None:
        self._identity = identity
        self._holder = holder
        self._directory = directory
        self._naming = naming
        self._stranger = stranger
        self._last: tuple[tuple[bytes, ...], Changes] | None = None

    def __call__(self, head: Head) -> Changes:
        key = tuple(head.value(tag) for tag in _READ)
        if self._last is not None and self._last[0] == key:  # the instances of a series are alike
            return self._last[1]
        changes = self._changes(head)
        self._last = (key, changes)
        return changes

    def _changes(self, head: Head) -> Changes:
        encodings = _encodings(head.text(_CHARACTER_SET))
        others = _items(head, _OTHER_IDS, encodings)
        identity = self._whose(head, encodings, others)
        main = identity.main
        patient_id = self._naming.patient_id(main)
        changes: Changes = {_PATIENT_ID: encode_element(_PATIENT_ID, "LO", _encode(patient_id, encodings))}
        if patient_id:
            changes[_ISSUER] = encode_element(_ISSUER, "LO", _encode(self._naming.issuer_of(main), encodings))
            oid = self._naming.issuer_oid(main)
            changes[_QUALIFIERS] = _qualifiers(oid) if oid else None
        if self._naming.qualified:
            changes |= self._other_ids(head, identity, others, encodings)
        origin = identity.origin
        changes[_INSTITUTION_CODE] = encode_element(
            _INSTITUTION_CODE,
            "SQ",
            encode_item(
                encode_element(0x0008_0100, "SH", str(origin.number).encode()),
                encode_element(0x0008_0102, "SH", SCHEME.encode()),
                encode_element(0x0008_0104, "LO", _encode(origin.name, encodings, most=64)),
            ),
        )
        if not head.value(_INSTITUTION_NAME).strip(b" \0"):
            changes[_INSTITUTION_NAME] = encode_element(
                _INSTITUTION_NAME, "LO", _encode(origin.name, encodings, most=64)
            )
        return changes

    def _whose(self, head: Head, encodings: list[str], others: list[Dataset]) -> Identity:
        raw = _decode(head.value(_PATIENT_ID), encodings)
        coded = None
        for item in _items(head, _INSTITUTION_CODE, encodings):
            if str(item.get("CodingSchemeDesignator", "")) == SCHEME:
                coded = site_of_code(str(item.get("CodeValue", "")), self._directory) or coded
        ipp, authority, origin = resolve(
            raw,
            self._holder,
            self._directory,
            coded_origin=coded,
            issuer=_decode(head.value(_ISSUER), encodings),
            others=[(str(i.get("PatientID", "") or ""), str(i.get("IssuerOfPatientID", "") or "")) for i in others],
            long_ids=self._naming.long_ids,
        )
        name = _decode(head.value(_NAME), encodings).partition("=")[0]
        own = Record(
            holder=self._holder,
            raw_patient_id=raw,
            ipp=ipp,
            authority=authority,
            origin=origin,
            name=normalise(name),
            birth_date=head.text(_BIRTH_DATE),
            sex=head.text(_SEX),
            shown_name=name,
            study_uid=self._identity.main.study_uid,
        )
        identity = instance_identity(self._identity, own, coded=coded is not None)
        if identity is not self._identity:
            self._stranger(identity)
        return identity

    def _other_ids(self, head: Head, identity: Identity, others: list[Dataset], encodings: list[str]) -> Changes:
        standing = {(str(i.get("PatientID", "") or ""), str(i.get("IssuerOfPatientID", "") or "")) for i in others}
        sites = {r.id: r.authority for r in identity.records}
        added = b"".join(
            _other_id(ipp, sites[(ipp, emetteur)], encodings)
            for ipp, emetteur in identity.ids
            if (ipp, emetteur) not in standing
        )
        if not added:
            return {}
        kept = head.value(_OTHER_IDS)
        if kept and head.has_undefined_length(_OTHER_IDS):
            kept = kept[:-8]  # its delimiter: the sequence gets a length
        return {_OTHER_IDS: encode_element(_OTHER_IDS, "SQ", kept + added)}


def _other_id(ipp: str, authority: Site, encodings: list[str]) -> bytes:
    elements = [
        encode_element(0x0010_0020, "LO", _encode(ipp, encodings)),
        encode_element(0x0010_0021, "LO", authority.emetteur.encode()),
        encode_element(0x0010_0022, "CS", b"TEXT"),
    ]
    if authority.oid:
        elements.append(_qualifiers(authority.oid))
    return encode_item(*elements)


def _qualifiers(oid: str) -> bytes:
    item = encode_item(encode_element(0x0040_0032, "UT", oid.encode()), encode_element(0x0040_0033, "CS", b"ISO"))
    return encode_element(_QUALIFIERS, "SQ", item)


def _items(head: Head, tag: int, encodings: list[str]) -> list[Dataset]:
    element = head.elements.get(tag)
    if element is None or element.value == element.end:
        return []
    try:
        dataset = read_dataset(
            io.BytesIO(head.data[element.start : element.end]), is_implicit_VR=False, is_little_endian=True
        )
        dataset.decode()
        value = dataset[tag].value
        return [item for item in value if isinstance(item, Dataset)] if value else []
    except Exception as error:
        raise BadPart10("a sequence of the head can't be read") from error


@lru_cache(maxsize=256)
def _encodings_cached(character_set: str) -> tuple[str, ...]:
    try:
        return tuple(convert_encodings(character_set.split("\\")))
    except Exception:  # an unknown character set: the default repertoire is all that can be relied on
        return ("iso8859",)


def _encodings(character_set: str) -> list[str]:
    return list(_encodings_cached(character_set))


def _decode(raw: bytes, encodings: list[str]) -> str:
    raw = raw.strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode()
    return decode_bytes(raw, encodings, _DELIMITERS).strip()


def _encode(text: str, encodings: list[str], *, most: int | None = None) -> bytes:
    """In the instance's character set; letters that it lacks lose their accents."""
    text = text[:most] if most else text
    if text.isascii():
        return text.encode()
    try:
        # The first character set needs no escape sequence; the others would.
        return text.encode(encodings[0] if encodings[0] != "iso8859" else "ascii")
    except (UnicodeEncodeError, LookupError):
        plain = unicodedata.normalize("NFKD", text.replace("–", "-").replace("’", "'").replace("œ", "oe"))
        return "".join(c if c.isascii() else "" if unicodedata.combining(c) else "?" for c in plain).encode()
