"""Relaying one open transfer: every part re-tagged or checked as it passes, nothing held but a head."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace

from federation.elements import BadPart10, Head, UntaggableSyntax
from federation.errors import MemberCannot, MemberGarbage, StoredOtherwise, Untaggable
from federation.instance import SOP_INSTANCE_UID, InstanceTagger
from federation.model import Buffer, Delivery, PartBegin, PartEnd, PartEvent, Target
from federation.part10 import BIG_ENDIAN, IMPLICIT, HeadRewriter
from federation.pixels.errors import PixelError, PoolBusy, TooLarge, UnsupportedSyntax
from federation.pixels.pool import Result
from federation.pixels.spool import Spool

_UID = re.compile(r"[0-9.]{1,64}")
_LOCATION = re.compile(r"/series/([0-9.]{1,64})/instances/([0-9.]{1,64})(?:/frames/([0-9,]{1,2000}))?")

#: What a part may call itself towards clients (browsers): anything else is an octet stream.
PART_TYPES = frozenset(
    {
        "application/octet-stream",
        "application/pdf",
        "image/dicom-rle",
        "image/gif",
        "image/jls",
        "image/jp2",
        "image/jpeg",
        "image/jphc",
        "image/jpx",
        "image/jxl",
        "image/png",
        "image/x-dicom-rle",
        "image/x-jls",
        "video/h265",
        "video/mp4",
        "video/mpeg",
        "video/mpeg2",
    }
)
_TRANSFER_SYNTAX = re.compile(r";\s*transfer-syntax\s*=\s*\"?([0-9.]{1,64})\"?", re.IGNORECASE)

EXPLICIT = "1.2.840.10008.1.2.1"

#: Series ("" = not known) and instance UID → the façade's URL of a part, "" if it can't be told.
Locate = Callable[[str, str], str]


#: A Part-10 file in Explicit VR Little Endian. Raises `PixelError`.
Explicit = Callable[[Spool], Awaitable[Result]]


class DicomRelay:
    """Part-10 parts. `seen` are the SOPInstanceUIDs that passed."""

    def __init__(
        self,
        delivery: Delivery,
        tagger: InstanceTagger,
        locate: Locate,
        target: Target,
        expected: frozenset[str] | None = None,
        explicit: Explicit | None = None,
        *,
        from_first: bool = True,
        syntaxes: frozenset[str | None] | None = None,
        or_stored: bool = False,
    ) -> None:
        """`explicit` turns what can't be tagged in the stream into what can. `from_first` False: not the first part,
        which the holder may still be asked for in another form. What is of another study or series than `target` is
        refused.

        `syntaxes` are those that the client takes, None for any. What comes in another is turned too, if explicit VR
        little endian is one of them; `or_stored`: else it may pass as it is.
        """
        self._syntaxes = syntaxes
        self._or_stored = or_stored
        self._explicit = explicit
        self._from_first = from_first
        self._delivery = delivery
        self._tagger = tagger
        self._locate = locate
        self._target = target
        self._expected = expected
        self.seen: set[str] = set()

    async def events(self) -> AsyncGenerator[Sequence[PartEvent], None]:
        """Raises `MemberError` for what can't be passed on; ends only if all that was expected came."""
        part: _Part | None = None
        parts = 0
        try:
            async for batch in self._delivery.events():
                out: list[PartEvent] = []
                for event in batch:
                    if isinstance(event, PartBegin):
                        part = _Part(event, HeadRewriter(self._tagger, own_titles=self._tagger.own_titles))
                        continue
                    assert part is not None
                    if part.spool is not None:
                        if not isinstance(event, PartEnd):
                            part.spool.write(event)
                            continue
                        if out:
                            yield out
                            out = []
                        async for turned in self._turned(part):
                            yield turned
                        out.append(event)
                        parts += 1
                    elif isinstance(event, PartEnd):
                        rest = part.rewriter.finish()
                        if not part.passing and self._is_otherwise(part.rewriter):
                            part.keep()
                            if out:
                                yield out
                                out = []
                            async for turned in self._turned(part):
                                yield turned
                        else:
                            if not part.passing:
                                out.append(self._begin(part.rewriter, part.begin))
                            out += rest
                        out.append(event)
                        parts += 1
                    else:
                        out += self._passed(part, event)
                if out:
                    yield out
        except UntaggableSyntax as error:
            raise Untaggable(str(error)) from None
        except BadPart10 as error:
            raise MemberGarbage(str(error)) from None
        except PixelError as error:
            if isinstance(error, PoolBusy):
                raise
            raise MemberGarbage(f"an instance that can't be tagged, nor decoded: {type(error).__name__}") from None
        finally:
            if part is not None and part.spool is not None:
                part.spool.close()
        if not parts:
            raise MemberGarbage("no instance came")
        if self._expected is not None and not self._expected <= self.seen:
            raise MemberGarbage("not all of the instances came that it said to have")

    def _passed(self, part: _Part, chunk: Buffer) -> list[PartEvent]:
        """What of a part can be passed on now."""
        if not part.passing:
            part.held.append(chunk)
        try:
            pieces = part.rewriter.feed(chunk)
        except UntaggableSyntax:
            if self._syntaxes is not None and EXPLICIT not in self._syntaxes:
                raise StoredOtherwise("an instance in another transfer syntax than is asked for") from None
            if self._explicit is None or not (self.seen or self._from_first):
                raise
            part.keep()
            return []
        if not pieces:
            return []
        if part.passing:
            return [*pieces]
        if self._is_otherwise(part.rewriter):
            part.keep()
            return []
        part.passing, part.held = True, []
        return [self._begin(part.rewriter, part.begin), *pieces]

    def _is_otherwise(self, rewriter: HeadRewriter) -> bool:
        """Is it in a transfer syntax that the client does not take? `StoredOtherwise` if that can't be changed."""
        head = rewriter.head
        if head is None or self._syntaxes is None or head.transfer_syntax in self._syntaxes:
            return False
        if EXPLICIT not in self._syntaxes or self._explicit is None:
            raise StoredOtherwise("an instance in another transfer syntax than is asked for")
        return True

    async def _turned(self, part: _Part) -> AsyncGenerator[Sequence[PartEvent], None]:
        """A part that could not be passed on as it came, all but its end."""
        assert self._explicit is not None
        assert part.spool is not None
        with part.spool as spool, contextlib.ExitStack() as own:
            try:
                result = own.enter_context(await self._explicit(spool))
                chunks = result.chunks(result.pieces[0])
            except PoolBusy:
                raise
            except PixelError as error:
                if part.rewriter.head is None:  # nor can it be tagged
                    raise
                if not self._or_stored:
                    if isinstance(error, UnsupportedSyntax | TooLarge):
                        raise StoredOtherwise("an instance that can't be decoded here") from None
                    raise
                chunks = spool.chunks(0, spool.size)
            rewriter = HeadRewriter(self._tagger, own_titles=self._tagger.own_titles)
            passing = False
            for chunk in chunks:
                pieces: list[PartEvent] = [*rewriter.feed(chunk)]
                if pieces:
                    yield pieces if passing else [self._begin(rewriter, part.begin), *pieces]
                    passing = True
            rest: list[PartEvent] = [*rewriter.finish()]
            yield rest if passing else [self._begin(rewriter, part.begin), *rest]
        part.spool = None

    def _begin(self, rewriter: HeadRewriter, begin: PartBegin) -> PartBegin:
        head = rewriter.head
        assert head is not None
        sop = head.text(SOP_INSTANCE_UID)
        if not _UID.fullmatch(sop):
            raise MemberGarbage("an instance without a UID came")
        if sop in self.seen or (self._expected is not None and len(self._expected) == 1 and sop not in self._expected):
            raise MemberGarbage("an instance came that was not asked for, or twice")
        if misplaced(head, self._target):
            raise MemberGarbage("an instance of another study or series came than was asked for")
        self.seen.add(sop)
        series = head.series_uid if _UID.fullmatch(head.series_uid) else ""
        if not series:
            named = _LOCATION.search(begin.location)
            series = named[1] if named is not None and named[2] == sop else ""
        return PartBegin(
            content_type=f"application/dicom; transfer-syntax={head.transfer_syntax}",
            location=self._locate(series, sop),
        )


def is_dicom(delivery: Delivery) -> bool:
    """Does it say so? Of several parts some servers name no type."""
    return delivery.media_type == "application/dicom" or (delivery.multipart and not delivery.media_type)


def misplaced(head: Head, target: Target) -> bool:
    """Is it of another study or series than `target`? Of one that does not say so in time nobody can tell."""
    return head.study_uid not in ("", target.study_uid) or (
        target.series_uid is not None and head.series_uid not in ("", target.series_uid)
    )


class _Part:
    """One part on its way. `held`: what came before its head was known; `spool`: all, where it can't be tagged."""

    def __init__(self, begin: PartBegin, rewriter: HeadRewriter) -> None:
        self.begin = begin
        self.rewriter = rewriter
        self.passing = False
        self.held: list[Buffer] = []
        self.spool: Spool | None = None

    def keep(self) -> None:
        """From here on it is collected, to be turned as a whole."""
        self.spool = Spool()
        for held in self.held:
            self.spool.write(held)
        self.held = []


class BodyRelay:
    """Frames, bulk data and rendered pictures: passed as they are, their types checked, their parts counted."""

    def __init__(self, delivery: Delivery, locate: Callable[[int], str], *, parts: int | None) -> None:
        self._delivery = delivery
        self._locate = locate
        self._parts = parts

    async def events(self) -> AsyncGenerator[Sequence[PartEvent], None]:
        count = 0
        async for batch in self._delivery.events():
            out: list[PartEvent] = []
            for event in batch:
                if isinstance(event, PartBegin):
                    count += 1
                    if self._parts is not None and count > self._parts:
                        raise MemberGarbage("more parts came than were asked for")
                    out.append(replace(event, content_type=part_type(event.content_type), location=self._locate(count)))
                else:
                    out.append(event)
            yield out
        if not count or (self._parts is not None and count != self._parts):
            raise MemberGarbage("not all of the parts came that were asked for")


def part_type(content_type: str) -> str:
    """A member's content type, reduced to what is known to be harmless and its transfer syntax. Raises `MemberCannot`
    for one that must not go on."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in PART_TYPES:
        media_type = "application/octet-stream"
    found = _TRANSFER_SYNTAX.search(content_type)
    if found is None:
        return media_type
    # PS3.18 §8.7.3: not for the web, and of pixels it says the same as the one that is.
    syntax = EXPLICIT if found[1] == IMPLICIT else found[1]
    if syntax == BIG_ENDIAN:
        raise MemberCannot("pixels in big endian")
    return f"{media_type}; transfer-syntax={syntax}"
