"""A reader of the Native DICOM Model that shares nothing with the writer: its schema, and back to DICOM JSON."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

NS = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
Attributes = dict[str, dict[str, Any]]
VRS = [
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW"),
    *("PN", "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV"),
]
INTEGERS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
DECIMALS = frozenset({"DS", "FD", "FL"})
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


# The schema (PS3.19 §A.1.6), word for word as checks ----------------------------------------------------------------


def check_model(root: ET.Element) -> None:
    """start = element NativeDicomModel { DicomDataSet }; xml:space="preserve" is required (table A.1.5-1)."""
    assert root.tag == f"{NS}NativeDicomModel"
    assert root.attrib == {"{http://www.w3.org/XML/1998/namespace}space": "preserve"}
    assert not root.text
    check_data_set(root)


def check_data_set(parent: ET.Element) -> None:
    for element in parent:
        assert element.tag == f"{NS}DicomAttribute"
        assert not element.tail
        assert set(element.attrib) <= {"tag", "vr", "keyword", "privateCreator"}
        tag = element.attrib["tag"]
        assert re.fullmatch("[0-9A-F]{8}", tag)
        assert not tag.endswith("0000") or "privateCreator" in element.attrib
        assert element.attrib["vr"] in VRS
        if "privateCreator" in element.attrib:
            assert int(tag[:4], 16) % 2
            assert tag[4:6] == "00"
            assert "keyword" not in element.attrib
        kinds = {child.tag.removeprefix(NS) for child in element}
        assert len(kinds) <= 1  # (BulkData | Value+ | Item+ | PersonName+ | InlineBinary)?
        for number, child in enumerate(element, 1):
            assert not child.tail
            kind = child.tag.removeprefix(NS)
            if kind in ("BulkData", "InlineBinary"):
                assert number == 1
                assert set(child.attrib) == ({"uri"} if kind == "BulkData" else set())
                continue
            assert child.attrib == {"number": str(number)}
            if kind == "Item":
                assert element.attrib["vr"] == "SQ"
                assert not child.text
                check_data_set(child)
            elif kind == "PersonName":
                assert element.attrib["vr"] == "PN"
                check_ordered(child, GROUPS)
                for group in child:
                    check_ordered(group, COMPONENTS)
            else:
                assert kind == "Value"
                assert element.attrib["vr"] not in ("SQ", "PN")
                assert len(child) == 0


def check_ordered(parent: ET.Element, names: tuple[str, ...]) -> None:
    found = [child.tag.removeprefix(NS) for child in parent]
    assert found == [n for n in names if n in found]
    assert not any(child.attrib or child.tail for child in parent)


# Read back ------------------------------------------------------------------------------------------------------------


def data_set_of(parent: ET.Element) -> Attributes:
    """XML → DICOM JSON (PS3.18 table F.3.1-1). Blocks of private attributes are given out anew, in order."""
    found: Attributes = {}
    blocks: dict[tuple[str, str], int] = {}
    for element in parent:
        tag, vr = element.attrib["tag"], element.attrib["vr"]
        creator = element.attrib.get("privateCreator")
        if creator is not None:
            group = tag[:4]
            if (group, creator) not in blocks:
                block = 0x10 + sum(g == group for g, _ in blocks)
                blocks[group, creator] = block
                found[f"{group}00{block:02X}"] = {"vr": "LO", "Value": [creator]}
            tag = f"{group}{blocks[group, creator]:02X}{tag[6:]}"
        found[tag] = {"vr": vr, **content_of(vr, list(element))}
    return found


def content_of(vr: str, children: list[ET.Element]) -> dict[str, Any]:
    if not children:
        return {}
    match children[0].tag.removeprefix(NS):
        case "BulkData":
            return {"BulkDataURI": children[0].attrib["uri"]}
        case "InlineBinary":
            return {"InlineBinary": children[0].text or ""}
        case "Item":
            return {"Value": [data_set_of(child) for child in children]}
        case "PersonName":
            return {"Value": [name_of(child) for child in children]}
        case _:
            return {"Value": [value_of(vr, child.text) for child in children]}


def value_of(vr: str, text: str | None) -> Any:
    if text is None:
        return None
    return int(text) if vr in INTEGERS else float(text) if vr in DECIMALS else text


def name_of(name: ET.Element) -> dict[str, str]:
    groups = {}
    for group in name:
        by_name = {child.tag.removeprefix(NS): child.text or "" for child in group}
        groups[group.tag.removeprefix(NS)] = "^".join(by_name.get(n, "") for n in COMPONENTS).rstrip("^")
    return groups
