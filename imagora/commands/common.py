"""What commands share: their settings, the registry, and how failures are told."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from consent import Unavailable
from consent.heads import KeyProblem
from imagora.commands.traced import NotEntitled
from imagora.setting_errors import SettingsError
from imagora.settings import Settings, load_settings
from registry import migrate
from registry.database import Database
from registry.embedded import EmbeddedError, database_url
from registry.entries import RegistryConflict
from registry.errors import DatabaseError
from registry.practitioners import UnknownPractitioner
from registry.store import RegistryStore, UnknownSite
from registry.table import TableError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_CONFIG = "imagora.config"
_SETTINGS = "imagora.settings"


class Failure(click.ClickException):
    """The command could not do its work: one line or more on standard error, exit status 1."""

    exit_code = 1


class BadConfiguration(click.ClickException):
    """The settings cannot be used: exit status 2, as for a wrong command line."""

    exit_code = 2


_FAILURES = (
    DatabaseError,
    EmbeddedError,
    KeyProblem,
    NotEntitled,
    RegistryConflict,
    TableError,
    Unavailable,
    UnknownPractitioner,
    UnknownSite,
)


def explain(error: Exception) -> click.ClickException:
    """What a person is told of an error. Never a traceback, unless IMAGORA_TRACEBACK asks for it."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, SettingsError):
        return BadConfiguration(str(error))
    if isinstance(error, _FAILURES):
        return Failure(str(error))
    if os.environ.get("IMAGORA_TRACEBACK"):
        return Failure("".join(traceback.format_exception(error)).rstrip())
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(where[0].filename).name}:{where[0].lineno}" if where else ""
    return Failure(
        # Not its text: what serves writes this into its log, and the text may quote a patient's data.
        f"unexpected {type(error).__name__}{place}\n"
        "This is a fault in imagora, not yours; with IMAGORA_TRACEBACK=1 it shows where it happened."
    )


def _remember_config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.find_root().meta[_CONFIG] = value


def config_option(command: F) -> F:
    """`--config FILE`, taken by the group and by each command alike; the one nearest to the command counts."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Settings file (TOML). Otherwise the file named by IMAGORA_CONFIG.",
        callback=_remember_config,
        expose_value=False,
        is_eager=True,
    )(command)


def settings_of(context: click.Context) -> Settings:
    """The settings that `--config`, IMAGORA_CONFIG and the environment give. Raises `SettingsError`."""
    meta = context.find_root().meta
    if _SETTINGS not in meta:
        meta[_SETTINGS] = load_settings(meta.get(_CONFIG))
    settings = meta[_SETTINGS]
    assert isinstance(settings, Settings)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(work)


async def check_migrations(settings: Settings, url: str) -> None:
    """Migrate an embedded database; a server of one's own is migrated by `imagora migrate` only."""
    if settings.database.embedded:
        await migrate.migrate(url)
    elif await migrate.pending(url):
        raise Failure("the database lacks tables that this version needs: run `imagora migrate` first")


async def seed_registry(settings: Settings, database: Database) -> RegistryStore:
    """The registry, with what the settings file adds to it."""
    store = RegistryStore(database, node=settings.node.ae_title)
    try:
        await store.seed(settings.registry_sites(), settings.registry_folders())
    except RegistryConflict as error:
        raise BadConfiguration(f"the settings file and the registry contradict each other:\n{error}") from None
    return store


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database, with every migration."""
    async with database_url(settings) as url:
        await check_migrations(settings, url)
        async with Database(url) as database:
            yield database


@asynccontextmanager
async def open_registry(settings: Settings) -> AsyncIterator[RegistryStore]:
    """The registry, with what the settings file adds to it."""
    async with open_database(settings) as database:
        yield await seed_registry(settings, database)
