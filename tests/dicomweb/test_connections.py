"""A member that closes its idle connections has not failed."""

from __future__ import annotations

import asyncio

import pytest
from support.peer import Connection, Peer, Request

from dicomweb.client import JSON_TYPES, ClientOptions, DicomWebMember
from federation.errors import MemberUnreachable
from federation.model import Deadline, Level, Query, Scope
from registry import Site

QUERY = Query(level=Level.STUDY, scope=Scope(), filters={"00100020": "1"})
ROW = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100020": {"vr": "LO", "Value": ["1"]}}


class Keeps:
    """Serves so many requests on one connection, and closes it when the next one comes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.served: dict[int, int] = {}
        self.closed = 0

    async def __call__(self, _: Request, connection: Connection) -> None:
        number = self.served[id(connection.writer)] = self.served.get(id(connection.writer), 0) + 1
        if number > self.most:
            self.closed += 1
            connection.abort()
            return
        await asyncio.sleep(0.05)  # so that as many connections are kept as were asked at once
        await connection.json([ROW])


def member(peer: Peer) -> DicomWebMember:
    return DicomWebMember(
        Site(emetteur="csrom41200", number=401, name="Romorantin", dicomweb=peer.dicomweb_url), options=ClientOptions()
    )


async def test_kept_connections_that_are_all_closed_are_no_failure() -> None:
    behave = Keeps(1)
    with Peer(behave) as peer:
        asked = member(peer)
        for _ in range(3):
            answers = await asyncio.gather(*(asked.search(QUERY, limit=10, deadline=Deadline(5)) for _ in range(6)))
            assert [len(a.rows) for a in answers] == [1] * 6
        assert behave.closed > 6  # more than aiohttp's own second try would bear
        await asked.aclose()


async def test_a_member_that_closes_each_connection_has_failed() -> None:
    behave = Keeps(0)
    with Peer(behave) as peer:
        asked = member(peer)
        with pytest.raises(MemberUnreachable):
            await asked.search(QUERY, limit=10, deadline=Deadline(5))
        assert behave.closed == len(JSON_TYPES)  # once in each form of JSON
        await asked.aclose()
