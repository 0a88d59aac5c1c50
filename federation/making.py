"""Pictures and thumbnails, and the frames and metadata that a member lacks, are made here from its Part-10 instances
(PS3.18 §10.4).

An instance is fetched whole into a file without a name, and looked at on its way as in any retrieval: one that is
another patient's than its study must be permitted by itself. Pixels are decoded in the pool's processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

from federation.elements import BadPart10, UntaggableSyntax
from federation.errors import (
    MemberCannot,
    MemberError,
    MemberGarbage,
    MemberNotFound,
    MemberTimeout,
    StoredOtherwise,
)
from federation.identity import Naming
from federation.instance import SOP_INSTANCE_UID, InstanceTagger
from federation.locate import Locator
from federation.members import Members
from federation.model import (
    PART_END,
    Accept,
    Attributes,
    Delivery,
    Form,
    MemberRows,
    PartBegin,
    PartEvent,
    Target,
)
from federation.part10 import HeadRewriter
from federation.pixels.options import SMALL, THUMBNAIL_SIDE, MediaType, RenderOptions, parse_options
from federation.pixels.pool import PixelPool, Result
from federation.pixels.spool import Spool
from federation.relay import is_dicom, misplaced
from federation.tagging import Links
from registry import Site

EXPLICIT = "1.2.840.10008.1.2.1"
OCTETS = "application/octet-stream"
PICTURES = frozenset({Form.RENDERED, Form.THUMBNAIL})
MADE = PICTURES | {Form.FRAMES}
#: Made of more instances than this, metadata would take minutes: the member's fault stands then.
INSTANCES_MAX = 2000
_AT_ONCE = 3
#: As stored, or in what every archive can give: whichever the member has.
_ANY = Accept(choices=(("application/dicom", "*"),))
_PLAIN = Accept(choices=(("application/dicom", EXPLICIT),))
_WINDOW = re.compile(r"[^,]+,[^,]+")


#: What looks at each instance of a holder, and raises if it must not be shown.
TaggerOf = Callable[[Site], InstanceTagger]


class Maker:
    def __init__(self, members: Members, locator: Locator, naming: Naming, pool: PixelPool) -> None:
        self._members = members
        self._locator = locator
        self._naming = naming
        self.pool = pool

    # Pictures and frames ----------------------------------------------------------------------------------------

    async def open(
        self,
        stack: contextlib.AsyncExitStack,
        site: Site,
        target: Target,
        accept: Accept,
        tagger_of: TaggerOf,
        links: Links,
    ) -> tuple[bool, AsyncGenerator[Sequence[PartEvent], None]]:
        """→ (whether it is several parts, their events), from one holder's instance. What it takes is left to `stack`.

        Raises `MemberError`, `PixelError` (what is wrong with this instance), `BadRequest`.
        """
        if target.form in PICTURES:
            _wanted(accept)  # before anything is fetched
        target = await self._one_instance(site, target)
        spool = stack.enter_context(Spool())
        await self._fetch(site, target, tagger_of, spool)
        instance = links.retrieve_url(site, target.study_uid, target.series_uid or "", target.instance_uid or "")
        if target.form is Form.THUMBNAIL:
            picture = await self.pool.thumbnail(spool, _options(target, accept))
            return False, _one(PartBegin(content_type=_wanted(accept), location=instance), picture)
        if target.form is Form.RENDERED:
            result = stack.enter_context(await self.pool.render(spool, _options(target, accept)))
            return len(result.pieces) > 1, _pieces(result, instance, accept, of_frames=bool(target.frames))
        for media_type, syntax in accept.choices:
            as_stored = media_type != OCTETS or syntax not in (None, EXPLICIT)
            with contextlib.ExitStack() as own:
                result = own.enter_context(await self.pool.frames(spool, target.frames or None, as_stored=as_stored))
                first = result.pieces[0]
                fits = first.media_type == media_type and syntax in (None, "*", first.transfer_syntax)
                # The standard has a media type for each compressed form; viewers name the transfer syntax of octets.
                if fits or (media_type == OCTETS and syntax in (None, "*", first.transfer_syntax)):
                    stack.push(own.pop_all())
                    return True, _pieces(result, instance, accept, of_frames=True)
        raise StoredOtherwise(f"{site.emetteur}: stored in another form than is asked for")

    async def _one_instance(self, site: Site, target: Target) -> Target:
        """A study or series is shown by the middle instance of its largest series."""
        if target.instance_uid is not None:
            return target
        inventory = await self._locator.inventory(target.study_uid, [site])
        contents = inventory.contents.get(site.emetteur, {})
        series: dict[str, list[str]] = {}
        for sop, uid in contents.items():
            if target.series_uid in (None, uid):
                series.setdefault(uid, []).append(sop)
        if not series:
            raise MemberNotFound(f"{site.emetteur}: no instance of it is known")
        largest = max(sorted(series), key=lambda uid: len(series[uid]))
        instances = series[largest]
        return replace(target, series_uid=largest, instance_uid=instances[len(instances) // 2])

    # Metadata ---------------------------------------------------------------------------------------------------

    async def metadata(self, site: Site, target: Target, tagger_of: TaggerOf) -> MemberRows:
        """Data sets of all instances that a holder has of it, without bulk data. Raises `MemberError`, `PixelError`."""
        inventory = await self._locator.inventory(target.study_uid, [site])
        contents = inventory.contents.get(site.emetteur, {})
        wanted = sorted(
            (series, sop)
            for sop, series in contents.items()
            if target.series_uid in (None, series) and target.instance_uid in (None, sop)
        )
        if target.instance_uid is not None and not wanted:
            wanted = [(target.series_uid or "", target.instance_uid)]
        if not wanted:
            raise MemberNotFound(f"{site.emetteur}: no instance of it is known")
        if len(wanted) > INSTANCES_MAX:
            raise MemberCannot(f"{site.emetteur}: gives no metadata, and has too many instances to make them")
        limit = asyncio.Semaphore(_AT_ONCE)

        async def make(series: str, sop: str) -> Attributes:
            async with limit:
                with Spool() as spool:
                    one = replace(target, series_uid=series, instance_uid=sop, form=Form.DICOM)
                    await self._fetch(site, one, tagger_of, spool)
                    made: dict[str, Any] = await self.pool.metadata(spool)
                    return made

        tasks = [asyncio.ensure_future(make(series, sop)) for series, sop in wanted]
        try:
            return MemberRows(rows=list(await asyncio.gather(*tasks)))
        finally:
            for task in tasks:
                task.cancel()

    # Instances --------------------------------------------------------------------------------------------------

    async def explicit(self, spool: Spool) -> Result:
        """A Part-10 file of any decodable syntax in Explicit VR Little Endian, one piece."""
        return await self.pool.to_explicit(spool)

    async def _fetch(self, site: Site, target: Target, tagger_of: TaggerOf, spool: Spool) -> None:
        """One instance of the holder's, as it is. Raises `MemberError`, and what `tagger` raises."""
        fault: MemberError | None = None
        for accept in (_ANY, _PLAIN):
            try:
                async with self._members.open(site, replace(target, form=Form.DICOM, frames=()), accept) as delivery:
                    await self._take(site, target, delivery, tagger_of, spool)
                return
            except MemberNotFound:
                raise
            except BadPart10 as error:  # some send what they have without its file meta
                spool.clear()
                fault = MemberGarbage(f"{site.emetteur}: {error}")
            except MemberError as error:
                if spool.size:
                    raise
                fault = error
        assert fault is not None
        raise fault

    async def _take(self, site: Site, target: Target, delivery: Delivery, tagger_of: TaggerOf, spool: Spool) -> None:
        if not is_dicom(delivery):
            raise MemberGarbage(f"{site.emetteur}: another type where DICOM was asked for")
        rewriter = HeadRewriter(tagger_of(site))
        untaggable = False
        parts = 0
        most = self.pool.settings.limits.input_bytes
        idle = self._members.deadline(site).remaining_s
        events = aiter(delivery.events())
        while True:
            try:
                async with asyncio.timeout(idle):
                    batch = await anext(events, None)
            except TimeoutError:
                raise MemberTimeout(f"{site.emetteur}: silent for too long") from None
            if batch is None:
                break
            for event in batch:
                if isinstance(event, PartBegin):
                    parts += 1
                    if parts > 1:
                        raise MemberGarbage(f"{site.emetteur}: more instances than were asked for")
                elif isinstance(event, bytes | bytearray | memoryview):
                    if spool.size + len(event) > most:
                        raise MemberCannot(f"{site.emetteur}: the instance is too large to be read here")
                    spool.write(event)
                    if not untaggable:
                        try:
                            rewriter.feed(event)
                        except UntaggableSyntax:
                            untaggable = True
        if not parts or not spool.size:
            raise MemberGarbage(f"{site.emetteur}: no instance came")
        if rewriter.head is None:
            rewriter = await self._looked_whole(tagger_of, site, spool)
        assert rewriter.head is not None
        if rewriter.head.text(SOP_INSTANCE_UID) != target.instance_uid or misplaced(rewriter.head, target):
            raise MemberGarbage(f"{site.emetteur}: another instance than was asked for")

    async def _looked_whole(self, tagger_of: TaggerOf, site: Site, spool: Spool) -> HeadRewriter:
        """Whose it is can't be read from the stream as it is."""
        with await self.explicit(spool) as result:
            rewriter = HeadRewriter(tagger_of(site))
            for chunk in result.chunks(result.pieces[0]):
                rewriter.feed(chunk)
                if rewriter.head is not None:
                    return rewriter
            rewriter.finish()
            return rewriter


def _wanted(accept: Accept) -> str:
    wanted = next((media_type for media_type, _ in accept.choices if media_type in set(MediaType)), None)
    if wanted is None:
        raise MemberCannot("of pictures, JPEG, PNG and GIF are made here")
    return wanted


def _options(target: Target, accept: Accept) -> RenderOptions:
    """Raises `MemberCannot` if none of the types that are asked for is made here, and `BadRequest`."""
    wanted = _wanted(accept)
    given = dict(target.parameters)
    if target.form is Form.THUMBNAIL:
        given.setdefault("viewport", f"{THUMBNAIL_SIDE},{THUMBNAIL_SIDE}")
        given.setdefault("quality", str(SMALL.quality))
    window = given.get("window")
    if window is not None:
        window = f"{window},linear" if _WINDOW.fullmatch(window) else window.lower()
    viewport = given.get("viewport")
    frames: tuple[int, ...] | None = target.frames or None
    if frames is None and wanted != MediaType.GIF and target.form is Form.RENDERED:
        frames = (1,)  # one picture stands for the instance; all of its frames move in a GIF
    profile = given.get("iccprofile")
    return parse_options(
        media_type=wanted,
        frames=frames,
        window=window,
        viewport=_viewport(viewport) if viewport is not None else None,
        quality=given.get("quality"),
        annotation=given.get("annotation"),
        iccprofile=None if profile is None else "no" if profile == "no" else "yes",
    )


def _viewport(text: str) -> str:
    """With all the fields that may be left out."""
    fields = text.split(",")
    return text if len(fields) == 2 else ",".join([*fields, "", "", "", ""][:6])


async def _one(begin: PartBegin, data: bytes) -> AsyncGenerator[Sequence[PartEvent], None]:
    yield [begin, data, PART_END]


async def _pieces(
    result: Result, instance: str, accept: Accept, *, of_frames: bool
) -> AsyncGenerator[Sequence[PartEvent], None]:
    """`of_frames`: they were asked for; else one stands for its instance."""
    octets = all(media_type == OCTETS for media_type, _ in accept.choices)
    for piece in result.pieces:
        media_type = OCTETS if octets and piece.transfer_syntax else piece.media_type
        syntax = f"; transfer-syntax={piece.transfer_syntax}" if piece.transfer_syntax else ""
        location = f"{instance}/frames/{piece.frame}" if piece.frame and of_frames else instance
        yield [PartBegin(content_type=f"{media_type}{syntax}", location=location)]
        for chunk in result.chunks(piece):
            yield [chunk]
        yield [PART_END]
