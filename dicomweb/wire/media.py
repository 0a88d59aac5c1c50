"""Media types: reading `Accept` as clients really send it, choosing, and writing content types."""

from __future__ import annotations

import re
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One element of an `Accept` list."""

    media_type: str  # lower case; of multipart/related
    type: str = ""  # its `type` parameter, lower case
    transfer_syntax: str = ""
    quality: float = 1.0

    @property
    def multipart(self) -> bool:
        return self.media_type == "multipart/related"

    @property
    def content(self) -> str:
        """What a part (or the single body) is to be; `*/*` if it is not said."""
        return (self.type or "*/*") if self.multipart else self.media_type


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
        parameters={
            m[1].lower(): re.sub(r"\\(.)", r"\1", m[2]) if m[2] is not None else (m[3] or "").strip()
            for m in _PARAMETER.finditer(value, match.end())
        },
    )


@lru_cache(maxsize=512)
def parse_accept(value: str) -> tuple[MediaRange, ...]:
    """An `Accept` header → ranges, best first (by `q`, then as listed). Raises `BadRequest`."""
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
            text = parameter[2] if parameter[2] is not None else (parameter[3] or "").strip()
            parameters[parameter[1].lower()] = text
            at = parameter.end()
        rest = _RANGE_END.match(value, at)
        if rest is None:
            raise BadRequest(f"The Accept header can't be read from here: {value[at : at + 40]!r}.")
        at = rest.end()
        syntax = parameters.get("transfer-syntax", "")
        if syntax not in ("", "*") and not _UID.fullmatch(syntax):
            raise BadRequest(f"Not a transfer syntax UID: {syntax[:70]!r}.")
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            raise BadRequest(f"Not a quality value: q={parameters['q'][:20]!r}.") from None
        media_type = "*/*" if match[1] == "*" else match[1].lower()
        ranges.append(
            MediaRange(
                media_type=media_type,
                type=parameters.get("type", "").lower(),
                transfer_syntax=syntax,
                quality=min(1.0, max(0.0, quality)),
            )
        )
    kept = [r for r in ranges if r.quality > 0]
    return tuple(sorted(kept, key=lambda r: -r.quality))


def covers(wanted: str, offered: str) -> bool:
    """Does a media range (`image/*`) cover a media type?"""
    if wanted in ("*/*", offered):
        return True
    kind, _, subtype = wanted.partition("/")
    return subtype == "*" and offered.startswith(kind + "/")


def part_content_type(media_type: str, transfer_syntax: str) -> str:
    return f"{media_type}; transfer-syntax={transfer_syntax}" if transfer_syntax else media_type


def related(part_type: str, boundary: str, transfer_syntax: str = "") -> str:
    syntax = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
    return f'multipart/related; type="{part_type}"{syntax}; boundary={boundary}'
