"""Finds the studies that oppositions to an IPP or an accession number name, as soon as their sites can say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Self

from consent.bindings import OppositionKind
from consent.oppositions import OppositionStore, Unresolved
from federation.binding import Bound, Incomplete, studies_of_accession, studies_of_patient
from federation.identity import Naming
from federation.members import Members
from registry import Site
from registry.database import Database, DatabaseError

_log = logging.getLogger(__name__)

#: Between two questions, and before the next look when there is nothing to ask. In seconds.
PACE_S = 0.5
PAUSE_S = 5.0
#: At least so long between two looks, however often something changes.
_BREATH_S = 0.1
#: A site that could not say is left alone for so long, each time twice as long as the time before.
REST_S = 15.0
REST_MAX_S = 300.0


@dataclass(slots=True)
class _Rests:
    """What is left alone, and until when (`time.monotonic()`)."""

    until: dict[str | int, float] = field(default_factory=dict)

    def rest(self, who: str | int, seconds: float) -> None:
        now = time.monotonic()
        self.until = {other: moment for other, moment in self.until.items() if moment > now}
        self.until[who] = now + seconds

    def resting(self, who: str | int) -> bool:
        return self.until.get(who, 0.0) > time.monotonic()


class Resolver:
    """Runs in every process that serves, as an asynchronous context; processes share the work through the database.

    Takes active oppositions whose site never said which studies they name, then those whose site last said so more
    than a day ago, and asks at most two a second. What cannot be asked now is asked again later: a lost database or a
    site that is down stops nothing. `members` gives the directory too. No patient data is logged.
    """

    def __init__(
        self,
        database: Database,
        members: Members,
        naming: Naming,
        *,
        pace_s: float = PACE_S,
        pause_s: float = PAUSE_S,
        rest_s: float = REST_S,
    ) -> None:
        self._store = OppositionStore(database)
        self._members = members
        self._naming = naming
        self._pace_s = pace_s
        self._pause_s = pause_s
        self._rest_s = rest_s
        self._rests = _Rests()
        self._failures: dict[str, int] = {}  # in a row, by EMETTEUR
        self._lost = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """An opposition may have been recorded: look now."""
        self._woken.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="resolver")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        while True:
            asked = False
            self._woken.clear()
            try:
                asked = await self._next()
                if self._lost:
                    self._lost = False
                    _log.warning("oppositions are resolved again")
            except DatabaseError as error:
                if not self._lost:
                    self._lost = True
                    _log.error("oppositions cannot be resolved: %s", error)
            except Exception as error:  # its text may be of a patient's
                _log.error("oppositions cannot be resolved: unexpected %s", type(error).__name__)
            await asyncio.sleep(self._pace_s if asked else _BREATH_S)
            if not asked:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s):
                        await self._woken.wait()

    async def _next(self) -> bool:
        """Ask one site about one opposition. False if there is none to ask about."""
        sites = {site.emetteur: site for site in self._members.directory().sites if self._may_ask(site)}
        left_alone = [who for who in self._rests.until if isinstance(who, int) and self._rests.resting(who)]
        if not sites:
            return False
        async with self._store.take_unresolved(list(sites), left_alone) as taken:
            if taken is None:
                return False
            opposition, settle = taken
            try:
                bound = await self._ask(sites[opposition.emetteur], opposition)
                if bound.study_uids or bound.error is None:
                    await settle(bound.whose, resolved=bound.error is None)
            except Exception:
                self._rests.rest(opposition.id, REST_MAX_S)  # the others must not wait for it
                raise
        self._note(opposition, bound)
        return True

    def _may_ask(self, site: Site) -> bool:
        return site.asked and not self._rests.resting(site.emetteur)

    async def _ask(self, site: Site, opposition: Unresolved) -> Bound:
        ask = studies_of_accession if opposition.kind is OppositionKind.ACCESSION else studies_of_patient
        return await ask(self._members, self._naming, site, opposition.number)

    def _note(self, opposition: Unresolved, bound: Bound) -> None:
        emetteur = opposition.emetteur
        failures = self._failures.pop(emetteur, 0)
        if bound.error is None:
            if failures:
                _log.warning("%s says again which studies oppositions name", emetteur)
            return
        if isinstance(bound.error, Incomplete):
            # The site is well; this one patient has more studies than it gives.
            self._rests.rest(opposition.id, REST_MAX_S)
            _log.warning("%s names a part of the studies of opposition %d only", emetteur, opposition.id)
            return
        self._failures[emetteur] = failures + 1
        rest_s = min(self._rest_s * 2 ** min(failures, 10), REST_MAX_S)
        self._rests.rest(emetteur, rest_s)
        # It may be this question that the site cannot take: the next one goes first.
        self._rests.rest(opposition.id, 2 * rest_s)
        if not failures:
            reason = type(bound.error).__name__
            _log.warning("%s cannot say which studies oppositions name, it is asked again later: %s", emetteur, reason)
