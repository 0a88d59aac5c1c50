"""An exam that is opposed while its retrieval is being opened is answered as one that nobody has."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import Held, Holder
from support.consenting import Ledger, People
from support.peer import Connection, Request

ROMORANTIN, BOURGES = "csrom41200", "cpsax18000"
BY = "10001234567"


@pytest.mark.parametrize("form", ["", "/instances/frames"])
def test_withdrawn_before_its_first_byte_looks_unknown(form: str, serve, postgres, tmp_path: Path) -> None:
    database = postgres()
    data = exams.study(seed="withdrawn", patient_id="4547", rows=16, columns=16)
    with Holder(data) as holder:
        root = serve({ROMORANTIN: holder.url, BOURGES: None}, database=database).dicomweb()
        People(tmp_path / "people").register(database, {BY: ROMORANTIN})
        ledger = Ledger(database, BY)
        study, series, sop = holder.held[0].uids
        below = f"/series/{series}/instances/{sop}/frames/1" if form else ""
        asked = []

        async def waits(request: Request, connection: Connection, held: list[Held]) -> None:
            asked.append(request.path)
            await asyncio.sleep(60)

        holder.deliver = holder.other = waits
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(wire.get, root, f"/studies/{study}{below}")
            while not asked:
                assert not answer.done()
                time.sleep(0.02)
            ledger.oppose(studies=[study])
            seen = answer.result(20)
        unknown = wire.get(root, f"/studies/1.2.3.4{below}")
        assert (seen.status, seen.ended, seen.body) == (unknown.status, True, unknown.body) == (404, True, unknown.body)
        assert seen.headers.keys() == unknown.headers.keys()
        assert "imagora-sources" in seen.headers

        def sources(answered: wire.Seen) -> list[list[str]]:
            return [item.split(";")[:3] for item in answered.headers["imagora-sources"].split(", ")]

        assert sources(seen) == sources(unknown)
        reasons = [t["detail"] for t in ledger.traces(seen.headers["x-request-id"]) if t["kind"] == "refused"]
        assert len(reasons) == 1
        assert "opposition" in str(reasons[0])
