"""The members' health across processes: serving ones write it, `imagora sites list` shows it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
import requests
from click.testing import CliRunner
from support import peer
from support.peer import Peer
from support.serving import serving, settings_for

from federation.health import Breaker, Health
from imagora.cli import cli
from imagora.health import HealthRecorder
from registry.database import Database
from registry.store import RegistryStore, SeenHealth


def listed(url: str, *arguments: str) -> str:
    """What `imagora sites list` prints over the database at `url`."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
    environment["IMAGORA_DATABASE__URL"] = url
    result = CliRunner().invoke(cli, ["sites", "list", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return result.stdout


def health_of(url: str) -> dict[str, dict[str, object] | None]:
    return {site["emetteur"]: site["health"] for site in json.loads(listed(url, "--format", "json"))}


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def url(postgres: Callable[[], str]) -> str:
    return postgres()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> RegistryStore:
    return RegistryStore(database)


def test_the_list_shows_what_a_running_server_knows(serve, url: str) -> None:
    with Peer(peer.rows([])) as good:
        members = {"good": good.dicomweb_url, "down": "http://127.0.0.1:1/x", "unasked": None}
        server = serve(members, database=url, search={"breaker_failures": 1, "breaker_open_s": 600.0})
        assert health_of(url) == {"good": None, "down": None, "unasked": None}
        requests.get(f"{server.dicomweb()}/studies", timeout=10)
        until(lambda: all(health_of(url)[e] for e in ("good", "down")))
        lines = {line.split()[0]: line for line in listed(url).splitlines() if line}
        today = datetime.now().astimezone().strftime("%Y-%m-%d ")
        assert f"  answers since {today}" in lines["good"]
        assert f"  left out since {today}" in lines["down"]
        assert lines["down"].endswith("(MemberUnreachable)")
        assert lines["unasked"].endswith("–")
        health = health_of(url)
        good_health, down_health = health["good"], health["down"]
        assert good_health is not None
        assert down_health is not None
        assert (good_health["state"], good_health["failures_in_a_row"]) == ("closed", 0)
        assert (down_health["state"], down_health["failures_in_a_row"]) == ("open", 1)
        assert down_health["last_success_at"] is None
        failed_at = datetime.fromisoformat(str(down_health["last_failure_at"]))
        assert abs(datetime.now(UTC) - failed_at) < timedelta(seconds=30)


def test_a_server_that_stopped_is_not_quoted(postgres: Callable[[], str], url: str, tmp_path) -> None:
    with Peer(peer.rows([])) as good:
        with serving(settings_for({"good": good.dicomweb_url}, tmp_path), url) as server:
            requests.get(f"{server.dicomweb()}/studies", timeout=10)
            until(lambda: health_of(url)["good"] is not None)
        assert health_of(url) == {"good": None}


def seen(emetteur: str = "good", **changes: object) -> SeenHealth:
    values: dict[str, object] = {
        "emetteur": emetteur,
        "state": "closed",
        "failures_in_a_row": 0,
        "since_s": 100.0,
        "last_success_s": 10.0,
        "last_failure_s": None,
        "last_failure": "",
    }
    return SeenHealth(**(values | changes))  # type: ignore[arg-type]


async def test_who_had_news_last_is_believed(store: RegistryStore) -> None:
    bad = seen(state="open", failures_in_a_row=3, last_failure_s=50.0, last_success_s=90.0, last_failure="MemberError")
    await store.record_health("one", [seen()])
    await store.record_health("two", [bad])  # written later, but its news is older
    found = (await store.health())["good"]
    assert (found.server, found.state) == ("one", "closed")
    await store.record_health("two", [seen(state="half-open", failures_in_a_row=4, last_failure_s=1.0)])
    assert (await store.health())["good"].state == "half-open"
    await store.forget_health("two")
    assert (await store.health())["good"].server == "one"


async def test_health_that_nobody_confirms_is_forgotten(database: Database, store: RegistryStore) -> None:
    await store.record_health("one", [seen(), seen("other")])
    await database.execute("UPDATE site_health SET updated_at = now() - interval '119 s' WHERE emetteur = 'other'")
    assert set(await store.health()) == {"good", "other"}
    await database.execute("UPDATE site_health SET updated_at = now() - interval '121 s' WHERE emetteur = 'other'")
    assert set(await store.health()) == {"good"}
    await database.execute("UPDATE site_health SET updated_at = now() - interval '2 days' WHERE emetteur = 'other'")
    await store.sweep_health()
    assert await database.fetchval("SELECT array_agg(emetteur) FROM site_health") == ["good"]


class Watched:
    """One member's breaker on the real clock, and what of it stands in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.breaker = Breaker(time.monotonic, failures=2, open_s=0.2)

    def health(self) -> dict[str, Health]:
        return {"good": self.breaker.health()}

    async def row(self) -> dict[str, object] | None:
        row = await self._database.fetchrow("SELECT * FROM site_health")
        return dict(row) if row is not None else None

    async def until(self, condition: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        async with asyncio.timeout(5):
            while (row := await self.row()) is None or not condition(row):
                await asyncio.sleep(0.02)
        return row


async def test_only_what_changed_is_written_until_it_is_due(database: Database, store: RegistryStore) -> None:
    watched = Watched(database)
    async with HealthRecorder(watched.health, store, server="me", write_s=0.02, confirm_s=0.6):
        await asyncio.sleep(0.1)
        assert await watched.row() is None  # never asked: nothing to tell
        watched.breaker.succeeded()
        first = await watched.until(lambda row: True)
        await asyncio.sleep(0.2)
        assert await watched.row() == first
        confirmed = await watched.until(lambda row: row["updated_at"] != first["updated_at"])
        assert confirmed["updated_at"] - first["updated_at"] >= timedelta(seconds=0.5)  # type: ignore[operator]
        assert confirmed["state"] == "closed"
    assert await watched.row() is None  # it ended in order, so nobody knows any more


async def test_since_is_when_it_began_to_fail_however_often_it_is_tried_again(
    database: Database, store: RegistryStore
) -> None:
    watched = Watched(database)
    async with HealthRecorder(watched.health, store, write_s=0.02):
        watched.breaker.succeeded()
        good = await watched.until(lambda row: True)
        watched.breaker.failed("MemberTimeout")
        failing = await watched.until(lambda row: row["failures_in_a_row"] == 1)
        assert (failing["state"], failing["last_failure"]) == ("closed", "MemberTimeout")
        watched.breaker.failed("MemberTimeout")
        await watched.until(lambda row: row["state"] == "open")
        tried = await watched.until(lambda row: row["state"] == "half-open")
        moved = abs(tried["since"] - failing["since"])  # type: ignore[operator]
        assert moved < timedelta(milliseconds=50)
        assert tried["last_success_at"] is not None
        watched.breaker.succeeded()
        again = await watched.until(lambda row: row["failures_in_a_row"] == 0)
        assert good["since"] < failing["since"] < again["since"]  # type: ignore[operator]


async def test_a_lost_database_stops_nothing(
    database: Database, store: RegistryStore, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(database)
    async with HealthRecorder(watched.health, store, write_s=0.02):
        watched.breaker.succeeded()
        await watched.until(lambda row: True)
        async with database.session() as other:
            await other.execute("ALTER TABLE site_health RENAME TO away")
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            watched.breaker.failed("MemberTimeout")
            await asyncio.sleep(0.3)
            await other.execute("ALTER TABLE away RENAME TO site_health")
        row = await watched.until(lambda row: row["failures_in_a_row"] == 1)
        assert row["last_failure"] == "MemberTimeout"

        def said() -> list[str]:
            return [record.message for record in caplog.records if record.name == "imagora.health"]

        async with asyncio.timeout(5):
            while len(said()) < 2:  # said just after the row is there
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        lost = said()
    assert len(lost) == 2  # once lost, once back, not every round
    assert "cannot be recorded" in lost[0]
    assert "again" in lost[1]


def test_help_says_what_health_means() -> None:
    text = CliRunner().invoke(cli, ["sites", "list", "--help"]).output
    assert all(word in text for word in ("answers", "fails", "left out", "two minutes", "--format"))
