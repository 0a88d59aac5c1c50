"""What is under way is cut when it must not be shown any more, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from consent import Requester
from dicomweb.respond import answer
from federation.errors import Withdrawn
from federation.identity import Identity, Record
from federation.transfers import Transfers
from registry import Site

WHO = Requester(id="10001234567")
SITE = Site(emetteur="csrom41200", number=401, name="Romorantin")


def identity(number: str) -> Identity:
    return Identity(records=(Record(holder=SITE, raw_patient_id=number, ipp=number, authority=SITE, origin=SITE),))


class Rules:
    """Who is named here is not shown."""

    def __init__(self) -> None:
        self.opposed: set[str] = set()

    def permits(self, _: Requester, study_uid: str, who: Identity) -> bool:
        if who.main.ipp == "error":
            raise RuntimeError
        return study_uid not in self.opposed and who.main.ipp not in self.opposed


async def waiting(transfers: Transfers, exams: list[tuple[str, Identity]]) -> str:
    try:
        async with transfers.begin(WHO, lambda: exams):
            await asyncio.sleep(0.2)
    except Withdrawn:
        return "cut"
    return "whole"


@pytest.mark.parametrize("opposed", ["1.2", "B"], ids=["the study", "one of its people"])
async def test_only_what_must_not_go_on_is_cut(opposed: str) -> None:
    rules = Rules()
    transfers = Transfers(rules.permits)
    people = [("1.2", identity("A"))]
    mine = asyncio.create_task(waiting(transfers, people))
    other = asyncio.create_task(waiting(transfers, [("1.3", identity("A"))]))
    await asyncio.sleep(0)
    people.append(("1.2", identity("B")))  # turned up while it was under way
    transfers.review()
    await asyncio.sleep(0.01)
    assert not mine.done()
    rules.opposed.add(opposed)
    transfers.review()
    await asyncio.sleep(0.01)
    assert (mine.done(), other.done()) == (True, False)
    assert (await mine, await other) == ("cut", "whole")


async def test_one_that_cannot_be_reviewed_is_cut_and_saves_no_other() -> None:
    rules = Rules()
    transfers = Transfers(rules.permits)
    exams = [[("1", identity("error"))], [("2", identity("A"))], [("3", identity("B"))]]
    tasks = [asyncio.create_task(waiting(transfers, e)) for e in exams]
    await asyncio.sleep(0)
    rules.opposed.add("A")
    transfers.review()
    assert await asyncio.gather(*tasks) == ["cut", "cut", "whole"]


async def test_a_timeout_of_its_own_is_no_withdrawal() -> None:
    with pytest.raises(TimeoutError):
        async with Transfers(Rules().permits).begin(WHO, list), asyncio.timeout(0.01):
            await asyncio.sleep(1)


async def stays() -> Message:
    return await asyncio.get_running_loop().create_future()


async def test_what_is_withdrawn_before_it_left_is_answered_anew_and_afterwards_breaks_off() -> None:
    sent: list[Message] = []
    tries: list[int] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def withdrawn_once(send_one: object) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Withdrawn("it must not be shown any more")
        await send({"type": "http.response.start", "status": 204, "headers": []})

    await answer(send, stays, None, withdrawn_once)
    assert (len(tries), [m["status"] for m in sent]) == (2, [204])
    sent.clear()

    async def withdrawn_later(inner: object) -> None:
        assert callable(inner)
        await inner({"type": "http.response.start", "status": 200, "headers": []})
        raise Withdrawn("it must not be shown any more")

    await answer(send, stays, None, withdrawn_later)
    assert [m["type"] for m in sent] == ["http.response.start"]
    sent.clear()

    async def always(_: object) -> None:
        raise Withdrawn("it must not be shown any more")

    await answer(send, stays, None, always)
    assert sent[0]["status"] == 503
