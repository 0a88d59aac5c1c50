"""What a declared emergency lets its requester see, over the real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import asyncpg
import requests
from support import peer
from support.peer import Peer
from support.people import GOOD, RULES, SOON_S, SigningKey, claims, key_set, register
from support.serving import serving, settings_for

from consent import Requester, utc_now
from consent.emergencies import Emergency, EmergencyStore
from consent.holds import HoldState, HoldStore
from registry.database import Database

STUDY = "1.2.840.99.777.1"
ROW = {
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "00080020": {"vr": "DA", "Value": ["20240101"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT^MARIE"}]},
    "00100020": {"vr": "LO", "Value": ["4547"]},
}


def test_an_emergency_shows_what_is_withheld_at_once(postgres: Callable[[], str], tmp_path: Path) -> None:
    url, key = postgres(), SigningKey("key")
    (tmp_path / "keys.json").write_bytes(key_set(key))

    async def withhold() -> None:
        async def traced() -> None:
            pass

        async with Database(url) as database:
            await HoldStore(database).say(
                STUDY, "csrom41200", HoldState.WITHHELD, reason="", set_by=GOOD, traced=traced
            )
            past = utc_now() - timedelta(minutes=1)
            await EmergencyStore(database).add(
                Emergency(
                    id="old",
                    requester=Requester(id=GOOD),
                    ipp="1",
                    emetteur="csrom41200",
                    reason="old one",
                    expires_at=past,
                ),
                traced=traced,
            )

    async def fetch(sql: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    with ExitStack() as stack:
        member = stack.enter_context(Peer(peer.rows([ROW])))
        auth = {"mode": "oidc", "issuer": RULES.issuer, "jwks": str(tmp_path / "keys.json")}
        settings = settings_for({"csrom41200": member.dicomweb_url, "csorl45000": None}, tmp_path, auth=auth)
        server = stack.enter_context(serving(settings, url))
        register(url, "csorl45000")
        asyncio.run(withhold())
        time.sleep(SOON_S)
        headers = {"authorization": f"Bearer {key.sign(claims(RULES, GOOD))}"}

        def search() -> int:
            return requests.get(f"{server.dicomweb()}/studies", headers=headers, timeout=20).status_code

        assert search() == 204
        other = {"patient_id": "4548@csrom41200", "reason": "vital emergency"}
        assert requests.post(f"{server.url}/emergency", json=other, headers=headers, timeout=20).status_code == 201
        assert search() == 204
        body = {"patient_id": "4547@CSROM41200", "reason": "vital emergency"}
        answer = requests.post(f"{server.url}/emergency", json=body, headers=headers, timeout=20)
        assert (answer.status_code, search()) == (201, 200)
        requests.get(f"{server.dicomweb()}/studies/{STUDY}/metadata", headers=headers, timeout=20)
        until = time.monotonic() + 20
        while True:
            rows = asyncio.run(fetch("SELECT kind, origin, detail FROM trace"))
            found = {(r["kind"], r["origin"], json.loads(r["detail"]).get("emergency")) for r in rows}
            if ("emergency-stopped", "csrom41200", "old") in found or time.monotonic() > until:
                break
            time.sleep(0.1)
        assert {
            ("accessed", "csrom41200", answer.json()["id"]),
            ("emergency-stopped", "csrom41200", "old"),
        } <= found
        assert ("emergency-stopped", "csrom41200", answer.json()["id"]) not in found
