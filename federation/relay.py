"""Relaying one open transfer: every part re-tagged or checked as it passes, nothing held but a head."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence

from federation.elements import BadPart10, UntaggableSyntax
from federation.errors import MemberCannot, MemberGarbage
from federation.instance import SOP_INSTANCE_UID, InstanceTagger
from federation.model import Delivery, PartBegin, PartEnd, PartEvent
from federation.part10 import HeadRewriter

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

#: Series ("" = not known) and instance UID → the façade's URL of a part, "" if it can't be told.
Locate = Callable[[str, str], str]


class DicomRelay:
    """Part-10 parts. `seen` are the SOPInstanceUIDs that passed."""

    def __init__(
        self, delivery: Delivery, tagger: InstanceTagger, locate: Locate, expected: frozenset[str] | None = None
    ) -> None:
        self._delivery = delivery
        self._tagger = tagger
        self._locate = locate
        self._expected = expected
        self.seen: set[str] = set()

    async def events(self) -> AsyncGenerator[Sequence[PartEvent], None]:
        """Raises `MemberError` for what can't be passed on; ends only if all that was expected came."""
        rewriter: HeadRewriter | None = None
        begin: PartBegin | None = None
        passing = False  # the head is out: chunks go by reference
        parts = 0
        try:
            async for batch in self._delivery.events():
                out: list[PartEvent] = []
                for event in batch:
                    if isinstance(event, PartBegin):
                        rewriter = HeadRewriter(self._tagger, own_titles=self._tagger.own_titles)
                        begin, passing = event, False
                    elif isinstance(event, PartEnd):
                        assert rewriter is not None
                        assert begin is not None
                        rest = rewriter.finish()
                        if not passing:
                            out.append(self._begin(rewriter, begin))
                        out += rest
                        out.append(event)
                        parts += 1
                    else:
                        assert rewriter is not None
                        assert begin is not None
                        pieces = rewriter.feed(event)
                        if pieces and not passing:
                            out.append(self._begin(rewriter, begin))
                            passing = True
                        out += pieces
                if out:
                    yield out
        except UntaggableSyntax as error:
            raise MemberCannot(str(error)) from None
        except BadPart10 as error:
            raise MemberGarbage(str(error)) from None
        if not parts:
            raise MemberGarbage("no instance came")
        if self._expected is not None and not self._expected <= self.seen:
            raise MemberGarbage("not all of the instances came that it said to have")

    def _begin(self, rewriter: HeadRewriter, begin: PartBegin) -> PartBegin:
        head = rewriter.head
        assert head is not None
        sop = head.text(SOP_INSTANCE_UID)
        if not _UID.fullmatch(sop):
            raise MemberGarbage("an instance without a UID came")
        if sop in self.seen or (self._expected is not None and len(self._expected) == 1 and sop not in self._expected):
            raise MemberGarbage("an instance came that was not asked for, or twice")
        self.seen.add(sop)
        series = head.series_uid if _UID.fullmatch(head.series_uid) else ""
        if not series:
            named = _LOCATION.search(begin.location)
            series = named[1] if named is not None and named[2] == sop else ""
        return PartBegin(
            content_type=f"application/dicom; transfer-syntax={head.transfer_syntax}",
            location=self._locate(series, sop),
        )


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
                    out.append(PartBegin(content_type=part_type(event.content_type), location=self._locate(count)))
                else:
                    out.append(event)
            yield out
        if not count or (self._parts is not None and count != self._parts):
            raise MemberGarbage("not all of the parts came that were asked for")


def part_type(content_type: str) -> str:
    """A member's content type, reduced to what is known to be harmless and its transfer syntax."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in PART_TYPES:
        media_type = "application/octet-stream"
    syntax = _TRANSFER_SYNTAX.search(content_type)
    return f"{media_type}; transfer-syntax={syntax[1]}" if syntax is not None else media_type
