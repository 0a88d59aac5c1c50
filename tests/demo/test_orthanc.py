"""The Orthanc runner, with real servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from imagora_demo import exams
from imagora_demo.orthanc import (
    OrthancError,
    OrthancServer,
    UploadRefusedError,
    free_port,
    start_all,
    stop_all,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def qido(server: OrthancServer, query: str = "studies") -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{server.dicomweb_url}/{query}", timeout=10) as answer:
        rows: list[dict[str, object]] = json.load(answer)
        return rows


def test_serves_dicomweb_at_the_name_and_path_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "member"
    with OrthancServer(folder, name="a", host="127.0.0.21", root="/zq-member-a/dicom-web/") as server:
        server.upload(exams.light_study("one"))
        assert server.dicomweb_url == f"http://127.0.0.21:{server.port}/zq-member-a/dicom-web"
        assert len(qido(server)) == 1
        assert psutil.Process(server.pid).name() == "Orthanc"
    assert server.log_path.is_relative_to(folder)
    assert server.log_path.stat().st_size > 0


def test_upload_answers_in_order_and_counts() -> None:
    studies = list(exams.light_studies(30, seed="order"))
    with OrthancServer(name="a") as server:
        first = server.upload(studies)
        again = server.upload(studies)
        assert [answer["Status"] for answer in first if answer] == ["Success"] * 30
        assert [answer and answer["ID"] for answer in again] == [answer and answer["ID"] for answer in first]
        assert {answer["Status"] for answer in again if answer} == {"AlreadyStored"}
        counts = server.count()
        assert (counts["patients"], counts["studies"], counts["instances"]) == (30, 30, 30)
        server.clear()
        assert server.count()["instances"] == 0


def test_refused_instance_is_told_or_skipped(tmp_path: Path) -> None:
    (good,) = exams.light_study("good")
    path = tmp_path / "good.dcm"
    path.write_bytes(good)
    with OrthancServer(name="a") as server:
        with pytest.raises(UploadRefusedError, match="a refused instance"):
            server.upload([b"not DICOM"])
        answers = server.upload([b"not DICOM", path], skip_refused=True)
        assert answers[0] is None
        assert answers[1] is not None


def test_killed_server_comes_back_with_its_address_and_data() -> None:
    with OrthancServer(name="a") as server:
        server.upload(exams.light_study("kept"))
        address = server.dicomweb_url
        server.kill()
        assert not server.running
        with pytest.raises(OrthancError, match="does not run"):
            _ = server.pid
        server.start()
        assert server.dicomweb_url == address
        assert server.count()["instances"] == 1


def test_stop_ends_it_in_order_and_may_be_called_again(tmp_path: Path) -> None:
    server = OrthancServer(tmp_path, name="a")
    server.stop()
    server.start().upload(exams.light_study("kept"))
    server.stop()
    server.stop()
    assert "Orthanc has stopped" in server.log_tail()
    with server:
        assert server.count()["instances"] == 1
        server.kill()


def test_paused_server_accepts_and_does_not_answer(tmp_path: Path) -> None:
    with OrthancServer(name="a") as server:
        server.pause()
        with socket.create_connection((server.host, server.port), timeout=5) as connection:
            connection.sendall(b"GET /system HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        server.resume()
        assert server.get("/system")["Name"] == "a"


def test_several_start_side_by_side_and_temporary_folders_go() -> None:
    servers = [OrthancServer(name=f"m{number}", aet=f"M{number}") for number in range(3)]
    start_all(servers)
    try:
        assert len({server.port for server in servers} | {server.dicom_port for server in servers}) == 6
        for server in servers:
            with socket.create_connection(("127.0.0.1", server.dicom_port), timeout=5):
                pass
    finally:
        stop_all(servers)
    assert not any(server.folder.exists() for server in servers)


async def test_async_use_starts_fills_and_stops() -> None:
    async with OrthancServer(name="a") as server:
        await server.upload_async(exams.light_study("one"))
        assert server.count()["studies"] == 1
        pid = server.pid
    assert not psutil.pid_exists(pid)


def test_bad_configuration_is_told_with_the_log() -> None:
    server = OrthancServer(name="bad", config={"HttpPort": "none"})
    with pytest.raises(OrthancError, match=r'(?s)bad ended at start.*"HttpPort" must be an integer'):
        server.start()
    assert not server.folder.exists()


def test_busy_port_is_told() -> None:
    with OrthancServer(name="a") as server:
        other = OrthancServer(name="b", port=server.port)
        with pytest.raises(OrthancError, match="b ended at start"):
            other.start()


def test_nested_configuration_is_merged() -> None:
    config = {"DicomWeb": {"StudiesMetadata": "MainDicomTags"}, "RegisteredUsers": {"ann": "secret"}}
    with OrthancServer(name="a", config=config | {"AuthenticationEnabled": True}) as server:
        written = json.loads(server.config_path.read_text(encoding="utf-8"))
        assert written["DicomWeb"]["StudiesMetadata"] == "MainDicomTags"
        assert written["DicomWeb"]["Root"] == "/dicom-web/"
        assert server.count()["studies"] == 0  # signs in
        with pytest.raises(urllib.error.HTTPError, match="401"):
            qido(server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_dies_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import sys, time; from imagora_demo.orthanc import OrthancServer\n"
        "server = OrthancServer(sys.argv[1], name='child').start()\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
    ) as parent:
        assert parent.stdout is not None
        orthanc = psutil.Process(int(parent.stdout.readline()))
        assert orthanc.name() == "Orthanc"
        parent.send_signal(number)
        parent.wait(10)
        orthanc_gone(orthanc)


def orthanc_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "Orthanc outlived the process that started it"
        time.sleep(0.02)


def test_free_port_can_be_bound() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
