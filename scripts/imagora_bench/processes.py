"""The processes that are measured: started from a command line, ended with us, however we end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

SCRIPTS = Path(__file__).resolve().parents[1]


class BenchError(RuntimeError):
    """The measurement can't go on, or would mean nothing; the text says why."""


class Child:
    """One process with its log. `with` stops it in order, by force if it takes longer than `patience_s`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        *,
        talks: bool = False,
        patience_s: float = 20.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._more = dict(environment or {})
        self._command = ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)]
        self._log = folder / f"{name}.log"
        self._talks = talks
        self._patience_s = patience_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}
        # What stands beside these scripts is measured, wherever the environment was installed from.
        paths = (str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH"))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environment |= self._more
        pipe = subprocess.PIPE if self._talks else None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for us to handle
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self.process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self._patience_s)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def wait_ready(self, port: int, path: str = "", timeout_s: float = 90.0) -> None:
        """Until it listens; with `path`, until that answers 200. Raises `BenchError` with the log's end."""
        deadline = time.monotonic() + timeout_s
        while not _answers(port, path):
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} is not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line of JSON there, one back."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(question).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended:\n{self.log_tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def cpu_s(pid: int) -> float:
    """Processor seconds that a process and those it started (nginx works in one) have used."""
    total = 0.0
    process = psutil.Process(pid)
    for one in [process, *process.children()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def _answers(port: int, path: str) -> bool:
    try:
        if not path:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return True
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"imagora_bench.{module}", *map(str, arguments)]


def start_imagora(
    folder: Path,
    settings: Path,
    *,
    name: str = "imagora",
    database: str | None = None,
    profile: Path | None = None,
) -> Child:
    """`imagora serve`; with `database`, on that one instead of its own; with `profile`, the same under the profiler,
    which writes there at its end."""
    command: list[str | Path] = [Path(sys.executable).with_name("imagora")]
    if profile is not None:
        command = [*python("profiled", profile)]
    # Its password keeps a database's URL out of the file.
    environment = {"IMAGORA_DATABASE__URL": database} if database is not None else {}
    return Child(name, [*command, "serve", "--config", settings], folder, environment=environment)


def write_settings(
    path: Path,
    *,
    port: int,
    state: Path,
    sites: Mapping[str, str],
    folder_of: Mapping[str, str] | None = None,
    auth: str = "local",
) -> None:
    """`sites`: EMETTEUR → DICOMweb URL. All but what must differ is as a fresh installation has it."""
    folder_of = folder_of or {}
    lines = [
        "[server]",
        f"port = {port}",
        f'public_url = "http://127.0.0.1:{port}"',
        f"state_dir = {json.dumps(str(state))}",
        "drain_s = 3.0",
        "[auth]",
        f'mode = "{auth}"',
        "[database]",
        'url = "embedded"',
        "[search]",
        "check_every_h = 0",  # nothing but what is measured goes to the members
        "require_patient_criterion = false",
    ]
    for folder in dict.fromkeys(folder_of.values()):
        lines += ["[[folders]]", f"name = {json.dumps(folder)}"]
    for number, (emetteur, url) in enumerate(sites.items(), 401):
        lines += [
            "[[sites]]",
            f'emetteur = "{emetteur}"',
            f"site = {number}",
            f'name = "{emetteur}"',
            f'dicomweb = "{url}"',
        ]
        if emetteur in folder_of:
            lines.append(f"folder = {json.dumps(folder_of[emetteur])}")
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
