"""Several servers in one process, each with its own settings and database.

Two processes that differ in nothing differ by some per cent in speed as long as they live, by where their memory lies:
more than what is to be measured between these servers. Argument: a file of JSON, [{"settings": path, "database": URL,
"unguarded": whether every exam is shown}, …].
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop
from starlette.types import ASGIApp

from consent.access import Open
from imagora import worker
from imagora.app import create_app
from imagora.commands import serve
from imagora.logs import set_up_logs
from imagora.settings import Settings, load_settings


async def _serve(all_settings: list[Settings]) -> None:
    servers = [asyncio.ensure_future(serve._serve(settings)) for settings in all_settings]
    await asyncio.wait(servers, return_when=asyncio.FIRST_COMPLETED)  # it was told to stop, or could not start
    for server in servers:
        if server.done():
            server.result()


def main() -> None:
    all_settings: list[Settings] = []
    unguarded: set[int] = set()
    for given in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        os.environ["IMAGORA_DATABASE__URL"] = given["database"]
        all_settings.append(load_settings(Path(given["settings"])))
        if given["unguarded"]:
            unguarded.add(all_settings[-1].server.port)

    def create(settings: Settings, url: str) -> ASGIApp:
        return create_app(settings, url, policy=Open() if settings.server.port in unguarded else None)

    worker.create_app = create  # type: ignore[assignment, attr-defined]
    set_up_logs("info")
    uvloop.run(_serve(all_settings))


if __name__ == "__main__":
    main()
