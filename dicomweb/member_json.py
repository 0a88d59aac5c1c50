"""DICOM JSON as members send it (PS3.18 Annex F): read up to a cap, with no trust in what comes."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import orjson

from federation.dictionary import vr_of
from federation.errors import MemberGarbage
from federation.identity import single
from federation.model import Attributes

_TAG = re.compile(r"[0-9A-F]{8}")
#: Tags that were seen to be ones: the same few hundred stand in every row.
_TAGS: set[str] = set()
_TAGS_MAX = 10_000
#: Those among them that the dictionary calls sequences.
_SEQUENCES: set[str] = set()
#: What tells whose an exam is has one value, PatientID before all. Where several stand, they are one: of two ids that
#: differ in the second value only, the first must not be taken for both.
_SINGLE = frozenset({"00100020", "00100021", "00080100", "00080102", "00400032"})


async def read(response: aiohttp.ClientResponse, cap: int) -> bytes:
    if response.content_length is not None and response.content_length > cap:
        raise MemberGarbage(f"an answer of more than {cap >> 20} MB")
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > cap:
            raise MemberGarbage(f"an answer of more than {cap >> 20} MB")
        chunks.append(chunk)
    return b"".join(chunks)


def data_sets(raw: bytes, charset: str = "") -> list[Attributes]:
    """A body of DICOM JSON → data sets (PS3.18 Annex F). Raises `MemberGarbage`."""
    if not raw.strip():
        return []
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _loads_in(raw, charset)
    if isinstance(value, dict):
        value = [value]  # some servers leave the array out for a single data set
    if not isinstance(value, list):
        raise MemberGarbage("not an array of data sets")
    for item in value:
        _check(item)
    return value


def _loads_in(raw: bytes, charset: str) -> Any:
    """JSON shall be UTF-8; one that is not may still be in the character set that it names, or in Latin-1."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        named = charset if charset.lower() not in ("utf-8", "utf8") else ""  # many name it unasked, and lie
        try:
            return orjson.loads(raw.decode(named or "cp1252", "strict"))
        except (LookupError, ValueError):
            raise MemberGarbage("not JSON") from None
    raise MemberGarbage("not JSON")


def _check(item: Any) -> None:
    """Tags → objects with list values, UIDs without padding: what the engine relies on. Null values are dropped."""
    if not isinstance(item, dict):
        raise MemberGarbage("not a data set")
    if not item.keys() <= _TAGS:
        _check_tags(item)
    for tag, content in item.items():
        if not isinstance(content, dict):
            raise MemberGarbage("not a data set")
        vr = content.get("vr")
        if not isinstance(vr, str):  # left out, or nothing that could be one: the dictionary's counts
            content.pop("vr", None)
            vr = vr_of(tag)
        values = content.get("Value")
        if values is None:
            content.pop("Value", None)
        elif not isinstance(values, list):
            raise MemberGarbage("a value that is no array")
        elif vr == "SQ" or tag in _SEQUENCES:  # read as one, whatever it is called
            for nested in values:
                if isinstance(nested, dict) or (vr == "SQ" and nested is not None):
                    _check(nested)
        elif len(values) > 1 and tag in _SINGLE:
            content["Value"] = [single(values)]
        elif vr == "UI":
            content["Value"] = [v.strip(" \0") if isinstance(v, str) else v for v in values]


def _check_tags(item: dict[str, Any]) -> None:
    for tag in [*item]:
        upper = tag.upper()
        if not _TAG.fullmatch(upper):
            raise MemberGarbage("not a data set")
        if upper != tag:
            item[upper] = item.pop(tag)  # shall be upper case, PS3.18 §F.2.2; not all are
        if vr_of(upper) == "SQ":
            _SEQUENCES.add(upper)
        if len(_TAGS) < _TAGS_MAX:
            _TAGS.add(upper)
