"""WADO-URI, for older viewers: one instance, named by query parameters (PS3.18 §9). Read into what WADO-RS asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicomweb import negotiate
from dicomweb.wire import query as wire_query
from dicomweb.wire.media import EXPLICIT, FORBIDDEN_SYNTAXES, MediaRange, Offer, parse_accept
from federation.errors import BadRequest, NotAcceptable
from federation.model import UID_PATTERN, Accept, Form, Target

#: The default first: PS3.18 §9.3.
OFFERS = (*negotiate.RENDERED, Offer(media_type=negotiate.DICOM))
_UIDS = ("studyUID", "seriesUID", "objectUID")
REQUIRED = ("requestType", *_UIDS)
_WINDOW = ("windowCenter", "windowWidth")
_SIZE = ("rows", "columns")
#: Of pictures only.
_RENDERING = ("frameNumber", *_SIZE, *_WINDOW, "imageQuality", "annotation", "imageAnnotation")
#: What changes a picture and can't be done: without it, it would show something else than was asked for.
_NOT_DONE = ("region", "presentationUID", "presentationSeriesUID")
PARAMETERS = (*REQUIRED, "contentType", "charset", "transferSyntax", *_RENDERING)
_KNOWN = frozenset({*PARAMETERS, *_NOT_DONE, "anonymize"})
_DECIMAL = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_COUNT = re.compile(r"[1-9][0-9]{0,4}")
_FRAME = re.compile(r"[1-9][0-9]{0,6}")
_QUALITY = re.compile(r"[1-9][0-9]?|100")
_ANNOTATION = re.compile(r"(?:patient|technique)(?:,(?:patient|technique))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class UriRequest:
    """What is asked for, what the client can take, and what it is to be told of parameters that count for nothing."""

    target: Target
    accept: Accept
    notices: tuple[str, ...]


def parse(query_string: str, header: Sequence[MediaRange]) -> UriRequest:
    """`header` is what the Accept header says, () for nothing. Raises `BadRequest`, `NotAcceptable`."""
    given: dict[str, str] = {}
    notices = []
    for name, value in wire_query.pairs(query_string):
        if name not in _KNOWN:
            notices.append(f"Unknown parameter ignored: {wire_query.shown(name)}")
        elif name in given:
            raise BadRequest(f"{name} is given twice.")
        elif value.strip():
            given[name] = value.strip()
    missing = [name for name in REQUIRED if name not in given]
    if missing:
        raise BadRequest(f"WADO-URI needs {', '.join(missing)}.")
    if given["requestType"] != "WADO":
        raise BadRequest("requestType takes WADO.")
    for name in _UIDS:
        if not UID_PATTERN.fullmatch(given[name]):
            raise BadRequest(f"{name}: not a UID: {given[name][:70]!r}.")
    if "anonymize" in given:
        # PS3.18 §9.4.2.3 lets a server refuse. Half a de-identification would be worse than none.
        raise BadRequest("anonymize is not done here: ask without it, and de-identify what comes with a tool for that.")
    for name in _NOT_DONE:
        if name in given:
            raise BadRequest(f"{name} is not done here: ask without it.")
    media_types = _media_types(given.get("contentType", ""), header)
    if media_types[0] == negotiate.DICOM:
        form, accept = Form.DICOM, _dicom(given)
    else:
        form = Form.RENDERED
        choices = tuple((m, None) for m in dict.fromkeys(media_types) if m != negotiate.DICOM)
        accept = Accept(choices=choices, multipart=False)
    ignored = ("charset", *(_RENDERING if form is Form.DICOM else ("transferSyntax",)))
    unread = [name for name in ignored if given.get(name, "utf-8").lower() != "utf-8"]
    notices += [f"{name} counts for nothing in {media_types[0]} and was ignored" for name in unread]
    target = Target(
        study_uid=given["studyUID"],
        series_uid=given["seriesUID"],
        instance_uid=given["objectUID"],
        form=form,
        frames=_frames(given) if form is Form.RENDERED else (),
        parameters=_rendering(given) if form is Form.RENDERED else {},
    )
    return UriRequest(target=target, accept=accept, notices=tuple(notices))


def _media_types(content_type: str, header: Sequence[MediaRange]) -> list[str]:
    """`contentType` ranks above the header, which serves where it names nothing that can be had (§8.7.8.1)."""
    ranges = parse_accept(content_type) if content_type else ()
    if any(r.transfer_syntax or r.charset for r in ranges):  # §9.1.2.2.1
        raise BadRequest("contentType takes no parameters: use transferSyntax and charset.")
    if any(r.content == negotiate.DICOM for r in ranges) and len(ranges) > 1:
        raise BadRequest("contentType takes application/dicom, or types of pictures.")
    return [offer.media_type for offer in negotiate.choose([ranges, header], OFFERS)]


def _dicom(given: dict[str, str]) -> Accept:
    for name in _WINDOW:
        if name in given:  # §9.5.1.2.6
            raise BadRequest(f"{name} is not for application/dicom.")
    syntax = given.get("transferSyntax", EXPLICIT)
    if syntax != "*" and not UID_PATTERN.fullmatch(syntax):  # `*` is not in §9, but viewers send it
        raise BadRequest(f"transferSyntax: not a UID: {syntax[:70]!r}.")
    if syntax in FORBIDDEN_SYNTAXES:
        raise NotAcceptable(
            "transferSyntax takes Explicit VR Little Endian, a compressed transfer syntax or * (as stored)."
        )
    or_stored = "transferSyntax" not in given
    return Accept(choices=((negotiate.DICOM, syntax),), multipart=False, or_stored=or_stored)


def _frames(given: dict[str, str]) -> tuple[int, ...]:
    text = given.get("frameNumber")
    return () if text is None else (int(_checked("frameNumber", text, _FRAME, "a whole number from 1")),)


def _rendering(given: dict[str, str]) -> dict[str, str]:
    """→ the parameters of a rendered resource of WADO-RS (§8.3.5)."""
    made: dict[str, str] = {}
    window = [
        _checked(name, given[name], _DECIMAL, "a decimal number").removeprefix("+") for name in _WINDOW if name in given
    ]
    if len(window) == 1:
        raise BadRequest("windowCenter and windowWidth are given together or not at all.")
    if window:
        made["window"] = ",".join([*window, "linear"])
    size = {name: _checked(name, given[name], _COUNT, "a whole number from 1") for name in _SIZE if name in given}
    if size:
        # The standard wants both; older viewers give one. The picture is fitted into it and keeps its proportions.
        only = next(iter(size.values()))
        made["viewport"] = f"{size.get('columns', only)},{size.get('rows', only)}"
    if "imageQuality" in given:
        made["quality"] = _checked("imageQuality", given["imageQuality"], _QUALITY, "a whole number from 1 to 100")
    for name in ("annotation", "imageAnnotation"):  # §9.4 and §9.5 call it differently
        if name in given:
            made["annotation"] = _checked(name, given[name], _ANNOTATION, "patient, technique or both")
    return made


def _checked(name: str, value: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(value):
        raise BadRequest(f"{name} takes {what}, not {value[:32]!r}.")
    return value
