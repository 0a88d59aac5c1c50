"""QIDO-RS query strings (PS3.18 §8.3.4, §10.6.1.2): parsed into the engine's `Query`, and written for members."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_plus

from pydicom.datadict import tag_for_keyword

from federation.dictionary import vr_of
from federation.errors import BadRequest
from federation.model import UID_PATTERN, Level, Query, Scope

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_MONTH, _DAY, _HOUR, _SIXTY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])", "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_SECOND = r"(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?"
_DATE = re.compile(rf"[0-9]{{4}}(?:{_MONTH}(?:{_DAY})?)?|[0-9]{{4}}-{_MONTH}-{_DAY}")
_TIME = re.compile(rf"{_HOUR}(?::?{_SIXTY}(?::?{_SECOND})?)?")
_DATE_TIME = re.compile(
    rf"[0-9]{{4}}(?:{_MONTH}(?:{_DAY}(?:{_HOUR}(?:{_SIXTY}(?:{_SECOND})?)?)?)?)?(?:[+-]{_HOUR}{_SIXTY})?"
)
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,12}\s*")
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
#: Parameters that are not attributes; `accept` and `own_site` are read by the façade.
RESERVED = frozenset(
    {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching"}
    | {"accept", "charset", "own_site"}
)
#: No criterion, but how those of dates and times are meant (PS3.4 §C.2.2.2.5).
_TIMEZONE = "00080201"
VALUE_MAX = 4096
#: What a query may hold as it is (RFC 3986 §3.4) and no server takes for more than itself.
_PLAIN = "*,@?:/'()!$"
#: Attributes that are matched with wildcards (PS3.4 §C.2.2.2.4).
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
#: Alternatives that are asked of a member one by one; for more of them, any value is asked for.
_SEARCHES_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    query: Query
    notices: tuple[str, ...]
    own_site: bool | None  # the `own_site` parameter, None = not given


def pairs(query_string: str) -> list[tuple[str, str]]:
    """`a=b&c=d` → decoded pairs. Undecodable UTF-8 is refused, not replaced."""
    out = []
    for piece in query_string.split("&"):
        if not piece:
            continue
        name, _, value = piece.partition("=")
        try:
            out.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")))
        except UnicodeDecodeError:
            raise BadRequest(f"The parameter {name[:64]!r} is not UTF-8.") from None
    return out


def parse(
    query_string: str, level: Level, scope: Scope, *, study_uid: str | None = None, series_uid: str | None = None
) -> Parsed:
    """Raises `BadRequest` that names the parameter; an unknown name is ignored with a notice."""
    filters: dict[str, str] = {}
    include: set[str] = set()
    include_all = fuzzy = False
    limit: int | None = None
    offset = 0
    own_site: bool | None = None
    notices: list[str] = []
    once: set[str] = set()
    for name, value in pairs(query_string):
        if len(value) > VALUE_MAX:
            raise BadRequest(f"The value of {name[:64]!r} is longer than {VALUE_MAX} characters.")
        reserved = name.lower() if name.lower() in RESERVED else ""
        if reserved in once:
            raise BadRequest(f"{reserved} is given twice.")
        if reserved and reserved != "includefield":
            once.add(reserved)
        match reserved:
            case "limit":
                limit = _count(name, value)
            case "offset":
                offset = _count(name, value)
            case "fuzzymatching":
                fuzzy = _flag(name, value)
            case "includefield":
                for item in value.split(","):
                    if item.strip().lower() == "all":
                        include_all = True
                    elif item.strip():
                        path = _included(item.strip())
                        if path is None:
                            notices.append(f"includefield names no known attribute and was ignored: {shown(item)}")
                        else:
                            include.add(path)
            case "own_site":
                own_site = _own_site(value)
            case "charset":  # PS3.18 §8.3.3.2
                if not {"utf-8", "*"} & {c.partition(";")[0].strip().lower() for c in value.split(",")}:
                    notices.append("The answer is in UTF-8: no other character set is given")
            case "emptyvaluematching" | "multiplevaluematching":  # PS3.18 §8.3.4
                if _flag(name, value):
                    notices.append(f"{reserved} is not offered here and was ignored")
            case "accept":
                pass
            case _:
                path = tag_path(name)
                if path is None:
                    notices.append(f"Unknown parameter ignored: {shown(name)}")
                    continue
                if path == _TIMEZONE:
                    notices.append("TimezoneOffsetFromUTC was ignored: times are matched as sources store them")
                    continue
                if path in filters:
                    raise BadRequest(f"{name} is given twice; give it once, UID lists separated by commas.")
                wanted = value.strip()
                if wanted.strip("*"):
                    filters[path] = _checked(name, path, wanted)
                else:
                    include.add(path.partition(".")[0])  # universal matching asks for the attribute
    for tag, uid in (("0020000D", study_uid), ("0020000E", series_uid)):
        if uid is not None and tag in filters and filters.pop(tag) != uid:
            raise BadRequest(f"{tag} contradicts the path.")
    query = Query(
        level=level,
        scope=scope,
        filters=filters,
        include=frozenset(include),
        include_all=include_all,
        fuzzy=fuzzy,
        limit=limit,
        offset=offset,
        study_uid=study_uid,
        series_uid=series_uid,
    )
    return Parsed(query=query, notices=tuple(notices), own_site=own_site)


def shown(text: str) -> str:
    """A client's own word, fit for a header."""
    return re.sub(r"[^A-Za-z0-9_.-]", "?", text[:64])


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise BadRequest(f"{name} takes a whole number from 0, not {value[:32]!r}.")
    return int(value.strip())


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"{name} takes true or false, not {value[:32]!r}.")
    return value.lower() == "true"


def _own_site(value: str) -> bool:
    if value not in ("include", "exclude"):
        raise BadRequest(f"own_site takes include or exclude, not {value[:32]!r}.")
    return value == "include"


@lru_cache(maxsize=4096)
def tag_path(name: str) -> str | None:
    """`PatientName`, `00100010`, `00400275.00400009` → tag path; None if a keyword is unknown.

    What looks like a tag and is none raises `BadRequest`.
    """
    path = []
    for part in name.split("."):
        if _TAG.fullmatch(part):
            path.append(part.upper())
        elif part[:1].isdigit():
            raise BadRequest(f"Not a tag of eight hexadecimal digits: {part[:32]!r}.")
        else:
            tag = tag_for_keyword(part) if part else None  # pydicom's dictionary has an entry without a keyword
            if tag is None:
                return None
            path.append(f"{tag:08X}")
    return ".".join(path)


def _included(name: str) -> str | None:
    path = tag_path(name)
    return path if path is None else path.partition(".")[0]


def _checked(name: str, path: str, value: str) -> str:
    """The value, if it is one of the attribute's VR (PS3.5 §6.2)."""
    vr = vr_of(path.rpartition(".")[2])
    if vr == "UI":
        uids = [u.strip() for u in re.split(r"[\\,]", value) if u.strip()]
        if not uids:
            raise BadRequest(f"{name}: not a UID: {value[:70]!r}.")
        for uid in uids:
            if not UID_PATTERN.fullmatch(uid):
                raise BadRequest(f"{name}: not a UID: {uid[:70]!r}.")
        return ",".join(uids)
    if vr == "CS":  # alternatives; members tell `CT` from what is padded
        return "\\".join(v for part in value.split("\\") if (v := part.strip())) or value
    if vr == "PN" and value.count("=") > 2:  # PS3.5 §6.2.1.1; members are asked for each of them
        raise BadRequest(f"{name}: a name has three groups at most.")
    pattern = {"DA": _DATE, "TM": _TIME, "DT": _DATE_TIME}.get(vr)
    if pattern is not None:
        return _range(name, value, pattern)
    numbers = {"IS": _INTEGER, "DS": _DECIMAL, "US": _INTEGER, "UL": _INTEGER, "SS": _INTEGER, "SL": _INTEGER}.get(vr)
    if numbers is not None and not all(numbers.fullmatch(v) for v in value.split("\\")):
        raise BadRequest(f"{name}: not a number: {value[:32]!r}.")
    return value


def _range(name: str, value: str, pattern: re.Pattern[str]) -> str:
    if pattern.fullmatch(value):
        return _compact(value)
    # `a-b`, `-b`, `a-`; people write dates with hyphens too, so every hyphen is tried as the one between
    for i, c in enumerate(value):
        low, high = value[:i], value[i + 1 :]
        if c == "-" and (low or high) and all(not p or pattern.fullmatch(p) for p in (low, high)):
            return f"{_compact(low)}-{_compact(high)}"
    raise BadRequest(f"{name}: not a date, time or range: {value[:48]!r}.")


def _compact(value: str) -> str:
    return value.replace("-", "").replace(":", "") if re.match(r"[0-9]{4}-|[0-9]{2}:", value) else value


def for_member(
    filters: Mapping[str, str], include: Sequence[str], *, include_all: bool, limit: int, offset: int
) -> str:
    """A query string for a member, percent-encoded where it must be."""
    return _for_member(tuple(filters.items()), tuple(include), include_all, limit, offset)


@lru_cache(maxsize=512)  # a region's members are asked the same
def _for_member(
    filters: tuple[tuple[str, str], ...], include: tuple[str, ...], include_all: bool, limit: int, offset: int
) -> str:
    items = [*filters]
    if include_all:
        items.append(("includefield", "all"))  # some members don't know it: what we need is named all the same
    items += [("includefield", tag) for tag in include]
    items += [("limit", str(limit))]
    if offset:
        items.append(("offset", str(offset)))
    return "&".join(f"{quote(k, safe='')}={quote(v, safe=_PLAIN)}" for k, v in items)


def is_plain(filters: Mapping[str, str]) -> bool:
    """True if nothing in a query string for these has to be percent-encoded."""
    return all(quote(value, safe=_PLAIN) == value for value in filters.values())


def without_escapes(filters: Mapping[str, str]) -> list[dict[str, str]]:
    """Searches for a member that takes percent-encoded text literally (Orthanc 1.10 does): a wildcard for each
    character that would be encoded, alternatives apart. Together their answers hold every match, and more."""
    searches: list[dict[str, str]] = [{}]
    for path, value in filters.items():
        values = [value]
        if vr_of(path.rpartition(".")[2]) in _WILDCARD_VRS:
            values = list(dict.fromkeys(_without_escapes(v) for v in value.split("\\")))
            if len(values) * len(searches) > _SEARCHES_MAX:
                values = ["*"]
        searches = [{**search, path: v} for search in searches for v in values]
    return searches


def _without_escapes(value: str) -> str:
    # `*` for what is no ASCII: a server may count its bytes.
    plain = "".join(c if quote(c, safe=_PLAIN) == c else "?" if c.isascii() else "*" for c in value)
    return re.sub(r"\*+", "*", plain)
