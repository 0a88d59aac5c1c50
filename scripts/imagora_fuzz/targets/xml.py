"""Data sets as DICOM XML: well formed whatever a member sent, valid where that was, and with all that it said."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import orjson
from support.native_model import GROUPS, NS, VRS, check_model, data_set_of

from dicomweb.member_json import data_sets
from dicomweb.wire.xml import PIECE, native_model
from federation.errors import MemberGarbage
from federation.model import Attributes
from imagora_fuzz.oracles import Broken, expect

LONGEST = 1200
SEEDS = [
    b'[{"00100010":{"vr":"PN","Value":[{"Alphabetic":"L\xc3\x89VY^A&<B>","Ideographic":"\xe5\xb1\xb1^\xe5\xa4\xaa"}]}}]',
    b'[{"00090010":{"vr":"LO","Value":["ACME \\"1\\""]},"00091001":{"vr":"OB","InlineBinary":"AAE="}}]',
    b'[{"00280010":{"vr":"US","Value":[512]},"00081030":{"vr":"LO","Value":["x","","<&>"]}}]',
    b'[{"00400275":{"vr":"SQ","Value":[{"00400009":{"vr":"SH","Value":["a\\u0001b",null]}},{}]},"00080000":{"vr":"UL","Value":[4]}}]',
    b'[{"7FE00010":{"vr":"OW","BulkDataURI":"http://x/?a=1&b=<2>"},"00280030":{"vr":"DS","Value":[0.5,1e-7]},"00081030":{}}]',
]
WORDS = [
    *(b'"vr":"SQ"', b'"vr":"PN"', b'"vr":"UN"', b'"vr":"LO"', b'"Value":[', b'"BulkDataURI":"', b'"InlineBinary":"'),
    *(b"null", b'"00090010":', b'"00091001":', b'"00080000":', b'"00100010":', b'"Alphabetic":"', b"\\ud800"),
    *(b"\\u0000", b"]]>", b"&", b'"privateCreator":"', b'"keyword":"', b'"', b"<", b"\\uffff", b"\\r", b"\\t"),
]
_LOST = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEYS = frozenset({"vr", "Value", "BulkDataURI", "InlineBinary"})
_TEXTS = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UR", "UT"})


def check(data: bytes) -> None:
    try:
        rows = data_sets(data)
    except MemberGarbage:
        return
    for row in rows:
        pieces = list(native_model(row))
        expect(max(map(len, pieces)) <= 2 * PIECE + 2 * len(data), "a document comes in pieces")
        root = ET.fromstring(b"".join(pieces))  # raises if it is not well formed
        if _valid(row):
            check_model(root)
            _says_the_same(row, root)


def _valid(row: Attributes) -> bool:
    """As the standard has it: a VR, and values that fit it."""
    for tag, content in row.items():
        if content.get("vr") not in VRS or set(content) - _KEYS or len(content) > 2:
            return False
        if tag[3] in "13579BDF" or tag.endswith("0000"):
            return False  # blocks are numbered anew, group lengths left out: what is read back is not the same
        values = content.get("Value", [])
        if content["vr"] == "SQ":
            if not all(isinstance(v, dict) and _valid(v) for v in values):
                return False
        elif content["vr"] == "PN":
            if not all(_name(v) for v in values):
                return False
        elif content["vr"] not in _TEXTS or not all(v is None or isinstance(v, str) for v in values):
            return False
        if any(not isinstance(content.get(k, ""), str) for k in ("BulkDataURI", "InlineBinary")):
            return False
    return True


def _name(value: Any) -> bool:
    return isinstance(value, dict) and all(
        group in GROUPS and isinstance(text, str) and text.strip("^") == text != "" for group, text in value.items()
    )


def _says_the_same(row: Attributes, root: ET.Element) -> None:
    wanted = orjson.loads(orjson.dumps(row))
    _shown(wanted)
    try:
        found = data_set_of(root)
    except (KeyError, ValueError) as error:
        raise Broken(f"a document can be read back: {root.tag.removeprefix(NS)}") from error
    expect(found == wanted, "a document says what the data set says")


def _shown(row: dict[str, Any]) -> None:
    """What can't stand in XML is shown as lost, an empty text as none; in place."""
    for content in row.values():
        for key in ("BulkDataURI", "InlineBinary"):
            if key in content:
                content[key] = _LOST.sub("\ufffd", content[key])
        values = content.get("Value")
        if values is None:
            continue
        if content["vr"] == "SQ":
            for item in values:
                _shown(item)
        elif content["vr"] == "PN":
            content["Value"] = [{g: _LOST.sub("\ufffd", t) for g, t in v.items()} for v in values]
        else:
            content["Value"] = [None if v in (None, "") else _LOST.sub("\ufffd", v) for v in values]
        if not content["Value"]:
            del content["Value"]
