"""Searches and retrieves over members whose stored profile is old or wrong: it costs time, never results."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from imagora_demo import exams
from region import get, rows_of, uids, value
from support.peer import Peer
from support.picky import Picky, instance
from support.serving import Serving, serving, settings_for

from registry import Quirks
from registry.database import Database
from registry.store import RegistryStore

NAMES = {"1.2.1": "Dupont^Marie", "1.2.2": "DUPONT^MARIE", "1.2.3": "dupont^marie", "1.2.4": "KELLER^TOM"}
ROWS = [instance(study, f"{study}.1", f"{study}.1.1", name=name) for study, name in NAMES.items()]
FLAGS = [field.name for field in dataclasses.fields(Quirks)]
LIES = {
    "all well": Quirks(**dict.fromkeys(FLAGS, True)),
    "all poor": Quirks(**dict.fromkeys(FLAGS, False)),
    "names in any case": Quirks(names_ignore_case=True),
}


async def _keep(url: str, settings: Any, quirks: Quirks) -> None:
    async with Database(url) as database:
        store = RegistryStore(database, node="IMAGORA")
        await store.seed(settings.registry_sites(), settings.registry_folders())
        for site in (await store.load()).sites:
            await store.save_quirks(site.emetteur, quirks)


Told = Callable[[dict[str, Peer], Quirks], Any]


@pytest.fixture
def over(postgres: Callable[[], str], tmp_path: Path) -> Told:
    """`over(members, quirks)` → a server whose registry says this of each member."""

    def start(members: dict[str, Peer], quirks: Quirks) -> Any:
        settings = settings_for({name: peer.dicomweb_url for name, peer in members.items()}, tmp_path)
        url = postgres()
        asyncio.run(_keep(url, settings, quirks))
        return serving(settings, url)

    return start


def found(server: Serving, pattern: str) -> list[str]:
    return sorted(uids(get(f"{server.dicomweb()}/studies", params={"PatientName": pattern})))


@pytest.mark.parametrize("lie", LIES)
def test_names_are_found_in_any_case_whatever_the_profile_says(lie: str, over: Told) -> None:
    with (
        Peer(Picky(ROWS, any_case=False, decodes=False, lists=(), across=False)) as poor,
        over({"csrom41200": poor}, LIES[lie]) as server,
    ):
        for _ in range(2):
            assert found(server, "Dupont^M*") == ["1.2.1", "1.2.2", "1.2.3"]
            assert found(server, "keller") == ["1.2.4"]
            assert found(server, "nobody") == []


def test_a_true_profile_narrows_names_once_it_was_proved(over: Told) -> None:
    with Peer(Picky(ROWS)) as well, over({"csrom41200": well}, Quirks(names_ignore_case=True)) as server:
        assert found(server, "dupont") == ["1.2.1", "1.2.2", "1.2.3"]
        before = len(well.requests)
        assert found(server, "keller") == ["1.2.4"]
        asked = [value for request in well.requests[before:] for value in request.values("00100010")]
        assert asked == ["K*L*L*R*"]


def test_a_profile_is_no_proof_where_names_are_not_looked_at(over: Told) -> None:
    """A member that ignores the name, if a UID is given, would seem to ignore cases."""

    class Forgetful(Picky):
        def _matches(self, row: Any, tag: str, wanted: str) -> bool:
            return (tag == "00100010" and self.named) or super()._matches(row, tag, wanted)

        named = False

        async def __call__(self, request: Any, connection: Any) -> None:
            self.named = bool(request.values("0020000D"))
            await super().__call__(request, connection)

    with (
        Peer(Forgetful(ROWS, any_case=False)) as poor,
        over({"csrom41200": poor}, Quirks(names_ignore_case=True)) as server,
    ):
        assert found(server, "dupont") == ["1.2.1", "1.2.2", "1.2.3"]


PICTURE = {r"/rendered$": ("image/jpeg", b"a picture", "image/jpeg")}
RENDERED = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1/rendered"


def rendered(server: Serving) -> requests.Response:
    return requests.get(f"{server.dicomweb()}{RENDERED}", headers={"Accept": "image/jpeg"}, timeout=30)


@pytest.mark.parametrize("says", [None, True, False])
def test_pictures_are_had_from_who_gives_them_whatever_the_profile_says(says: bool | None, over: Told) -> None:
    quirks = Quirks(gives_rendered=says)
    with (
        Peer(Picky(ROWS)) as without,
        Peer(Picky(ROWS, forms=PICTURE)) as giving,
        over({"csrom41200": without, "cschb41000": giving}, quirks) as server,
    ):
        answer = rendered(server)
        assert (answer.status_code, answer.content) == (200, b"a picture")


def test_who_is_known_to_lack_pictures_is_not_asked_while_another_gives_them(
    postgres: Callable[[], str], tmp_path: Path
) -> None:
    with Peer(Picky(ROWS)) as without, Peer(Picky(ROWS, forms=PICTURE)) as giving:
        members: dict[str, str | None] = {"csrom41200": without.dicomweb_url, "cschb41000": giving.dicomweb_url}
        settings, url = settings_for(members, tmp_path), postgres()
        asyncio.run(_keep(url, settings, Quirks()))

        async def learn() -> None:
            async with Database(url) as database:
                await RegistryStore(database).save_quirks("csrom41200", Quirks(gives_rendered=False))

        asyncio.run(learn())
        with serving(settings, url) as server:
            assert rendered(server).content == b"a picture"
        assert not [request for request in without.requests if request.path.endswith("/rendered")]


def test_nobody_is_asked_for_a_picture_that_is_made_here(over: Told) -> None:
    file = exams.study(seed="profiles", n_instances=1, rows=48, columns=48)[0]
    study = exams.uid("profiles", "study")
    series = exams.uid(study, "series", 1)
    sop = exams.uid(series, "instance", 1)
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x--"
    content_type = 'multipart/related; type="application/dicom"; boundary=x'
    dicom = {r"/instances/[0-9.]+$": ("application/dicom", body, content_type)}
    held = [instance(study, series, sop)]
    for says in (None, True, False):
        with (
            Peer(Picky(held, forms=dicom, unknown=406)) as without,
            over({"csrom41200": without}, Quirks(gives_rendered=says)) as server,
        ):
            url = f"{server.dicomweb()}/studies/{study}/series/{series}/instances/{sop}/rendered"
            answer = requests.get(url, headers={"Accept": "image/jpeg"}, timeout=60)
            assert (answer.status_code, answer.content[:2]) == (200, b"\xff\xd8"), answer.text
            assert not any(request.path.endswith("/rendered") for request in without.requests)


def test_a_profile_that_lies_of_pictures_costs_time_only(over: Told) -> None:
    """`Picky` gives no instance to make it from, so that it is asked in the end: its profile lies."""
    with (
        Peer(Picky(ROWS, forms=PICTURE)) as giving,
        over({"csrom41200": giving}, Quirks(gives_rendered=False)) as server,
    ):
        answer = rendered(server)
        assert (answer.status_code, answer.content) == (200, b"a picture")
        below = [request.path.removeprefix(RENDERED.removesuffix("/rendered")) for request in giving.requests]
        assert below[-1] == "/rendered"
        assert "" in below[:-1]  # an instance to make it from was asked for first


def test_what_a_member_leaves_out_though_it_is_asked_for_is_read_from_an_instance(over: Told) -> None:
    """Only where its profile says that it does so: else what is not there is taken for what is not there."""
    maker = {"00080070": {"vr": "LO", "Value": ["Fictive"]}}
    held = [{**r, **maker, "00201209": {"vr": "IS", "Value": [1]}} for r in ROWS]
    for says, expected in ((False, "Fictive"), (True, None), (None, None)):
        with (
            Peer(Picky(held, includefield=False, metadata=held)) as poor,
            over({"csrom41200": poor}, Quirks(honours_includefield=says)) as server,
        ):
            answer = get(f"{server.dicomweb()}/series?StudyInstanceUID=1.2.1&includefield=Manufacturer")
            assert [value(r, "00080070") for r in rows_of(answer)] == [expected]
