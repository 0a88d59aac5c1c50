"""The capabilities description: what a resource and those below it can do, as WADL (PS3.18 §8.9, Annex H). Pure.

The standard names a JSON form without saying how it looks: here each element is an object, its attributes are members
by their names, and its children stand in arrays by theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dicomweb.resources import Kind, Resource
from dicomweb.wire.media import Offer
from dicomweb.wire.xml import attribute

WADL = "application/vnd.sun.wadl+xml"
NAMESPACE = "http://wadl.dev.java.net/2009/02"
FORMS = (Offer(media_type=WADL, text=True), Offer(media_type="application/json", text=True))
#: What else may be answered: a plain JSON object that says what to do.
_REFUSALS = "400 401 403 404 406 409 502 503 504"
_SUCCESSES = {
    Kind.SEARCH: "200 204",
    Kind.INSTANCES: "200 206",
    Kind.METADATA: "200 206",
    Kind.BULKDATA: "200 206",
    Kind.STORE: "200 202 409",
}
#: Headers that ask for a range, of a single body only (PS3.18 2018 §6.5.5.1, RFC 9110 §14.2).
_RANGED = ("Range", "If-Range")
#: What may be sent.
_TAKEN = ('multipart/related; type="application/dicom"', "application/dicom")


@dataclass(slots=True)
class Element:
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = dict(self.attributes)
        for child in self.children:
            made.setdefault(child.name, []).append(child.to_json())
        return made

    def to_xml(self) -> Iterator[str]:
        named = "".join(f' {name}="{attribute(value)}"' for name, value in self.attributes.items())
        if not self.children:
            yield f"<{self.name}{named}/>"
            return
        yield f"<{self.name}{named}>"
        for child in self.children:
            yield from child.to_xml()
        yield f"</{self.name}>"


def description(base: str, resources: Iterable[Resource]) -> Element:
    """`base` is the service's URL. The tree holds these resources, and those above them without their methods."""
    root = Element("resources", {"base": base})
    made: dict[str, Element] = {"": root}
    for resource in resources:
        _place(resource.path, made).children.append(_method(resource))
    return Element("application", {}, [root])


def xml_document(application: Element) -> bytes:
    application.attributes = {"xmlns": NAMESPACE, "xmlns:xsd": "http://www.w3.org/2001/XMLSchema"}
    return ('<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(application.to_xml())).encode()


def _place(path: str, made: dict[str, Element]) -> Element:
    """The element of a path, and those above it as far as there are none yet."""
    if path not in made:
        above, _, segment = path.rpartition("/")
        element = Element("resource", {"path": segment})
        if segment.startswith("{"):
            named = {"name": segment.strip("{}"), "style": "template", "type": "xsd:string", "required": "true"}
            element.children.append(Element("param", named))
        _place(above, made).children.append(element)
        made[path] = element
    return made[path]


def _method(resource: Resource) -> Element:
    media_types = resource.media_types
    accept = Element("param", {"name": "Accept", "style": "header", "type": "xsd:string", "default": media_types[0]})
    accept.children = [Element("option", {"value": m}) for m in media_types]
    request = Element("request", {}, [accept])
    for parameter in resource.parameters:
        made = Element("param", {"name": parameter.name, "style": "query", "type": parameter.type})
        if parameter.required:
            made.attributes["required"] = "true"
        if parameter.repeating:
            made.attributes["repeating"] = "true"
        if parameter.title:
            made.children.append(Element("doc", {"title": parameter.title}))
        made.children += [Element("option", {"value": value}) for value in parameter.options]
        request.children.append(made)
    refusals = _REFUSALS
    if resource.kind is Kind.BULKDATA:
        request.children += [Element("param", {"name": n, "style": "header", "type": "xsd:string"}) for n in _RANGED]
        refusals += " 416"
    if resource.kind is Kind.STORE:
        request.children += [Element("representation", {"mediaType": m}) for m in _TAKEN]
        refusals += " 408 413 415"
    given = [Element("representation", {"mediaType": m}) for m in media_types]
    answers = [
        Element("response", {"status": _SUCCESSES.get(resource.kind, "200")}, given),
        Element("response", {"status": refusals}, [Element("representation", {"mediaType": "application/json"})]),
    ]
    return Element("method", {"name": resource.method, "id": resource.name}, [request, *answers])
