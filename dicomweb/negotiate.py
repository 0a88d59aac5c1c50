"""What a client can take, for each form of a resource (PS3.18 §8.7, §10.4). Raises 400 or 406."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dicomweb.wire.media import EXPLICIT, FORBIDDEN_SYNTAXES, MediaRange, covers
from federation.errors import BadRequest, NotAcceptable
from federation.model import Accept

DICOM, OCTETS = "application/dicom", "application/octet-stream"
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
_RENDER_PARAMETERS = frozenset({"window", "viewport", "quality", "annotation", "iccprofile"})
_NUMBER = r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_WINDOW = re.compile(rf"{_NUMBER},{_NUMBER}(?:,(?:linear|linear-exact|sigmoid))?")
_VIEWPORT = re.compile(rf"[1-9][0-9]{{0,4}},[1-9][0-9]{{0,4}}(?:,(?:{_NUMBER})?){{0,4}}")
_QUALITY = re.compile(r"[1-9][0-9]?|100")
_PROFILES = frozenset({"no", "yes", "srgb", "adobergb", "rommrgb", "displayp3"})  # PS3.18 §8.3.5.1.5


def json_type(ranges: Sequence[MediaRange]) -> str:
    """The JSON type to answer in; no Accept header means JSON."""
    if not ranges:
        return JSON_TYPES[0]
    for wanted in ranges:
        if not wanted.multipart:
            for offered in JSON_TYPES:
                if covers(wanted.media_type, offered):
                    return offered
    raise NotAcceptable("This resource is to be had as application/dicom+json or application/json.")


def _syntax(wanted: MediaRange) -> str | None:
    return wanted.transfer_syntax or None


def dicom(ranges: Sequence[MediaRange], *, single_instance: bool) -> Accept:
    """Part-10 instances. Without a transfer syntax the default is Explicit VR Little Endian, PS3.18 §8.7.3.5.2."""
    choices: list[tuple[str, str | None]] = []
    multipart: bool | None = None
    for wanted in ranges or (MediaRange(media_type="multipart/related", type=DICOM),):
        if not covers(wanted.content, DICOM) or wanted.transfer_syntax in FORBIDDEN_SYNTAXES:
            continue
        choices.append((DICOM, _syntax(wanted) or EXPLICIT))
        if multipart is None:
            # A single part was asked for by name; for more than one instance there is no such thing.
            multipart = not (single_instance and wanted.media_type == DICOM)
    if not choices:
        raise NotAcceptable(
            'This resource is to be had as multipart/related; type="application/dicom", in Explicit VR Little Endian '
            "or a compressed transfer syntax."
        )
    return Accept(choices=tuple(dict.fromkeys(choices)), multipart=bool(multipart))


def frames(ranges: Sequence[MediaRange], *, single: bool) -> Accept:
    """Frames as uncompressed octets, as stored (`transfer-syntax=*`), or in a compressed form by its media type."""
    choices: list[tuple[str, str | None]] = []
    multipart: bool | None = None
    for wanted in ranges or (MediaRange(media_type="multipart/related", type=OCTETS),):
        if wanted.transfer_syntax in FORBIDDEN_SYNTAXES:
            continue
        content = wanted.content
        if covers(content, OCTETS):
            choices.append((OCTETS, _syntax(wanted) or EXPLICIT))
        elif content in FRAME_TYPES:
            choices.append((content, _syntax(wanted)))
        elif content == "image/*":
            choices.append(("image/jpeg", _syntax(wanted)))
        else:
            continue
        if multipart is None:
            multipart = not (single and not wanted.multipart and wanted.media_type != "*/*")
    if not choices:
        raise NotAcceptable(
            'Frames are to be had as multipart/related; type="application/octet-stream" or an image type.'
        )
    return Accept(choices=tuple(dict.fromkeys(choices)), multipart=bool(multipart))


def bulkdata(ranges: Sequence[MediaRange]) -> Accept:
    if not ranges:
        return Accept(choices=((OCTETS, None),))
    for wanted in ranges:
        if covers(wanted.content, OCTETS):
            return Accept(choices=((OCTETS, None),), multipart=wanted.multipart or wanted.media_type == "*/*")
    raise NotAcceptable('Bulk data is to be had as multipart/related; type="application/octet-stream".')


def rendered(ranges: Sequence[MediaRange]) -> Accept:
    """One picture. DICOM and rendered types in one list are a contradiction, PS3.18 §8.7.4."""
    if any(r.content == DICOM for r in ranges) and any(r.content.startswith(("image/", "video/")) for r in ranges):
        raise BadRequest("The Accept header mixes DICOM and rendered media types; ask for one kind.")
    choices: list[tuple[str, str | None]] = []
    for wanted in ranges or (MediaRange(media_type=RENDERED_TYPES[0]),):
        offered = next((t for t in RENDERED_TYPES if covers(wanted.content, t)), None)
        if offered is not None:
            choices.append((offered, None))
    if not choices:
        raise NotAcceptable(f"A rendered picture is to be had as {', '.join(RENDERED_TYPES[:3])}.")
    return Accept(choices=tuple(dict.fromkeys(choices)), multipart=False)


def render_parameters(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """→ (the checked parameters of rendered resources, names that are none). PS3.18 §8.3.5."""
    known: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in given.items():
        if name == "accept":
            continue
        if name not in _RENDER_PARAMETERS:
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
