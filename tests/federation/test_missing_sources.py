"""Members that are down or misbehave: the others' rows come in time, and each of the missing is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from support import peer
from support.peer import Connection, Peer, Request
from support.serving import serving, settings_for

DOWN = "http://127.0.0.1:1/x"


def study_row(uid: str, patient_id: str = "1", **more: object) -> dict[str, object]:
    return {
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00080020": {"vr": "DA", "Value": ["20240101"]},
        "00100020": {"vr": "LO", "Value": [patient_id]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT^MARIE"}]},
        **more,
    }


def test_misbehaving_members_are_named_and_do_not_delay_the_others(serve) -> None:
    behaviours = {
        "silent": peer.silent,
        "dripping": peer.dripping,
        "garbage": peer.garbage,
        "flooding": peer.flooding(200),
        "redirecting": peer.redirecting,
    }
    expected = {"silent": "timeout", "dripping": "timeout", "garbage": "error", "flooding": "error"}
    expected |= {"redirecting": "error", "stopped": "error"}
    peers = {name: Peer(behave) for name, behave in behaviours.items()}
    good = Peer(peer.rows([study_row("1.2.3")]))
    with good:
        for p in peers.values():
            p.__enter__()
        try:
            members = {name: p.dicomweb_url for name, p in peers.items()}
            server = serve(
                {"good": good.dicomweb_url, "stopped": "http://127.0.0.1:1/x", **members}, search={"deadline_s": 2.0}
            )
            started = time.monotonic()
            answer = requests.get(f"{server.dicomweb()}/studies", timeout=20)
            elapsed = time.monotonic() - started
        finally:
            for p in peers.values():
                p.__exit__()
    assert answer.status_code == 200
    assert [row["0020000D"]["Value"] for row in answer.json()] == [["1.2.3"]]
    assert elapsed < 4.0
    sources = dict(item.split(";")[:2] for item in answer.headers["Imagora-Sources"].split(", "))
    assert sources == {"good": "ok", **expected}
    warning = answer.headers["Warning"]
    assert "6 of 7 sources did not answer" in warning
    assert all(f"{name} ({status})" in warning for name, status in expected.items())


def sources(answer: requests.Response) -> dict[str, str]:
    """EMETTEUR → status, in the order of the header."""
    return dict(item.split(";")[:2] for item in answer.headers["Imagora-Sources"].split(", "))


def warnings_of(answer: requests.Response) -> list[str]:
    return list(answer.raw.headers.getlist("Warning"))


@pytest.mark.parametrize("path", ["studies", "series", "instances", "studies/1.2.3/series", "studies/1.2.3"])
def test_all_sources_down_is_quickly_unavailable(path: str, serve) -> None:
    server = serve({"csrom41200": DOWN, "cschb41000": DOWN})
    started = time.monotonic()
    answer = requests.get(f"{server.dicomweb()}/{path}", timeout=20)
    assert time.monotonic() - started < 8.0  # a member has ten seconds
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]
    assert sources(answer) == {"csrom41200": "error", "cschb41000": "error"}
    assert warnings_of(answer) == ["299 imagora: 2 of 2 sources did not answer: csrom41200 (error), cschb41000 (error)"]


@pytest.mark.parametrize("path", ["studies", "series", "studies/1.2.3/series", "studies/1.2.3/series/1.2/instances"])
def test_nothing_found_with_a_source_down_is_an_empty_list_that_says_so(path: str, serve) -> None:
    with Peer(peer.rows([])) as empty:
        server = serve({"csrom41200": empty.dicomweb_url, "cschb41000": DOWN})
        answer = requests.get(f"{server.dicomweb()}/{path}", timeout=20)
    assert (answer.status_code, answer.json()) == (200, [])
    assert warnings_of(answer) == ["299 imagora: 1 of 2 sources did not answer: cschb41000 (error)"]
    assert list(sources(answer)) == ["cschb41000", "csrom41200"]  # what is missing stands first


@pytest.mark.parametrize("path", ["studies", "series", "studies/1.2.3/series"])
def test_nothing_found_by_all_is_no_content(path: str, serve) -> None:
    with Peer(peer.rows([])) as one, Peer(nothing) as other:
        server = serve({"csrom41200": one.dicomweb_url, "cschb41000": other.dicomweb_url})
        answer = requests.get(f"{server.dicomweb()}/{path}", timeout=20)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Warning" not in answer.headers
    assert set(sources(answer).values()) == {"ok"}


async def nothing(_: Request, connection: Connection) -> None:
    await connection.head(204, {})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (401, "refused"),
        (403, "refused"),
        (400, "error"),
        (404, "error"),
        (429, "error"),
        (500, "error"),
        (503, "error"),
    ],
)
def test_status_of_a_member_that_answers_with_an_error(code: int, status: str, serve) -> None:
    async def refusing(_: Request, connection: Connection) -> None:
        await connection.answer(code, b"no", "text/plain")

    with Peer(peer.rows([study_row("1.2.3")])) as good, Peer(refusing) as bad:
        server = serve({"csrom41200": good.dicomweb_url, "cschb41000": bad.dicomweb_url})
        answer = requests.get(f"{server.dicomweb()}/studies", timeout=20)
    assert [row["0020000D"]["Value"] for row in answer.json()] == [["1.2.3"]]
    assert sources(answer) == {"csrom41200": "ok", "cschb41000": status}


def test_sick_member_is_left_alone_and_probed_back(serve) -> None:
    with Peer(peer.garbage) as sick, Peer(peer.rows([study_row("1.2.3")])) as good:
        server = serve(
            {"csrom41200": sick.dicomweb_url, "cschb41000": good.dicomweb_url}, search={"breaker_open_s": 1.5}
        )

        def ask() -> str:
            return sources(requests.get(f"{server.dicomweb()}/studies", timeout=20))["csrom41200"]

        assert [ask() for _ in range(3)] == ["error"] * 3
        opened = time.monotonic()
        asked = len(sick.requests)
        assert [ask() for _ in range(3)] == ["skipped"] * 3
        assert len(sick.requests) == asked
        assert time.monotonic() - opened < 1.5
        time.sleep(max(0.0, opened + 1.6 - time.monotonic()))
        assert ask() == "error"  # the probe
        assert ask() == "skipped"
        sick.behave = peer.rows([study_row("1.2.4")])
        assert ask() == "skipped"  # it is well again, nobody knows yet
        time.sleep(1.6)
        assert [ask() for _ in range(2)] == ["ok"] * 2


def test_each_site_has_its_own_deadline(postgres: Callable[[], str], tmp_path: Path) -> None:
    async def slow(_: Request, connection: Connection) -> None:
        await asyncio.sleep(1.2)
        await connection.json([study_row("1.2.3")])

    with Peer(slow) as patient, Peer(slow) as hurried:
        settings = settings_for(
            {"patient": patient.dicomweb_url, "hurried": hurried.dicomweb_url}, tmp_path, search={"deadline_s": 5.0}
        )
        sites = [s.model_copy(update={"deadline_s": 0.3 if s.emetteur == "hurried" else None}) for s in settings.sites]
        with serving(settings.model_copy(update={"sites": tuple(sites)}), postgres()) as server:
            answer = requests.get(f"{server.dicomweb()}/studies", timeout=20)
            assert sources(answer) == {"hurried": "timeout", "patient": "ok"}
            started = time.monotonic()
            alone = requests.get(f"{server.dicomweb('/sites/hurried')}/studies", timeout=20)
            assert time.monotonic() - started < 4.0
            assert alone.status_code == 503
