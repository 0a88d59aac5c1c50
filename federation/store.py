"""Storing: instances stream through to the requester's own site, and to no other (DESIGN §2, flow 3).

Nothing is held but each instance's beginning, which says what it is. Before its first byte passes on, the store is
traced for its study and patient. The member's word tells what was stored; where it gave none, nothing was.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from consent import EventKind, EventOutcome, Requester
from federation.elements import BadPart10
from federation.errors import BadRequest, MemberError, TooLarge
from federation.gate import Gate
from federation.identity import Identity, LongIds, Record, no_long_ids, resolve
from federation.incoming import Incoming, IncomingReader, WrongSyntax
from federation.locate import Locator
from federation.members import Members
from federation.model import Buffer, MemberStored, PartBegin, PartEnd, PartEvent, Scope
from federation.scoping import sites_in
from registry import Site

#: With its transfer syntax as a parameter, some members take a part for something else.
_BEGIN = PartBegin(content_type="application/dicom")


class Failure(IntEnum):
    """Failure reasons (0008,1197): PS3.18 §I.2, PS3.4 §B.2.3."""

    PROCESSING = 0x0110
    DUPLICATE = 0x0111  # twice in one request
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    MISMATCH = 0xA900  # of another study than the request names
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX = 0xC122


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Sizes in bytes."""

    request: int = 16 << 30
    instance: int = 4 << 30
    instances: int = 20_000


@dataclass(slots=True, kw_only=True)
class Kept:
    """One instance and what became of it. `failure` 0 = stored, `warning` 0 = without one."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str = ""
    series_uid: str = ""
    failure: int = 0
    warning: int = 0

    @property
    def stored(self) -> bool:
        return not self.failure


@dataclass(slots=True, kw_only=True)
class Stored:
    """What one request came to. `site` is where it went, None = nowhere. `unreadable` = parts that name no instance."""

    site: Site | None
    instances: list[Kept] = field(default_factory=list)
    unreadable: int = 0
    notices: list[str] = field(default_factory=list)


class Storer:
    def __init__(
        self, members: Members, locator: Locator, gate: Gate, limits: StoreLimits, long_ids: LongIds = no_long_ids
    ) -> None:
        self._members = members
        self._locator = locator
        self._gate = gate
        self._limits = limits
        self._long_ids = long_ids

    async def store(
        self,
        requester: Requester,
        scope: Scope,
        study_uid: str | None,
        parts: AsyncGenerator[Sequence[PartEvent], None],
        *,
        request_id: str,
    ) -> Stored:
        """`study_uid` = the only study of which instances are taken. Errors of `parts` are raised again.

        Raises `TooLarge`, `NotFound` (scope), `BadRequest`, `consent.Unavailable`. Nothing is told to be stored then.
        """
        site = self._own_site(requester, scope)
        request = _Request(self, requester, scope, study_uid, site, request_id)
        answer: MemberStored | MemberError | None = None
        ended = False
        try:
            outgoing = request.passing(parts)
            first = await anext(outgoing, None)  # nothing may be left to send
            if first is not None:
                answer = await self._send(request, first, outgoing)
            ended = True
        finally:
            request.settle(answer if ended else None)
            request.trace_ends()
        stored = request.stored
        if not stored.instances and not stored.unreadable:
            raise BadRequest("No instance came. Send multipart/related with parts of type application/dicom.")
        if isinstance(answer, MemberError):
            stored.notices.append(f"{request.to.emetteur} did not take it ({answer.status}): send it again later")
        self._forget(stored)
        return stored

    def _own_site(self, requester: Requester, scope: Scope) -> Site | None:
        """Where the requester may store: his own site, if it is in the scope and connected."""
        sites = sites_in(scope, self._members.directory())
        home = requester.home
        return next((s for s in sites if home is not None and s.emetteur == home.emetteur), None)

    async def _send(
        self, request: _Request, first: Sequence[PartEvent], rest: AsyncGenerator[Sequence[PartEvent], None]
    ) -> MemberStored | MemberError:
        async def outgoing() -> AsyncGenerator[Sequence[PartEvent], None]:
            yield first
            async for batch in rest:
                yield batch

        try:
            async with (
                contextlib.aclosing(outgoing()) as stream,
                self._members.guarded(request.to, "store", of_object=True) as (member, _),
            ):
                return await member.store(stream, request.study_uid)
        except MemberError as error:
            request.given_up = True
            async for _ in rest:  # so that each instance has its answer
                pass
            return error

    async def trace_begin(self, request: _Request, instance: Incoming) -> Identity:
        """Durable before it returns → whose the study is."""
        raw = instance.patient_id
        ipp, authority, origin = resolve(raw, request.to, self._members.directory(), long_ids=self._long_ids)
        record = Record(
            holder=request.to,
            raw_patient_id=raw,
            ipp=ipp,
            authority=authority,
            origin=origin,
            study_uid=instance.study_uid,
        )
        identity = Identity(records=(record,))
        await self._gate.trace_access(
            EventKind.STORE_BEGUN,
            request.requester,
            request.scope,
            instance.study_uid,
            identity,
            [request.to],
            request.request_id,
        )
        return identity

    def trace_end(self, request: _Request, study_uid: str, identity: Identity, counts: tuple[int, int]) -> None:
        stored, failed = counts
        self._gate.trace_later(
            EventKind.STORED,
            request.requester,
            request.scope,
            study_uid,
            identity,
            request.request_id,
            outcome=EventOutcome.SUCCESS if stored and not failed else EventOutcome.FAILURE,
            detail={"stored": stored, "failed": failed},
        )

    def trace_refused(self, request: _Request, study_uid: str, why: str) -> None:
        self._gate.store_refused(request.requester, request.scope, study_uid, request.request_id, why=why)

    def _forget(self, stored: Stored) -> None:
        """What the site was known to hold of these studies is known no more."""
        if stored.site is not None:
            for study_uid in {kept.study_uid for kept in stored.instances if kept.stored}:
                self._locator.disbelieve(stored.site, study_uid)

    @property
    def limits(self) -> StoreLimits:
        return self._limits


class _Request:
    """One request under way: which instances came, which are passed on, and what became of each."""

    def __init__(
        self,
        storer: Storer,
        requester: Requester,
        scope: Scope,
        study_uid: str | None,
        site: Site | None,
        request_id: str,
    ) -> None:
        self._storer = storer
        self._limits = storer.limits
        self._site = site
        self._whose: dict[tuple[str, str], Identity] = {}  # by study and PatientID
        self._kept: dict[str, Kept] = {}
        self._sent: dict[str, tuple[str, str]] = {}  # SOPInstanceUID → its key in `_whose`
        self._refused: set[str] = set()  # studies of which that is traced
        self._size = 0
        self.requester = requester
        self.scope = scope
        self.study_uid = study_uid
        self.request_id = request_id
        self.stored = Stored(site=site)
        self.given_up = False  # the member takes no more

    @property
    def to(self) -> Site:
        assert self._site is not None
        return self._site

    async def passing(
        self, parts: AsyncGenerator[Sequence[PartEvent], None]
    ) -> AsyncGenerator[Sequence[PartEvent], None]:
        """What is to be sent on. An instance that is not to be stored is left out, and noted."""
        part: _Part | None = None
        async for batch in parts:
            out: list[PartEvent] = []
            for event in batch:
                if isinstance(event, PartBegin):
                    if len(self.stored.instances) + self.stored.unreadable >= self._limits.instances:
                        raise TooLarge(f"More than {self._limits.instances} instances: send them in several requests.")
                    part = _Part(event)
                elif part is None:
                    continue
                elif isinstance(event, PartEnd):
                    out += await self._fed(part, None)
                    if part.passes:
                        out.append(event)
                    part = None
                else:
                    self._weigh(part, len(event))
                    out += await self._fed(part, event)
            if out and not self.given_up:
                yield out

    def _weigh(self, part: _Part, size: int) -> None:
        part.size += size
        self._size += size
        if part.size > self._limits.instance:
            raise TooLarge(f"An instance of more than {_in_words(self._limits.instance)}: nothing was stored.")
        if self._size > self._limits.request:
            raise TooLarge(
                f"More than {_in_words(self._limits.request)} in one request: send it in several; nothing was stored."
            )

    async def _fed(self, part: _Part, chunk: Buffer | None) -> list[PartEvent]:
        """What of this part may pass on now. `chunk` None = the part is complete."""
        if part.decided:
            return [] if chunk is None or not part.passes else [chunk]
        try:
            pieces = part.reader.finish() if chunk is None else part.reader.feed(chunk)
        except BadPart10 as error:
            part.decided = True
            self._unreadable(part.reader, error)
            return []
        instance = part.reader.instance
        if instance is None:
            return []
        part.decided = True
        part.passes = await self._takes(part, instance)
        return [_BEGIN, *pieces] if part.passes else []

    def _unreadable(self, reader: IncomingReader, error: BadPart10) -> None:
        sop = reader.guess.get("sop_instance_uid", "")
        if not sop or sop in self._kept:
            self.stored.unreadable += 1
            self.stored.notices.append(f"One part can't be read as an instance: {error}")
            return
        reason = Failure.TRANSFER_SYNTAX if isinstance(error, WrongSyntax) else Failure.CANNOT_UNDERSTAND
        self._note(Kept(sop_class_uid=reader.guess.get("sop_class_uid", ""), sop_instance_uid=sop, failure=reason))
        self.stored.notices.append(f"An instance can't be read: {error}")

    async def _takes(self, part: _Part, instance: Incoming) -> bool:
        """Is this instance to be stored? Traced then, before any of it passes."""
        kept = Kept(
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            study_uid=instance.study_uid,
            series_uid=instance.series_uid,
        )
        why = ""
        if part.media_type not in ("application/dicom", "", "application/octet-stream"):
            kept.failure, why = Failure.CANNOT_UNDERSTAND, "not of type application/dicom"
        elif self._site is None:
            kept.failure, why = Failure.NOT_AUTHORISED, "not the requester's own site"
        elif self.study_uid is not None and instance.study_uid != self.study_uid:
            kept.failure, why = Failure.MISMATCH, "of another study than the request names"
        elif instance.sop_instance_uid in self._kept:
            kept.failure, why = Failure.DUPLICATE, "twice in one request"
        elif self.given_up:
            kept.failure = Failure.OUT_OF_RESOURCES
        self._note(kept)
        if kept.failure:
            if self._site is None and instance.study_uid not in self._refused:
                self._refused.add(instance.study_uid)
                self._storer.trace_refused(self, instance.study_uid, why)
            return False
        key = (instance.study_uid, instance.patient_id)
        if key not in self._whose:
            self._whose[key] = await self._storer.trace_begin(self, instance)
        self._sent[instance.sop_instance_uid] = key
        return True

    def _note(self, kept: Kept) -> None:
        self.stored.instances.append(kept)
        self._kept.setdefault(kept.sop_instance_uid, kept)

    def settle(self, answer: MemberStored | MemberError | None) -> None:
        """What the member said becomes of each instance that it was sent. None = the request was broken off."""
        for sop in self._sent:
            kept = self._kept[sop]
            if isinstance(answer, MemberStored) and sop in answer.stored:
                kept.warning = answer.stored[sop]
            elif isinstance(answer, MemberStored):
                kept.failure = answer.failed.get(sop) or Failure.PROCESSING
            else:
                kept.failure = Failure.OUT_OF_RESOURCES

    def trace_ends(self) -> None:
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for sop, key in self._sent.items():
            stored, failed = counts.get(key, (0, 0))
            counts[key] = (stored + 1, failed) if self._kept[sop].stored else (stored, failed + 1)
        for key, count in counts.items():
            self._storer.trace_end(self, key[0], self._whose[key], count)


class _Part:
    """One part of the body."""

    def __init__(self, begin: PartBegin) -> None:
        self.media_type = begin.content_type.partition(";")[0].strip().lower()
        self.reader = IncomingReader()
        self.size = 0
        self.decided = self.passes = False


def _in_words(size: int) -> str:
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):g} MiB"
