"""STOW-RS of the façade (PS3.18 §10.5): the request's body read as it comes, and the answer for each instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import Receive

from dicomweb.links import FacadeLinks
from dicomweb.wire.media import parse_content_type
from dicomweb.wire.multipart import BadMultipart, MultipartReader
from federation.errors import BadRequest, RequestError, TooLarge
from federation.model import PART_END, Attributes, PartBegin, PartEvent
from federation.store import Kept, Stored, StoreLimits
from federation.tagging import element

DICOM = "application/dicom"
#: A client that sends nothing for so long, in seconds, has given up.
IDLE_S = 60.0


class Unsupported(RequestError):
    http_status = 415


class TooSlow(RequestError):
    http_status = 408


class Left(Exception):
    """The client broke off while it was sending: nobody waits for an answer."""


def body_of(
    request: Request, receive: Receive, limits: StoreLimits, *, idle_s: float = IDLE_S
) -> AsyncGenerator[Sequence[PartEvent], None]:
    """The instances of a request as they come. What is wrong with its head is raised at once.

    Later, from the generator: `BadRequest` for a body that is none, or is cut; `TooSlow`; `Left`.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.request + (1 << 20):
        raise TooLarge("The request is larger than is taken at once: send the instances in several requests.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unsupported("Send the instances without a Content-Encoding.")
    content_type = parse_content_type(request.headers.get("content-type", ""))
    root = content_type.parameters.get("type", "").lower().partition(";")[0].strip()
    if content_type.media_type == DICOM:
        return _single(receive, idle_s)
    if content_type.media_type != "multipart/related" or root not in (DICOM, ""):
        raise Unsupported(f'Send multipart/related; type="{DICOM}": instances as Part-10 files.')
    try:
        reader = MultipartReader(content_type.parameters.get("boundary", "").encode("latin-1", "replace"))
    except BadMultipart as error:
        raise BadRequest(f"The Content-Type can't be used: {error}.") from None
    return _parts(receive, reader, idle_s)


async def _single(receive: Receive, idle_s: float) -> AsyncGenerator[Sequence[PartEvent], None]:
    """One instance as the body itself."""
    yield [PartBegin(content_type=DICOM)]
    async for chunk in _chunks(receive, idle_s):
        yield [chunk]
    yield [PART_END]


async def _parts(receive: Receive, reader: MultipartReader, idle_s: float) -> AsyncGenerator[Sequence[PartEvent], None]:
    async for chunk in _chunks(receive, idle_s):
        try:
            events = reader.feed(chunk)
        except BadMultipart as error:
            raise BadRequest(f"The body can't be read: {error}.") from None
        if events:
            yield events
    if not reader.complete:
        raise BadRequest("The body ends without its closing boundary: nothing was stored.")


async def _chunks(receive: Receive, idle_s: float) -> AsyncGenerator[bytes, None]:
    while True:
        try:
            async with asyncio.timeout(idle_s):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"Nothing came for {idle_s:g} seconds: nothing was stored.") from None
        if message["type"] == "http.disconnect":
            raise Left
        if body := message.get("body"):
            yield body
        if not message.get("more_body", False):
            return


def status_of(stored: Stored) -> int:
    """200 all stored, 202 some only or with warnings, 409 none (PS3.18 §10.5.3.1)."""
    if not any(kept.stored for kept in stored.instances):
        return 409
    whole = not stored.unreadable and all(kept.stored and not kept.warning for kept in stored.instances)
    return 200 if whole else 202


def answer_of(stored: Stored, links: FacadeLinks) -> Attributes:
    """The Store Instances Response (PS3.18 §10.5.3.3, §I.2.2)."""
    answer: Attributes = {}
    site = stored.site
    kept = [k for k in stored.instances if k.stored]
    studies = {k.study_uid for k in kept}
    if site is not None and len(studies) == 1:
        answer["00081190"] = element("UR", f"{links.base}/sites/{site.emetteur}/dicom-web/studies/{studies.pop()}")
    if kept:
        items = []
        for one in kept:
            item = _named(one)
            if site is not None:
                item["00081190"] = element(
                    "UR", links.retrieve_url(site, one.study_uid, one.series_uid, one.sop_instance_uid)
                )
            if one.warning:
                item["00081196"] = element("US", one.warning)
            items.append(item)
        answer["00081199"] = {"vr": "SQ", "Value": items}
    failed = [k for k in stored.instances if not k.stored]
    if failed:
        answer["00081198"] = {
            "vr": "SQ",
            "Value": [{**_named(one), "00081197": element("US", int(one.failure))} for one in failed],
        }
    return answer


def _named(kept: Kept) -> dict[str, Any]:
    named = {"00081155": element("UI", kept.sop_instance_uid)}
    if kept.sop_class_uid:
        named["00081150"] = element("UI", kept.sop_class_uid)
    return named
