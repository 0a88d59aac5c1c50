"""One range of a single body (RFC 9110 §14), cut out of what a member sends as it passes. Nothing is held but what must
be known before an answer can begin."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from federation.errors import MemberGarbage
from federation.model import PART_END, PartBegin, PartEnd, PartEvent, Span

#: Where a body does not say how long it is, a range of up to so many bytes is held until it is known to be there.
HOLD_MAX = 1 << 20

Batches = AsyncGenerator[Sequence[PartEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Which bytes of a body come. `at` None = there are none where they were asked for; `total` None = not known.

    `ranged` False = no range was asked for, and the whole comes.
    """

    at: range | None
    total: int | None
    ranged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """`extent` None = the whole comes, and how long it is nobody knows. The first batch has the part's beginning."""

    extent: Extent | None
    events: Batches


class Cutter:
    """Feed it the events of a single body in any chunking: it lets through the bytes `wanted`, by reference.

    `coming` are the bytes that its sender announced, of the same body; None = from its beginning, and nothing was said
    of its end. Once `done`, nothing more of it is needed. Raises `MemberGarbage` if it is not as long as was said.
    """

    def __init__(self, wanted: range, coming: range | None) -> None:
        self._wanted = wanted
        self._coming = coming
        self._begin: PartBegin | None = None
        self._passing = False
        self.at = coming.start if coming is not None else 0  # where the next byte stands

    @property
    def done(self) -> bool:
        """A range that goes to the end is read to the end: whether it is as long as was said shows there."""
        return self.at >= self._wanted.stop and (self._coming is None or self._wanted.stop < self._coming.stop)

    def feed(self, batch: Sequence[PartEvent]) -> list[PartEvent]:
        out: list[PartEvent] = []
        for event in batch:
            if isinstance(event, PartBegin):
                self._begin = self._begin or event
            elif not isinstance(event, PartEnd):
                begin, end = self._wanted.start - self.at, self._wanted.stop - self.at
                size = len(event)
                self.at += size
                if self._coming is not None and self.at > self._coming.stop:
                    raise MemberGarbage("a body is longer than was said")
                if begin < size and end > 0 and size:
                    whole = begin <= 0 and size <= end
                    out.append(event if whole else memoryview(event)[max(begin, 0) : end])
                if self.done:
                    break
        return self._begun(out) if out else out

    def finish(self) -> list[PartEvent]:
        """Nothing more is to come, or needed → what is left to pass on."""
        if self._coming is not None and not self.done and self.at != self._coming.stop:
            raise MemberGarbage("a body is shorter than was said")
        return self._begun([PART_END])

    def _begun(self, out: list[PartEvent]) -> list[PartEvent]:
        """The part's beginning goes with the first of its bytes."""
        if self._begin is None or self._passing:
            return out
        self._passing = True
        return [self._begin, *out]


async def take(head: Sequence[PartEvent], rest: Batches, span: Span | None) -> Taken:
    """What passes of a body whose first batch is in hand; `span` None = the whole. Raises `MemberError`.

    What stands before the range is read, and dropped, before this returns.
    """
    begin = head[0]
    assert isinstance(begin, PartBegin)
    if begin.length is None:
        batches = _following(head, rest)
        if span is None or span.first is None or span.last is None or span.last - span.first >= HOLD_MAX:
            return Taken(extent=None, events=batches)
        return await _held(batches, span, range(span.first, span.last + 1))
    at = range(begin.length) if span is None else span.of(begin.length)
    # The last bytes of none at all are the whole: no Content-Range could say that (RFC 9110 §14.1.2, §14.4).
    extent = Extent(at=at, total=begin.length, ranged=span is not None and at != range(0))
    if at is None:
        return Taken(extent=extent, events=_following([begin, PART_END], None))
    passing = _cut(head, rest, Cutter(at, begin.at or range(begin.length)))
    return Taken(extent=extent, events=_following(await anext(passing), passing))


async def _held(batches: Batches, span: Span, wanted: range) -> Taken:
    """Nobody says how long it is: the range is read before it is promised."""
    cutter = Cutter(wanted, None)
    held: list[PartEvent] = []
    async with contextlib.aclosing(batches):
        async for batch in batches:
            held += cutter.feed(batch)
            if cutter.done:
                extent = Extent(at=wanted, total=None, ranged=True)
                break
        else:
            extent = Extent(at=span.of(cutter.at), total=cutter.at, ranged=True)
    return Taken(extent=extent, events=_following([*held, *cutter.finish()], None))


async def _cut(head: Sequence[PartEvent], rest: Batches, cutter: Cutter) -> Batches:
    async with contextlib.aclosing(_following(head, rest)) as batches:
        async for batch in batches:
            out = cutter.feed(batch)
            if out:
                yield out
            if cutter.done:
                break
        yield cutter.finish()


async def _following(head: Sequence[PartEvent], rest: Batches | None) -> Batches:
    yield head
    if rest is not None:
        async with contextlib.aclosing(rest):
            async for batch in rest:
                yield batch
