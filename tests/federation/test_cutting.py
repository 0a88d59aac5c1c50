"""Cutting a range out of a body as it passes gives what slicing the whole gives, in any chunking."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from federation.errors import MemberGarbage
from federation.model import PART_END, PartBegin, PartEnd, PartEvent, Span
from federation.ranges import HOLD_MAX, Extent, take

BEGIN = PartBegin(content_type="application/octet-stream", location="/x")


@dataclass
class Source:
    """A body in batches; how far it was read, and whether it was let go."""

    batches: list[list[PartEvent]]
    read: int = 0
    closed: bool = False

    async def events(self) -> AsyncGenerator[Sequence[PartEvent], None]:
        try:
            for batch in self.batches:
                self.read += 1
                yield batch
        finally:
            self.closed = True


@dataclass(frozen=True)
class Passed:
    extent: Extent | None
    begun: list[PartEvent]
    ended: bool
    body: bytes


def passed(source: Source, span: Span | None) -> Passed:
    async def run() -> Passed:
        rest = source.events()
        taken = await take(await anext(rest), rest, span)
        batches = [list(batch) async for batch in taken.events]
        await taken.events.aclose()
        await rest.aclose()
        events = [event for batch in batches for event in batch]
        assert all(batches), "an empty batch"
        assert isinstance(batches[0][0], PartBegin), "the first batch has the part's beginning"
        body = b"".join(e for e in events if not isinstance(e, (PartBegin, PartEnd)))
        return Passed(taken.extent, [e for e in events if isinstance(e, PartBegin)], events[-1] == PART_END, body)

    return asyncio.run(run())


def batched(body: bytes, cuts: list[int], begin: PartBegin, together: bool) -> list[list[PartEvent]]:
    """`cuts` are where chunks end; `together`: the beginning comes in one batch with the first chunk."""
    places = sorted({0, len(body), *(c % (len(body) + 1) for c in cuts)})
    chunks: list[PartEvent] = [memoryview(body)[a:b] for a, b in itertools.pairwise(places)]
    batches: list[list[PartEvent]] = [chunks[i : i + 2] for i in range(0, len(chunks), 2)]
    if together and batches:
        batches[0].insert(0, begin)
    else:
        batches.insert(0, [begin])
    if together:
        batches[-1].append(PART_END)
    else:
        batches.append([PART_END])
    return batches


def sliced(body: bytes, span: Span) -> bytes | None:
    """What Python makes of it. None: nothing to be had there."""
    if span.first is None:
        return body[-span.last :] if span.last else None
    return body[span.first : None if span.last is None else span.last + 1] if span.first < len(body) else None


bodies = st.binary(max_size=60)
cutting = st.lists(st.integers(0, 60), max_size=12)
number = st.integers(0, 70) | st.integers(0, 1 << 63)
spans = st.one_of(
    st.builds(lambda n: Span(first=None, last=n), number),
    st.builds(lambda n: Span(first=n, last=None), number),
    st.builds(lambda a, b: Span(first=min(a, b), last=max(a, b)), number, number),
)


@given(bodies, cutting, spans, st.booleans())
@example(b"", [], Span(first=None, last=3), True)
@example(b"abc", [1, 2], Span(first=1, last=1), False)
def test_range_of_a_body_of_known_length_is_its_slice(body: bytes, cuts: list[int], span: Span, together: bool) -> None:
    begin = PartBegin(content_type="a/b", location="/x", length=len(body))
    source = Source(batched(body, cuts, begin, together))
    found, expected = passed(source, span), sliced(body, span)
    assert found.body == (expected or b"")
    assert found.begun == [begin]
    assert found.ended
    assert source.closed
    assert found.extent is not None
    assert found.extent.total == len(body)
    assert found.extent.ranged == (expected != b"")  # of an empty body
    assert (found.extent.at is None) == (expected is None)
    if found.extent.at is not None:
        assert body[found.extent.at.start : found.extent.at.stop] == expected


@given(bodies, cutting, spans, st.booleans())
def test_range_of_a_body_of_unknown_length_is_its_slice_or_the_whole_is_given(
    body: bytes, cuts: list[int], span: Span, together: bool
) -> None:
    found, expected = passed(Source(batched(body, cuts, BEGIN, together)), span), sliced(body, span)
    bounded = span.first is not None and span.last is not None and span.last - span.first < HOLD_MAX
    if not bounded:
        assert (found.extent, found.body) == (None, body)
        return
    assert found.extent is not None
    assert found.body == (expected or b"")
    assert (found.extent.at is None) == (expected is None)
    assert found.extent.total in (None, len(body))
    if found.extent.at is None:
        assert found.extent.total is not None
    else:
        assert body[found.extent.at.start : found.extent.at.stop] == expected


@given(bodies, cutting, spans, st.booleans())
def test_range_that_the_member_cut_itself_passes_as_it_is(
    body: bytes, cuts: list[int], span: Span, together: bool
) -> None:
    at = span.of(len(body))
    if not at:
        return
    begin = PartBegin(content_type="a/b", location="/x", length=len(body), at=at)
    found = passed(Source(batched(body[at.start : at.stop], cuts, begin, together)), span)
    assert found.body == sliced(body, span)
    assert found.extent == Extent(at=at, total=len(body), ranged=True)


@given(bodies, cutting, st.booleans(), st.booleans())
def test_whole_body_passes_whole(body: bytes, cuts: list[int], together: bool, known: bool) -> None:
    begin = PartBegin(content_type="a/b", length=len(body) if known else None)
    found = passed(Source(batched(body, cuts, begin, together)), None)
    assert (found.body, found.ended, found.begun) == (body, True, [begin])
    assert found.extent == (Extent(at=range(len(body)), total=len(body), ranged=False) if known else None)


@given(bodies, cutting, st.integers(-5, 5).filter(bool), st.booleans())
def test_body_that_is_not_as_long_as_was_said_never_looks_whole(
    body: bytes, cuts: list[int], off: int, together: bool
) -> None:
    said = len(body) + off
    if said < 0:
        return
    begin = PartBegin(content_type="a/b", length=said)
    to_the_end = (
        [Span(first=0, last=None), Span(first=None, last=said)] if said else []
    )  # nothing is to be had of nothing
    for span in (None, *to_the_end):
        with pytest.raises(MemberGarbage):
            passed(Source(batched(body, cuts, begin, together)), span)


def test_body_that_goes_on_beyond_its_end_is_not_followed() -> None:
    begin = PartBegin(content_type="a/b", length=25)
    source = Source([[begin], *([bytes(10)] for _ in range(99)), [PART_END]])
    with pytest.raises(MemberGarbage):
        passed(source, None)
    assert source.read == 1 + 3


def test_nothing_behind_the_range_is_read() -> None:
    chunks = [bytes([n]) * 10 for n in range(20)]
    for length in (200, None):
        begin = PartBegin(content_type="a/b", length=length)
        source = Source([[begin], *([c] for c in chunks), [PART_END]])
        assert passed(source, Span(first=25, last=34)).body == b"".join(chunks)[25:35]
        assert source.read == 1 + 4
        assert source.closed


def test_range_that_is_too_long_to_be_held_is_not_held() -> None:
    source = Source([[BEGIN], [b"x"], [PART_END]])
    assert passed(source, Span(first=0, last=HOLD_MAX)).extent is None
    source = Source([[BEGIN], [b"x"], [PART_END]])
    assert passed(source, Span(first=0, last=HOLD_MAX - 1)).extent == Extent(at=range(1), total=1, ranged=True)


def test_several_parts_of_unknown_length_are_one_body() -> None:
    """As they are when all of them are asked for."""
    events: list[list[PartEvent]] = [[BEGIN], [b"abc", PART_END, BEGIN, b"def"], [PART_END]]
    found = passed(Source(events), Span(first=2, last=4))
    assert (found.body, found.begun) == (b"cde", [BEGIN])
    assert passed(Source(events), Span(first=2, last=40)).extent == Extent(at=range(2, 6), total=6, ranged=True)
