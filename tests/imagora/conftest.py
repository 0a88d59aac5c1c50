"""Commands on a database of each test's own, and members for `imagora sites check`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from support.checking import IPPS, NAMES, Checks
from support.commands import Commands

from registry.database import Database


@pytest.fixture
def region(postgres: Callable[[], str], tmp_path: Path) -> Commands:
    """`region("exams", "list")` runs a command where `support.commands`' sites and people are registered."""
    return Commands(tmp_path, postgres())


@pytest.fixture(scope="module")
def checked_database(postgres: Callable[[], str]) -> str:
    return postgres()


@pytest.fixture
def check(checked_database: str, tmp_path: Path) -> Checks:
    async def empty() -> None:
        async with Database(checked_database) as opened, opened.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # some tables are append-only
            await connection.execute("TRUNCATE site, folder CASCADE")

    asyncio.run(empty())
    return Checks(checked_database, tmp_path)


@pytest.fixture(scope="module")
def orthanc() -> Iterator[OrthancServer]:
    """A member that wants a password and holds five patients, one exam each."""
    config = {"AuthenticationEnabled": True, "RegisteredUsers": {"imagora": "secret-word"}}
    with OrthancServer(name="checked", config=config) as member:
        for i, (name, ipp) in enumerate(zip(NAMES, IPPS, strict=True)):
            date = f"202{i}0101"
            member.upload(exams.light_study(f"check-{i}", name=name, patient_id=ipp, study_date=date, n_instances=2))
        yield member
