"""A holder that breaks off in the middle of a study: another one gives the rest, each instance once.

Some break off at an instance that they can't transcode. So where no other is left, and the last instance passed whole,
the missing ones are asked for one by one: each may come in another form.

An instance that was cut is taken from another holder from its beginning, and what has passed already is left out, if it
is the same to the byte. Where it is not, or nobody else has it, the transfer is broken. Copies that begin alike and end
otherwise under one SOPInstanceUID can't be told apart so: the standard knows no such copies (PS3.5 §9.1).
"""

from __future__ import annotations

import contextlib
import logging
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace

from federation.errors import BrokenTransfer, MemberError
from federation.locate import Locator
from federation.model import Buffer, Form, PartBegin, PartEnd, PartEvent
from federation.opening import HolderBroke, Job, Opened, Opener, refusal
from federation.plan import Fetch
from registry import Site

_log = logging.getLogger(__name__)
_SOP = re.compile(r"/instances/([0-9.]{1,64})\Z")

Batches = AsyncGenerator[Sequence[PartEvent], None]


class Progress:
    """What of one fetch has passed on. `summed`: checked too, as another holder might have to go on in an instance."""

    def __init__(self, expected: frozenset[str] | None, *, summed: bool) -> None:
        self._expected = expected
        self._summed = summed
        self.done: set[str] = set()  # SOPInstanceUIDs
        self.sop = ""  # of the instance on its way, "" for none
        self.sent = 0  # its bytes that have passed
        self.sum = 0  # and their checksum
        self.lost = False  # an instance passed that does not tell which it is, or is none of those

    def note(self, batch: Sequence[PartEvent]) -> None:
        for event in batch:
            if isinstance(event, PartBegin):
                named = _SOP.search(event.location)
                self.sop, self.sent, self.sum = named[1] if named is not None else "", 0, 0
                self.lost = self.lost or not self.sop or (self._expected is not None and self.sop not in self._expected)
            elif isinstance(event, PartEnd):
                self.done.add(self.sop)
                self.sop = ""
            else:
                self.sent += len(event)
                if self._summed:
                    self.sum = zlib.crc32(event, self.sum)


class Resumer:
    def __init__(self, opener: Opener, locator: Locator) -> None:
        self._opener = opener
        self._locator = locator

    async def whole(self, opened: Opened, fetch: Fetch, job: Job, stack: contextlib.AsyncExitStack) -> Batches:
        """All that a fetch brings, from the transfer that is open (left to `stack`) and, if that breaks off, from other
        holders. Raises `BrokenTransfer` if they can't go on, and what opening raises."""
        several = fetch.expected is not None and len(fetch.candidates) > 1
        if fetch.target.form is not Form.DICOM or not (several or fetch.target.instance_uid is None):
            async for batch in opened.events:
                yield batch
            return
        progress = Progress(fetch.expected, summed=several)
        try:
            async for batch in opened.events:
                progress.note(batch)
                yield batch
            return
        except HolderBroke as error:
            broken = error
        # Closed as what broke, not as what ended well: that would clear the holder's name.
        await stack.__aexit__(type(broken), broken, broken.__traceback__)
        sites = tuple(s for s in fetch.candidates if several and s.emetteur != opened.site.emetteur)
        while sites and not progress.lost:
            _log.warning("a holder broke off, another is to go on", extra={"why": str(broken)})
            try:
                async for batch in self._rest(fetch, job, sites, progress):
                    yield batch
                return
            except HolderBroke as error:
                broken = error
                sites = tuple(s for s in sites if s.emetteur != error.emetteur)
        if progress.lost or progress.sop:
            raise broken
        _log.warning("a holder broke off, the rest is asked for one by one", extra={"why": str(broken)})
        missing = await self._missing(fetch, progress)
        if not missing:
            raise broken
        for part in missing:
            async with self._opened(part, job) as one:
                async for batch in one.events:
                    yield batch

    async def _missing(self, fetch: Fetch, progress: Progress) -> list[Fetch]:
        """Each instance that has not passed, by itself; none if nobody tells what there is."""
        inventory = await self._locator.inventory(fetch.target.study_uid, fetch.candidates)
        target = fetch.target
        series_of = {
            sop: series
            for contents in inventory.contents.values()
            for sop, series in contents.items()
            if target.series_uid in (None, series) and (fetch.expected is None or sop in fetch.expected)
        }
        if not (fetch.expected or progress.done) <= series_of.keys():
            return []
        return [
            Fetch(
                target=replace(target, series_uid=series, instance_uid=sop),
                candidates=fetch.candidates,
                expected=frozenset({sop}),
            )
            for sop, series in sorted(series_of.items())
            if sop not in progress.done
        ]

    async def _rest(self, fetch: Fetch, job: Job, sites: tuple[Site, ...], progress: Progress) -> Batches:
        """What is missing, of these holders."""
        assert fetch.expected is not None
        inventory = await self._locator.inventory(fetch.target.study_uid, sites)
        having = tuple(s for s in sites if fetch.expected <= inventory.contents.get(s.emetteur, {}).keys())
        if not having:
            raise BrokenTransfer("no other holder has the rest")
        contents = inventory.contents[having[0].emetteur]
        if progress.sop:
            one = replace(fetch.target, series_uid=contents[progress.sop], instance_uid=progress.sop)
            cut = Fetch(target=one, candidates=having, expected=frozenset({progress.sop}))
            async with self._opened(cut, job) as opened:
                async for batch in _behind(opened.events, progress):
                    yield batch
        for part in _parts(fetch, contents, progress.done, having):
            async with self._opened(part, job) as opened:
                async for batch in opened.events:
                    progress.note(batch)
                    yield batch

    @contextlib.asynccontextmanager
    async def _opened(self, fetch: Fetch, job: Job) -> AsyncIterator[Opened]:
        async with contextlib.AsyncExitStack() as own:
            failures: list[MemberError] = []
            opened = await self._opener.first(own, fetch, job, failures)
            if opened is None:
                raise refusal(failures, job.located.report)
            yield opened


def _parts(fetch: Fetch, contents: Mapping[str, str], done: set[str], sites: tuple[Site, ...]) -> list[Fetch]:
    """Requests for all that is not done: by series, by instance where some of a series has passed."""
    assert fetch.expected is not None
    missing: dict[str, set[str]] = {}
    for sop in fetch.expected - done:
        missing.setdefault(contents[sop], set()).add(sop)
    parts: list[Fetch] = []
    for series, sops in sorted(missing.items()):
        held = {sop for sop, of in contents.items() if of == series}
        target = replace(fetch.target, series_uid=series)
        if sops == held and fetch.target.instance_uid is None:
            parts.append(Fetch(target=target, candidates=sites, expected=frozenset(sops)))
        else:
            parts += [
                Fetch(target=replace(target, instance_uid=sop), candidates=sites, expected=frozenset({sop}))
                for sop in sorted(sops)
            ]
    return parts


async def _behind(events: Batches, progress: Progress) -> Batches:
    """An instance from where its transfer was cut. Raises `BrokenTransfer` if it does not begin as that did."""
    left, total = progress.sent, 0
    async for batch in events:
        out: list[PartEvent] = []
        for event in batch:
            if isinstance(event, PartBegin):
                continue
            if isinstance(event, PartEnd):
                if left:
                    raise BrokenTransfer("another holder's copy is shorter")
                progress.done.add(progress.sop)
                progress.sop = ""
                out.append(event)
                continue
            chunk: Buffer = event
            if left:
                begun = memoryview(chunk)[:left]
                total = zlib.crc32(begun, total)
                left -= len(begun)
                chunk = memoryview(chunk)[len(begun) :]
                if not left and total != progress.sum:
                    raise BrokenTransfer("another holder's copy begins otherwise")
            if len(chunk):
                out.append(chunk)
                progress.sent += len(chunk)
                progress.sum = zlib.crc32(chunk, progress.sum)
        if out:
            yield out
