"""What the server says that it can do (PS3.18 §8.9) is held against what it does, over real Orthancs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import retrieve_wire as wire
from imagora_demo.orthanc import OrthancServer
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue
from retrieve_archives import CT, FOLDERS, US, archives
from retrieve_member import read
from starlette.routing import Route
from support.serving import Serving

WADL = "application/vnd.sun.wadl+xml"
NS = "{http://wadl.dev.java.net/2009/02}"


@pytest.fixture(scope="module")
def members() -> Iterator[dict[str, OrthancServer]]:
    with archives() as running:
        yield running


@pytest.fixture(scope="module")
def server(members: dict[str, OrthancServer], serve_module) -> Serving:
    serving: Serving = serve_module({e: m.dicomweb_url for e, m in members.items()}, folders=FOLDERS)
    return serving


@pytest.fixture(scope="module")
def root(server: Serving) -> str:
    return server.dicomweb()


def options(url: str, accept: str | None = None) -> requests.Response:
    return requests.options(url, headers={"Accept": accept} if accept else {"Accept": "*/*"}, timeout=10)


@dataclass(frozen=True)
class Method:
    path: str
    name: str
    element: ET.Element

    def params(self, style: str) -> dict[str, ET.Element]:
        found = self.element.findall(f"{NS}request/{NS}param")
        return {p.attrib["name"]: p for p in found if p.attrib["style"] == style}

    @property
    def media_types(self) -> list[str]:
        return [o.attrib["value"] for o in self.params("header")["Accept"]]


def methods_of(document: bytes) -> tuple[str, list[Method]]:
    """→ (the base, all methods with the paths of their resources)."""
    application = ET.fromstring(document)
    assert application.tag == f"{NS}application"
    (resources,) = application
    found: list[Method] = []

    def walk(element: ET.Element, path: str) -> None:
        for child in element:
            if child.tag == f"{NS}resource":
                segment = child.attrib["path"]
                templates = [p.attrib["name"] for p in child.findall(f"{NS}param")]
                assert templates == ([segment.strip("{}")] if segment.startswith("{") else [])
                walk(child, f"{path}/{segment}")
            elif child.tag == f"{NS}method":
                found.append(Method(path, child.attrib["name"], child))

    walk(resources, "")
    return resources.attrib["base"], found


def everything(root: str) -> list[Method]:
    base, methods = methods_of(options(root).content)
    assert base == root
    return methods


def filled(path: str) -> str:
    dataset = read(CT.data[0])
    return path.format(
        study=CT.uid, series=dataset.SeriesInstanceUID, instance=dataset.SOPInstanceUID, frames="1", token="x"
    )


def test_every_route_says_what_it_can_do_and_nothing_else_is_said(server: Serving, root: str) -> None:
    paths = {
        route.path
        for route in server.app.routes
        if isinstance(route, Route) and route.path.startswith("/dicom-web/") and route.path != "/dicom-web/"
    }
    methods = everything(root)
    assert {f"/dicom-web{m.path}" for m in methods} == paths
    assert len({m.element.attrib["id"] for m in methods}) == len(methods)
    for path in paths:
        answer = options(server.url + filled(path))
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, WADL), path
        _, below = methods_of(answer.content)
        assert {f"/dicom-web{m.path}" for m in below} == {p for p in paths if p == path or p.startswith(f"{path}/")}
        # What is not said is not allowed, and a refusal names what is.
        said = {m.name for m in below if f"/dicom-web{m.path}" == path} | {"OPTIONS"}
        refused = requests.patch(server.url + filled(path), timeout=10)
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == said


@pytest.mark.parametrize("scope", CT.scopes)
def test_each_scope_is_described_under_its_own_base(scope: str, server: Serving) -> None:
    for url in (server.dicomweb(scope), f"{server.dicomweb(scope)}/"):
        base, methods = methods_of(options(url).content)
        assert base == server.dicomweb(scope)
        assert len(methods) > 20
    assert requests.get(server.dicomweb(scope), timeout=10).status_code == 405


def test_unknown_scopes_are_not_described(server: Serving) -> None:
    for scope in ("/sites/nobody", "/folders/none"):
        assert options(server.dicomweb(scope)).status_code == 404


def test_json_says_the_same_as_xml(root: str) -> None:
    def converted(element: ET.Element) -> dict[str, Any]:
        made: dict[str, Any] = dict(element.attrib)
        for child in element:
            made.setdefault(child.tag.removeprefix(NS), []).append(converted(child))
        return made

    for path in ("", f"/studies/{CT.uid}/metadata"):
        answer = options(root + path, "application/json")
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == {"application": converted(ET.fromstring(options(root + path).content))}
    assert options(root, "application/json;q=0.5, application/vnd.sun.wadl+xml").headers["Content-Type"] == WADL
    refused = options(root, "text/html")
    assert refused.status_code == 406
    assert WADL in refused.json()["error"]


def bare(media_type: str) -> str:
    return media_type.partition("; transfer-syntax")[0]


def test_media_types_are_those_that_can_be_had_and_no_others(root: str) -> None:
    methods = [m for m in everything(root) if m.name == "GET"]  # what a store answers: tests/store
    known = {bare(m) for method in methods for m in method.media_types} | {"text/html", "application/dicom+xml"}
    for method in methods:
        path = filled(method.path)
        for media_type in method.media_types:
            seen = wire.get(root, path, {"Accept": media_type})
            if seen.status == 200:
                given = bare(seen.headers["content-type"].partition("; boundary")[0])
                assert given.replace("/x-", "/") == bare(media_type).replace("/x-", "/"), path
                default = wire.get(root, path).headers["content-type"].partition("; boundary")[0]
                assert bare(default) == bare(method.media_types[0])
            else:
                # A member that can't; not we.
                assert seen.status in (404, 406, 502), (path, media_type)
                assert "is to be had" not in wire.json_of(seen)["error"]
                assert "json" not in media_type
                assert "xml" not in media_type
                assert media_type != method.media_types[0] or path.endswith(("/rendered", "/thumbnail", "/x"))
        for media_type in known - {bare(m) for m in method.media_types}:
            if media_type == "application/dicom" and "frames" not in path and "/instances/" not in path:
                continue  # some clients ask for several instances so, and take them as parts
            if path.endswith(("/rendered", "/thumbnail")) and ("image/" in media_type or "video/" in media_type):
                continue  # some ask for a picture as a part, and take it as a body
            seen = wire.get(root, path, {"Accept": media_type})
            assert seen.status in (400, 406), (path, media_type)
            assert "is to be had as" in wire.json_of(seen)["error"], (path, media_type)


def example(name: str, type_: str, values: list[str]) -> str:
    if values:
        return values[0]
    if type_ == "xsd:nonNegativeInteger":
        return "5" if name == "limit" else "0"
    return {
        "accept": "image/jpeg",
        "includefield": "StudyDescription",
        "window": "40,400",
        "viewport": "32,32",
        "quality": "50",
        "annotation": "patient",
        "iccprofile": "no",
    }[name]


def test_parameters_are_known_and_their_values_checked(root: str) -> None:
    for method in everything(root):
        path = filled(method.path)
        for name, param in method.params("query").items():
            if tag_for_keyword(name) is not None:
                continue  # the next test's
            value = example(name, param.attrib["type"], [o.attrib["value"] for o in param])
            accept = {} if name == "accept" else {"Accept": method.media_types[0]}
            if name == "accept":
                value = method.media_types[0]
            answer = requests.get(root + path, params={name: value}, headers=accept, timeout=20)
            if answer.status_code not in (200, 204):
                assert answer.status_code in (404, 406, 502), (path, name)  # a member's
                assert not path.endswith(("metadata", "series", "studies", "instances"))
            assert "Unknown parameter" not in answer.headers.get("Warning", ""), (path, name)
            if param.attrib["type"] != "xsd:string" or len(param):
                wrong = requests.get(root + path, params={name: "nonsense"}, headers=accept, timeout=20)
                assert wrong.status_code == 400 or "UTF-8" in wrong.headers["Warning"], (path, name)
    stranger = requests.get(f"{root}/studies", params={"nonsense": "1"}, timeout=20)
    assert "Unknown parameter" in stranger.headers["Warning"]


def test_matching_keys_match(root: str) -> None:
    """Each with the exam's own value, and with one that it has not."""
    dataset = read(US.data[0])
    own = {"ModalitiesInStudy": "US", "IssuerOfPatientID": "IMAGORA", "PatientID": US.patient_id}
    other = {"DA": "19000101", "TM": "0101", "UI": "1.2.3.4", "IS": "77"}
    for method in everything(root):
        if not method.element.attrib["id"].startswith("SearchFor") or "{" in method.path:
            continue
        keys = [n for n in method.params("query") if tag_for_keyword(n) is not None]
        assert len(keys) > 10
        failing = []
        for key in keys:
            value = own.get(key) or dataset.get(key)
            if value in (None, "") or isinstance(value, MultiValue):
                continue
            element = dataset.get_item(key) if key in dataset else None
            wrong = other.get(str(element.VR) if element is not None else "", "ZZZ")
            only = {} if key == "StudyInstanceUID" else {"StudyInstanceUID": US.uid}
            found = requests.get(root + method.path, params={**only, key: str(value)}, timeout=20)
            missed = requests.get(root + method.path, params={**only, key: wrong}, timeout=20)
            if (found.status_code, missed.status_code) != (200, 204):
                failing.append((key, found.status_code, missed.status_code))
            else:
                assert found.json()[0]["0020000D"]["Value"] == [US.uid]
        assert not failing, method.path


def test_a_preflight_is_not_a_question_what_the_service_can_do(root: str) -> None:
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    preflight = requests.options(root, headers=asked, timeout=10)
    assert preflight.status_code == 400  # an origin that is not allowed
    assert WADL not in preflight.headers["Content-Type"]
    assert options(root).headers["Content-Type"] == WADL
