"""Checks bearer tokens with the issuer's keys as they are now. How the keys are fetched is given from outside."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable

from consent.model import Unavailable
from consent.tokens import BadKeys, Claims, KeySet, TokenRules, UnknownKey, verify

_log = logging.getLogger(__name__)

#: Between two fetches: tokens with made-up key ids must not turn us against the issuer.
FLOOR_S = 30.0
#: As long as no keys were ever had.
FIRST_FLOOR_S = 1.0
#: Keys are fetched anew this often, so that one that the issuer gave up is given up here.
AGE_S = 3600.0
_VERIFIED_MAX = 4096


class KeysUnreachable(Exception):
    """The issuer's keys cannot be had; the text names no secret."""


class BearerCheck:
    """`await check(token)` → its `Claims`. Raises `InvalidToken`; `Unavailable` as long as no keys could be had.

    `fetch` gives the JWK Set's bytes or raises `KeysUnreachable`. A token that was good is remembered until it expires
    or keys change: a viewer's hundreds of requests cost one verification.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        rules: TokenRules,
        *,
        floor_s: float = FLOOR_S,
        age_s: float = AGE_S,
    ) -> None:
        self._fetch = fetch
        self._rules = rules
        self._floor_s = floor_s
        self._age_s = age_s
        self._keys: KeySet | None = None
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._lock = asyncio.Lock()
        self._verified: dict[bytes, Claims] = {}

    async def __call__(self, token: str) -> Claims:
        if time.monotonic() - self._fetched_at > self._age_s:
            await self._refetch()
        if self._keys is None:
            raise Unavailable("the issuer's keys cannot be had")
        now = time.time()
        digest = hashlib.sha256(token.encode()).digest()
        if (known := self._verified.get(digest)) is not None and now < known.expires_at:
            return known
        try:
            claims = verify(token, self._keys, self._rules, now)
        except UnknownKey:
            if not await self._refetch():
                raise
            claims = verify(token, self._keys, self._rules, now)
        if len(self._verified) >= _VERIFIED_MAX:
            self._verified.clear()  # costs a verification each
        self._verified[digest] = claims
        return claims

    async def _refetch(self) -> bool:
        """Fetch the keys unless that was tried a moment ago. True if there may be news since the caller looked."""
        held = self._keys
        async with self._lock:
            if self._keys is not held:
                return True  # another request fetched them while this one waited
            now = time.monotonic()
            if now - self._tried_at < (self._floor_s if self._keys is not None else FIRST_FLOOR_S):
                return False
            self._tried_at = now
            try:
                self._keys = KeySet.read(await self._fetch())
            except (KeysUnreachable, BadKeys) as error:
                # Those that are held stay good: an issuer that is down for a while must not lock everybody out.
                _log.error("the issuer's keys could not be fetched: %s", error)
                return False
            self._fetched_at = now
            self._verified.clear()
            return True
