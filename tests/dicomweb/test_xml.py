"""The Native DICOM Model (PS3.19 §A.1): held against its schema, and read back into DICOM JSON."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support import values as _profile  # noqa: F401  # loads the profile
from support.native_model import DECIMALS, GROUPS, INTEGERS, NS, VRS, check_model, data_set_of

from dicomweb.wire.xml import NAMESPACE, PIECE, native_model
from federation.model import Attributes

BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


def document(attributes: Attributes) -> bytes:
    return b"".join(native_model(attributes))


def parsed(attributes: Attributes) -> ET.Element:
    root = ET.fromstring(document(attributes))
    check_model(root)
    return root


# Everything that DICOM JSON can say ---------------------------------------------------------------------------------

#: All that XML can hold. Line ends, quotes and markup are in it.
_xml_texts = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r&<>\"'\x7f\x85 ]"), min_size=1, max_size=20
).filter(lambda t: not set(t) & {"\ufffe", "\uffff"})
_components = st.text(st.characters(exclude_characters="^=", exclude_categories=("Cs", "Cc")), max_size=8).filter(
    lambda t: not set(t) & {"\ufffe", "\uffff"}
)
_groups = (
    st.lists(_components, min_size=1, max_size=5)
    .map(lambda parts: "^".join(parts).rstrip("^"))
    .filter(lambda t: t != "")
)
_names = st.dictionaries(st.sampled_from(GROUPS), _groups, max_size=3)
_hex = st.integers(0, 0xFFFFFFFF).map(lambda n: f"{n:08X}")


def _values(vr: str) -> st.SearchStrategy[Any]:
    if vr == "PN":
        return _names
    if vr == "AT":
        return _hex
    if vr in INTEGERS:
        return st.none() | st.integers(-(2**63), 2**64)
    if vr in DECIMALS:
        return st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40).map(float)
    return st.none() | _xml_texts


def _contents(vr: str) -> st.SearchStrategy[dict[str, Any]]:
    if vr in BINARY:
        inline = st.binary(min_size=1, max_size=20).map(lambda b: {"InlineBinary": base64.b64encode(b).decode()})
        content = st.just({}) | _xml_texts.map(lambda t: {"BulkDataURI": f"http://x/{t}"}) | inline
    else:
        content = st.just({}) | st.lists(_values(vr), min_size=1, max_size=4).map(lambda v: {"Value": v})
    return content.map(lambda c: {"vr": vr, **c})


_standard_tags = st.sampled_from(
    [0x00100010, 0x00080005, 0x00080020, 0x0020000D, 0x00280010, 0x00400275, 0x7FE00010, 0x60003000, 0x00181401]
).map(lambda t: f"{t:08X}") | st.tuples(st.integers(0x0004, 0xFFFE), st.integers(1, 0xFFFF)).map(
    lambda t: f"{t[0] & 0xFFFE:04X}{t[1]:04X}"
)
_private = st.tuples(
    st.sampled_from(["0009", "0029", "7FE1"]), st.sampled_from(["ACME 1", 'A&B "<x>"', "ÉCLAIR"]), st.integers(0, 255)
)


@st.composite
def _data_sets(draw: st.DrawFn, depth: int = 2) -> Attributes:
    made: Attributes = {}
    plain = st.sampled_from([vr for vr in VRS if vr != "SQ"]).flatmap(_contents)

    def content() -> dict[str, Any]:
        if depth and draw(st.integers(0, 3)) == 0:
            items = draw(st.lists(_data_sets(depth - 1), max_size=3))
            return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        return draw(plain)

    for tag in draw(st.lists(_standard_tags, max_size=5, unique=True)):
        made[tag] = content()
    creators: dict[str, list[str]] = {}
    for group, creator, element in sorted(draw(st.lists(_private, max_size=4))):
        known = creators.setdefault(group, [])
        if creator not in known:
            known.append(creator)
            made[f"{group}00{0x0F + len(known):02X}"] = {"vr": "LO", "Value": [creator]}
        made[f"{group}{0x10 + known.index(creator):02X}{element:02X}"] = content()
    return {t: c for t, c in made.items() if not t.endswith("0000")}


@settings(max_examples=200)
@given(_data_sets())
def test_what_is_written_is_valid_and_says_the_same(attributes: Attributes) -> None:
    assert data_set_of(parsed(attributes)) == attributes


def test_every_value_representation() -> None:
    attributes: Attributes = {
        f"0011{0x1000 + n:04X}": {"vr": vr, **({"InlineBinary": "AAE="} if vr in BINARY else {})}
        for n, vr in enumerate(VRS)
    }
    attributes["00110010"] = {"vr": "LO", "Value": ["ACME"]}
    root = parsed(attributes)
    assert [e.attrib["vr"] for e in root] == VRS
    assert {e.attrib["privateCreator"] for e in root} == {"ACME"}
    assert {e.attrib["tag"][:6] for e in root} == {"001100"}
    assert data_set_of(root) == attributes


def test_a_data_set_of_pydicom_as_the_standard_shows_it() -> None:
    """Values of the examples in table A.1.5-2."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["MPG", "", "XR3"]
    dataset.PatientName = "Wang^XiaoDong=王^小东="
    dataset.PixelSpacing = [0.5, 0.4]
    dataset.FrameIncrementPointer = 0x00181063
    dataset.Rows = 512
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "423", "Romorantin & <fils>"
    dataset.InstitutionCodeSequence = Sequence([item, Dataset()])
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    block.add_new(0x10, "OB", b"\x01\x02\x03\x04")
    attributes = dataset.to_json_dict()
    attributes["7FE00010"] = {"vr": "OW", "BulkDataURI": "https://x/bulk?a=1&b=2"}
    root = parsed(attributes)
    for element in root:
        if "privateCreator" not in element.attrib:
            assert element.attrib["keyword"] == keyword_for_tag(int(element.attrib["tag"], 16))
            assert element.attrib["vr"] in dictionary_VR(int(element.attrib["tag"], 16))
    text = document(attributes).decode()
    for expected in (
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">',
        '<DicomAttribute tag="00080008" vr="CS" keyword="ImageType"><Value number="1">MPG</Value>'
        '<Value number="2"/><Value number="3">XR3</Value></DicomAttribute>',
        '<DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName number="1"><Alphabetic>'
        "<FamilyName>Wang</FamilyName><GivenName>XiaoDong</GivenName></Alphabetic><Ideographic>"
        "<FamilyName>王</FamilyName><GivenName>小东</GivenName></Ideographic></PersonName></DicomAttribute>",
        'vr="DS" keyword="PixelSpacing"><Value number="1">0.5</Value><Value number="2">0.4</Value>',
        '<DicomAttribute tag="00280009" vr="AT" keyword="FrameIncrementPointer"><Value number="1">00181063</Value>',
        '<DicomAttribute tag="00280010" vr="US" keyword="Rows"><Value number="1">512</Value></DicomAttribute>',
        '<DicomAttribute tag="00080082" vr="SQ" keyword="InstitutionCodeSequence"><Item number="1">'
        '<DicomAttribute tag="00080100" vr="SH" keyword="CodeValue"><Value number="1">423</Value></DicomAttribute>',
        '<Value number="1">Romorantin &amp; &lt;fils&gt;</Value></DicomAttribute></Item><Item number="2"></Item>',
        '<DicomAttribute tag="00290008" vr="CS" privateCreator="SIEMENS CSA HEADER"><Value number="1">IMAGE NUM 4',
        '<DicomAttribute tag="00290010" vr="OB" privateCreator="SIEMENS CSA HEADER"><InlineBinary>AQIDBA==',
        '<DicomAttribute tag="7FE00010" vr="OW" keyword="PixelData"><BulkData uri="https://x/bulk?a=1&amp;b=2"/>',
    ):
        assert expected in text
    assert text.count("SIEMENS") == 2  # the element that reserves the block is not conveyed


def test_characters_that_xml_cannot_hold_are_shown_as_lost() -> None:
    attributes: Attributes = {
        "00081030": {"vr": "LO", "Value": ["a\x00b\x1bc\x0cd\ufffee\uffff", "\x85\x7f\r\n\t"]},
        "00091001": {"vr": "LO", "Value": ["x"]},
        "00090010": {"vr": "LO", "Value": ['"A\x01\n\t&']},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A\x08^<B>^C^D^E^F"}]},
    }
    root = parsed(attributes)
    name, texts = (root.find(f"{NS}DicomAttribute[@keyword='{k}']") for k in ("PatientName", "StudyDescription"))
    assert texts is not None
    assert [v.text for v in texts] == ["a\ufffdb\ufffdc\ufffdd\ufffde\ufffd", "\x85\x7f\r\n\t"]
    assert root[1].attrib["privateCreator"] == '"A\ufffd\n\t&'
    assert name is not None
    assert [e.text for e in name.iter() if e.text] == ["A\ufffd", "<B>", "C", "D", "E^F"]


@pytest.mark.parametrize(
    "content",
    [
        {"vr": "LO", "Value": [{"x": 1}, True, 1.5, None, ["y"]]},
        {"vr": "SQ", "Value": [None, "x", 3]},
        {"vr": "PN", "Value": ["A^B=C", None, 7, {"Alphabetic": None, "Other": "x"}]},
        {"vr": None, "Value": ["x"]},
        {"Value": ["x"]},
        {"vr": "LO", "Value": None},
        {"vr": "OB", "InlineBinary": None, "BulkDataURI": 3},
        {},
    ],
)
def test_what_members_make_of_dicom_json_is_written_all_the_same(content: dict[str, Any]) -> None:
    root = ET.fromstring(document({"00081030": content, "00091001": content, "00090010": content}))
    assert root[0].attrib["tag"] == "00081030"


def test_private_attribute_without_its_creator_keeps_its_tag() -> None:
    root = parsed({"00091001": {"vr": "LO", "Value": ["x"]}, "00091102": {"vr": "LO", "privateCreator": "ACME"}})
    assert [(e.attrib["tag"], e.attrib.get("privateCreator")) for e in root] == [
        ("00091001", None),
        ("00090002", "ACME"),
    ]


def test_a_vr_that_is_left_out_is_one_that_the_dictionary_allows() -> None:
    root = parsed({"00280106": {"Value": [0]}, "00081030": {"Value": ["x"]}, "00091001": {"Value": ["y"]}})
    assert [e.attrib["vr"] for e in root] == ["LO", "UN", "US"]  # of `US or SS` the first


def test_group_lengths_are_left_out() -> None:
    assert len(parsed({"00080000": {"vr": "UL", "Value": [4]}, "00090000": {"vr": "UL", "Value": [4]}})) == 0


def test_deep_and_long_data_sets_come_in_pieces() -> None:
    deep: Attributes = {"00080100": {"vr": "SH", "Value": ["x"]}}
    for _ in range(2000):
        deep = {"00400275": {"vr": "SQ", "Value": [deep]}}
    assert document(deep).count(b"<Item ") == 2000
    items = [{"00080100": {"vr": "SH", "Value": [f"code {n}"]}} for n in range(20_000)]
    pieces = list(native_model({"00400275": {"vr": "SQ", "Value": items}}))
    assert len(pieces) > 20
    assert max(map(len, pieces)) < 2 * PIECE
    assert len(ET.fromstring(b"".join(pieces))[0]) == 20_000
