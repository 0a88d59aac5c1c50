"""The connected members: one client and one breaker each, asked in parallel, each with its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from federation.errors import MemberError, MemberSkipped, MemberTimeout, MemberUnreachable
from federation.health import Breaker, Health
from federation.model import Accept, Deadline, Delivery, Member, Outcome, Target
from registry import Directory, Site

T = TypeVar("T")
#: How long the connections to an address that was changed stay open, in seconds.
RETIRED_S = 600.0

#: What tells that a member is ill although only one of its objects was asked for. Any other failure may lie in that
#: object (a picture that it can't decode): it must not take the member from everyone.
_ILLNESS = (MemberTimeout, MemberUnreachable)


def is_illness(error: MemberError, *, of_object: bool) -> bool:
    """Does a failure count against the member?"""
    return error.counts_against_member and (not of_object or isinstance(error, _ILLNESS))


class MemberClient(Member, Protocol):
    async def aclose(self) -> None: ...


class Observer(Protocol):
    """Told of every call to a member, for metrics and logs."""

    def called(self, emetteur: str, operation: str, status: str, elapsed_s: float) -> None: ...


class Silent:
    def called(self, emetteur: str, operation: str, status: str, elapsed_s: float) -> None:
        return


class Members:
    """Clients by EMETTEUR, made when first asked, made anew when a site's address changes."""

    def __init__(
        self,
        directory: Callable[[], Directory],
        connect: Callable[[Site], MemberClient],
        *,
        deadline_s: float,
        breaker_failures: int = 3,
        breaker_open_s: float = 15.0,
        observer: Observer | None = None,
    ) -> None:
        self.directory = directory
        self._connect = connect
        self.deadline_s = deadline_s
        self._breaker_failures = breaker_failures
        self._breaker_open_s = breaker_open_s
        self._observer = observer or Silent()
        self._clients: dict[str, MemberClient] = {}
        self._breakers: dict[str, Breaker] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def client(self, site: Site) -> MemberClient:
        client = self._clients.get(site.emetteur)
        if client is not None and _address(client.site) == _address(site):
            client.site = site  # its name, its quirks or its deadline may have changed
            return client
        if client is not None:
            task = asyncio.ensure_future(_retire(client))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        client = self._clients[site.emetteur] = self._connect(site)
        return client

    def breaker(self, site: Site) -> Breaker:
        breaker = self._breakers.get(site.emetteur)
        if breaker is None:
            breaker = self._breakers[site.emetteur] = Breaker(
                time.monotonic, failures=self._breaker_failures, open_s=self._breaker_open_s
            )
        return breaker

    def health(self) -> dict[str, Health]:
        return {emetteur: breaker.health() for emetteur, breaker in self._breakers.items()}

    def deadline(self, site: Site) -> Deadline:
        return Deadline(site.deadline_s or self.deadline_s)

    async def ask(
        self,
        sites: Iterable[Site],
        operation: str,
        call: Callable[[Member, Deadline], Awaitable[T]],
        *,
        of_object: bool = False,
    ) -> list[Outcome[T]]:
        """Ask all at once; every site has an outcome, in the order given. Nothing is raised but cancellation.

        `of_object` = for what the member holds of one study, not for a search.
        """
        return list(await asyncio.gather(*(self._ask_one(site, operation, call, of_object) for site in sites)))

    async def _ask_one(
        self, site: Site, operation: str, call: Callable[[Member, Deadline], Awaitable[T]], of_object: bool
    ) -> Outcome[T]:
        started = time.monotonic()
        result: T | MemberError
        try:
            async with self.guarded(site, operation, of_object=of_object) as (member, deadline):
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        result = await call(member, deadline)
                except TimeoutError:
                    raise MemberTimeout(f"{site.emetteur}: no answer within its deadline") from None
        except MemberError as error:
            result = error
        return Outcome(site=site, result=result, elapsed_s=time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def guarded(
        self, site: Site, operation: str, *, of_object: bool = False
    ) -> AsyncIterator[tuple[Member, Deadline]]:
        """One admitted call: its end is told to the breaker and the observer."""
        breaker = self.breaker(site)
        if not breaker.admit():
            self._observer.called(site.emetteur, operation, MemberSkipped.status, 0.0)
            raise MemberSkipped(f"{site.emetteur}: left alone after repeated failures")
        started = time.monotonic()
        status = "cancelled"
        try:
            yield self.client(site), self.deadline(site)
        except MemberError as error:
            status = str(error.status)
            if is_illness(error, of_object=of_object):
                breaker.failed(type(error).__name__)
            else:
                breaker.succeeded()
            raise
        except BaseException:
            breaker.released()
            raise
        else:
            status = "ok"
            breaker.succeeded()
        finally:
            self._observer.called(site.emetteur, operation, status, time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def open(self, site: Site, target: Target, accept: Accept) -> AsyncIterator[Delivery]:
        """An open transfer from one member."""
        async with (
            self.guarded(site, f"retrieve-{target.form}", of_object=True) as (member, deadline),
            member.retrieve(target, accept, deadline=deadline) as delivery,
        ):
            yield delivery

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*(c.aclose() for c in clients.values()), *self._closing, return_exceptions=True)


def _address(site: Site) -> tuple[object, ...]:
    return (site.dicomweb, site.aet, site.host, site.port)


async def _retire(client: MemberClient) -> None:
    """Transfers under way from the old address may end."""
    try:
        await asyncio.sleep(RETIRED_S)
    finally:
        await client.aclose()
