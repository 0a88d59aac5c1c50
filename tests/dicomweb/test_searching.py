"""Searches of one member, whatever its profile says of it: right, unknown, old or a lie."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from support.peer import Connection, Peer, Request
from support.picky import Picky, instance

from dicomweb.client import DicomWebMember
from federation.errors import MemberError
from federation.model import Deadline, Level, Query, Scope
from registry import Quirks, Site

ROWS = [
    instance(f"1.2.{study}", f"1.2.{study}.{series}", f"1.2.{study}.{series}.1", accession=f"A {study}")
    for study in range(1, 5)
    for series in (1, 2)
]
FLAGS = [field.name for field in dataclasses.fields(Quirks)]
PROFILES = {
    "unknown": Quirks(),
    "all well": Quirks(**dict.fromkeys(FLAGS, True)),
    "all poor": Quirks(**dict.fromkeys(FLAGS, False)),
    **{f"{flag} only": Quirks(**{flag: True}) for flag in FLAGS},
    **{f"no {flag}": Quirks(**{flag: False}) for flag in FLAGS},
}
MEMBERS: dict[str, dict[str, Any]] = {
    "is well": {},
    "knows no lists": {"lists": ()},
    "knows lists with backslashes only": {"lists": ("\\",)},
    "knows lists with commas only": {"lists": (",",)},
    "does not decode": {"decodes": False},
    "decodes but knows no wildcards": {"star": False, "question": False},
    "takes application/json only": {"json": ("application/json",)},
    "takes application/dicom+json only": {"json": ("application/dicom+json",)},
    "means something else by application/json": {"nonsense": True},
    "searches within studies only": {"across": False},
    "searches within studies only, and says 501": {"across": False, "unknown": 501},
    "searches across studies only": {"below": False},
    "sends empty lists": {"no_match": 200},
    "is poor in all ways": {"lists": (), "decodes": False, "json": ("application/json",), "across": False},
}
QUESTIONS: dict[str, tuple[Level, dict[str, str], set[str]]] = {
    "a list": (Level.STUDY, {"0020000D": "1.2.1,1.2.3"}, {"1.2.1", "1.2.3"}),
    "a list with what is not there": (Level.STUDY, {"0020000D": "1.2.9,1.2.4,1.2.8"}, {"1.2.4"}),
    "a list of nothing that is there": (Level.STUDY, {"0020000D": "1.2.9,1.2.8"}, set()),
    "a list of series": (Level.SERIES, {"0020000D": "1.2.2", "0020000E": "1.2.2.1,1.2.2.2"}, {"1.2.2.1", "1.2.2.2"}),
    "two lists": (
        Level.SERIES,
        {"0020000D": "1.2.1,1.2.2", "0020000E": "1.2.2.1,1.2.1.2"},
        {"1.2.2.1", "1.2.1.2"},
    ),
    "what must be encoded": (Level.STUDY, {"00080050": "A 2"}, {"1.2.2"}),
    "instances of a study": (Level.INSTANCE, {"0020000D": "1.2.2"}, {"1.2.2.1.1", "1.2.2.2.1"}),
    "no such study": (Level.STUDY, {"0020000D": "1.2.9"}, set()),
}
TAGS = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}


def member(peer: Peer, quirks: Quirks) -> DicomWebMember:
    return DicomWebMember(Site(emetteur="one", number=1, name="One", dicomweb=peer.dicomweb_url, quirks=quirks))


async def ask(client: DicomWebMember, question: str) -> set[str]:
    level, filters, _ = QUESTIONS[question]
    query = Query(level=level, scope=Scope(), filters=filters, include=frozenset({"0020000D"}))
    answer = await client.search(query, limit=100, deadline=Deadline(10.0))
    assert not answer.more
    found = [row[TAGS[level]]["Value"][0] for row in answer.rows]
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.parametrize("kind", MEMBERS)
async def test_a_profile_that_lies_costs_no_rows(kind: str) -> None:
    with Peer(Picky(ROWS, **MEMBERS[kind])) as peer:
        for said, quirks in PROFILES.items():
            one_by_one = member(peer, quirks)
            try:
                for question, (_, _, expected) in QUESTIONS.items():
                    assert await ask(one_by_one, question) == expected, (said, question)
            finally:
                await one_by_one.aclose()


@pytest.mark.parametrize("kind", ["knows no lists", "searches within studies only", "is poor in all ways"])
async def test_a_profile_that_lies_costs_no_rows_of_the_first_question(kind: str) -> None:
    with Peer(Picky(ROWS, **MEMBERS[kind])) as peer:
        for said in ("unknown", "all well", "all poor"):
            for question, (_, _, expected) in QUESTIONS.items():
                client = member(peer, PROFILES[said])
                assert await ask(client, question) == expected, (said, question)
                await client.aclose()


async def requests_of(peer: Peer, quirks: Quirks, question: str) -> int:
    """How many requests a question takes that was asked before."""
    client = member(peer, quirks)
    await ask(client, question)
    before = len(peer.requests)
    await ask(client, question)
    await client.aclose()
    return len(peer.requests) - before


@pytest.mark.parametrize(
    ("kind", "question", "quirks", "with_profile", "without"),
    [
        ("is well", "a list with what is not there", Quirks(), 1, 1),
        ("does not decode", "what must be encoded", Quirks(decodes_values=False), 1, 2),
        ("searches within studies only", "instances of a study", Quirks(searches_instances=False), 1, 2),
        ("takes application/json only", "no such study", Quirks(takes_dicom_json=False), 1, 1),
    ],
)
async def test_a_true_profile_spares_requests(
    kind: str, question: str, quirks: Quirks, with_profile: int, without: int
) -> None:
    with Peer(Picky(ROWS, **MEMBERS[kind])) as peer:
        assert await requests_of(peer, quirks, question) == with_profile
        assert await requests_of(peer, Quirks(), question) == without


async def test_a_member_that_answers_wide_questions_with_nothing_loses_no_rows() -> None:
    """It looks empty to who asks for any two studies of it."""

    class Narrow(Picky):
        async def __call__(self, request: Request, connection: Connection) -> None:
            if {name for name, _ in request.query} <= {"limit", "offset", "includefield"}:
                await connection.answer(204, b"", "text/plain")
            else:
                await super().__call__(request, connection)

    with Peer(Narrow(ROWS, lists=())) as peer:
        for quirks in PROFILES.values():
            client = member(peer, quirks)
            assert await ask(client, "a list") == {"1.2.1", "1.2.3"}
            await client.aclose()


async def test_what_is_asked_one_by_one_has_an_end_that_is_told() -> None:
    many = ",".join(f"1.3.{n}" for n in range(400))
    with Peer(Picky(ROWS, lists=())) as peer:
        client = member(peer, Quirks())
        query = Query(level=Level.STUDY, scope=Scope(), filters={"0020000D": many})
        answer = await client.search(query, limit=100, deadline=Deadline(10.0))
        await client.aclose()
    assert answer.more
    assert len(peer.requests) < 140


async def test_a_list_that_fails_is_not_asked_for_any_further() -> None:
    many = ",".join(f"1.3.{n}" for n in range(100))

    async def failing(request: Request, connection: Connection) -> None:
        await connection.answer(500, b"", "text/plain")

    with Peer(failing) as peer:
        client = member(peer, Quirks(takes_uid_lists=False))
        query = Query(level=Level.STUDY, scope=Scope(), filters={"0020000D": many})
        with pytest.raises(MemberError):
            await client.search(query, limit=100, deadline=Deadline(10.0))
        await client.aclose()
        await asyncio.sleep(0.2)
    assert len(peer.requests) < 20


async def test_a_member_that_refuses_lists_in_every_way_is_told() -> None:
    with Peer(Picky(ROWS, json=())) as peer:
        client = member(peer, Quirks(takes_dicom_json=False))
        with pytest.raises(MemberError):
            await ask(client, "a list")
        await client.aclose()
