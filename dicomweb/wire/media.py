"""Media types: reading `Accept` as clients really send it, choosing, and writing content types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from federation.errors import BadRequest

EXPLICIT = "1.2.840.10008.1.2.1"
#: Shall not be used with Web Services, PS3.18 §8.7.3.
FORBIDDEN_SYNTAXES = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"})
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: A parameter's value: quoted, or anything up to the next separator (OHIF sends `type=image/jpeg` unquoted).
_PARAMETER = re.compile(rf';\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"]*))')
_RANGE = re.compile(rf"\s*({_WORD}/{_WORD}|\*)")
_RANGE_END = re.compile(r"[\s;]*(?:,|\Z)")
#: A quality as RFC 9110 §12.4.2 writes it, and as clients do (`.2`, `1.0000`).
_QUALITY = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)
#: What is given is UTF-8; a client that can take everything, or ASCII's superset, can take that.
_UTF_8 = frozenset({"", "*", "utf-8", "utf8"})
_PARTS_TYPES = frozenset({"multipart/related", "multipart/*"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One element of an `Accept` list."""

    media_type: str  # lower case; of multipart/related
    type: str = ""  # its `type` parameter, lower case
    transfer_syntax: str = ""
    charset: str = ""  # lower case
    quality: float = 1.0

    @property
    def multipart(self) -> bool:
        return self.media_type in _PARTS_TYPES

    @property
    def content(self) -> str:
        """What a part (or the single body) is to be; `*/*` if it is not said."""
        return (self.type or "*/*") if self.multipart else self.media_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One representation that can be had. `transfer_syntax` None = there is none to choose, `*` = as stored.

    `default_syntax` = what a range that names no transfer syntax asks for. `text` = it is in UTF-8.
    """

    media_type: str  # of the single body or of each part
    multipart: bool = False
    transfer_syntax: str | None = None
    default_syntax: str | None = None
    text: bool = False

    def __str__(self) -> str:
        return f'multipart/related; type="{self.media_type}"' if self.multipart else self.media_type


def fit(wanted: MediaRange, offer: Offer) -> int | None:
    """How specifically a range names an offer (more is more specific), None if it does not cover it.

    RFC 9110 §12.5.1: `type/subtype;parameter` before `type/subtype`, before `type/*`, before `*/*`.
    """
    if wanted.media_type != "*/*" and wanted.multipart is not offer.multipart:
        return None
    if not covers(wanted.content, offer.media_type):
        return None
    if (wanted.transfer_syntax or offer.default_syntax) != offer.transfer_syntax:
        return None
    if offer.text and wanted.charset not in _UTF_8:
        return None
    kind, _, subtype = wanted.content.partition("/")
    named = 0 if kind == "*" else 1 if subtype == "*" else 2
    return 8 * named + 4 * wanted.multipart + 2 * bool(wanted.transfer_syntax) + bool(wanted.charset)


def ranked(wanted: Sequence[MediaRange], offers: Sequence[Offer]) -> list[Offer]:
    """Offers that are acceptable, best first: by `q`, then by how specifically they are named, then as they are
    listed. The most specific range that covers an offer gives its quality, 0 = refused (RFC 9110 §12.5.1).

    For each range the first of the offers only: one wish is one attempt at a member.
    """
    found: list[tuple[float, int, int, Offer]] = []
    taken: set[int] = set()
    for offer in offers:
        best: tuple[int, float, int] | None = None  # (specificity, quality, -place): of two alike the better one
        for place, media_range in enumerate(wanted):
            specificity = fit(media_range, offer)
            if specificity is not None:
                candidate = (specificity, media_range.quality, -place)
                best = candidate if best is None else max(best, candidate)
        if best is not None and best[1] > 0 and best[2] not in taken:
            taken.add(best[2])
            found.append((-best[1], -best[0], -best[2], offer))
    return [offer for *_, offer in sorted(found, key=lambda item: item[:3])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentType:
    media_type: str
    parameters: dict[str, str]


def parse_content_type(value: str) -> ContentType:
    match = _RANGE.match(value)
    if match is None:
        return ContentType(media_type="", parameters={})
    return ContentType(
        media_type=match[1].lower(),
        parameters={m[1].lower(): _unquoted(m) for m in _PARAMETER.finditer(value, match.end())},
    )


@lru_cache(maxsize=512)
def parse_accept(value: str) -> tuple[MediaRange, ...]:
    """An `Accept` header → ranges, best first (by `q`, then as listed; refused ones, `q=0`, last).

    Raises `BadRequest`.
    """
    ranges: list[MediaRange] = []
    at = 0
    while at < len(value):
        match = _RANGE.match(value, at)
        if match is None:
            if value[at:].strip(" \t,") == "":
                break
            raise BadRequest(f"The Accept header can't be read from here: {value[at : at + 40]!r}.")
        at = match.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(value, at)) is not None:
            parameters[parameter[1].lower()] = _unquoted(parameter)
            at = parameter.end()
        rest = _RANGE_END.match(value, at)
        if rest is None:
            raise BadRequest(f"The Accept header can't be read from here: {value[at : at + 40]!r}.")
        at = rest.end()
        ranges.append(_media_range("*/*" if match[1] == "*" else match[1].lower(), parameters))
    return tuple(sorted(ranges, key=lambda r: -r.quality))


def _unquoted(parameter: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", parameter[2]) if parameter[2] is not None else (parameter[3] or "").strip()


def _media_range(media_type: str, parameters: dict[str, str]) -> MediaRange:
    part_type, inner, rest = parameters.get("type", "").partition(";")
    if inner:  # some clients write the part's parameters into its type: type="application/dicom;transfer-syntax=…"
        within = {m[1].lower(): _unquoted(m) for m in _PARAMETER.finditer(f";{rest}")}
        parameters = {**within, **parameters}
    syntax = parameters.get("transfer-syntax", "")
    if syntax not in ("", "*") and not _UID.fullmatch(syntax):
        raise BadRequest(f"Not a transfer syntax UID: {syntax[:70]!r}.")
    quality = parameters.get("q", "1")
    if not _QUALITY.fullmatch(quality):
        raise BadRequest(f"Not a quality value: q={quality[:20]!r}.")
    return MediaRange(
        media_type=media_type,
        type=part_type.strip().lower(),
        transfer_syntax=syntax,
        charset=parameters.get("charset", "").lower(),
        quality=min(1.0, max(0.0, float(quality))),
    )


def covers(wanted: str, offered: str) -> bool:
    """Does a media range (`image/*`) cover a media type?"""
    if wanted in ("*/*", offered):
        return True
    kind, _, subtype = wanted.partition("/")
    return subtype == "*" and offered.startswith(kind + "/")


def gzip_wanted(accept_encoding: str) -> bool:
    """Is gzip acceptable, and no less wanted than no compression (RFC 9110 §12.5.3)? What can't be read is refused."""
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        quality = next((p.partition("=")[2].strip() for p in parameters if p.startswith("q")), "1")
        weights.setdefault(coding, float(quality) if _QUALITY.fullmatch(quality) else 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def part_content_type(media_type: str, transfer_syntax: str) -> str:
    return f"{media_type}; transfer-syntax={transfer_syntax}" if transfer_syntax else media_type


def related(part_type: str, boundary: str, transfer_syntax: str = "") -> str:
    syntax = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
    return f'multipart/related; type="{part_type}"{syntax}; boundary={boundary}'
