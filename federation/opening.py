"""Opening what a retrieval fetches: holders one after the other, until one gives a first part that can be passed on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace

from federation.elements import BadPart10
from federation.errors import (
    BrokenTransfer,
    MemberCannot,
    MemberError,
    MemberFault,
    MemberGarbage,
    MemberNotFound,
    MemberRefused,
    MemberTimeout,
    NotAcceptable,
    NotFound,
    RequestError,
    SourcesUnavailable,
    StoredOtherwise,
    Untaggable,
)
from federation.habits import in_order, lacks
from federation.identity import Naming
from federation.instance import InstanceTagger, Stranger
from federation.locate import Locator
from federation.making import MADE, PICTURES, Maker
from federation.members import Members, is_illness
from federation.model import Accept, Delivery, Form, PartEvent, Span, Target
from federation.pixels.errors import NoPixels, PixelError, PoolBusy, TooLarge, UnsupportedSyntax
from federation.plan import Fetch
from federation.prepare import Located
from federation.ranges import Extent, take
from federation.relay import BodyRelay, DicomRelay, is_dicom
from federation.report import Report
from federation.tagging import Links
from registry import Site

EXPLICIT = "1.2.840.10008.1.2.1"

#: A holder that fails so at an instance may give its own picture. One that is ill, or sends what is wrong, is spared.
_GIVES_NONE = (MemberCannot, MemberFault, MemberNotFound, MemberRefused)

#: What can't be shown here is not damaged.
_NOT_HERE = (NoPixels, TooLarge, UnsupportedSyntax)


class HolderBroke(BrokenTransfer):
    """A member broke off what it was sending. Another may have the rest."""

    def __init__(self, emetteur: str, why: str) -> None:
        super().__init__(why)
        self.emetteur = emetteur


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A transfer whose first part is in hand. `site` gives it. `extent` and `tag` are those of a single body: None =
    not known."""

    site: Site
    multipart: bool
    events: AsyncGenerator[Sequence[PartEvent], None]
    extent: Extent | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all the fetches of one retrieval share."""

    located: Located
    accept: Accept
    links: Links
    stranger: Stranger


class Opener:
    """Decides and traces nothing: who may see an instance that is another's than expected, `Job.stranger` says."""

    def __init__(self, members: Members, locator: Locator, naming: Naming, maker: Maker | None = None) -> None:
        """`maker` makes here what members lack."""
        self._members = members
        self._locator = locator
        self._naming = naming
        self._maker = maker

    async def begin(self, stack: contextlib.AsyncExitStack, job: Job) -> tuple[Opened, Fetch, list[Fetch]]:
        """→ (the first transfer that can be had, what it is for, what is to follow). What can't be had is known before
        the first byte: it is left out and told."""
        fetches = job.located.fetches
        failures: list[MemberError] = []
        for place, fetch in enumerate(fetches):
            opened = await self.first(stack, fetch, job, failures)
            if opened is not None:
                job.located.leave_out(fetches[:place])
                return opened, fetch, fetches[place + 1 :]
        raise refusal(failures, job.located.report)

    async def first(
        self, stack: contextlib.AsyncExitStack, fetch: Fetch, job: Job, failures: list[MemberError]
    ) -> Opened | None:
        """Open holders until one gives a first part that can be passed on. Its transfer is left to `stack`.

        None: no holder does, and `failures` says why.
        """
        maker = self._maker if fetch.target.form in MADE else None
        if maker is not None and fetch.target.form in PICTURES:
            return await self._picture(stack, fetch, job, failures, maker)
        opened = await self._ask(stack, fetch.candidates, fetch, job, failures)
        if opened is not None or maker is None:
            return opened
        return await self._made(stack, fetch, job, failures, maker, [])

    async def _picture(
        self,
        stack: contextlib.AsyncExitStack,
        fetch: Fetch,
        job: Job,
        failures: list[MemberError],
        maker: Maker,
    ) -> Opened | None:
        """Made here: archives differ in the window that they take, and some show what there is of a damaged image. What
        can't be made here, but for damage, is the holder's own, and the answer says so."""
        unable: list[Site] = []
        wrong: PixelError | None = None
        try:
            made = await self._made(stack, fetch, job, failures, maker, unable)
        except _NOT_HERE as error:
            wrong = error
        else:
            if made is not None:
                return made
        opened = await self._ask(stack, sorted(unable, key=lambda s: lacks(s, fetch.target.form)), fetch, job, failures)
        if opened is not None:
            report = job.located.report
            report.forgive(opened.site.emetteur)
            report.notices.append(f"The picture is of {opened.site.emetteur}'s own making, in a window of its choice")
        elif wrong is not None:
            raise wrong
        return opened

    async def _ask(
        self,
        stack: contextlib.AsyncExitStack,
        sites: Sequence[Site],
        fetch: Fetch,
        job: Job,
        failures: list[MemberError],
    ) -> Opened | None:
        for site in sites:
            fault: MemberError | None = None
            attempts = in_order(site, fetch.target.form, _attempts(fetch.target, job.accept))
            final = [attempts[-1]]
            for accept in attempts:  # it may grow, once
                last = any(accept is one for one in final)
                try:
                    return await stack.enter_async_context(self._attempt(site, fetch, accept, job, last=last))
                except Untaggable as error:
                    failures.append(error)
                    if not last and len(final) == 1:  # if it comes in no other form, this one is turned
                        final.append(replace(accept))
                        attempts.append(final[-1])
                except StoredOtherwise as error:
                    failures.append(error)
                    fault = None  # it failed because it can't be had so
                except MemberCannot as error:
                    failures.append(error)
                except (MemberFault, MemberGarbage) as error:
                    fault = error  # some members fail at a form that they should say they lack, or send what is none
                except MemberError as error:
                    fault = error
                    break
            if fault is not None:
                self.failed(site, fault, job.located, failures)
        return None

    async def _made(
        self,
        stack: contextlib.AsyncExitStack,
        fetch: Fetch,
        job: Job,
        failures: list[MemberError],
        maker: Maker,
        unable: list[Site],
    ) -> Opened | None:
        """Made from an instance of one holder. Raises what is wrong with that instance. `unable`: holders of whose
        nothing can be made here though nothing is wrong with it, as far as is known."""
        wrong: PixelError | None = None
        for site in fetch.candidates:
            async with contextlib.AsyncExitStack() as own:
                try:
                    multipart, events = await maker.open(
                        own,
                        site,
                        fetch.target,
                        job.accept,
                        lambda s: self.tagger(s, job.located, job.stranger),
                        job.links,
                    )
                except PoolBusy:
                    raise
                except PixelError as error:
                    if isinstance(error, _NOT_HERE):
                        unable.append(site)
                    if wrong is None or isinstance(wrong, _NOT_HERE):  # damage is told rather than that
                        wrong = error
                except BadPart10 as error:
                    self.failed(site, MemberGarbage(str(error)), job.located, failures)
                except StoredOtherwise as error:
                    # That it failed at this form says no more than that.
                    failures[:] = [error, *(f for f in failures if not isinstance(f, MemberFault | MemberGarbage))]
                    job.located.report.forgive(site.emetteur)
                except MemberError as error:
                    if isinstance(error, _GIVES_NONE):
                        unable.append(site)
                    self.failed(site, error, job.located, failures)
                else:
                    await own.enter_async_context(contextlib.aclosing(events))
                    stack.push_async_exit(own.pop_all())
                    job.located.report.forgive(site.emetteur)
                    return Opened(site=site, multipart=multipart, events=events)
        if wrong is not None:
            wrong.report = job.located.report
            raise wrong
        return None

    def tagger(self, site: Site, located: Located, stranger: Stranger) -> InstanceTagger:
        return InstanceTagger(located.identity, site, self._members.directory(), self._naming, stranger)

    @contextlib.asynccontextmanager
    async def _attempt(
        self, site: Site, fetch: Fetch, accept: Accept, job: Job, *, last: bool
    ) -> AsyncIterator[Opened]:
        async with self._members.open(site, fetch.target, accept) as delivery:
            if delivery.partial and fetch.expected is not None:
                raise MemberGarbage(f"{site.emetteur}: only a part of what it said to have")
            events = self._relay(delivery, fetch, site, job, last=last)
            async with contextlib.aclosing(events):
                try:
                    async with asyncio.timeout(self._members.deadline(site).remaining_s):
                        head = await anext(events)
                except TimeoutError:
                    raise MemberTimeout(f"{site.emetteur}: no first part within its deadline") from None
                # The member is well: others must not wait for the end of a long transfer to learn it.
                self._members.breaker(site).succeeded()
                if delivery.partial:
                    job.located.given_in_part(site)
                if fetch.target.form is Form.BULKDATA and not accept.multipart:
                    async with self._single(site, delivery, head, events, accept.span) as single:
                        yield single
                    return
                async with contextlib.aclosing(self._watched(site, head, events)) as watched:
                    yield Opened(site=site, multipart=delivery.multipart, events=watched)

    @contextlib.asynccontextmanager
    async def _single(
        self,
        site: Site,
        delivery: Delivery,
        head: Sequence[PartEvent],
        events: AsyncGenerator[Sequence[PartEvent], None],
        span: Span | None,
    ) -> AsyncIterator[Opened]:
        """One body, or a range of it."""
        if span is not None and span.only_if is not None and span.only_if != delivery.tag:
            span = None
        if span is not None and delivery.partial:  # what it lacks may stand before the range
            raise MemberGarbage(f"{site.emetteur}: only a part of what a range was asked of")
        taken = await take(head, events, span)
        async with (
            contextlib.aclosing(taken.events) as passing,
            contextlib.aclosing(self._watched(site, await anext(passing), passing)) as watched,
        ):
            yield Opened(site=site, multipart=delivery.multipart, events=watched, extent=taken.extent, tag=delivery.tag)

    async def _watched(
        self, site: Site, head: Sequence[PartEvent], events: AsyncIterator[Sequence[PartEvent]]
    ) -> AsyncGenerator[Sequence[PartEvent], None]:
        """The stream from its beginning; a member that breaks it counts as failed."""
        try:
            yield head
            async for batch in events:
                yield batch
        except MemberError as error:
            if is_illness(error, of_object=True):
                self._members.breaker(site).failed(type(error).__name__)
            raise HolderBroke(site.emetteur, f"{type(error).__name__}: {error}") from error

    def _relay(
        self, delivery: Delivery, fetch: Fetch, site: Site, job: Job, *, last: bool
    ) -> AsyncGenerator[Sequence[PartEvent], None]:
        target, links = fetch.target, job.links
        if target.form is Form.DICOM:
            tagger = self.tagger(site, job.located, job.stranger)

            def locate(series_uid: str, sop: str) -> str:
                series_uid = target.series_uid or series_uid
                return links.retrieve_url(site, target.study_uid, series_uid, sop) if series_uid else ""

            expected = fetch.expected
            if expected is None and target.instance_uid is not None:
                expected = frozenset({target.instance_uid})
            if not is_dicom(delivery):
                raise MemberGarbage(f"{site.emetteur}: another type where DICOM was asked for")
            explicit = self._maker.explicit if self._maker is not None else None
            named = frozenset(syntax for _, syntax in job.accept.choices)
            return DicomRelay(
                delivery,
                tagger,
                locate,
                target,
                expected,
                explicit,
                from_first=last,
                syntaxes=None if "*" in named or None in named else named,
                or_stored=job.accept.or_stored,
            ).events()
        if target.form in (Form.RENDERED, Form.THUMBNAIL):
            if not delivery.media_type.startswith(("image/", "video/")):
                raise MemberGarbage(f"{site.emetteur}: another type where a picture was asked for")
        elif "json" in delivery.media_type or "html" in delivery.media_type:
            raise MemberGarbage(f"{site.emetteur}: another type where a body was asked for")
        instance = links.retrieve_url(site, target.study_uid, target.series_uid or "", target.instance_uid or "")

        def part(number: int) -> str:
            frame = target.frames[number - 1] if 0 < number <= len(target.frames) else 0
            return f"{instance}/frames/{frame}" if frame else instance

        return BodyRelay(delivery, part, parts=len(target.frames) or None).events()

    def failed(self, site: Site, error: MemberError, located: Located, failures: list[MemberError]) -> None:
        failures.append(error)
        located.report.note(site.emetteur, error.status)
        if isinstance(error, MemberNotFound):
            self._locator.disbelieve(site, located.location.study_uid)


def refusal(failures: Sequence[MemberError], report: Report) -> RequestError:
    """What to tell the client when no holder could give it."""
    serious = [f for f in failures if not isinstance(f, (MemberCannot, MemberNotFound))]
    if not serious:
        if any(isinstance(f, MemberCannot) for f in failures):
            return NotAcceptable("No source that holds this can give it in the form that was asked for.", report=report)
        return NotFound("There is no such study, series or instance, or it can't be shown.", report=report)
    status = max(f.http_status for f in serious)
    return SourcesUnavailable("No source that holds this could give it.", report=report, http_status=status)


def _attempts(target: Target, accept: Accept) -> list[Accept]:
    """One member request for each choice of the client's. As stored may be what can't be tagged: then explicit.

    What a member can't transcode it may give as stored: from that it is made here, or seen not to be had.
    """
    choices = list(accept.choices)
    stored = [media_type for media_type, syntax in choices if syntax == "*"]
    if target.form in (Form.DICOM, Form.FRAMES) and stored:
        choices.append((stored[0], EXPLICIT))
    elif target.form is Form.DICOM:
        choices.append((choices[0][0], "*"))
    return [replace(accept, choices=(choice,)) for choice in dict.fromkeys(choices)]
