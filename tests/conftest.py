"""Fixtures for tests of the whole server: one real PostgreSQL per test process, one fresh database per server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from support.serving import Serving, serving, settings_for

from consent import Policy
from imagora.settings import Settings
from registry import migrate
from registry.embedded import Lease

_numbers = itertools.count(1)
Serve = Callable[..., Serving]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes fresh, migrated databases: each call gives the URL of a new one."""
    lease = Lease(tmp_path_factory.mktemp("postgres") / "state")
    url = lease.acquire()

    async def create() -> str:
        name = f"imagora_{next(_numbers)}"
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        fresh = url.replace("@/postgres?", f"@/{name}?")
        await migrate.migrate(fresh)
        return fresh

    try:
        yield lambda: asyncio.run(create())
    finally:
        lease.release()


@pytest.fixture
def serve(postgres: Callable[[], str], tmp_path: Path) -> Iterator[Serve]:
    """`serve({"csrom41200": url, …}, search={…})` → a running server, stopped at the end of the test."""
    with ExitStack() as stack:

        def start(
            members: dict[str, str | None], *, policy: Policy | None = None, database: str = "", **options: Any
        ) -> Serving:
            settings: Settings = settings_for(members, tmp_path, **options)
            running: AbstractContextManager[Serving] = serving(settings, database or postgres(), policy=policy)
            return stack.enter_context(running)

        yield start


@pytest.fixture(scope="module")
def serve_module(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """`serve` for a server that a whole module shares."""
    with ExitStack() as stack:

        def start(members: dict[str, str | None], *, policy: Policy | None = None, **options: Any) -> Serving:
            settings = settings_for(members, tmp_path_factory.mktemp("serve"), **options)
            return stack.enter_context(serving(settings, postgres(), policy=policy))

        yield start
