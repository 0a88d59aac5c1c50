"""`imagora` at a shell, on a database of its own, with a correspondent at each of two sites and a referent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from imagora.cli import cli

#: RPPS of the correspondents of csrom41200 and csblo41000, the referent, a practitioner, and one who is suspended.
ROM, BLO, REF, DOC, OUT = (f"1000123456{n}" for n in range(5))
PEOPLE = (
    (ROM, "MARTIN^CLAIRE", "csrom41200", "correspondent"),
    (BLO, "PETIT^LUC", "csblo41000", "correspondent"),
    (REF, "ROUX^EVE", "csblo41000", "referent"),
    (DOC, "NOËL^ZOÉ", "csrom41200", "practitioner"),
    (OUT, "FAURE^JEAN", "csrom41200", "correspondent"),
)
PERSON = ("--person", "DUPONT-LÉVY^Marie", "--born", "19600512", "--sex", "F")
INS = "255081416802538"


class Imagora:
    """Runs commands. `urls`: EMETTEUR → DICOMweb URL of the sites that are connected."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self.state = folder / "state"
        self._config = folder / "imagora.toml"
        self.environment: dict[str, str] = {}
        self.settings = ""

    def configure(self, urls: Mapping[str, str] | None = None) -> None:
        lines = ["[server]", f'state_dir = "{self.state}"', self.settings]
        for number, emetteur in enumerate(("csrom41200", "csblo41000"), 401):
            lines += ["[[sites]]", f'emetteur = "{emetteur}"', f"site = {number}", f'name = "Hôpital {emetteur}"']
            lines += [f'dicomweb = "{(urls or {})[emetteur]}"'] if emetteur in (urls or {}) else []
        self._config.write_text("\n".join(lines))

    def register(self) -> None:
        for rpps, name, site, role in PEOPLE:
            made = self("practitioners", "add", "--rpps", rpps, "--name", name, "--site", site, "--role", role)
            assert made.exit_code == 0, made.output
        assert self("practitioners", "suspend", "--rpps", OUT).exit_code == 0

    def __call__(self, *arguments: str) -> Result:
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        cleared |= {"IMAGORA_DATABASE__URL": self.database, **self.environment}
        return CliRunner().invoke(cli, [*arguments, "--config", str(self._config)], env=cleared)

    def oppositions(self, *arguments: str) -> Result:
        return self("oppositions", *arguments)

    def add(self, *arguments: str, by: str = ROM) -> int:
        """Record one → its id, the only thing on standard output."""
        result = self.oppositions("add", *arguments, "--by", by, "--channel", "letter")
        assert result.exit_code == 0, result.output
        return int(result.stdout)

    def listed(self, command: str = "list", *arguments: str) -> list[dict[str, Any]]:
        result = self.oppositions(command, *arguments, "--format", "json")
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    def traces(self) -> list[dict[str, Any]]:
        result = self("traces", "list", "--format", "json")
        assert result.exit_code == 0, result.output
        return [trace for trace in json.loads(result.stdout) if trace["kind"] == "consent"]
