"""Byte ranges as HTTP writes them (RFC 9110 §14). Pure. What is not understood is no error: it is ignored (§14.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from federation.model import Span
from federation.ranges import Extent

#: A file's size fits into 63 bits. What is beyond is only known to be more.
_FAR = (1 << 63) - 1
#: More digits than Python turns into a number at once are garbage.
_RANGE = re.compile(r"([0-9]{0,4000})-([0-9]{0,4000})")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_STRONG_TAG = re.compile(r'"([\x21\x23-\x7e\x80-\xff]*)"')


def wanted(ranges: Sequence[str], conditions: Sequence[str]) -> Span | None:
    """What the Range and If-Range headers ask for; None = the whole.

    Several ranges and other units are ignored, and so is a range under a condition that no tag of ours can meet: a
    date, or a weak tag (RFC 9110 §13.1.5).
    """
    span = parse(",".join(ranges))
    if span is None or not conditions:
        return span
    tag = strong_tag(",".join(conditions))
    return None if tag is None else Span(first=span.first, last=span.last, only_if=tag)


def parse(value: str) -> Span | None:
    unit, equals, listed = value.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    specs = [spec for part in listed.split(",") if (spec := part.strip(" \t"))]
    found = _RANGE.fullmatch(specs[0]) if len(specs) == 1 else None
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (int(digits) if digits else None for digits in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return Span(first=_near(first), last=_near(last))


def _near(number: int | None) -> int | None:
    return None if number is None else min(number, _FAR)


def written(span: Span) -> str:
    """The Range header that asks for it."""
    return f"bytes={'' if span.first is None else span.first}-{'' if span.last is None else span.last}"


def parse_content_range(value: str) -> tuple[range, int] | None:
    """→ (the bytes that come, of how many); None for anything else, and where it is not said of how many."""
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        return None
    first, last, total = map(int, found.groups())
    return (range(first, last + 1), total) if first <= last < total else None


def content_range(extent: Extent) -> str:
    """RFC 9110 §14.4."""
    total = "*" if extent.total is None else str(extent.total)
    return f"bytes */{total}" if extent.at is None else f"bytes {extent.at.start}-{extent.at.stop - 1}/{total}"


def strong_tag(value: str) -> str | None:
    """What stands in an ETag or If-Range header that holds one strong tag (RFC 9110 §8.8.3)."""
    found = _STRONG_TAG.fullmatch(value.strip())
    return None if found is None else found[1]
