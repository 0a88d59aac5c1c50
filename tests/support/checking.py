"""`imagora sites check` at a shell, and members whose answers a test spoils."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from click.testing import CliRunner, Result
from imagora_demo.orthanc import OrthancServer
from yarl import URL

from imagora.cli import cli
from registry.database import Database
from registry.model import Quirks
from registry.store import RegistryStore
from support import peer
from support.peer import Connection, Request

USER = {"IMAGORA_MEMBER_ONE_USER": "imagora", "IMAGORA_MEMBER_ONE_PASSWORD": "secret-word"}
#: Patients of the member that is checked, one exam each.
NAMES = ("DUPONT-LÉVY^Marie", "MARTIN^Jean", "Noël^Zoé", "O'NEIL^Pat", "KELLER^Tom")
IPPS = ("IPP4711", "IPP4712", "IPP4713", "IPP4714", "IPP4715")
SITES = {"one": 401, "down": 402}


async def anything(_: object) -> bool:
    """A check may read of every exam."""
    return True


class Checks:
    """Runs `imagora sites check` over one database; members are given as EMETTEUR → URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._config = folder / "imagora.toml"

    def __call__(
        self, members: dict[str, str], *arguments: str, environment: dict[str, str] | None = None, more: str = ""
    ) -> Result:
        lines = ["[search]", "deadline_s = 2.0"]
        for emetteur, url in members.items():
            lines += [
                "[[sites]]",
                f'emetteur = "{emetteur}"',
                f"site = {SITES[emetteur]}",
                f'name = "Hôpital {emetteur}"',
            ]
            lines += [f'dicomweb = "{url}"']
        self._config.write_text("\n".join([*lines, more]))
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        cleared |= {"IMAGORA_DATABASE__URL": self.url, **USER, **(environment or {})}
        return CliRunner().invoke(cli, ["sites", "check", *arguments, "--config", str(self._config)], env=cleared)

    def one(self, url: str) -> tuple[dict[str, dict[str, Any]], Result]:
        """Check one member → (its findings by topic, the whole result)."""
        result = self({"one": url}, "one", "--format", "json")
        found = json.loads(result.stdout)[0]
        return {finding["topic"]: finding for finding in found["findings"]}, result

    def move(self, address: str) -> None:
        """The site's PACS is another one from now on."""

        async def update() -> None:
            async with Database(self.url) as database:
                await database.execute("UPDATE site SET dicomweb = $1", address)

        asyncio.run(update())

    def quirks(self, emetteur: str = "one") -> Quirks:
        async def load() -> Quirks:
            async with Database(self.url) as database:
                site = (await RegistryStore(database).load()).site(emetteur)
                assert site is not None
                return site.quirks

        return asyncio.run(load())


def spoiling(
    orthanc: OrthancServer,
    *,
    query: Callable[[dict[str, str]], dict[str, str]] = lambda q: q,
    rows: Callable[[dict[str, str], list[dict[str, Any]]], list[dict[str, Any]]] = lambda _, found: found,
    only: str = "/studies",
    instead: dict[str, peer.Behaviour] | None = None,
) -> peer.Behaviour:
    """Passes requests on to Orthanc and answers back.

    `query` changes what a search of `only` asks, `rows` what it answers; `instead` answers paths that end so.
    """

    async def behave(request: Request, connection: Connection) -> None:
        for end, other in (instead or {}).items():
            if request.path.endswith(end):
                await other(request, connection)
                return
        asked = dict(request.query)
        searched = request.path == only
        sent = query(dict(asked)) if searched else asked
        text = "&".join(f"{k}={quote(v, safe='*,@^?')}" for k, v in sent.items())  # Orthanc does not decode
        headers: dict[str, str] = {k: request.headers[k] for k in ("accept", "authorization") if k in request.headers}
        async with aiohttp.ClientSession() as session:
            url = f"{orthanc.dicomweb_url}{request.path}?{text}"
            async with session.get(URL(url, encoded=True), headers=headers) as answer:
                body = await answer.read()
                content_type = answer.headers.get("Content-Type", "text/plain")
        if searched and answer.status == 200:
            body = orjson.dumps(rows(asked, json.loads(body)))
        await connection.answer(answer.status, body, content_type)

    return behave


def multipart(content_type: str, *parts: bytes) -> peer.Behaviour:
    body = b"".join(b"--x\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + p + b"\r\n" for p in parts)

    async def behave(_: Request, connection: Connection) -> None:
        await connection.answer(200, body + b"--x--", f'multipart/related; type="{content_type}"; boundary=x')

    return behave
