"""Ranges of dates and times (PS3.4 §C.2.2.2.5), each by itself or a date and its time as one. Pure.

QIDO-RS always has them combined (PS3.18 §8.3.4.1.1): StudyDate 20060705-20060707 with StudyTime 1000-1800 is the time
from the 5th at ten to the 7th at six, not from ten to six on each of the three days. C-FIND has them so where it was
negotiated. Members may know either, so they are asked for the dates only, and the times are looked at here.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from federation.dictionary import vr_of
from federation.model import Attributes


def matches_range(wanted: str, value: str) -> bool:
    """Dates and times: one value, `a-b`, `-b`, `a-`. A shorter bound stands for the whole period that it names."""
    value = _plain(value)
    if not value:
        return False
    low, dash, high = _plain(wanted).partition("-")
    if not dash:
        return value.startswith(low) or (low.startswith(value) and set(low[len(value) :]) <= {"0"})
    return _begun(low, value) and _not_over(high, value)


def _plain(text: str) -> str:
    return text.replace(":", "").replace(".", "")


def _begun(low: str, value: str) -> bool:
    return value.ljust(len(low), "0") >= low


def _not_over(high: str, value: str) -> bool:
    return not high or value[: len(high)] <= high


# A date and its time as one --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two filters that are one range: tag paths, and the values as typed."""

    date_path: str
    time_path: str
    dates: str
    times: str


def combined(filters: Mapping[str, str]) -> tuple[Pair, ...]:
    """Filters on a date and its time that are ranges of the same form: both `a-b`, both `a-` or both `-b`.

    Others match each by itself, also in combined matching (PS3.4 §C.2.2.2.5.4).
    """
    if len(filters) < 2:
        return ()
    return _combined(tuple(filters.items()))


@lru_cache(maxsize=1024)
def _combined(items: tuple[tuple[str, str], ...]) -> tuple[Pair, ...]:
    filters = dict(items)
    found = []
    for path, dates in items:
        form = _form(dates)
        if form is None or (time_path := time_of(path)) is None:
            continue
        times = filters.get(time_path, "")
        if _form(times) == form:
            found.append(Pair(path, time_path, dates, times))
    return tuple(found)


def _form(value: str) -> tuple[bool, bool] | None:
    """Which bounds a range has; None: it is none."""
    low, dash, high = value.partition("-")
    return (bool(low), bool(high)) if dash else None


@lru_cache(maxsize=4096)
def time_of(path: str) -> str | None:
    """The tag path of the time that belongs to a date: `00080020` → `00080030`. By their keywords: StudyDate,
    StudyTime; DateOfLastCalibration, TimeOfLastCalibration."""
    above, dot, tag = path.rpartition(".")
    if vr_of(tag) != "DA":
        return None
    try:
        head, _, tail = keyword_for_tag(int(tag, 16)).rpartition("Date")
        time = tag_for_keyword(f"{head}Time{tail}")
    except KeyError:
        return None
    return f"{above}{dot}{time:08X}" if time is not None and dictionary_VR(time) == "TM" else None


def matches_pair(row: Attributes, pair: Pair) -> bool:
    """Does a row lie within a combined range, in one item where it is in a sequence? True where the member gave no
    such date: it matched, we can't tell."""
    return _within(row, pair.date_path.split("."), pair.time_path.rpartition(".")[2], pair)


def _within(row: Attributes, path: list[str], time_tag: str, pair: Pair) -> bool:
    tag, *rest = path
    if not isinstance(row.get(tag), dict):
        return True
    values = _values(row, tag)
    if rest:
        return any(_within(item, rest, time_tag, pair) for item in values if isinstance(item, dict))
    moments = list(zip_longest(values, _values(row, time_tag)))[: len(values)]
    return any(matches_moment(pair.dates, pair.times, _text(date), _text(time)) for date, time in moments)


def _values(row: Attributes, tag: str) -> list[object]:
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(value: object) -> str:
    return "" if value is None else str(value)


def matches_moment(dates: str, times: str, date: str, time: str) -> bool:
    """Does `date` (DA) with `time` (TM) lie within the range that `dates` and `times` give together?

    An exam whose time is not known is found on the first and on the last day too: it may lie within.
    """
    date, time = _plain(date), _plain(time)
    if not date:
        return False
    first, _, last = _plain(dates).partition("-")
    low, _, high = _plain(times).partition("-")
    day = date.ljust(8, "0")[:8]
    begin = _first_day(first) if first else ""
    if not time:
        time = low if day == begin else "00"  # whichever lies within, if any does
    if day < begin or (day == begin and not _begun(low, time)):
        return False
    if last:
        end = _last_day(last)
        return date[:8] < end or (day == end and _not_over(high, time))
    return True


# What members are asked for ---------------------------------------------------------------------------------------


def to_ask(path: str, wanted: str) -> str:
    """A date or time so written that a member finds all that `matches_range` does, even one that compares them letter
    by letter (Orthanc): to it `180000` is after `1800`, and `101500.000` is not `101500`."""
    match vr_of(path.rpartition(".")[2]):
        case "DA":
            if "-" not in wanted and len(wanted) >= 8:
                return wanted
            return _range(wanted, _first_day, _last_day)
        case "TM":
            return _range(wanted, _earliest, _latest)
    return wanted


def _range(wanted: str, begin: Callable[[str], str], end: Callable[[str], str]) -> str:
    low, dash, high = wanted.partition("-")
    if not dash:
        high = low
    return f"{begin(low) if low else ''}-{end(high) if high else ''}"


def _earliest(bound: str) -> str:
    """The shortest text that means the same: `100000.0` → `10`."""
    whole, _, fraction = bound.replace(":", "").partition(".")
    fraction = fraction.rstrip("0")
    if fraction:
        return f"{whole}.{fraction}"
    while len(whole) > 2 and whole.endswith("00"):
        whole = whole[:-2]
    return whole


def _latest(bound: str) -> str:
    """The end of the period that it names: `1800` → `180059.999999`."""
    whole, _, fraction = bound.replace(":", "").partition(".")
    return f"{whole}{'235959'[len(whole) :]}.{fraction.ljust(6, '9')}"


def _first_day(bound: str) -> str:
    return f"{bound}0101"[:8] if len(bound) == 4 else f"{bound}01"[:8]


def _last_day(bound: str) -> str:
    if len(bound) >= 8:
        return bound[:8]
    year, month = int(bound[:4]), int(bound[4:6] or 12)
    return f"{bound[:4]}{month:02}{monthrange(max(year, 1), month)[1]:02}"
