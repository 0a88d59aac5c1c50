"""What let a requester in stands in his traces; and nobody waits for a database that does not answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import requests
from support.frozen import frozen
from support.people import GOOD, RULES, SigningKey, claims, key_set, register
from support.serving import Serving, serving, settings_for
from support.tracing import traced

from consent import Requester
from consent.sessions import Sessions
from registry import migrate
from registry.database import Database, DatabaseUnavailable
from registry.embedded import Lease


@dataclass(frozen=True, slots=True)
class World:
    oidc: Serving
    demo: Serving
    key: SigningKey
    url: str

    def ask(self, **headers: str) -> requests.Response:
        server = self.oidc if "authorization" in headers else self.demo
        return requests.get(f"{server.dicomweb()}/studies", headers=headers, timeout=8)

    def bearer(self, **changes: Any) -> requests.Response:
        return self.ask(authorization=f"Bearer {self.key.sign(claims(RULES, GOOD, **changes))}")

    def session(self) -> str:
        """The word of a new session, as the sign-in page would give it."""

        async def begin() -> str:
            async with Database(self.url) as database:
                return await Sessions(database, lifetime_s=600).begin(GOOD, traced=traced)

        return asyncio.run(begin())


def start(stack: ExitStack, folder: Path, url: str) -> World:
    key = SigningKey("key")
    (folder / "keys.json").write_bytes(key_set(key))
    oidc = {"mode": "oidc", "issuer": RULES.issuer, "jwks": str(folder / "keys.json")}
    first, second = (
        stack.enter_context(serving(settings_for({"csrom41200": None}, folder, auth=auth), url))
        for auth in (oidc, {"mode": "demo"})
    )
    register(url, "csrom41200")
    return World(first, second, key, url)


@pytest.fixture(scope="module")
def world(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("credentials"), postgres())


def last_detail(world: World) -> dict[str, Any]:
    async def fetch() -> Any:
        connection = await asyncpg.connect(world.url)
        try:
            return await connection.fetchrow(
                "SELECT requester_id, detail FROM trace WHERE kind = 'query' ORDER BY recorded_at DESC LIMIT 1"
            )
        finally:
            await connection.close()

    row = asyncio.run(fetch())
    assert row["requester_id"] == GOOD
    detail = json.loads(row["detail"])
    assert isinstance(detail, dict)
    return detail


@pytest.mark.parametrize(
    ("jti", "traced"),
    [
        ("token-4711", {"jti": "token-4711"}),
        ("j" * 300, {"jti": "j" * 128}),
        ("é\0", {"jti": "é\ufffd"}),
        (None, {}),
        ("", {}),
        (4711, {}),
    ],
)
def test_a_tokens_id_is_traced_and_never_the_token(world: World, jti: object, traced: dict[str, str]) -> None:
    assert world.bearer(jti=jti).ok
    assert last_detail(world) == traced


def test_a_sessions_reference_is_traced_and_never_its_word(world: World) -> None:
    word = world.session()
    assert world.ask(cookie=f"imagora_session={word}").ok
    reference = sha256(word.encode()).hexdigest()[:16]
    assert last_detail(world) == {"session": reference}
    assert world.ask(cookie=f"imagora_session={reference}").status_code == 401


def test_what_let_him_in_makes_nobody_another_requester() -> None:
    one = Requester(id=GOOD, credential="a")
    assert one == replace(one, credential="b")
    assert hash(one) == hash(replace(one, credential="b"))


async def test_a_session_that_is_not_found_out_in_a_second_is_not_waited_for(world: World) -> None:
    """The registry is fresh; the look-up alone hangs."""
    word = await asyncio.to_thread(world.session)
    lock = await asyncpg.connect(world.url)
    try:
        async with lock.transaction():
            await lock.execute("LOCK TABLE session IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(
                *(asyncio.to_thread(world.ask, cookie=f"imagora_session={word}") for _ in range(4))
            )
            async with Database(world.url) as database:
                with pytest.raises(DatabaseUnavailable):
                    await asyncio.wait_for(Sessions(database, lifetime_s=600).find(word), 5)
    finally:
        await lock.close()
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "5")}
    assert (await asyncio.to_thread(world.ask, cookie=f"imagora_session={word}")).ok


def test_a_frozen_database_gives_503_at_once_and_heals(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "state")
    url = lease.acquire()
    try:
        asyncio.run(migrate.migrate(url))
        with ExitStack() as stack:
            world = start(stack, tmp_path, url)
            word = world.session()
            cookie = f"imagora_session={word}"
            assert world.ask(cookie=cookie).ok
            with frozen(tmp_path / "state"):
                time.sleep(1)  # neither the session nor the registry is fresh any more
                for answer in (world.ask(cookie=cookie), world.bearer(), world.ask(cookie="imagora_session=other")):
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert world.ask().status_code == 401  # nothing was to be looked up
            until = time.monotonic() + 20
            while not (healed := world.ask(cookie=cookie)).ok and time.monotonic() < until:
                time.sleep(0.1)
            assert healed.ok
    finally:
        lease.release()
