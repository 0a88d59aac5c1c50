"""What an access asks of the database: nothing for each frame, once the study is found and its access traced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from support.consenting import Ledger, People
from support.peer import Peer
from test_retrieve_hurried_frames import holder

from registry import queries
from registry.database import Connection

DOCTOR, HOME = "10001234567", "cpsax18000"
FRAMES = 60


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of all that is asked, but for the watch over changes, which asks however many requests there are."""
    statements: list[str] = []

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(self: Connection, sql: str, *values: Any, **options: Any) -> Any:
            if sql != queries.EPOCH:
                statements.append(sql)
            return method(self, sql, *values, **options)

        return ask

    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval", "stream"):
        monkeypatch.setattr(Connection, name, counted(getattr(Connection, name)))
    return statements


def test_frames_ask_nothing_of_the_database(asked: list[str], serve, postgres, tmp_path: Path) -> None:
    people, database = People(tmp_path / "issuer"), postgres()
    with Peer(holder) as member:
        server = serve({"csrom41200": member.dicomweb_url, HOME: None}, database=database, auth=people.auth)
        people.register(database, {DOCTOR: HOME})
        Ledger(database, DOCTOR).oppose(studies=["1.2.9"], patient=("2", "csrom41200"))
        with requests.Session() as client:
            client.headers.update(people.bearer(DOCTOR))

            def get(path: str) -> None:
                assert client.get(f"{server.dicomweb()}/studies{path}", timeout=10).status_code == 200

            get("/1.2.3/series/1.2.4/instances/1.2.5/frames/1")  # where it is, and the trace
            asked.clear()
            for number in range(2, 2 + FRAMES):
                get(f"/1.2.3/series/1.2.4/instances/1.2.5/frames/{number}")
            # Heads are signed and health is told every few seconds.
            assert len(asked) < FRAMES / 4, asked
            asked.clear()
            get("?PatientID=1")  # a search is traced
            assert asked
