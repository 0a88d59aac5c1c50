"""Where an issuer's keys come from: a URL, or a file that somebody keeps up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from consent.bearer import KeysUnreachable

_KEYS_MAX = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
KeyFetch = Callable[[], Awaitable[bytes]]


def keys_from(place: str) -> KeyFetch:
    """`place`: an http(s) URL or the path of a file. What is returned raises `KeysUnreachable`."""
    return _from_url(place) if place.startswith(("http://", "https://")) else _from_file(Path(place).expanduser())


def _from_url(url: str) -> KeyFetch:
    async def fetch() -> bytes:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
                session.get(url, allow_redirects=False, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status != 200:
                    raise KeysUnreachable(f"auth.jwks answered with status {answer.status}")
                document = bytearray()
                async for chunk in answer.content.iter_any():
                    document += chunk
                    if len(document) > _KEYS_MAX:
                        raise KeysUnreachable("auth.jwks answered with more than keys")
                return bytes(document)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KeysUnreachable(f"auth.jwks cannot be reached ({type(error).__name__})") from None

    return fetch


def _from_file(path: Path) -> KeyFetch:
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(_KEYS_MAX)

    async def fetch() -> bytes:
        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise KeysUnreachable(f"auth.jwks: {error.strerror or type(error).__name__}") from None

    return fetch
