"""Checks each member again from time to time, so that its profile stays true."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from typing import Self

from federation.health import BreakerState
from federation.members import Members
from imagora.checkup import MayRead, connect, examine
from registry import Site
from registry.database import Database, DatabaseError
from registry.profiles import ProfileStore

_log = logging.getLogger(__name__)

#: After a start, and between two looks for a member whose profile is old. In seconds, give or take a half.
START_S = 300.0
PAUSE_S = 60.0
#: A member that did not answer is tried again after this long, or after the interval if that is shorter.
AGAIN_S = 3600.0

#: emetteur → whether this session checks it now: none of the other processes does until the session ends
_TAKE = "SELECT pg_try_advisory_lock(hashtextextended('imagora profile ' || $1, 0))"


class Checker:
    """Runs in every process that serves, as an asynchronous context; processes share the work through the database.

    One member after the other, in each process; members that are left alone (their breaker is open) wait. What is
    found is kept with the site (`registry.profiles`). A lost database or a member that is down stops nothing.
    """

    def __init__(
        self,
        database: Database,
        members: Members,
        may_read: Callable[[Site], MayRead],
        *,
        every_s: float,
        start_s: float = START_S,
        pause_s: float = PAUSE_S,
        again_s: float = AGAIN_S,
    ) -> None:
        self._database = database
        self._profiles = ProfileStore(database)
        self._members = members
        self._may_read = may_read
        self._every_s = every_s
        self._start_s = start_s
        self._pause_s = pause_s
        self._again_s = min(again_s, every_s)
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._every_s > 0:
            self._task = asyncio.create_task(self._run(), name="checker")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        tls = await asyncio.to_thread(ssl.create_default_context)
        await asyncio.sleep(_about(self._start_s))
        while True:
            try:
                await self._look(tls)
                if self._lost:
                    self._lost = False
                    _log.warning("members are checked again")
            except DatabaseError as error:
                if not self._lost:
                    self._lost = True
                    _log.warning("members cannot be checked: %s", error)
            except Exception as error:  # its text may be of a patient's
                _log.error("a member cannot be checked: unexpected %s", type(error).__name__)
            await asyncio.sleep(_about(self._pause_s))

    async def _look(self, tls: ssl.SSLContext) -> None:
        """Check every member that is due."""
        for emetteur in await self._due():
            site = self._members.directory().site(emetteur)
            if site is None or not self._may_check(site):
                continue
            # A connection of its own: it holds the lock for as long as the member takes, outside any transaction.
            async with self._database.session() as session:
                if await session.fetchval(_TAKE, emetteur) and emetteur in await self._due():
                    await self._check(site, tls)

    async def _due(self) -> list[str]:
        sites = {
            site.emetteur: site.dicomweb
            for site in self._members.directory().sites
            if self._may_check(site) and site.dicomweb is not None
        }
        return await self._profiles.due(sites, self._every_s, self._again_s)

    def _may_check(self, site: Site) -> bool:
        return site.asked and site.dicomweb is not None and self._members.breaker(site).state is BreakerState.CLOSED

    async def _check(self, site: Site, tls: ssl.SSLContext) -> None:
        assert site.dicomweb is not None
        await self._profiles.tried(site.emetteur, site.dicomweb)
        member, deadline_s = connect(site, self._members.deadline_s, tls)
        try:
            checkup = await examine(member, deadline_s, self._may_read(site))
        finally:
            await member.aclose()
        if not checkup.answered:
            _log.warning("%s did not answer its check; what was known of it stays", site.emetteur)
            return
        await self._profiles.keep(checkup.profile, site.dicomweb)
        _log.info("%s was checked: %s", site.emetteur, checkup.verdict)


def _about(seconds: float) -> float:
    """So that processes that start together do not look together."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311
