"""Retrieval: locate, decide, trace, open a holder, look at its first part, then relay.

A holder that fails before the first byte is replaced by another; after it, the transfer is broken and the client
must see that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from consent import EventKind, EventOutcome, Requester
from federation.copies import Copies
from federation.errors import (
    BrokenTransfer,
    MemberCannot,
    MemberError,
    MemberFault,
    MemberGarbage,
    MemberNotFound,
    MemberTimeout,
    NotAcceptable,
    NotFound,
    RequestError,
    SourcesUnavailable,
)
from federation.gate import Gate
from federation.identity import Identity, Naming, instance_identity, origin_code, record_of, text_of
from federation.instance import InstanceTagger
from federation.locate import Locator
from federation.members import Members, is_illness
from federation.model import (
    Accept,
    Attributes,
    Deadline,
    Delivery,
    Form,
    Level,
    Member,
    MemberRows,
    PartEvent,
    Scope,
    Target,
)
from federation.plan import Fetch
from federation.prepare import Located, Preparer
from federation.relay import BodyRelay, DicomRelay
from federation.report import Report
from federation.tagging import Links, scrub, tag_patient, tag_source
from registry import Site

EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(slots=True, kw_only=True)
class Retrieval:
    """An open answer. `complete` False = a known part is missing (206). `events` raises `BrokenTransfer`."""

    report: Report
    complete: bool
    multipart: bool  # whether the member's body is
    events: AsyncIterator[Sequence[PartEvent]]


@dataclass(slots=True, kw_only=True)
class Metadata:
    rows: list[Attributes]
    report: Report
    complete: bool


class Retriever:
    def __init__(self, members: Members, locator: Locator, copies: Copies, gate: Gate, naming: Naming) -> None:
        self._members = members
        self._locator = locator
        self._gate = gate
        self._naming = naming
        self._preparer = Preparer(members, locator, copies, gate)

    # Whole bodies -----------------------------------------------------------------------------------------------

    async def metadata(
        self, requester: Requester, scope: Scope, target: Target, links: Links, *, request_id: str
    ) -> Metadata:
        located = await self._preparer.prepare(requester, scope, target, request_id)
        trace = self._started(EventKind.ACCESSED, requester, scope, located, request_id)
        failures: list[MemberError] = []
        try:
            answers = await asyncio.gather(*(self._fetch_metadata(f, located, failures) for f in located.fetches))
        except BaseException:
            await asyncio.gather(trace, return_exceptions=True)
            raise
        rows: dict[str, Attributes] = {}
        lost: list[Fetch] = []
        for fetch, answer in zip(located.fetches, answers, strict=True):
            if answer is None:
                lost.append(fetch)
                continue
            site, data_sets = answer
            for attributes in data_sets:
                sop = text_of(attributes, "00080018")
                if text_of(attributes, "0020000D") not in ("", target.study_uid):
                    raise SourcesUnavailable("The source answered for another study.", http_status=502)
                if sop in rows or (fetch.expected is not None and sop not in fetch.expected):
                    continue
                rows[sop] = self._tagged(attributes, requester, site, located, links)
        await trace
        if len(lost) == len(answers):
            raise self._refusal(failures, located.report)
        located.leave_out(lost)
        return Metadata(rows=list(rows.values()), report=located.report, complete=located.complete)

    async def _fetch_metadata(
        self, fetch: Fetch, located: Located, failures: list[MemberError]
    ) -> tuple[Site, list[Attributes]] | None:
        """→ (the holder that gave it, its answer), or None, and why in `failures`."""

        async def call(member: Member, deadline: Deadline) -> MemberRows:
            answer = await member.metadata(fetch.target, deadline=deadline)
            rows = answer.rows
            if not rows:
                raise MemberNotFound(f"{member.site.emetteur}: no metadata")
            if not (fetch.expected or frozenset()) <= {text_of(row, "00080018") for row in rows}:
                raise MemberGarbage(f"{member.site.emetteur}: not all of the instances that it said to have")
            return answer

        for site in fetch.candidates:
            outcome = (await self._members.ask([site], "metadata", call, of_object=True))[0]
            if not isinstance(outcome.result, MemberError):
                if outcome.result.more and fetch.expected is None:
                    located.given_in_part(site)
                return site, outcome.result.rows
            self._failed(site, outcome.result, located, failures)
        return None

    def _tagged(
        self, attributes: Attributes, requester: Requester, site: Site, located: Located, links: Links
    ) -> Attributes:
        directory = self._members.directory()
        study_uid = located.location.study_uid
        own = record_of(attributes, site, directory, long_ids=self._naming.long_ids)
        identity = instance_identity(located.identity, own, coded=origin_code(attributes, directory) is not None)
        if identity is not located.identity:
            self._stranger(requester, located)(identity)
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
        """Everything that can be refused is refused on entry. Leaving closes the member's connection."""
        located = await self._preparer.prepare(requester, scope, target, request_id)
        kind = EventKind.TRANSFER_BEGUN if target.form is Form.DICOM else EventKind.ACCESSED
        trace = self._started(kind, requester, scope, located, request_id)
        outcome = EventOutcome.FAILURE
        job = _Job(requester=requester, located=located, accept=accept, links=links)
        async with contextlib.AsyncExitStack() as stack:
            try:
                first, rest = await self._begin(stack, job)
            except BaseException:
                await asyncio.gather(trace, return_exceptions=True)
                raise
            await trace

            async def events() -> AsyncGenerator[Sequence[PartEvent], None]:
                nonlocal outcome
                try:
                    async for batch in first.events:
                        yield batch
                    await stack.aclose()
                    for fetch in rest:
                        async with contextlib.AsyncExitStack() as own:
                            failures: list[MemberError] = []
                            more = await self._first(own, fetch, job, failures)
                            if more is None:
                                raise self._refusal(failures, located.report)
                            async for batch in more.events:
                                yield batch
                except RequestError as error:
                    raise BrokenTransfer(f"{type(error).__name__}: {error}") from error
                outcome = EventOutcome.SUCCESS

            stream = events()
            try:
                async with contextlib.aclosing(stream):
                    yield Retrieval(
                        report=located.report, complete=located.complete, multipart=first.multipart, events=stream
                    )
            finally:
                if kind is EventKind.TRANSFER_BEGUN:
                    self._ended(requester, scope, located, request_id, outcome)

    async def _begin(self, stack: contextlib.AsyncExitStack, job: _Job) -> tuple[_Opened, list[Fetch]]:
        """→ (the first transfer that can be had, what is to follow). What can't be had is known before the first
        byte: it is left out and told."""
        fetches = job.located.fetches
        failures: list[MemberError] = []
        for place, fetch in enumerate(fetches):
            opened = await self._first(stack, fetch, job, failures)
            if opened is not None:
                job.located.leave_out(fetches[:place])
                return opened, fetches[place + 1 :]
        raise self._refusal(failures, job.located.report)

    async def _first(
        self, stack: contextlib.AsyncExitStack, fetch: Fetch, job: _Job, failures: list[MemberError]
    ) -> _Opened | None:
        """Open holders until one gives a first part that can be passed on. Its transfer is left to `stack`.

        None: no holder does, and `failures` says why.
        """
        for site in fetch.candidates:
            fault: MemberError | None = None
            for accept in _attempts(fetch.target, job.accept):
                try:
                    return await stack.enter_async_context(self._attempt(site, fetch, accept, job))
                except MemberCannot as error:
                    failures.append(error)
                except (MemberFault, MemberGarbage) as error:
                    fault = error  # some members fail at a form that they should say they lack, or send what is none
                except MemberError as error:
                    fault = error
                    break
            if fault is not None:
                self._failed(site, fault, job.located, failures)
        return None

    @contextlib.asynccontextmanager
    async def _attempt(self, site: Site, fetch: Fetch, accept: Accept, job: _Job) -> AsyncIterator[_Opened]:
        async with self._members.open(site, fetch.target, accept) as delivery:
            if delivery.partial and fetch.expected is not None:
                raise MemberGarbage(f"{site.emetteur}: only a part of what it said to have")
            events = self._relay(delivery, fetch, site, job)
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
                async with contextlib.aclosing(self._watched(site, head, events)) as watched:
                    yield _Opened(multipart=delivery.multipart, events=watched)

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
            raise BrokenTransfer(f"{type(error).__name__}: {error}") from error

    def _relay(
        self, delivery: Delivery, fetch: Fetch, site: Site, job: _Job
    ) -> AsyncGenerator[Sequence[PartEvent], None]:
        target, links = fetch.target, job.links
        if target.form is Form.DICOM:
            tagger = InstanceTagger(
                job.located.identity,
                site,
                self._members.directory(),
                self._naming,
                self._stranger(job.requester, job.located),
            )

            def locate(series_uid: str, sop: str) -> str:
                series_uid = target.series_uid or series_uid
                return links.retrieve_url(site, target.study_uid, series_uid, sop) if series_uid else ""

            expected = fetch.expected
            if expected is None and target.instance_uid is not None:
                expected = frozenset({target.instance_uid})
            if not delivery.multipart and delivery.media_type != "application/dicom":
                raise MemberGarbage(f"{site.emetteur}: {delivery.media_type or 'no type'} where DICOM was asked for")
            if delivery.multipart and delivery.media_type not in ("application/dicom", ""):
                raise MemberGarbage(f"{site.emetteur}: parts of {delivery.media_type} where DICOM was asked for")
            return DicomRelay(delivery, tagger, locate, expected).events()
        if target.form in (Form.RENDERED, Form.THUMBNAIL):
            if not delivery.media_type.startswith(("image/", "video/")):
                raise MemberGarbage(
                    f"{site.emetteur}: {delivery.media_type or 'no type'} where a picture was asked for"
                )
        elif "json" in delivery.media_type or "html" in delivery.media_type:
            raise MemberGarbage(f"{site.emetteur}: {delivery.media_type} where a body was asked for")
        instance = links.retrieve_url(site, target.study_uid, target.series_uid or "", target.instance_uid or "")

        def part(number: int) -> str:
            frame = target.frames[number - 1] if 0 < number <= len(target.frames) else 0
            return f"{instance}/frames/{frame}" if frame else instance

        return BodyRelay(delivery, part, parts=len(target.frames) or None).events()

    # Which, whose, and what became of it ------------------------------------------------------------------------

    def _stranger(self, requester: Requester, located: Located) -> Callable[[Identity], None]:
        """An instance that bears another id than its study must be permitted by itself."""

        def check(identity: Identity) -> None:
            if not self._gate.permits(requester, located.location.study_uid, identity):
                raise NotFound("There is no such study, or it can't be shown.", report=located.report)
            located.also.add(self._naming.patient_id(identity.main))

        return check

    def _started(
        self, kind: EventKind, requester: Requester, scope: Scope, located: Located, request_id: str
    ) -> asyncio.Task[None]:
        """The trace becomes durable while the holder is opened; no byte passes before it is."""
        return asyncio.ensure_future(
            self._gate.trace_access(
                kind, requester, scope, located.location.study_uid, located.identity, located.holders, request_id
            )
        )

    def _ended(
        self, requester: Requester, scope: Scope, located: Located, request_id: str, outcome: EventOutcome
    ) -> None:
        uid, identity = located.location.study_uid, located.identity
        detail: dict[str, str | int | float] = {"also": " ".join(sorted(located.also))} if located.also else {}
        self._gate.trace_later(
            EventKind.TRANSFERRED, requester, scope, uid, identity, request_id, outcome=outcome, detail=detail
        )

    def _failed(self, site: Site, error: MemberError, located: Located, failures: list[MemberError]) -> None:
        failures.append(error)
        located.report.note(site.emetteur, error.status)
        if isinstance(error, MemberNotFound):
            self._locator.disbelieve(site, located.location.study_uid)

    def _refusal(self, failures: Sequence[MemberError], report: Report) -> RequestError:
        """What to tell the client when no holder could give it."""
        serious = [f for f in failures if not isinstance(f, (MemberCannot, MemberNotFound))]
        if not serious:
            if any(isinstance(f, MemberCannot) for f in failures):
                return NotAcceptable(
                    "No source that holds this can give it in the form that was asked for.", report=report
                )
            return NotFound("There is no such study, series or instance, or it can't be shown.", report=report)
        status = max(f.http_status for f in serious)
        return SourcesUnavailable("No source that holds this could give it.", report=report, http_status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A transfer whose first part is in hand."""

    multipart: bool
    events: AsyncGenerator[Sequence[PartEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What all the fetches of one retrieval share."""

    requester: Requester
    located: Located
    accept: Accept
    links: Links


def _attempts(target: Target, accept: Accept) -> list[Accept]:
    """One member request for each choice of the client's. As stored may be what can't be tagged: then explicit."""
    choices = list(accept.choices)
    stored = [media_type for media_type, syntax in choices if syntax == "*"]
    if target.form in (Form.DICOM, Form.FRAMES) and stored:
        choices.append((stored[0], EXPLICIT))
    return [replace(accept, choices=(choice,)) for choice in dict.fromkeys(choices)]


def _preferring(site: Site, holders: Sequence[Site]) -> list[Site]:
    return [site, *(s for s in holders if s.emetteur != site.emetteur)]
