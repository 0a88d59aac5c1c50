from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from registry.database import Database
from registry.model import Directory, Site, SiteStatus
from registry.store import RegistryStore
from registry.watch import RegistryCache

SITE = Site(emetteur="csrom41200", number=423, name="Romorantin (CH)", dicomweb="http://127.0.0.1:8042/dicom-web")


async def until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_sees_a_change_made_over_another_connection_within_a_second(
    store: RegistryStore, fresh_url: str
) -> None:
    await store.seed([SITE])
    told: list[Directory] = []
    async with RegistryCache(store) as cache, Database(fresh_url) as elsewhere:
        cache.on_change(told.append)
        assert cache.directory.sites == (SITE,)
        await RegistryStore(elsewhere).set_status("csrom41200", SiteStatus.SUSPENDED)
        await until(lambda: cache.directory.sites[0].status is SiteStatus.SUSPENDED, 1)
        assert told == [cache.directory]


async def test_it_needs_no_notification(store: RegistryStore, database: Database) -> None:
    await store.seed([SITE])
    async with RegistryCache(store) as cache:
        await database.execute("ALTER TABLE site DISABLE TRIGGER ALL")
        await database.execute("UPDATE site SET status = 'suspended'")
        await database.execute("UPDATE epoch SET value = value + 1")
        await until(lambda: not cache.directory.sites[0].asked, 1)


async def test_the_epoch_is_confirmed_all_the_time(store: RegistryStore) -> None:
    async with RegistryCache(store) as cache:
        for _ in range(4):
            await asyncio.sleep(0.2)
            assert time.monotonic() - cache.confirmed_at < 0.75


async def test_a_callback_that_fails_does_not_stop_it(store: RegistryStore, caplog: pytest.LogCaptureFixture) -> None:
    async with RegistryCache(store) as cache:
        cache.on_change(lambda directory: directory.sites[99])
        await store.seed([SITE])
        await until(lambda: cache.directory.sites == (SITE,), 1)
        await store.set_status("csrom41200", SiteStatus.SUSPENDED)
        await until(lambda: not cache.directory.sites[0].asked, 1)
    assert "callback" in caplog.text


async def test_it_outlives_the_loss_of_its_connections(store: RegistryStore, database: Database) -> None:
    await store.seed([SITE])
    async with RegistryCache(store) as cache:
        await asyncio.sleep(0.1)
        cut = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
        """
        assert await database.fetchval(cut) >= 1
        await store.set_status("csrom41200", SiteStatus.SUSPENDED)
        await until(lambda: not cache.directory.sites[0].asked, 2)


async def test_it_keeps_its_last_picture_while_the_database_is_lost(
    own_server: tuple[str, Path],
    server_processes: Callable[[Path], list[psutil.Process]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, state = own_server
    async with Database(url) as database:
        store = RegistryStore(database)
        await store.seed([SITE])
        async with RegistryCache(store) as cache:
            loaded = cache.confirmed_at
            await until(lambda: cache.confirmed_at > loaded, 5)  # it listens
            stopped = server_processes(state)
            for process in stopped:
                process.send_signal(signal.SIGSTOP)
            lost = cache.confirmed_at
            await asyncio.sleep(3)
            assert cache.directory.sites == (SITE,)
            assert time.monotonic() - cache.confirmed_at > 2.5
            for process in reversed(stopped):
                process.send_signal(signal.SIGCONT)
            await until(lambda: cache.confirmed_at > lost + 3, 10)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([m for m in messages if "is lost" in m]) == 1
    assert len([m for m in messages if "is back" in m]) == 1
