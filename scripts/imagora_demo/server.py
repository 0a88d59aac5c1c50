"""Imagora itself, as the demonstration starts it: its settings file and its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from imagora_demo import cast
from imagora_demo.members import DemoError

DRAIN_S = 3.0
STOP_S = DRAIN_S + 12.0  # the database ends after the last transfer


def write_settings(path: Path, *, port: int, state: Path, urls: Mapping[str, str]) -> None:
    """Write the TOML file: an embedded database under `state`, the cast's folders and sites at `urls`."""
    text = [
        "# Written by scripts/demo at each start.",
        "[server]",
        'host = "127.0.0.1"',
        f"port = {port}",
        f'public_url = "http://127.0.0.1:{port}"',
        f"state_dir = {_toml(str(state))}",
        f"drain_s = {DRAIN_S}",
        "",
        "[federation]",
        'name = "MIRC (démonstration)"',
        "",
        "[database]",
        'url = "embedded"',
        "",
        "[auth]",
        'mode = "demo"  # anyone on this machine signs in as anybody',
        "",
        "[search]",
        "deadline_s = 5.0",
        "require_patient_criterion = false  # so that the viewer's first page shows every exam",
        'own_site = "include"  # so that whoever signs in sees every site, and which one is down',
        "",
    ]
    for name, ae_title in ((cast.HISTORIQUE, "MIRC_HIST"), (cast.CENTRES, "MIRC_CI")):
        text += ["[[folders]]", f"name = {_toml(name)}", f"ae_title = {_toml(ae_title)}", ""]
    for site in cast.SITES:
        text += [
            "[[sites]]",
            f"emetteur = {_toml(site.emetteur)}",
            f"site = {site.number}",
            f"name = {_toml(site.name)}",
            f"folder = {_toml(site.folder)}",
            f"dicomweb = {_toml(urls[site.emetteur])}" + ("" if site.up else "  # nobody listens there"),
            "",
        ]
    path.write_text("\n".join(text), encoding="utf-8")


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


class Imagora:
    """The process `imagora serve`. Ends with us, however we end."""

    def __init__(self, settings: Path, log: Path, port: int) -> None:
        self.settings = settings
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 90.0) -> None:
        """Start and wait until `/readyz` answers 200. Raises `DemoError` with the log's end."""
        program = Path(sys.executable).with_name("imagora")
        if not program.exists():
            raise DemoError(f"{program} is missing: run scripts/setup")
        # SIGTERM, so that it still ends in order (and its database with it) if we are killed. Away from the terminal's
        # process group: a Ctrl-C is for us to handle.
        command = ["setpriv", "--pdeathsig", "TERM", "--", str(program), "serve", "--config", str(self.settings)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self.exit_status is not None:
                raise DemoError(f"imagora serve ended with status {self.exit_status}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise DemoError(f"imagora serve is not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.1)

    @property
    def exit_status(self) -> int | None:
        """Status it ended with; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """End it in order, by force if that takes too long. May be called again."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log_tail(self, lines: int = 25) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
