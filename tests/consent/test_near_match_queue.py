"""Who may be the person of an opposition: withheld at once, queued, shown once a correspondent dismissed him."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import requests
from support import peer
from support.peer import Peer
from support.people import GOOD, register
from support.serving import serving, settings_for
from support.tracing import traced

from consent.bindings import Binding, Channel, Declaration, OppositionKind
from consent.oppositions import NearMatchStatus, OppositionStore, QueuedMatch
from registry.database import Database

T = TypeVar("T")
STUDY = "1.2.840.99.778.1"
ROW = {
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "00080020": {"vr": "DA", "Value": ["20240101"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPOND-LÉVY^Marie"}]},
    "00100020": {"vr": "LO", "Value": ["4547"]},
    "00100030": {"vr": "DA", "Value": ["19600412"]},
    "00100040": {"vr": "CS", "Value": ["F"]},
}
DECLARED = Declaration(
    binding=Binding(kind=OppositionKind.PERSON, name="DUPONT-LEVY^MARIE", birth_date="19600412", sex="F"),
    channel=Channel.LETTER,
    declared_on=date(2026, 1, 31),
)


def test_withheld_queued_and_shown_once_dismissed(postgres: Callable[[], str], tmp_path: Path) -> None:
    url = postgres()

    def run(work: Callable[[OppositionStore], Coroutine[Any, Any, T]]) -> T:
        async def inside() -> T:
            async with Database(url) as database:
                return await work(OppositionStore(database))

        return asyncio.run(inside())

    with ExitStack() as stack:
        member = stack.enter_context(Peer(peer.rows([ROW])))
        server = stack.enter_context(serving(settings_for({"csrom41200": member.dicomweb_url}, tmp_path), url))
        register(url, "csrom41200")

        def found() -> int:
            answer = requests.get(f"{server.dicomweb()}/studies", params={"PatientName": "DUP*"}, timeout=20)
            return len(answer.json()) if answer.status_code == 200 else 0

        def waited(condition: Callable[[], bool]) -> None:
            until = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < until
                time.sleep(0.1)

        assert found() == 1
        number = run(lambda store: store.add(DECLARED, GOOD, traced=traced)).id
        waited(lambda: found() == 0)
        queue: list[QueuedMatch] = []
        waited(lambda: bool(queue.extend(run(lambda store: store.near_matches())) or queue))
        (match,) = queue
        assert (match.opposition, match.emetteur, match.ipp, match.name) == (
            number,
            "csrom41200",
            "4547",
            "DUPOND-LÉVY^Marie",
        )
        assert run(lambda store: store.decide(match.id, NearMatchStatus.DISMISSED, GOOD, traced=traced))
        waited(lambda: found() == 1)
        assert run(lambda store: store.decide(match.id, NearMatchStatus.CONFIRMED, GOOD, traced=traced))
        waited(lambda: found() == 0)
        run(lambda store: store.lift(number, GOOD, traced=traced))
        waited(lambda: found() == 1)
