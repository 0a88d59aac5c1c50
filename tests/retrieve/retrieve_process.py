"""`imagora serve` as people run it: its command line, a settings file, an embedded PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class ServeProcess:
    """Runs in `folder`. `members`: EMETTEUR → DICOMweb URL. `tables`: further settings, section by section."""

    def __init__(
        self,
        folder: Path,
        members: dict[str, str],
        *,
        environment: dict[str, str] | None = None,
        **tables: dict[str, Any],
    ) -> None:
        self.port = free_port()
        self.state = folder / "state"
        self.errors = folder / "stderr.log"
        self.config = folder / "imagora.toml"
        server = {"port": self.port, "state_dir": str(self.state), **tables.pop("server", {})}
        search = {"require_patient_criterion": False, **tables.pop("search", {})}
        lines = []
        for name, table in {"server": server, "search": search, **tables}.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        for number, (emetteur, url) in enumerate(members.items(), 401):
            lines += ["[[sites]]", f'emetteur = "{emetteur}"', f"site = {number}"]
            lines += [f'name = "Hôpital {emetteur}"', f'dicomweb = "{url}"']
        self.config.write_text("\n".join(lines), encoding="utf-8")
        self.command = [str(Path(sys.executable).with_name("imagora")), "serve", "--config", str(self.config)]
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("IMAGORA_")}
        self._environment |= environment or {}

    def __enter__(self) -> ServeProcess:
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._environment,
            )
        started = time.monotonic()
        while not self._ready():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() - started < 60, self.errors.read_text()
            time.sleep(0.05)
        return self

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def rss_mb(self) -> float:
        """Resident memory of the server and of the processes that it started, without PostgreSQL's."""
        own = psutil.Process(self.process.pid)
        size = 0
        for process in [own, *own.children(recursive=True)]:
            try:
                if "postgres" not in process.name():
                    size += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return size / (1 << 20)

    def companions(self) -> list[str]:
        """Command lines of the processes that work in our state folder: PostgreSQL and its supervisor."""
        found = []
        for process in psutil.process_iter(["cmdline", "pid"]):
            command = " ".join(process.info["cmdline"] or ())
            if str(self.state) in command and process.info["pid"] != self.process.pid:
                found.append(command)
        return found

    def log(self) -> list[str]:
        return self.errors.read_text(encoding="utf-8").splitlines()
