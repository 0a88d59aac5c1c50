"""The demonstration as a whole, started as its command does."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from imagora_demo import cast, check_consent, enrolment
from imagora_demo.asking import Client
from imagora_demo.check import run_checks
from imagora_demo.members import DemoError, start_members
from imagora_demo.orthanc import free_port
from imagora_demo.server import write_settings

from imagora.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
#: Told of each member whose exams were made and stored.
LOADED = re.compile(r"^ +cs.* studies, .* instances, ", re.MULTILINE)


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagora_demo", *arguments]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # This checkout's code, whichever one is installed.
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'scripts'}")
    monkeypatch.chdir(ROOT)


def test_settings_file_is_accepted_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "imagora.toml"
    urls = {site.emetteur: f"http://127.0.0.1:{1000 + site.number}/dicom-web" for site in cast.SITES}
    write_settings(path, port=8123, state=tmp_path / "state", urls=urls)
    settings = load_settings(path)
    assert settings.server.port == 8123
    assert settings.server.public_url == "http://127.0.0.1:8123"
    assert settings.auth.mode == "demo"
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
def test_demo_answers_for_itself_and_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    settings = state / "imagora.toml"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    first, guide = run_until_ready(state, port)
    try:
        told: list[str] = []
        assert run_checks(url, settings, told.append), "\n".join(told)
        rival = subprocess.run(demo("--state", str(state)), capture_output=True, text=True, timeout=30)
        assert rival.returncode == 1
        assert "already runs" in rival.stderr
        monkeypatch.setenv("IMAGORA_TOKEN", enrolment.token(settings, enrolment.CLAIRE.rpps))
        try_commands(guide, settings)
        expect_check_to_notice_a_lifted_opposition(Client(url, settings).signed_in(enrolment.CLAIRE))
    finally:
        assert stop(first, signal.SIGINT) == 0

    # The second start keeps what it has, and records anew what is missing. Its end by force takes the children with it.
    second, again = run_until_ready(state, port)
    assert [len(LOADED.findall(shown)) for shown in (guide, again)] == [4, 0]
    told.clear()
    well = run_checks(url, settings, told.append)
    assert stop(second, signal.SIGKILL) == -signal.SIGKILL
    assert well, "\n".join(told)


def try_commands(guide: str, settings: Path) -> None:
    """Run what the guide shows of `imagora`, in its order. Raises `DemoError` where one fails."""
    commands = re.findall(r"^  (N=\$\()?\.venv/bin/imagora (.*?)\)?$", guide, re.MULTILINE)
    assert len(commands) > 12
    number = ""
    for named, command in commands:
        said = enrolment.imagora(settings, *shlex.split(command.replace("$N", number)))
        number = said.strip() if named else number


def expect_check_to_notice_a_lifted_opposition(claire: Client) -> None:
    exam = str(cast.exam_of(cast.OPPOSED_EXAM).study_uid)
    opposed = next(o for o in claire.imagora("oppositions", "list") if exam in o["study_uids"])
    enrolment.imagora(claire.settings, "oppositions", "lift", str(opposed["id"]), "--by", enrolment.ANNE.rpps)

    def ask_until_known() -> None:
        for _ in range(20):  # servers know within a second
            check_consent.QUESTIONS["an exam that its patient refuses to share"](claire)
            time.sleep(0.1)

    with pytest.raises(AssertionError, match="she finds 2 of the patient's exams instead of 1"):
        ask_until_known()


def run_until_ready(state: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """→ (the process, what it printed)"""
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
            return process, "".join(shown)
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
