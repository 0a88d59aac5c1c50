"""What a client can take, for each form of a resource (PS3.18 §8.7, §10.4). Raises 400 or 406."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from dicomweb.wire.media import EXPLICIT, FORBIDDEN_SYNTAXES, MediaRange, Offer, covers, ranked
from federation.errors import BadRequest, NotAcceptable
from federation.model import Accept

DICOM, OCTETS, DICOM_XML = "application/dicom", "application/octet-stream", "application/dicom+xml"
JSON_TYPES = ("application/dicom+json", "application/json")
RENDERED_TYPES = ("image/jpeg", "image/png", "image/gif", "video/mp4", "video/mpeg")
#: Compressed single frames as parts of `frames`, PS3.18 table 8.7.3-5.
FRAME_TYPES = (
    "image/jpeg",
    "image/jls",
    "image/x-jls",
    "image/jp2",
    "image/jpx",
    "image/jxl",
    "image/jphc",
    "image/dicom-rle",
    "image/x-dicom-rle",
    "video/mpeg2",
    "video/mp4",
    "video/h265",
)
#: What can be had of each kind of resource, the default first. What a member gives is its own business: of these,
#: it may still say that it can't.
ATTRIBUTES = (
    *(Offer(media_type=t, text=True) for t in JSON_TYPES),
    Offer(media_type=DICOM_XML, multipart=True, text=True),
)
#: The answer to a store, one data set.
STORED = (
    *(Offer(media_type=t, text=True) for t in JSON_TYPES),
    Offer(media_type=DICOM_XML, text=True),
)
RENDERED = tuple(Offer(media_type=t) for t in RENDERED_TYPES)
BULKDATA = tuple(Offer(media_type=OCTETS, multipart=m) for m in (True, False))
INSTANCES = tuple(
    Offer(media_type=DICOM, multipart=m, transfer_syntax=EXPLICIT, default_syntax=EXPLICIT) for m in (True, False)
)
FRAMES = (
    *(Offer(media_type=OCTETS, multipart=m, transfer_syntax=EXPLICIT, default_syntax=EXPLICIT) for m in (True, False)),
    *(Offer(media_type=t, multipart=m) for t in FRAME_TYPES for m in (True, False)),
)
_ANYTHING = (MediaRange(media_type="*/*"),)
RENDER_PARAMETERS = frozenset({"window", "viewport", "quality", "annotation", "iccprofile"})
_NUMBER = r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_WINDOW = re.compile(rf"{_NUMBER},{_NUMBER}(?:,(?:linear|linear-exact|sigmoid))?")
_VIEWPORT = re.compile(rf"[1-9][0-9]{{0,4}},[1-9][0-9]{{0,4}}(?:,(?:{_NUMBER})?){{0,4}}")
_QUALITY = re.compile(r"[1-9][0-9]?|100")
_PROFILES = frozenset({"no", "yes", "srgb", "adobergb", "rommrgb", "displayp3"})  # PS3.18 §8.3.5.1.5


def choose(accepted: Sequence[Sequence[MediaRange]], offers: Sequence[Offer]) -> list[Offer]:
    """The acceptable offers, best first. Raises `NotAcceptable`, which names them all.

    `accepted` are lists of ranges, each ranked by itself: those of the `accept` parameter come before those of the
    header, which serve where none of the parameter's can be given (PS3.18 §8.7.8.1). None at all = anything.
    """
    lists = [ranges for ranges in accepted if ranges] or [_ANYTHING]
    found = list(dict.fromkeys(offer for ranges in lists for offer in ranked(ranges, _in_syntaxes(ranges, offers))))
    if not found:
        raise NotAcceptable(f"This resource is to be had as {_listed(offers)}.")
    return found


def _in_syntaxes(ranges: Sequence[MediaRange], offers: Sequence[Offer]) -> list[Offer]:
    """The offers, and each of them in every transfer syntax that the ranges name for it."""
    made = list(offers)
    for wanted in ranges:
        syntax = wanted.transfer_syntax
        if syntax and syntax not in FORBIDDEN_SYNTAXES:
            made += [replace(o, transfer_syntax=syntax) for o in offers if covers(wanted.content, o.media_type)]
    return list(dict.fromkeys(made))


def _listed(offers: Sequence[Offer]) -> str:
    names = [str(offer) for offer in offers]
    several = ", ".join(names[:-1])
    listed = f"{several} or {names[-1]}" if several else names[-1]
    if any(offer.transfer_syntax for offer in offers):
        listed += ", in Explicit VR Little Endian, a compressed transfer syntax or as stored (transfer-syntax=*)"
    if any(offer.text for offer in offers):
        listed += ", in UTF-8"
    return listed


@lru_cache(maxsize=256)
def attributes(*accepted: tuple[MediaRange, ...]) -> Offer:
    """The form of metadata and search results; no Accept header means JSON."""
    return choose(accepted, ATTRIBUTES)[0]


@lru_cache(maxsize=256)
def stored(*accepted: tuple[MediaRange, ...]) -> Offer:
    """The form of an answer to a store. Some clients ask for it as they do for rows."""
    lists = [[replace(r, media_type=r.content, type="") for r in ranges] for ranges in accepted]
    return choose(lists, STORED)[0]


def _accept(found: Sequence[Offer], *, single: bool) -> Accept:
    """`single`: it is one part, so it may be asked for as a body by itself."""
    choices = tuple(dict.fromkeys((offer.media_type, offer.transfer_syntax) for offer in found))
    # For more than one part there is no single body: it comes as parts, which real clients take.
    return Accept(choices=choices, multipart=found[0].multipart or not single)


@lru_cache(maxsize=256)
def dicom(*accepted: tuple[MediaRange, ...], single_instance: bool) -> Accept:
    """Part-10 instances. Without a transfer syntax the default is Explicit VR Little Endian, PS3.18 §8.7.3.5.2."""
    accept = _accept(choose(accepted, INSTANCES), single=single_instance)
    ranges = [r for one in accepted for r in one if covers(r.content, DICOM)]
    return replace(accept, or_stored=not ranges or any(not r.transfer_syntax and r.quality > 0 for r in ranges))


@lru_cache(maxsize=256)
def frames(*accepted: tuple[MediaRange, ...], single: bool) -> Accept:
    """Frames as uncompressed octets, as stored (`transfer-syntax=*`), or in a compressed form by its media type."""
    return _accept(choose(accepted, FRAMES), single=single)


@lru_cache(maxsize=256)
def bulkdata(*accepted: tuple[MediaRange, ...]) -> Accept:
    found = choose(accepted, BULKDATA)
    return Accept(choices=((OCTETS, None),), multipart=found[0].multipart)


@lru_cache(maxsize=256)
def rendered(*accepted: tuple[MediaRange, ...]) -> Accept:
    """One picture. DICOM and rendered types in one list are a contradiction, PS3.18 §8.3.3.1."""
    for ranges in accepted:
        if any(r.content == DICOM for r in ranges) and any(r.content.startswith(("image/", "video/")) for r in ranges):
            raise BadRequest("The Accept header mixes DICOM and rendered media types; ask for one kind.")
    # Some clients ask for a picture as a part: it comes as one body, as it does from other servers.
    lists = [[replace(r, media_type=r.content, type="") for r in ranges] for ranges in accepted]
    return Accept(choices=tuple((o.media_type, None) for o in choose(lists, RENDERED)), multipart=False)


def render_parameters(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """→ (the checked parameters of rendered resources, names that are none). PS3.18 §8.3.5."""
    known: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in given.items():
        if name == "accept":
            continue
        if name not in RENDER_PARAMETERS:
            unknown.append(name)
            continue
        if name == "quality" and not _QUALITY.fullmatch(value):
            raise BadRequest("quality takes a whole number from 1 to 100.")
        if name == "window" and not _WINDOW.fullmatch(value.lower()):
            raise BadRequest("window takes center,width,function with function linear, linear-exact or sigmoid.")
        if name == "viewport" and not _VIEWPORT.fullmatch(value):
            raise BadRequest("viewport takes width,height[,x,y,width,height] in pixels.")
        if name == "annotation" and not set(value.split(",")) <= {"patient", "technique"}:
            raise BadRequest("annotation takes patient, technique or both.")
        if name == "iccprofile" and value.lower() not in _PROFILES:
            raise BadRequest(f"iccprofile takes one of {', '.join(sorted(_PROFILES))}.")
        known[name] = value
    return known, unknown


def frame_list(text: str) -> tuple[int, ...]:
    """`1,2,5` → numbers from 1. At most 1,000 of them."""
    numbers = text.split(",")
    if len(numbers) > 1000 or not all(re.fullmatch(r"[1-9][0-9]{0,6}", n) for n in numbers):
        raise BadRequest("Frames are named by a list of numbers from 1, such as 1,2,5.")
    if len(set(numbers)) != len(numbers):
        raise BadRequest("A frame is named twice.")
    return tuple(map(int, numbers))
