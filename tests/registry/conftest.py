"""A real PostgreSQL for the registry's tests: one server per test process, one fresh database per test."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from registry import migrate
from registry.database import Database
from registry.embedded import Lease, embedded
from registry.store import RegistryStore
from registry.table import Table, read_table

TEMPLATE = "registry_template"
_numbers = itertools.count(1)


def named(url: str, database: str) -> str:
    return url.replace("@/postgres?", f"@/{database}?")


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server's first database, which has no tables."""
    lease = Lease(tmp_path_factory.mktemp("server") / "state")
    try:
        yield lease.acquire()
    finally:
        lease.release()


@pytest.fixture(scope="session")
def database_url(server_url: str) -> str:
    """A migrated database that all tests of the session share."""
    asyncio.run(_create(server_url, "shared", "template1"))
    asyncio.run(migrate.migrate(named(server_url, "shared")))
    return named(server_url, "shared")


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    asyncio.run(_create(server_url, TEMPLATE, "template1"))
    asyncio.run(migrate.migrate(named(server_url, TEMPLATE)))
    return TEMPLATE


async def _create(server_url: str, name: str, template: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    finally:
        await connection.close()


@pytest.fixture
async def empty_url(server_url: str) -> str:
    """A database of this test alone, without tables."""
    name = f"empty_{next(_numbers)}"
    await _create(server_url, name, "template1")
    return named(server_url, name)


@pytest.fixture
async def fresh_url(server_url: str, template: str) -> str:
    """A migrated database of this test alone."""
    name = f"fresh_{next(_numbers)}"
    await _create(server_url, name, template)
    return named(server_url, name)


@pytest.fixture
async def database(fresh_url: str) -> AsyncIterator[Database]:
    async with Database(fresh_url) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> RegistryStore:
    return RegistryStore(database, node="IMAGORA")


@pytest.fixture
def region() -> Table:
    """The region's own table of sites."""
    return read_table(Path(__file__).parent.parent.joinpath("data", "sites.csv").read_bytes())


@pytest.fixture(scope="session")
def model_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose data were made, and migrated, once: copying them takes a tenth of making them."""
    state = tmp_path_factory.mktemp("model") / "state"

    async def make() -> None:
        async with embedded(state) as url:
            await migrate.migrate(url)

    asyncio.run(make())
    return state


@pytest.fixture
def state(tmp_path: Path, model_state: Path) -> Path:
    """A state folder of this test alone, with a database that does not run yet."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(model_state), str(tmp_path)], check=True)
    return tmp_path / "state"


@pytest.fixture
async def own_server(state: Path) -> AsyncIterator[tuple[str, Path]]:
    """A migrated server of this test alone, which it may stop or kill; and its state folder."""
    async with embedded(state) as url:
        yield url, state


@pytest.fixture
def server_processes() -> Callable[[Path], list[psutil.Process]]:
    """Finds PostgreSQL's processes on a state folder, the postmaster first."""

    def find(state: Path) -> list[psutil.Process]:
        data = str(state / "postgres")
        found: list[tuple[bool, int, psutil.Process]] = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == data and process.status() != psutil.STATUS_ZOMBIE:
                    found.append((data not in process.cmdline(), process.pid, process))
            except psutil.Error:
                continue
        return [process for _, _, process in sorted(found, key=lambda one: one[:2])]

    return find


@pytest.fixture
def supervisor_process() -> Callable[[Path], psutil.Process]:
    """Finds the supervisor of a state folder."""

    def find(state: Path) -> psutil.Process:
        return psutil.Process(json.loads((state / "postgres-run" / "connection.json").read_text())["supervisor"])

    return find
