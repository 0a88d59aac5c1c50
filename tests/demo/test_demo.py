"""The demonstration as a whole, started as its command does."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from imagora_demo import cast
from imagora_demo.check import run_checks
from imagora_demo.members import DemoError, start_members
from imagora_demo.orthanc import free_port
from imagora_demo.server import write_settings

from imagora.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagora_demo", *arguments]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    monkeypatch.chdir(ROOT)


def test_settings_file_is_accepted_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "imagora.toml"
    urls = {site.emetteur: f"http://127.0.0.1:{1000 + site.number}/dicom-web" for site in cast.SITES}
    write_settings(path, port=8123, state=tmp_path / "state", urls=urls)
    settings = load_settings(path)
    assert settings.server.port == 8123
    assert settings.server.public_url == "http://127.0.0.1:8123"
    assert {site.emetteur: site.dicomweb for site in settings.sites} == urls
    assert {folder.name for folder in settings.folders} == {site.folder for site in cast.SITES}


def test_member_port_that_somebody_took_is_told(tmp_path: Path) -> None:
    site = cast.ROMORANTIN
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "ports.json").write_text(f'{{"{site.emetteur}": {port}}}', encoding="utf-8")
        with pytest.raises(DemoError, match=f"port {port}, where {site.emetteur} stood"):
            start_members(tmp_path, [site])


@pytest.mark.usefixtures("environment")
def test_busy_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        run = subprocess.run(
            demo("--state", str(tmp_path / "state"), "--port", port), capture_output=True, text=True, timeout=30
        )
    assert run.returncode == 1
    assert f"port {port} of this machine cannot be had" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "state" / "members").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_demo_answers_for_itself_and_leaves_nothing_running(tmp_path: Path) -> None:
    state = tmp_path / "state"
    port = free_port()
    first = run_until_ready(state, port)
    try:
        told: list[str] = []
        assert run_checks(f"http://127.0.0.1:{port}", told.append), "\n".join(told)
        rival = subprocess.run(demo("--state", str(state)), capture_output=True, text=True, timeout=30)
        assert rival.returncode == 1
        assert "already runs" in rival.stderr
    finally:
        assert stop(first, signal.SIGINT) == 0

    # The second start keeps what it has; its end by force takes the children with it.
    began = time.monotonic()
    second = run_until_ready(state, port)
    assert time.monotonic() - began < 15
    assert stop(second, signal.SIGKILL) == -signal.SIGKILL


def run_until_ready(state: Path, port: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        demo("--state", str(state), "--port", str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line)
        if "Ctrl-C stops everything" in line:
            return process
    raise AssertionError("".join(shown))


def stop(process: subprocess.Popen[str], number: signal.Signals) -> int:
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 5  # four members, and Imagora with its database
    process.send_signal(number)
    status = process.wait(60)
    assert process.stdout is not None
    process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    return status
