"""Whose an instance is: what is written into it, held against what is written into its metadata, and against rules that
are spelled out here once more. Nobody's instance is ever given another person's id.

An input is lines of text: what the instance bears, the study that it was found under, and how it is encoded.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import orjson
from pydicom import dcmread
from support.elements import element, implicit, item, meta, sequence
from support.values import DIRECTORY, SITES

from dicomweb.member_json import data_sets
from federation.elements import BadPart10
from federation.identity import (
    Identity,
    Naming,
    instance_identity,
    origin_code,
    qualify,
    record_of,
    text_of,
)
from federation.instance import InstanceTagger
from federation.long_ids import LongPatientIDs
from federation.part10 import HeadRewriter
from federation.tagging import tag_patient
from imagora_fuzz.oracles import chunks, expect, fields, text
from registry import Site

LONGEST = 500
_STUDY = "1.2.250.1.423.7"
#: Lines: flags, character set, PatientID, issuer, authority, name, birth date, sex, other ids, institution codes,
#: institution, PatientID of the located study.
SEEDS = [
    b"\x00\x00\x00\nISO_IR 100\n4547\n\n\nDUPONT^MARIE\n19600512\nF\n\n\n\n4547",
    b"\x01\x00\x07\nISO_IR 192\n4547@csrom41200\nIMAGORA\n1.2.250.1.999\nL\xc3\x89VY\n\n\n4547^csrom41200\n"
    b"423^99IMAGORA\nRomorantin (CH)\n4547@csrom41200",
    b"\x02\x01\x09\n\\ISO 2022 IR 87\nB99\ncsblo41000\n\n\n\nM\n4547^csrom41200^1.2.3|B99^csblo41000\n"
    b"423^99IMAGORA|x^FINESS\n\nB99",
    b"\x03\x02\x0b\nISO_IR 192\n\n\n\nA^B=C\n\n\n\xc3\x899^ASSURANCE\n370^99IMAGORA\n\n",
    b"\x01\x03\x05\n\n" + b"9" * 60 + b"\n\n\n\n\n\n\n\n\n" + b"9" * 60,
    b"\x00\x04\x11\nISO_IR 100\n260058815400233\n\n1.2.250.1.213.1.4.8\n\n\n\n260058815400233^x^1.2.250.1.213.1.4.8"
    b"\n\n\n1",
]
WORDS = [
    *(b"@csrom41200", b"@CSBLO41000", b"@CHUTours", b"@ch-orleans_45", b"^99IMAGORA", b"423", b"410", b"370", b"450"),
    *(b"csrom41200", b"ISO_IR 192", b"ISO_IR 100", b"\\ISO 2022 IR 87", b"ISO 2022 IR 149", b"GB18030", b"\x1b$B"),
    *(b"|", b"4547", b"^", b"=", b"~", b"~none.", b"\\", b" ", b"1.2.250.1.213.1.4.8", b"\n"),
]
_ITEM_TAGS = (0x0010_0020, 0x0010_0021)


class Given(NamedTuple):
    holder: Site
    naming: Naming
    located: Identity
    stream: bytes
    how: int


def check(data: bytes) -> None:
    given = _given(fields(data, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a server's logs are for what it means to say
        strangers: list[Identity] = []
        once = _tagged(given, given.stream, strangers, None)
        expect(_tagged(given, given.stream, [], given.how) == once, "tags are the same in any chunking")
        if once is None:
            return
        _judge(given, once, strangers)


def _given(lines: list[bytes]) -> Given:
    flags = [*lines[0], 0, 0, 0]
    holder = SITES[flags[0] % len(SITES)]
    long_ids = LongPatientIDs()
    naming = Naming(
        qualified=flags[2] % 2 == 0 or flags[2] % 3 == 0,
        issuer="IMAGORA",
        oid="1.2.250.1.999" if flags[1] % 2 else "",
        long_ids=long_ids.get,
        note=long_ids.note,
    )
    located_id = text(lines[11]).strip()
    row: dict[str, dict[str, Any]] = {
        "0020000D": {"vr": "UI", "Value": [_STUDY]},
        "00100020": {"vr": "LO", "Value": [located_id]},
    }
    if flags[2] & 4:
        row["00080082"] = {
            "vr": "SQ",
            "Value": [
                {"00080100": {"vr": "SH", "Value": ["423"]}, "00080102": {"vr": "SH", "Value": ["99IMAGORA"]}},
            ],
        }
    records = [record_of(row, holder, DIRECTORY, long_ids=long_ids.get)]
    if flags[2] & 8:  # another holder has it too
        other = SITES[(flags[0] + 1 + flags[1]) % len(SITES)]
        records.append(record_of({**row, "00100020": {"vr": "LO", "Value": ["777"]}}, other, DIRECTORY))
    return Given(holder, naming, Identity(records=tuple(records)), _stream(lines, flags), 1 + flags[1])


def _stream(lines: list[bytes], flags: list[int]) -> bytes:
    """A file, written without the code under test."""
    _, charset, patient_id, issuer, authority, name, birth, sex, others, codes, institution, _ = lines
    undefined, unknown = bool(flags[2] & 16), bool(flags[2] & 32)

    def short(tag: int, vr: str, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return element(tag, vr, value[:0xFFFE])

    def inner(tag: int, vr: str, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return implicit(tag, value) if unknown else element(tag, vr, value)

    def by(oid: bytes) -> bytes:
        found = inner(0x0040_0032, "UT", oid) + inner(0x0040_0033, "CS", b"ISO")
        if unknown:
            return implicit(0x0010_0024, item(found))
        return sequence(0x0010_0024, item(found))

    ids = [i.split(b"^") for i in others.split(b"|")] if others else []
    id_items = [
        item(
            b"".join(inner(t, "LO", v) for t, v in zip(_ITEM_TAGS, i, strict=False)) + b"".join(map(by, i[2:3])),
            undefined=undefined,
        )
        for i in ids
    ]
    pairs = [c.partition(b"^") for c in codes.split(b"|")] if codes else []
    code_items = [
        item(element(0x0008_0100, "SH", _even(value)) + element(0x0008_0102, "SH", _even(scheme)))
        for value, _, scheme in pairs
    ]
    body = short(0x0008_0005, "CS", charset) if charset else b""
    body += element(0x0008_0018, "UI", b"1.2.3\0")
    body += short(0x0008_0080, "LO", institution) if institution else b""
    body += sequence(0x0008_0082, *code_items, undefined=undefined) if code_items else b""
    body += short(0x0010_0010, "PN", name)
    body += short(0x0010_0020, "LO", patient_id)
    body += short(0x0010_0021, "LO", issuer) if issuer else b""
    if authority:
        qualifier = element(0x0040_0032, "UT", _even(authority)) + element(0x0040_0033, "CS", b"ISO ")
        body += sequence(0x0010_0024, item(qualifier))
    body += short(0x0010_0030, "DA", birth) + short(0x0010_0040, "CS", sex)
    body += sequence(0x0010_1002, *id_items, vr="UN" if unknown else "SQ", undefined=undefined) if id_items else b""
    body += element(0x0020_000D, "UI", _even(_STUDY.encode(), b"\0"))
    return meta("1.2.840.10008.1.2.1") + body + element(0x7FE0_0010, "OW", b"\1\2\3\4")


def _even(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad * (len(value) % 2)


def _tagged(given: Given, stream: bytes, strangers: list[Identity], how: int | None) -> bytes | None:
    """None = refused."""
    tagger = InstanceTagger(given.located, given.holder, DIRECTORY, given.naming, strangers.append)
    rewriter = HeadRewriter(tagger, own_titles=tagger.own_titles)
    out: list[bytes] = []
    try:
        for chunk in [stream] if how is None else chunks(stream, how):
            out += map(bytes, rewriter.feed(chunk))
        out += map(bytes, rewriter.finish())
    except BadPart10:
        return None
    return b"".join(out)


def _judge(given: Given, once: bytes, strangers: list[Identity]) -> None:
    try:
        was = dcmread(io.BytesIO(given.stream))
        (described,) = data_sets(orjson.dumps([was.to_json_dict()]))
    except Exception:  # pydicom is no judge of what it can't read
        return
    now = dcmread(io.BytesIO(once))
    (after,) = data_sets(orjson.dumps([now.to_json_dict()]))
    expect(now.PixelData == b"\1\2\3\4", "pixels stay")
    if given.naming.qualified:
        _rules(given, described, after)
    # The same, as metadata: another code for the same rules.
    own = record_of(described, given.holder, DIRECTORY, long_ids=given.naming.long_ids)
    coded = origin_code(described, DIRECTORY) is not None
    identity = instance_identity(given.located, own, coded=coded)
    # To be refused or traced on its own, or not.
    expect((identity is not given.located) <= bool(strangers), "a stranger is told of")
    tag_patient(described, identity, given.naming)
    for tag in ("00100020", "00100021", "00100024", "00101002"):
        expect(_said(described, tag) == _said(after, tag), f"{tag} is the same in an instance and in its metadata")
    expect(_code(described) == _code(after), "the origin is the same in an instance and in its metadata")


def _rules(given: Given, before: dict[str, Any], after: dict[str, Any]) -> None:
    """DESIGN §5, by hand."""
    shown = text_of(after, "00100020")
    expect(text_of(after, "00100021") in ("IMAGORA", ""), "the issuer is the federation")
    ipp, at, emetteur = shown.rpartition("@")
    expect(not shown or at, "a PatientID is qualified")
    if not at:
        return
    site = DIRECTORY.site(emetteur)
    expect(site is not None and site.emetteur == emetteur, "a PatientID is qualified by a site that is registered")
    assert site is not None
    raw = text_of(before, "00100020")
    suffix = DIRECTORY.site(raw.rpartition("@")[2]) if "@" in raw and raw.rpartition("@")[0] else None
    if given.located.knows(raw, given.holder) or shown == given.naming.patient_id(given.located.main):
        known = {given.naming.patient_id(r) for r in given.located.records}
        expect(shown in known or _own(given, before) == shown, "an instance of the study bears an id of the study")
        return
    if ipp.startswith("~none.") and not raw.startswith("~none."):
        expect(not raw or not _own_ipp(given, before), "only an exam without PatientID is nobody's")
    elif suffix is not None:
        expect(site.emetteur == suffix.emetteur, "what is qualified keeps its site")
    elif site.emetteur != given.holder.emetteur:
        said = [(raw, text_of(before, "00100021"))] + [
            (text_of(i, "00100020"), text_of(i, "00100021")) for i in _items(before, "00101002")
        ]
        expect(
            any(qualify(i, site) == shown and by.casefold() == site.emetteur.casefold() for i, by in said),
            "no IPP is another site's unless the data say so",
        )
    else:
        expect(shown == qualify(raw, given.holder), "an IPP is its holder's")


def _own_ipp(given: Given, before: dict[str, Any]) -> str:
    return record_of(before, given.holder, DIRECTORY, long_ids=given.naming.long_ids).ipp


def _own(given: Given, before: dict[str, Any]) -> str:
    return given.naming.patient_id(record_of(before, given.holder, DIRECTORY, long_ids=given.naming.long_ids))


def _items(attributes: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    values = attributes.get(tag, {}).get("Value") or []
    return [v for v in values if isinstance(v, dict)]


def _said(attributes: dict[str, Any], tag: str) -> object:
    if tag == "00101002":
        return [(text_of(i, "00100020"), text_of(i, "00100021")) for i in _items(attributes, tag)]
    if tag == "00100024":
        return [text_of(i, "00400032") for i in _items(attributes, tag)]
    return text_of(attributes, tag)


def _code(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(text_of(i, "00080100"), text_of(i, "00080102")) for i in _items(attributes, "00080082")]
