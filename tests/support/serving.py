"""The real server, in this process: uvicorn in a thread, a database of its own on the session's PostgreSQL."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from consent import Policy
from imagora.app import create_app
from imagora.settings import Settings
from registry.database import Database
from registry.store import RegistryStore
from support.threads import LoopThread


def settings_for(
    members: dict[str, str | None],
    state_dir: Path,
    port: int = 0,
    *,
    folders: dict[str, list[str]] | None = None,
    oids: dict[str, str] | None = None,
    extra_sites: list[dict[str, Any]] | None = None,
    **sections: dict[str, Any],
) -> Settings:
    """`members`: EMETTEUR → DICOMweb URL (None = no address), SITE numbers from 401 in order.

    `sections` are further tables of the settings file: `search={"deadline_s": 2.0}`.
    """
    of = {emetteur: name for name, emetteurs in (folders or {}).items() for emetteur in emetteurs}
    sites = []
    for number, (emetteur, url) in enumerate(members.items(), 401):
        site: dict[str, Any] = {"emetteur": emetteur, "site": number, "name": f"Hôpital {emetteur}"}
        if url is not None:
            site["dicomweb"] = url
        if emetteur in of:
            site["folder"] = of[emetteur]
        if emetteur in (oids or {}):
            site["oid"] = (oids or {})[emetteur]
        sites.append(site)
    search = {"require_patient_criterion": False, **sections.pop("search", {})}
    server = {"port": port or 1, "state_dir": str(state_dir), **sections.pop("server", {})}
    return Settings.model_validate(
        {
            "server": server,
            "search": search,
            "folders": [{"name": name} for name in folders or {}],
            "sites": [*sites, *(extra_sites or [])],
            **sections,
        }
    )


class Serving:
    """A running server. `url` is its root; `dicomweb(scope)` a DICOMweb root."""

    def __init__(self, settings: Settings, url: str, app: Any = None) -> None:
        self.settings = settings
        self.app = app
        self.url = url

    def dicomweb(self, scope: str = "") -> str:
        return f"{self.url}{scope}/dicom-web"


@contextmanager
def serving(settings: Settings, database_url: str, *, policy: Policy | None = None) -> Iterator[Serving]:
    """Seed the registry (an empty, migrated database) from the settings and serve on a free port."""
    # asyncio spares answers the wait for a delayed acknowledgement only where the protocol is named.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        port = listener.getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        server_settings = settings.server.model_copy(update={"port": port, "public_url": base})
        settings = settings.model_copy(update={"server": server_settings})
        thread = LoopThread("imagora")
        try:
            thread.run(_seed(settings, database_url))
            app = create_app(settings, database_url, policy=policy)
            config = uvicorn.Config(
                app,
                http="httptools",
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=2,
            )
            server = uvicorn.Server(config)
            done = asyncio.run_coroutine_threadsafe(server._serve([listener]), thread.loop)
            thread.run(_started(server, done))
            yield Serving(settings, base, app)
            server.should_exit = True
            done.result(20)
        finally:
            thread.close()


async def _seed(settings: Settings, url: str) -> None:
    async with Database(url) as database:
        store = RegistryStore(database, node=settings.node.ae_title)
        await store.seed(settings.registry_sites(), settings.registry_folders())


async def _started(server: uvicorn.Server, done: Any) -> None:
    async with asyncio.timeout(20):
        while not server.started:
            if done.done():
                done.result()
                raise RuntimeError("the server ended before it had started")
            await asyncio.sleep(0.01)
