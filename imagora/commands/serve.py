"""`imagora serve`: the HTTP façade and the portal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator

import click
import uvicorn
import uvloop

from consent.heads import load_or_make_keys
from imagora.app import create_app
from imagora.commands.common import (
    BadConfiguration,
    Failure,
    check_migrations,
    config_option,
    seed_registry,
    settings_of,
)
from imagora.logs import set_up_logs
from imagora.settings import Settings, unused_keys
from registry.database import Database
from registry.embedded import database_url

_log = logging.getLogger("imagora.serve")


@click.command()
@config_option
@click.pass_context
def serve(context: click.Context) -> None:
    """Serve the DICOMweb façade and the viewer until stopped (Ctrl-C or SIGTERM)."""
    settings = settings_of(context)
    set_up_logs(settings.server.log_level)
    if settings.server.workers != 1:
        raise BadConfiguration(
            "server.workers: this version runs one worker; start several servers over one PostgreSQL instead"
        )
    if settings.auth.mode == "demo":
        _log.warning("auth.mode = demo: anyone on this machine may sign in as anybody")
    if unused := unused_keys(settings):
        _log.warning("set, but without effect in this version: %s", ", ".join(unused))
    uvloop.run(_serve(settings))


class _Server(uvicorn.Server):
    """uvicorn's server ends itself by raising the signal again; ours returns, so that what it opened is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


async def _serve(settings: Settings) -> None:
    async with database_url(settings) as url:
        await check_migrations(settings, url)
        async with Database(url) as database:
            await seed_registry(settings, database)
        load_or_make_keys(settings.trace_key_path)  # here, so that what is wrong with it is told in words
        listener = _listen(settings)
        config = uvicorn.Config(
            create_app(settings, url),
            loop="uvloop",
            http="httptools",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=max(1, round(settings.server.drain_s)),
            proxy_headers=bool(settings.server.trusted_proxies),
            forwarded_allow_ips=list(settings.server.trusted_proxies) or None,
        )
        _spare_the_collector()
        server = _Server(config)
        _log.info("serving on %s", settings.server.public_url)
        await server.serve(sockets=[listener])
        if not server.started:
            raise Failure("the server could not start; the log above says why")


def _spare_the_collector() -> None:
    """Answers are trees of many thousand small objects, none of them in a cycle.

    Looking for cycles at every 700 of them, through all that was ever imported too, takes longer than answering does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _listen(settings: Settings) -> socket.socket:
    """Bound here, so that a port that is taken is told in words."""
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
