"""One serving process: the only one where `workers = 1`, else one of those that `imagora.workers` keeps up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
import uvloop
from prometheus_client import values

from imagora.app import create_app
from imagora.commands.common import explain
from imagora.logs import set_up_logs
from imagora.settings import Settings
from imagora.workers import CLOSE_S, READY, Job
from registry.embedded import database_url

_log = logging.getLogger("imagora.serve")


async def serve(settings: Settings, url: str, listener: socket.socket, serving: Callable[[], object]) -> bool:
    """Serve until SIGINT or SIGTERM, and let running transfers end. False if it could not start: the log says why.

    `url` is the database's; `serving` is called once requests are answered. The listener is closed at the end.
    """
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
    server = _Server(config, serving)
    with contextlib.suppress(SystemExit):  # how uvicorn says that the application did not start
        await server.serve(sockets=[listener])
    return server.started


class _Server(uvicorn.Server):
    """uvicorn's server ends itself by raising the signal again; ours returns, so that what it opened is closed."""

    def __init__(self, config: uvicorn.Config, serving: Callable[[], object]) -> None:
        super().__init__(config)
        self._serving = serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._serving()

    async def _wait_tasks_to_complete(self) -> None:
        """A second Ctrl-C ends transfers as the end of their time does; the last traces are still written."""
        await super()._wait_tasks_to_complete()
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            self.force_exit = False  # else uvicorn would leave out the orderly end of the application

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


def _spare_the_collector() -> None:
    """Answers are trees of many thousand small objects, none of them in a cycle.

    Looking for cycles at every 700 of them, through all that was ever imported too, takes longer than answering does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def main() -> None:
    """What `imagora.workers` starts. Standard input is its line to the parent, which tells the work."""
    parent = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what this process may start itself must not hold the line
    os.close(nothing)
    line = parent.makefile("rb").readline()
    if not line.endswith(b"\n"):
        sys.exit(1)  # the parent is gone already
    job = Job(**json.loads(line))
    settings = Settings(**job.settings)
    set_up_logs(settings.server.log_level)
    # Files of metrics go by the worker's place, not its process: who takes a dead one's place counts on from there.
    values.ValueClass = values.MultiProcessValue(lambda: job.place)  # type: ignore[no-untyped-call]
    _follow(parent, settings.server.drain_s)
    try:
        served = uvloop.run(_work(settings, job, parent))
    except Exception as error:
        _log.error("this worker cannot serve: %s", explain(error).format_message())
        served = False
    sys.exit(0 if served else 1)


async def _work(settings: Settings, job: Job, parent: socket.socket) -> bool:
    # Its own hold on an embedded database: should the parent be killed, the last traces can still be written.
    async with database_url(settings) as url:
        with socket.socket(fileno=job.listener) as listener:
            return await serve(settings, url, listener, lambda: _tell(parent))


def _tell(parent: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone: `_follow` knows
        parent.sendall(READY)


def _follow(parent: socket.socket, drain_s: float) -> None:
    """Stop when the parent is gone, however it ended: the kernel then closes its end of the line."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            parent.recv(1)
        _log.error("the process that keeps the workers up is gone: this one stops")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_s + CLOSE_S)
        os._exit(1)  # whatever holds it up

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    main()
