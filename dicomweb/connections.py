"""Connections to one member: kept ones for what is asked of it, and such as serve once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from dicomweb.streams import FULL

#: As long as a connection is kept that nobody uses, in seconds. Members keep theirs as they like: Orthanc for one.
KEPT_S = 15.0


class Connections:
    """`limit` at once of either kind; `idle_s` = a body that gives nothing for so long is broken."""

    def __init__(self, headers: Mapping[str, str], *, tls: ssl.SSLContext | None, limit: int, idle_s: float) -> None:
        self._headers = headers
        self._tls = tls
        self._limit = limit
        self._idle_s = idle_s
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._kept_until = 0.0

    def kept(self) -> aiohttp.ClientSession:
        return self._session(once=False)

    def once(self) -> aiohttp.ClientSession:
        """New ones, for what must not be sent twice."""
        return self._session(once=True)

    def _session(self, *, once: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(once)
        if session is None:
            connector = aiohttp.TCPConnector(
                limit=self._limit,
                ssl=self._tls if self._tls is not None else True,
                ttl_dns_cache=60,
                force_close=once,
                keepalive_timeout=None if once else KEPT_S,
            )
            session = self._sessions[once] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                trust_env=False,
                read_bufsize=FULL,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=self._idle_s),
            )
        return session

    async def get(self, url: URL, **options: Any) -> aiohttp.ClientResponse:
        """aiohttp's errors are raised.

        A member may close a kept connection just when it is used, and maybe all that it has: that is no failure of its
        own, so a new one is tried. (aiohttp tries once more, on another kept one.)
        """
        try:
            return await self.kept().get(url, **options)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or time.monotonic() > self._kept_until:
                raise  # it was no kept one
        return await self.once().get(url, **options)

    def given_back(self) -> None:
        """A connection may be used again."""
        self._kept_until = time.monotonic() + KEPT_S

    async def aclose(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
