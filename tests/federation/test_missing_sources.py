"""Members that are down or misbehave: the others' rows come in time, and each of the missing is named."""

from __future__ import annotations

import time

import requests
from support import peer
from support.peer import Peer


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
