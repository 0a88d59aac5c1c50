"""A fresh, migrated database for each test of traces, and one that may do to it what nobody should."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from consent.heads import HeadFile, Keys, load_or_make_keys
from registry.database import Database

Tamper = Callable[..., Awaitable[None]]


@pytest.fixture
def trace_url(postgres: Callable[[], str]) -> str:
    return postgres()


@pytest.fixture
async def database(trace_url: str) -> AsyncIterator[Database]:
    async with Database(trace_url) as opened:
        yield opened


@pytest.fixture
def tamper(trace_url: str) -> Tamper:
    """Runs commands as a superuser who has switched the triggers off."""

    async def run(*commands: str) -> None:
        connection = await asyncpg.connect(trace_url)
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL session_replication_role = replica")
                for command in commands:
                    await connection.execute(command)
        finally:
            await connection.close()

    return run


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return load_or_make_keys(tmp_path / "keys" / "trace-key.pem")


@pytest.fixture
def head_file(tmp_path: Path) -> HeadFile:
    return HeadFile(tmp_path / "outside" / "trace-heads.jsonl")
