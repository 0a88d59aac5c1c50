"""The capabilities description by itself: its shape, in both forms."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from dicomweb.capabilities import NAMESPACE, Element, description, xml_document
from dicomweb.resources import RESOURCES, Kind, Resource
from federation.model import Level

NS = f"{{{NAMESPACE}}}"
#: What may stand in what, in this order (WADL 2009/02).
CHILDREN = {
    "application": ["resources"],
    "resources": ["resource"],
    "resource": ["param", "method", "resource"],
    "method": ["request", "response"],
    "request": ["param", "representation"],
    "response": ["representation"],
    "param": ["doc", "option"],
}


def check(element: ET.Element) -> None:
    allowed = CHILDREN.get(element.tag.removeprefix(NS), [])
    assert {child.tag.removeprefix(NS) for child in element} <= set(allowed)
    assert not element.text
    for child in element:
        check(child)


def test_description_is_wadl() -> None:
    application = ET.fromstring(xml_document(description('http://x/"a"&b', RESOURCES)))
    check(application)
    assert application[0].attrib == {"base": 'http://x/"a"&b'}
    assert sum(1 for _ in application.iter(f"{NS}method")) == len(RESOURCES)


def test_searches_say_that_dates_and_times_are_one_range() -> None:
    application = ET.fromstring(xml_document(description("http://x", RESOURCES)))
    searches = [m for m in application.iter(f"{NS}method") if m.get("id", "").startswith("SearchFor")]
    assert searches
    for method in searches:
        titles = {p.get("name"): [d.get("title", "") for d in p.iter(f"{NS}doc")] for p in method.iter(f"{NS}param")}
        (said,) = titles["StudyTime"]
        assert "one range" in said


def test_resources_above_have_no_methods_and_one_place() -> None:
    made = [
        Resource(path=path, kind=Kind.METADATA, level=Level.STUDY, name=path)
        for path in ("/studies/{study}/a/b", "/studies/{study}/a", "/studies/{study}/a/{c}/d")
    ]
    application = description("http://x", made)
    (studies,) = application.children[0].children
    param, study = studies.children[0].children
    assert [c.name for c in studies.children] == ["resource"]
    assert param.attributes == {"name": "study", "style": "template", "type": "xsd:string", "required": "true"}
    assert study.attributes == {"path": "a"}
    assert sorted(c.name for c in study.children) == ["method", "resource", "resource"]


def test_only_bulk_data_have_ranges() -> None:
    application = ET.fromstring(xml_document(description("http://x", RESOURCES)))
    ranged = {
        method.attrib["id"]: [r.attrib["status"] for r in method.findall(f"{NS}response")]
        for method in application.iter(f"{NS}method")
        if any(p.attrib["name"] == "Range" for p in method.iter(f"{NS}param"))
    }
    assert set(ranged) == {"RetrieveBulkdata"}
    assert "206" in ranged["RetrieveBulkdata"][0]
    assert "416" in ranged["RetrieveBulkdata"][1]


def test_json_form_has_attributes_as_members_and_children_in_arrays() -> None:
    element = Element("a", {"x": "1"}, [Element("b", {"y": "2"}), Element("b"), Element("c")])
    assert element.to_json() == {"x": "1", "b": [{"y": "2"}, {}], "c": [{}]}
    assert "".join(element.to_xml()) == '<a x="1"><b y="2"/><b/><c/></a>'


def test_each_transaction_has_one_name_and_place() -> None:
    assert len({r.name for r in RESOURCES}) == len(RESOURCES)
    assert len({(r.method, r.path) for r in RESOURCES}) == len(RESOURCES)
    assert all(r.media_types for r in RESOURCES)
