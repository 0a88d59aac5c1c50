"""Answers of members: garbage as a whole, or rows each of which keeps its patient and its site.

An input is lines: flags, then what each site of a region answers. Each row that is read is marked with its site and its
patient before it goes through what a search does to it; the marks tell in the end whose a row's attributes are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import orjson
from support.values import DIRECTORY, SITES

from dicomweb.links import FacadeLinks, LinkKey
from dicomweb.member_json import data_sets
from dicomweb.rows import json_pieces, xml_pieces
from dicomweb.storing import told
from federation.errors import MemberGarbage
from federation.identity import Naming, qualify, record_of, text_of
from federation.long_ids import LongPatientIDs
from federation.matching import matches_row, matches_tagged
from federation.merge import UID_OF, Hit, Merged, merge, ordered, page
from federation.model import Attributes, Level
from federation.tagging import no_bulk, scrub, tag_patient, tag_source
from imagora_fuzz.oracles import Broken, expect, fields
from registry import Site

LONGEST = 1500
_ROW = (
    b'{"0020000D":{"vr":"UI","Value":["1.2.3"]},"0020000E":{"vr":"UI","Value":["1.2.3.1"]},"00080018":{"vr":"UI","Value":'
    b'["1.2.3.1.1"]},"00100020":{"vr":"LO","Value":["4547"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"LEVY^A"}]},'
    b'"00100030":{"vr":"DA","Value":["19600512"]},"00100040":{"vr":"CS","Value":["F"]}'
)
_OTHER_IDS = (
    b'"00101002":{"vr":"SQ","Value":[{"00100020":{"vr":"LO","Value":["4547"]},'
    b'"00100021":{"vr":"LO","Value":["csrom41200"]}}]}'
)
_CODE = (
    b'"00080082":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["423"]},'
    b'"00080102":{"vr":"SH","Value":["99IMAGORA"]}}]}'
)
SEEDS = [
    b"\x01\n[" + _ROW + b"}]\n[" + _ROW.replace(b"LEVY^A", b"MOREL^B") + b"}]",
    b"\x00\n[" + _ROW + b"}]\n[" + _ROW + b"}]",
    b"\x01\n["
    + _ROW
    + b","
    + _OTHER_IDS
    + b","
    + _CODE
    + b"}]\n[]\n["
    + _ROW
    + b',"00081190":{"vr":"UR","Value":["http://zq/"]}}]',
    b"\x02\n["
    + _ROW.replace(b"4547", b"4547@csrom41200")
    + b"}]\n"
    + _ROW
    + b',"7FE00010":{"vr":"OW","BulkDataURI":"http://zq/"}}',
    b'\x00\n[{"00081199":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2"]},"00081196":{"vr":"US","Value":[45056]}}]},'
    b'"00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.3"]},"00081197":{"vr":"US","Value":[272]}}]}}]',
    b'\x06\n[{"0020000D":{"vr":"UI","Value":["1.2"]},"00400275":{"vr":"SQ","Value":[{"00400009":{"vr":"SH"}},null]}}]',
    b'\x08\n[{"0020000D":{"vr":"UI","Value":["1.2"]},"00080020":{"vr":"DA","Value":[20200101]},"00080061":{"vr":"CS","Value":'
    b'["CT",null]},"00201206":{"vr":"IS","Value":["2"]}}]\n[{"0020000D":{"vr":"UI","Value":["1.2"]},"00201206":{"vr":"IS"}}]',
]
WORDS = [
    *(b'"00100020":{"vr":"LO","Value":["', b'"00100010":{"vr":"PN","Value":[', b'"0020000D":{"vr":"UI","Value":["'),
    *(b"null", b'"00101002":{"vr":"SQ","Value":[{', b'"00100021":{"vr":"LO","Value":["', b'"00080082":'),
    *(b'"Value":[', b'"vr":"SQ"', b'"BulkDataURI":"http://zq/"', b'"00100024":{"vr":"SQ","Value":[{"00400032":'),
    *(b"@csrom41200", b"csblo41000", b"{}", b"[]", b"4547", b"423", b"99IMAGORA", b'"Alphabetic":"', b"1.2.3"),
    *(b'"00080061":', b'"00201208":', b'"00200011":', b"1e309", b"\\u0000"),
]
_MARK = "00091077"
_LINKS = FacadeLinks(base="http://127.0.0.1:8080", prefix="", key=LinkKey(bytes(64)))
_FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"00100020": "4547"},
    {"00100020": "4547@csrom41200"},
    {"00100010": "LEVY*", "00100030": "1960-"},
    {"00400275.00400009": "A*", "00080061": "CT"},
    {"00080054": "CSROM*", "00080082.00080100": "423", "00100021": "*"},
)


def check(data: bytes) -> None:
    flags, *answers = fields(data, 1 + len(SITES))
    number = flags[0] if flags else 0
    level = (Level.STUDY, Level.SERIES, Level.INSTANCE)[number % 3]
    long_ids = LongPatientIDs()
    naming = Naming(qualified=number % 5 != 0, issuer="IMAGORA", long_ids=long_ids.get, note=long_ids.note)
    filters = _FILTERS[number // 3 % len(_FILTERS)]
    hits: list[Hit] = []
    for site, answer in zip(SITES, answers, strict=True):
        hits += _hits(site, answer, level, naming, filters, fuzzy=number % 2 == 0)
    merged = merge(level, hits, DIRECTORY)
    expect(sum(len(m.hits) for m in merged) == len(hits), "no row is lost, and none is counted twice")
    rows = ordered(level, merged)
    expect([id(m) for m in ordered(level, reversed(merged))] == [id(m) for m in rows], "the order is the same anyhow")
    first, remaining = page(rows, 0, 1)
    expect(len(first) + remaining == len(rows), "what remains is told")
    for m in rows:
        _tag(m, level, naming)
        matches_tagged(m.row, filters, m.identity)
        _judge(m, naming)
    _patients(rows, naming)
    _written([m.row for m in rows])


def _hits(
    site: Site, answer: bytes, level: Level, naming: Naming, filters: dict[str, str], *, fuzzy: bool
) -> Iterable[Hit]:
    try:
        rows = data_sets(answer)
    except MemberGarbage:
        return
    with contextlib.suppress(MemberGarbage):
        stored = told(deepcopy(rows))
        expect(not stored.stored.keys() & stored.failed.keys(), "what failed is not stored")
        expect(all(reason > 0 for reason in stored.failed.values()), "what failed has a reason")
    for row in rows:
        study_uid = text_of(row, "0020000D")
        if not study_uid or not text_of(row, UID_OF[level]):
            continue  # such an answer is refused whole by whoever asks
        record = record_of(row, site, DIRECTORY, long_ids=naming.long_ids)
        row[_MARK] = {"vr": "LO", "Value": [f"{site.emetteur}\n{record.raw_patient_id}"]}
        matches_row(row, filters, record, naming, DIRECTORY, fuzzy=fuzzy)
        yield Hit(record=record, row=row, study_uid=study_uid)


def _tag(m: Merged, level: Level, naming: Naming) -> None:
    scrub(m.row, no_bulk)
    tag_patient(m.row, m.identity, naming)
    tag_source(m.row, level, m.holders, _LINKS, m.study_uid)
    before = orjson.dumps(m.row, option=orjson.OPT_SORT_KEYS)
    tag_patient(m.row, m.identity, naming)
    expect(orjson.dumps(m.row, option=orjson.OPT_SORT_KEYS) == before, "tagging twice changes nothing")


def _judge(m: Merged, naming: Naming) -> None:
    emetteur, _, raw = m.row[_MARK]["Value"][0].partition("\n")
    mine = [h for h in m.hits if h.holder.emetteur == emetteur and h.record.raw_patient_id == raw]
    expect(mine, "a row's attributes are of a holder that is named, and of his patient")
    expect(mine[0] is m.hits[0] or len(mine) > 1, "a row's attributes are the preferred holder's")
    holders = {h.holder.emetteur for h in m.hits}
    expect(set(m.row["00080054"]["Value"]) == holders, "a row names those that hold it")
    expect(
        m.row["00081190"]["Value"][0].startswith(f"http://127.0.0.1:8080/sites/{m.holders[0].emetteur}/"),
        "a row leads to who holds it",
    )
    code = m.row["00080082"]["Value"][0]
    origins = {r.origin.number for r in m.identity.records}
    expect(text_of(code, "00080102") == "99IMAGORA", "a row names its origin")
    expect(int(text_of(code, "00080100")) in origins, "a row's origin is one that its data name")
    for hit in m.hits:
        expect(hit.record in m.identity.records, "whoever holds a row has told whose it is")
    shown = text_of(m.row, "00100020")
    if not naming.qualified:
        return
    ids = {qualify(r.ipp, r.authority) for r in m.identity.records if r.ipp}
    nobody = not m.identity.main.ipp
    expect(shown in ids or (nobody and shown.startswith("~none.")) or not shown, "a row bears an id of its patient")
    expect(text_of(m.row, "00100021") in ("IMAGORA", "") or not shown, "the issuer of its id is the federation")
    for record in m.identity.records[1:]:
        expect(_linked(record, m), "who is put together is one person by an id, or by all traits")


def _linked(record: Any, m: Merged) -> bool:
    others = [r for r in m.identity.records if r is not record]
    return any(
        (record.ipp and record.ipp == o.ipp and record.authority is o.authority)
        or (
            record.name
            and record.birth_date
            and record.sex
            and (record.name, record.birth_date, record.sex) == (o.name, o.birth_date, o.sex)
        )
        for o in others
    )


def _patients(rows: list[Merged], naming: Naming) -> None:
    """Two persons never bear one PatientID: viewers would put their exams together."""
    if not naming.qualified:
        return
    seen: dict[str, tuple[str, str]] = {}
    for m in rows:
        shown = text_of(m.row, "00100020")
        if not shown or shown.startswith("~none."):
            continue
        main = m.identity.main
        expect(seen.setdefault(shown, main.id) == main.id, "one PatientID stands for one patient of one site")


def _written(rows: list[Attributes]) -> None:
    body = b"".join(json_pieces(rows))
    expect(orjson.loads(body) == orjson.loads(orjson.dumps(rows)), "what is written is what was found")
    expect(b"http://zq/" not in _without_values(rows), "no address of a member leaves")
    list(xml_pieces(rows, "b", "application/dicom+xml"))


def _without_values(rows: list[Attributes]) -> bytes:
    """Where a member speaks of itself: bulk data references and retrieve URLs, nested too."""
    found: list[Any] = []

    def walk(attributes: Any) -> None:
        if not isinstance(attributes, dict):
            return
        for tag, content in attributes.items():
            if not isinstance(content, dict):
                continue
            found.append(content.get("BulkDataURI"))
            if tag == "00081190":
                found.extend(url for url in content.get("Value", ()) if not str(url).startswith(_LINKS.base))
            for value in content.get("Value") or () if isinstance(content.get("Value"), list) else ():
                walk(value)

    for row in rows:
        walk(row)
    try:
        return orjson.dumps(found)
    except TypeError as error:
        raise Broken("rows are JSON") from error
