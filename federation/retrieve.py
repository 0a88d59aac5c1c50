"""Retrieval: locate, decide, trace, open a holder, look at its first part, then relay.

A holder that fails before the first byte is replaced by another; after it, the transfer is broken and the client
must see that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from consent import EventKind, EventOutcome, Requester, Unavailable
from federation.copies import Copies
from federation.elements import BadPart10
from federation.errors import (
    BrokenTransfer,
    MemberError,
    MemberGarbage,
    MemberNotFound,
    NotFound,
    RequestError,
    Withdrawn,
)
from federation.gate import Gate
from federation.identity import Identity, Naming, instance_identity, origin_code, record_of, text_of, with_ins
from federation.instance import Stranger
from federation.locate import Locator
from federation.making import Maker
from federation.members import Members, is_illness
from federation.model import (
    Accept,
    Attributes,
    Deadline,
    Form,
    Level,
    Member,
    MemberRows,
    Outcome,
    PartEvent,
    Scope,
    Target,
)
from federation.opening import Job, Opener, refusal
from federation.passing import Passing
from federation.pixels.errors import PixelError, PoolBusy
from federation.plan import Fetch
from federation.prepare import NOT_SHOWN, Located, Preparer
from federation.ranges import Extent
from federation.report import Report
from federation.resuming import Resumer
from federation.tagging import Links, scrub, tag_patient, tag_source
from registry import Site


@dataclass(slots=True, kw_only=True)
class Retrieval:
    """An open answer. `complete` False = a known part is missing (206). `events` raises `BrokenTransfer`.

    `extent` and `tag` tell of bulk data as a single body which bytes come, and a name for the whole: None = not known.
    """

    report: Report
    complete: bool
    multipart: bool  # whether the member's body is
    extent: Extent | None
    tag: str | None
    events: AsyncIterator[Sequence[PartEvent]]


@dataclass(slots=True, kw_only=True)
class Metadata:
    """`exams` = (StudyInstanceUID, identity) of all that is told of."""

    rows: list[Attributes]
    exams: list[tuple[str, Identity]]
    report: Report
    complete: bool


class Retriever:
    def __init__(
        self,
        members: Members,
        locator: Locator,
        copies: Copies,
        gate: Gate,
        naming: Naming,
        maker: Maker | None = None,
    ) -> None:
        """`maker` makes here what members lack."""
        self._members = members
        self._locator = locator
        self._gate = gate
        self._naming = naming
        self._preparer = Preparer(members, locator, copies, gate)
        self._passing = Passing(gate, naming, self._preparer)
        self._maker = maker
        self._opener = Opener(members, locator, naming, maker)
        self._resumer = Resumer(self._opener, locator)

    # Whole bodies -----------------------------------------------------------------------------------------------

    async def metadata(
        self, requester: Requester, scope: Scope, target: Target, links: Links, *, request_id: str, anew: bool = False
    ) -> Metadata:
        """`anew`: nothing that is kept of a moment ago will do."""
        located = await self._preparer.prepare(requester, scope, target, request_id)
        if anew:
            for site in located.holders:
                self._locator.metadata.forget(site, target.study_uid)
        trace = self._passing.started(EventKind.ACCESSED, requester, scope, located, request_id)
        failures: list[MemberError] = []
        try:
            stranger = self._passing.stranger(requester, located)
            answers = await asyncio.gather(
                *(self._fetch_metadata(f, located, failures, stranger) for f in located.fetches)
            )
            rows, lost = self._described(requester, located, answers, links)
        except BaseException as error:
            await self._passing.not_begun(error, trace, located)
            raise
        await trace
        if len(lost) == len(answers):
            raise refusal(failures, located.report)
        await self._passing.trace_strangers(EventKind.ACCESSED, requester, located)
        await self._passing.confirm(requester, located)
        located.leave_out(lost)
        exams = [(target.study_uid, identity) for identity in located.people]
        return Metadata(rows=rows, exams=exams, report=located.report, complete=located.complete)

    def _described(
        self,
        requester: Requester,
        located: Located,
        answers: Sequence[tuple[Site, list[Attributes]] | None],
        links: Links,
    ) -> tuple[list[Attributes], list[Fetch]]:
        """→ (tagged objects, each instance once; the fetches that brought none)."""
        rows: dict[str, Attributes] = {}
        lost: list[Fetch] = []
        for fetch, answer in zip(located.fetches, answers, strict=True):
            if answer is None:
                lost.append(fetch)
                continue
            site, data_sets = answer
            for attributes in data_sets:
                sop = text_of(attributes, "00080018")
                if sop in rows or (fetch.expected is not None and sop not in fetch.expected):
                    continue
                rows[sop] = self._tagged(attributes, requester, site, located, links)
        return list(rows.values()), lost

    async def _fetch_metadata(
        self, fetch: Fetch, located: Located, failures: list[MemberError], stranger: Stranger
    ) -> tuple[Site, list[Attributes]] | None:
        """→ (the holder that gave it, its answer), or None, and why in `failures`."""

        async def call(member: Member, deadline: Deadline) -> MemberRows:
            answer = await member.metadata(fetch.target, deadline=deadline)
            if not answer.rows:
                raise MemberNotFound(f"{member.site.emetteur}: no metadata")
            if any(_misplaced(row, fetch.target) for row in answer.rows):
                raise MemberGarbage(f"{member.site.emetteur}: metadata of another object than was asked for")
            return answer

        for site in fetch.candidates:

            async def ask(site: Site = site) -> Outcome[MemberRows]:
                return (await self._members.ask([site], "metadata", call, of_object=True))[0]

            result = await self._metadata_of(site, fetch, ask)
            if not isinstance(result, MemberError):
                if result.more and fetch.expected is None:
                    located.given_in_part(site)
                return site, result.rows
            self._opener.failed(site, result, located, failures)
        return await self._metadata_made(fetch, located, failures, stranger)

    async def _metadata_made(
        self, fetch: Fetch, located: Located, failures: list[MemberError], stranger: Stranger
    ) -> tuple[Site, list[Attributes]] | None:
        """What holders that are well do not describe, read from the instances of one."""
        if self._maker is None or any(is_illness(f, of_object=True) for f in failures):
            return None
        for site in fetch.candidates:
            try:
                made = await self._maker.metadata(
                    site, fetch.target, lambda s: self._opener.tagger(s, located, stranger)
                )
            except PoolBusy:
                raise
            except (PixelError, BadPart10) as error:
                self._opener.failed(site, MemberGarbage(f"{site.emetteur}: {type(error).__name__}"), located, failures)
            except MemberError as error:
                self._opener.failed(site, error, located, failures)
            else:
                located.report.forgive(site.emetteur)
                return site, made.rows
        return None

    async def _metadata_of(
        self, site: Site, fetch: Fetch, ask: Callable[[], Awaitable[Outcome[MemberRows]]]
    ) -> MemberRows | MemberError:
        """What a holder says now or said half a minute ago, if that has all that it holds now."""
        kept = self._locator.metadata
        for _ in range(2):
            result = (await kept.get(site, fetch.target, ask)).result
            if isinstance(result, MemberError):
                return result
            if (fetch.expected or frozenset()) <= {text_of(row, "00080018") for row in result.rows}:
                return result
            kept.forget(site, fetch.target.study_uid)
        return MemberGarbage(f"{site.emetteur}: not all of the instances that it said to have")

    def _tagged(
        self, attributes: Attributes, requester: Requester, site: Site, located: Located, links: Links
    ) -> Attributes:
        directory = self._members.directory()
        study_uid = located.location.study_uid
        own = record_of(attributes, site, directory, long_ids=self._naming.long_ids)
        identity = instance_identity(located.identity, own, coded=origin_code(attributes, directory) is not None)
        if identity is not located.identity:
            self._passing.stranger(requester, located)(identity)
        elif (known := with_ins(identity, own)) is not identity:
            self._passing.stranger(requester, located)(known)
        member = self._members.client(site)
        series, sop = text_of(attributes, "0020000E"), text_of(attributes, "00080018")

        def bulk(uri: str) -> str | None:
            link = member.link_of(uri, study_uid)
            return links.bulkdata_url(site, study_uid, series, sop, link) if link is not None else None

        lost = scrub(attributes, bulk)
        if lost:
            notice = f"Source {site.emetteur} refers to bulk data that can't be reached through it"
            if notice not in located.report.notices:
                located.report.notices.append(notice)
        tag_patient(attributes, identity, self._naming)
        tag_source(attributes, Level.INSTANCE, _preferring(site, located.holders), links, study_uid)
        return attributes

    # Streams ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open(
        self, requester: Requester, scope: Scope, target: Target, accept: Accept, links: Links, *, request_id: str
    ) -> AsyncIterator[Retrieval]:
        """Everything that can be refused is refused on entry. Leaving closes the member's connection.

        From then on it is broken off (`Withdrawn`) as soon as it must not be shown any more; before its first batch has
        passed, that is answered as unknown is.
        """
        located = await self._preparer.prepare(requester, scope, target, request_id)
        try:
            async with self._transfer(requester, scope, target, accept, links, located) as retrieval:
                yield retrieval
        except Withdrawn:
            if located.passed:
                raise
            self._gate.refused_later(requester, scope, located.location, request_id)
            await self._preparer.even_out(located.came_at, located.report)
            raise NotFound(NOT_SHOWN, report=located.report) from None

    @contextlib.asynccontextmanager
    async def _transfer(
        self,
        requester: Requester,
        scope: Scope,
        target: Target,
        accept: Accept,
        links: Links,
        located: Located,
    ) -> AsyncIterator[Retrieval]:
        request_id = located.request_id
        kind = EventKind.TRANSFER_BEGUN if target.form is Form.DICOM else EventKind.ACCESSED
        trace = self._passing.started(kind, requester, scope, located, request_id)
        outcome = EventOutcome.FAILURE
        job = Job(located=located, accept=accept, links=links, stranger=self._passing.stranger(requester, located))
        async with (
            self._gate.transfer(requester, target.study_uid, located.people),
            contextlib.AsyncExitStack() as stack,
        ):
            try:
                first, begun, rest = await self._opener.begin(stack, job)
            except BaseException as error:
                await self._passing.not_begun(error, trace, located)
                raise
            await trace
            await self._passing.trace_strangers(kind, requester, located)
            await self._passing.confirm(requester, located)

            async def let_pass() -> None:
                await self._passing.trace_strangers(kind, requester, located)
                await self._gate.beat()
                located.passed = True

            async def events() -> AsyncGenerator[Sequence[PartEvent], None]:
                nonlocal outcome
                try:
                    async for batch in self._resumer.whole(first, begun, job, stack):
                        await let_pass()
                        yield batch
                    await stack.aclose()
                    for fetch in rest:
                        async with contextlib.AsyncExitStack() as own:
                            failures: list[MemberError] = []
                            more = await self._opener.first(own, fetch, job, failures)
                            if more is None:
                                raise refusal(failures, located.report)
                            async for batch in self._resumer.whole(more, fetch, job, own):
                                await let_pass()
                                yield batch
                except (RequestError, Unavailable) as error:
                    if not located.passed:
                        raise
                    raise BrokenTransfer(f"{type(error).__name__}: {error}") from error
                outcome = EventOutcome.SUCCESS

            stream = events()
            try:
                async with contextlib.aclosing(stream):
                    yield Retrieval(
                        report=located.report,
                        complete=located.complete,
                        multipart=first.multipart,
                        extent=first.extent,
                        tag=first.tag,
                        events=stream,
                    )
            finally:
                if kind is EventKind.TRANSFER_BEGUN:
                    self._passing.ended(requester, scope, located, request_id, outcome)


def _misplaced(row: Attributes, target: Target) -> bool:
    """Is it of another study or series, or another instance, than was asked for?"""
    return (
        text_of(row, "0020000D") not in ("", target.study_uid)
        or (target.series_uid is not None and text_of(row, "0020000E") not in ("", target.series_uid))
        or (target.instance_uid is not None and text_of(row, "00080018") != target.instance_uid)
    )


def _preferring(site: Site, holders: Sequence[Site]) -> list[Site]:
    return [site, *(s for s in holders if s.emetteur != site.emetteur)]
