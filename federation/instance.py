"""Tagging one instance: whose it is by its own head, and the elements that say so. Pure."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes, encode_string

from consent import ins
from federation.elements import BadPart10, Changes, Head, encode_element, encode_item, items_of
from federation.identity import (
    SCHEME,
    Identity,
    Naming,
    Record,
    instance_identity,
    resolve,
    single,
    site_of_code,
    with_ins,
)
from federation.names import normalise
from registry import Directory, Site

_CHARACTER_SET = 0x0008_0005
_INSTITUTION_NAME = 0x0008_0080
#: What some PACS write into the objects that they keep: where those are to be had from them.
_HOLDERS_OWN = (0x0008_0054, 0x0008_1190)
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
    _QUALIFIERS,
    _OTHER_IDS,
    _BIRTH_DATE,
    _SEX,
)
SOP_INSTANCE_UID = 0x0008_0018
_CODE_VALUE, _CODING_SCHEME = 0x0008_0100, 0x0008_0102
#: What is read of items, as texts by tag.
_UNIVERSAL_ID = 0x0040_0032
_TEXTS = frozenset({_CODE_VALUE, _CODING_SCHEME, _PATIENT_ID, _ISSUER})
Item = dict[int, str]
_DEFAULT = "iso8859"  # pydicom's name for the default repertoire
_BACKSLASH = "\\"
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
        #: AE titles by which the holder calls itself, casefolded.
        self.own_titles = frozenset({holder.aet.casefold()} if holder.aet else ())
        self._last: tuple[list[tuple[bytes, bytes]], Changes] | None = None

    def __call__(self, head: Head) -> Changes:
        key = [(head.vr(tag), head.value(tag)) for tag in _READ]
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
        changes: Changes = dict.fromkeys(_HOLDERS_OWN)
        changes[_PATIENT_ID] = encode_element(_PATIENT_ID, "LO", _encode_own(patient_id, encodings))
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

    def _whose(self, head: Head, encodings: list[str], others: list[Item]) -> Identity:
        raw = _decode(head.value(_PATIENT_ID), encodings)
        coded = None
        for item in _items(head, _INSTITUTION_CODE, encodings):
            if item.get(_CODING_SCHEME) == SCHEME and coded is None:
                coded = site_of_code(item.get(_CODE_VALUE, ""), self._directory)
        ipp, authority, origin = resolve(
            raw,
            self._holder,
            self._directory,
            coded_origin=coded,
            issuer=_decode(head.value(_ISSUER), encodings),
            others=[(i.get(_PATIENT_ID, ""), i.get(_ISSUER, "")) for i in others],
            long_ids=self._naming.long_ids,
        )
        groups = _decode(head.value(_NAME), encodings).split("=")
        name = next((g.strip() for g in groups if g.strip("^ ")), "")
        own = Record(
            holder=self._holder,
            raw_patient_id=raw,
            ipp=ipp,
            authority=authority,
            origin=origin,
            name=normalise(name),
            birth_date=head.text(_BIRTH_DATE),
            sex=head.text(_SEX).upper(),
            shown_name=name,
            study_uid=self._identity.main.study_uid,
            ins=_ins(raw, head.value(_QUALIFIERS) if head.vr(_QUALIFIERS) == b"SQ" else b"", others),
        )
        identity = instance_identity(self._identity, own, coded=coded is not None)
        if identity is not self._identity:
            self._stranger(identity)
        elif (known := with_ins(identity, own)) is not identity:
            self._stranger(known)
        return identity

    def _other_ids(self, head: Head, identity: Identity, others: list[Item], encodings: list[str]) -> Changes:
        standing = {(i.get(_PATIENT_ID, ""), i.get(_ISSUER, "")) for i in others}
        sites = {r.id: r.authority for r in identity.records}
        unknown_vr = head.vr(_OTHER_IDS) == b"UN"
        added = b"".join(
            _other_id(ipp, sites[(ipp, emetteur)], encodings, implicit=unknown_vr)
            for ipp, emetteur in identity.ids
            if (ipp, emetteur) not in standing
        )
        if not added:
            return {}
        kept = head.value(_OTHER_IDS) if others else b""
        if kept and head.has_undefined_length(_OTHER_IDS):
            kept = kept[:-8]  # its delimiter: the sequence gets a length
        return {_OTHER_IDS: encode_element(_OTHER_IDS, "UN" if unknown_vr else "SQ", kept + added)}


def _other_id(ipp: str, authority: Site, encodings: list[str], *, implicit: bool) -> bytes:
    elements = [
        encode_element(_PATIENT_ID, "LO", _encode_own(ipp, encodings), implicit=implicit),
        encode_element(_ISSUER, "LO", authority.emetteur.encode(), implicit=implicit),
        encode_element(0x0010_0022, "CS", b"TEXT", implicit=implicit),
    ]
    if authority.oid:
        elements.append(_qualifiers(authority.oid, implicit=implicit))
    return encode_item(*elements)


def _qualifiers(oid: str, *, implicit: bool = False) -> bytes:
    item = encode_item(
        encode_element(0x0040_0032, "UT", oid.encode(), implicit=implicit),
        encode_element(0x0040_0033, "CS", b"ISO", implicit=implicit),
    )
    return encode_element(_QUALIFIERS, "SQ", item, implicit=implicit)


def _items(head: Head, tag: int, encodings: list[str]) -> list[Item]:
    """Items as texts by tag. A sequence of unknown VR holds implicit VR (PS3.5 §6.2.2)."""
    vr = head.vr(tag)
    if vr not in (b"SQ", b"UN"):
        return []
    implicit = vr == b"UN"
    items: list[Item] = []
    for raw in items_of(head.value(tag), implicit=implicit):
        item = {t: _decode(v, encodings) for t, v in raw.items() if t in _TEXTS}
        if oid := _qualifier(raw.get(_QUALIFIERS, b""), implicit=implicit):
            item[_UNIVERSAL_ID] = oid
        items.append(item)
    return items


def _qualifier(value: bytes, *, implicit: bool) -> str:
    """UniversalEntityID of an IssuerOfPatientIDQualifiersSequence, "" if there is none that can be read."""
    try:
        items = items_of(value, implicit=implicit) if value else []
    except BadPart10:
        return ""
    return items[0].get(_UNIVERSAL_ID, b"").strip(b" \0").decode("latin-1") if items else ""


def _ins(raw: str, qualifiers: bytes, others: list[Item]) -> tuple[str, ...]:
    """INS numbers among an instance's patient ids."""
    named = [(raw, _qualifier(qualifiers, implicit=False))] if qualifiers else []
    named += [(item.get(_PATIENT_ID, ""), item.get(_UNIVERSAL_ID, "")) for item in others]
    numbers = (ins.canonical(text) for text, oid in named if oid in ins.OIDS)
    return tuple(dict.fromkeys(n for n in numbers if n is not None))


@lru_cache(maxsize=256)
def _encodings_cached(character_set: str) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of misspelt character sets, which are read as what they mean
            return tuple(convert_encodings([c.strip() for c in character_set.split("\\")]))
    except Exception:  # an unknown character set: the default repertoire is all that can be relied on
        return (_DEFAULT,)


def _encodings(character_set: str) -> list[str]:
    return list(_encodings_cached(character_set))


def _decode(raw: bytes, encodings: list[str]) -> str:
    """Never two texts alike for two values: what is not in its character set is read as Latin-1, and nothing but
    padding is left out, as in rows."""
    text = _decoded(raw.strip(b" \0"), encodings).strip(" \0")
    return single(text.split(_BACKSLASH)) if _BACKSLASH in text else text


def _decoded(raw: bytes, encodings: list[str]) -> str:
    try:
        if b"\x1b" not in raw:
            return raw.decode("ascii" if raw.isascii() else encodings[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return decode_bytes(raw, encodings, _DELIMITERS)
    except (UnicodeError, LookupError, UserWarning):
        return raw.decode("latin-1")


def _encode_own(text: str, encodings: list[str]) -> bytes:
    """What stood in the instance, in its own character set."""
    if text.isascii():
        return text.encode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return encode_string(text, encodings)
    except (UnicodeError, LookupError, UserWarning):
        return _encode(text, encodings)


def _encode(text: str, encodings: list[str], *, most: int | None = None) -> bytes:
    """In the instance's character set; letters that it lacks lose their accents."""
    text = text[:most] if most else text
    if text.isascii():
        return text.encode()
    try:
        # The first character set needs no escape sequence; the others would.
        return text.encode(encodings[0] if encodings[0] != _DEFAULT else "ascii")
    except (UnicodeEncodeError, LookupError):
        plain = unicodedata.normalize("NFKD", text.replace("–", "-").replace("’", "'").replace("œ", "oe"))
        return "".join(c if c.isascii() else "" if unicodedata.combining(c) else "?" for c in plain).encode()
