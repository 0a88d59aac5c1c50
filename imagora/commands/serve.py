"""`imagora serve`: the HTTP façade and the portal."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import click
import uvloop

from consent.heads import load_or_make_keys
from imagora.commands.common import Failure, check_migrations, config_option, seed_registry, settings_of
from imagora.demo_issuer import demo_issuer
from imagora.logs import set_up_logs
from imagora.settings import Settings, unused_keys
from imagora.workers import Overdue, Workers
from registry.database import CONNECTIONS_MAX, Database
from registry.embedded import database_url

_log = logging.getLogger("imagora.serve")

#: Connections to PostgreSQL that a worker holds besides its pool: the journal's, the registry's, of what is learnt,
#: and of a check of a member.
_CONNECTIONS_OF_ITS_OWN = 4


@click.command()
@config_option
@click.pass_context
def serve(context: click.Context) -> None:
    """Serve the DICOMweb façade and the viewer until stopped (Ctrl-C or SIGTERM).

    server.workers says how many processes serve: 1 to 256, best one for each processor core. They answer at one
    address as one server; one that dies is replaced, and the others go on meanwhile. Further servers, on this machine
    or others, work as one with it over the same PostgreSQL.

    On a stop nobody new is let in, and running transfers get server.drain_s seconds to end; Ctrl-C once more ends them.
    """
    settings = settings_of(context)
    set_up_logs(settings.server.log_level)
    if settings.auth.mode == "demo":
        _log.warning("auth.mode = demo: anyone on this machine may sign in as anybody")
    if unused := unused_keys(settings):
        _log.warning("set, but without effect in this version: %s", ", ".join(unused))
    if settings.server.workers == 1:
        uvloop.run(_serve(settings))
    else:
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with database_url(settings) as url:
        await check_migrations(settings, url)
        async with Database(url) as database:
            await seed_registry(settings, database)
            await _count_connections(settings, database)
        # Here, so that what is wrong with them is told in words, and so that workers find them.
        load_or_make_keys(settings.trace_key_path)
        if settings.auth.mode == "demo":
            demo_issuer(settings.server.state_dir)
        with _listen(settings) as listener:
            try:
                started = await _serving(settings, url, listener)
            except Overdue as error:
                raise Failure(str(error)) from None
        if not started:
            raise Failure("the server could not start; the log above says why")


def _serving(settings: Settings, url: str, listener: socket.socket) -> Coroutine[Any, Any, bool]:
    def told() -> None:
        _log.info("serving on %s", settings.server.public_url)

    if settings.server.workers > 1:
        return Workers(settings, listener, told).run()
    # Only who serves needs the whole server: a parent of workers starts sooner and stays smaller without.
    alone: Coroutine[Any, Any, bool] = importlib.import_module("imagora.worker").serve(settings, url, listener, told)
    return alone


async def _count_connections(settings: Settings, database: Database) -> None:
    """PostgreSQL refuses who comes too many, which would show only under load."""
    workers, each = settings.server.workers, CONNECTIONS_MAX + _CONNECTIONS_OF_ITS_OWN
    allowed = await database.connections_allowed()
    if workers * each > allowed:
        _log.warning(
            "server.workers = %d may take %d connections to PostgreSQL (%d each), which allows %d: raise its "
            "max_connections, or use fewer workers",
            *(workers, workers * each, each, allowed),
        )


def _listen(settings: Settings) -> socket.socket:
    """Bound here, so that a port that is taken is told in words, and before workers start that share it."""
    server = settings.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or "not possible"
        raise Failure(
            f"cannot listen on {server.host}:{server.port}: {reason}. "
            "Stop what listens there, or choose another server.port"
        ) from None
    return listener
