"""`imagora serve` as a process: it ends in order and lets transfers end, and its log holds no patient."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type, giving, multipart
from retrieve_process import ServeProcess
from support.peer import Connection, Request

MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
STUDY = exams.study(seed="ending", n_instances=2, rows=64, columns=64)
UID = exams.uid("ending", "study")


class Slowly:
    """A delivery that gives its first half at once and takes `seconds` for the rest."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, _: Request, connection: Connection, held: list[Held]) -> None:
        body = multipart([i.data for i in held], "b")
        await connection.send(answer_head(Framing.LENGTH, len(body), content_type("b")))
        half = len(body) // 2
        await connection.send(body[:half])
        step = half // 20 + 1
        for at in range(half, len(body), step):
            await asyncio.sleep(self.seconds / 20)
            await connection.send(body[at : at + step])


def in_background(url: str, path: str) -> tuple[threading.Thread, list[wire.Seen]]:
    seen: list[wire.Seen] = []
    thread = threading.Thread(target=lambda: seen.append(wire.get(url, path, MULTIPART)))
    thread.start()
    return thread, seen


def alive(server: ServeProcess) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


@pytest.mark.slow
def test_termination_lets_a_transfer_end_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        Holder(STUDY, deliver=Slowly(2.5)) as holder,
        ServeProcess(tmp_path, {"csrom41200": holder.url}, server={"drain_s": 15}) as server,
    ):
        assert any("postgres" in command for command in server.companions())
        thread, seen = in_background(server.dicomweb, f"/studies/{UID}")
        while not holder.retrieves():
            time.sleep(0.02)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        assert not alive(server)  # nobody new is let in
        thread.join(20)
        assert server.process.wait(15) == 0
        assert seen[0].ended
        assert len(seen[0].parts) == len(STUDY)
        await_end(server)


def await_end(server: ServeProcess) -> None:
    """PostgreSQL's last process may outlive the server by a moment."""
    ended = time.monotonic()
    while left := server.companions():
        assert time.monotonic() - ended < 10, left
        time.sleep(0.05)


@pytest.mark.slow
def test_termination_waits_no_longer_than_it_was_told(tmp_path: Path) -> None:
    with (
        Holder(STUDY, deliver=Slowly(60.0)) as holder,
        ServeProcess(tmp_path, {"csrom41200": holder.url}, server={"drain_s": 2}) as server,
    ):
        thread, seen = in_background(server.dicomweb, f"/studies/{UID}")
        while not holder.retrieves():
            time.sleep(0.02)
        time.sleep(0.5)  # its first half is through
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert 1.5 < time.monotonic() - started < 8
        thread.join(5)
        assert seen[0].status == 200
        assert not seen[0].ended
        assert not seen[0].closed
        assert holder.peer.closed_at
        await_end(server)


NAME, IPP, BORN, ACCESSION = "CANARI-ZQ^Élodie", "IPPZQ77813", "19431122", "ACCZQ9"
SEEDED = exams.study(
    seed="canary",
    name=NAME,
    patient_id=IPP,
    birth_date=BORN,
    accession=ACCESSION,
    description="DESCZQ",
    rows=64,
    columns=64,
)
SEEDED_UID = exams.uid("canary", "study")
CANARIES = [b"CANARI", b"lodie", IPP.encode(), BORN.encode(), ACCESSION.encode(), b"DESCZQ", SEEDED_UID.encode()]


def test_log_is_json_and_holds_no_patient(tmp_path: Path) -> None:
    """Whatever is asked, and whatever goes wrong, at the most talkative level."""
    with Holder(SEEDED) as holder:
        silent = Holder(SEEDED, searches=giving(500, f"{NAME} {IPP}".encode(), "text/plain"))
        with (
            silent,
            ServeProcess(
                tmp_path,
                {"csrom41200": holder.url, "cpsax18000": silent.url},
                server={"log_level": "debug"},
                search={"deadline_s": 2},
                environment={"IMAGORA_MEMBER_CSROM41200_PASSWORD": "PWDZQ41", "IMAGORA_MEMBER_CSROM41200_USER": "u"},
            ) as server,
        ):
            study, series, sop = holder.held[0].uids
            instance = f"{server.dicomweb}/studies/{study}/series/{series}/instances/{sop}"
            shown = b""
            for url in (
                f"{server.dicomweb}/studies?PatientName=CANARI*&PatientBirthDate={BORN}",
                f"{server.dicomweb}/studies?PatientID={IPP}&AccessionNumber={ACCESSION}",
                f"{server.dicomweb}/studies?PatientID={IPP}&limit={NAME}",
                f"{server.dicomweb}/studies?PatientBirthDate={NAME}",
                f"{server.dicomweb}/studies?{NAME}=1&{IPP}",
                f"{server.dicomweb}/studies/{SEEDED_UID}",
                f"{server.dicomweb}/studies/{SEEDED_UID}/metadata",
                f"{server.dicomweb}/{SEEDED_UID}/{IPP}",
                f"{server.url}/{IPP}/{SEEDED_UID}",
                f"{server.url}/sites/{IPP}/dicom-web/studies/{SEEDED_UID}",
                instance,
                f"{instance}/frames/1",
                f"{instance}/frames/{IPP}",
                f"{instance}/rendered?window={IPP}",
                f"{instance}/bulkdata/{IPP}",
            ):
                shown += requests.get(url, timeout=20).content
            # Members that fail with patients' data in what they say.
            said = f"{NAME} {IPP} {SEEDED_UID}".encode()
            for deliver in (
                giving(500, said, "text/plain"),
                giving(200, said, f'multipart/related; type="{DICOM}"; boundary={IPP}'),
                giving(200, said, f"text/{IPP}"),
                giving(302, b"", "text/plain", Location=f"http://127.0.0.1:1/{IPP}/{SEEDED_UID}"),
                giving(200, multipart([said * 9], "b"), content_type("b")),
                giving(200, multipart([SEEDED[0][:-400]], "b")[:-9], content_type("b")),
            ):
                holder.deliver = holder.other = holder.describe = deliver
                for below in ("", "/metadata", "/rendered"):
                    wire.get(server.dicomweb, f"/studies/{SEEDED_UID}{below}")
            # Bytes that are no HTTP, and a client that leaves.
            with socket.create_connection(("127.0.0.1", server.port)) as link:
                link.sendall(f"GET /{IPP} NONSENSE {SEEDED_UID}\r\n\r\n".encode())
                link.recv(1000)
            wire.connect(server.dicomweb, f"/studies/{SEEDED_UID}", MULTIPART).close()
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
        lines = server.log()
        log = server.errors.read_bytes()
    # The control: this search finds them where they are.
    assert all(canary in shown for canary in CANARIES)
    assert found_in(log) == []
    assert b"PWDZQ41" not in log
    entries = [json.loads(line) for line in lines]
    assert len(entries) > 30
    assert all({"at", "level", "logger", "message"} <= entry.keys() for entry in entries)
    answered = [e for e in entries if e["logger"] == "imagora.access"]
    assert {e["status"] for e in answered} >= {200, 400, 404, 502}
    assert {"/dicom-web/studies", "/dicom-web/studies/{study}"} <= {e["route"] for e in answered}
    assert all(e["request_id"] for e in answered)
    assert found_in(json.dumps({"message": f"patient {IPP}"}).encode()) == [IPP.encode()]


def found_in(text: bytes) -> list[bytes]:
    return [canary for canary in CANARIES if canary in text]
