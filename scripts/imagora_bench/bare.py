"""The yardstick for searches: the same requests gathered over one pool, merged and sorted, and nothing else.

Served by the same stack as Imagora, so that what a client costs is the same. Arguments: port, and a file of JSON
{"urls": […], "headers": {…}}. `/studies?limit=N` answers the first N rows, newest first.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import orjson
import uvicorn
from yarl import URL


class Bare:
    """An ASGI application."""

    def __init__(self, urls: list[str], headers: dict[str, str]) -> None:
        self._urls = [URL(url, encoded=True) for url in urls]
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        limit = parse_qs(scope["query_string"].decode()).get("limit")
        rows: dict[str, dict[str, Any]] = {}
        for body in await asyncio.gather(*map(self._get, self._urls)):
            for row in orjson.loads(body):
                rows.setdefault(_first(row, "0020000D"), row)
        page = sorted(rows.values(), key=lambda r: (_first(r, "00080020"), _first(r, "00080030")), reverse=True)
        if limit:
            page = page[: int(limit[0])]
        answer = orjson.dumps(page)
        headers = [(b"content-type", b"application/dicom+json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _get(self, url: URL) -> bytes:
        assert self._session is not None
        async with self._session.get(url) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                # Each member has a pool of its own in Imagora, so all of them are asked at once.
                connector = aiohttp.TCPConnector(limit=0)
                self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, read_bufsize=1 << 18)
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._session is not None:
                    await self._session.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _first(row: dict[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value")
    return str(values[0]) if values else ""


def main() -> None:
    port, source = sys.argv[1:]
    given = json.loads(Path(source).read_text(encoding="utf-8"))
    uvicorn.run(
        Bare(given["urls"], given["headers"]),
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main()
