"""How this process finds the members, told to the other processes and to `imagora sites list` through the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from federation.health import Health
from registry.database import DatabaseError
from registry.store import RegistryStore, SeenHealth

_log = logging.getLogger(__name__)

#: Changes are written this often; what has not changed is confirmed at least every `CONFIRM_S`.
WRITE_S = 3.0
CONFIRM_S = 25.0
#: At the end the database gets this long to forget us; else what we wrote goes stale by itself.
_FORGET_S = 2.0


def server_name() -> str:
    """This process among all that serve. A number may be another process's tomorrow, hence the random end."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


@dataclass(slots=True)
class _Told:
    """What was last written of one member."""

    health: Health
    at: float
    since: float


class HealthRecorder:
    """Writes changes of `health()` while it runs, as an asynchronous context.

    Times of `Health` are of `time.monotonic`. A lost database stops nothing: what changed meanwhile is written when
    it is back.
    """

    def __init__(
        self,
        health: Callable[[], Mapping[str, Health]],
        store: RegistryStore,
        *,
        server: str | None = None,
        write_s: float = WRITE_S,
        confirm_s: float = CONFIRM_S,
    ) -> None:
        self._health = health
        self._store = store
        self._server = server or server_name()
        self._write_s = write_s
        self._confirm_s = confirm_s
        self._told: dict[str, _Told] = {}
        self._since: dict[str, tuple[bool, float]] = {}
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="health-recorder")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        with contextlib.suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(_FORGET_S):
                await self._store.forget_health(self._server)

    async def _run(self) -> None:
        swept = False
        while True:
            try:
                if not swept:
                    await self._store.sweep_health()
                    swept = True
                await self._write()
                if self._lost:
                    self._lost = False
                    _log.warning("the members' health is recorded again")
            except DatabaseError as error:
                if not self._lost:
                    self._lost = True
                    _log.warning("the members' health cannot be recorded: %s", error)
            await asyncio.sleep(self._write_s)

    async def _write(self) -> None:
        now = time.monotonic()
        news: dict[str, _Told] = {}
        for emetteur, health in self._health().items():
            if health.last_success_at is None and health.last_failure_at is None:
                continue  # asked, but nothing has come of it yet
            told = self._told.get(emetteur)
            since = self._answering_since(emetteur, health, now)
            if told is None or now - told.at >= self._confirm_s or _changed(told.health, health):
                news[emetteur] = _Told(health, now, since)
        if news:
            await self._store.record_health(self._server, [_seen(e, told, now) for e, told in news.items()])
            self._told |= news

    def _answering_since(self, emetteur: str, health: Health, now: float) -> float:
        """Since when it answers, or fails. A breaker that opens and probes in turn does not make it anew."""
        answers = health.consecutive_failures == 0
        known = self._since.get(emetteur)
        if known is None or known[0] is not answers:
            # The first failure in a row is not known, only the last one; it is seen within a few seconds.
            moment = health.last_failure_at if not answers and health.consecutive_failures == 1 else None
            known = self._since[emetteur] = (answers, moment if moment is not None else now)
        return known[1]


def _changed(old: Health, new: Health) -> bool:
    return (old.state, old.consecutive_failures, old.last_success_at, old.last_failure_at) != (
        new.state,
        new.consecutive_failures,
        new.last_success_at,
        new.last_failure_at,
    )


def _seen(emetteur: str, told: _Told, now: float) -> SeenHealth:
    health = told.health

    def age(moment: float | None) -> float | None:
        return None if moment is None else max(0.0, now - moment)

    return SeenHealth(
        emetteur=emetteur,
        state=str(health.state),
        failures_in_a_row=health.consecutive_failures,
        since_s=max(0.0, now - told.since),
        last_success_s=age(health.last_success_at),
        last_failure_s=age(health.last_failure_at),
        last_failure=health.last_failure,
    )
