"""Members for tests of searching: real Orthancs and scripted peers, ended with the module or the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from support.peer import Behaviour, Peer

Orthancs = Callable[..., dict[str, OrthancServer]]
Peers = Callable[..., dict[str, Peer]]


@pytest.fixture(scope="module")
def orthancs() -> Iterator[Orthancs]:
    """`orthancs({"csrom41200": [bytes, …], …})` → started and filled servers. `options` by EMETTEUR."""
    running: list[OrthancServer] = []

    def start(
        content: Mapping[str, Sequence[bytes]], options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, OrthancServer]:
        servers = {name: OrthancServer(name=name, **(options or {}).get(name, {})) for name in content}
        start_all(list(servers.values()))
        running.extend(servers.values())
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(lambda name: servers[name].upload(content[name]), servers))
        return servers

    yield start
    stop_all(running)


@pytest.fixture
def peers() -> Iterator[Peers]:
    """`peers(csrom41200=behaviour, …)` → listening scripted members by EMETTEUR."""
    with ExitStack() as stack:

        def start(**behaviours: Behaviour) -> dict[str, Peer]:
            return {name: stack.enter_context(Peer(behave)) for name, behave in behaviours.items()}

        yield start
