"""`imagora` as people run it, on a database of its own, with people of each role to run it for."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import asyncpg
from click.testing import CliRunner, Result

from imagora.cli import cli
from registry import Role, Site
from registry.database import Database
from registry.practitioners import PractitionerStore
from registry.store import RegistryStore

#: Correspondent of csrom41200, correspondent of csorl45000, referent at csorl45000, practitioner at csrom41200, and a
#: correspondent of csrom41200 who is suspended.
CORRESPONDENT, ELSEWHERE, REFERENT = "10001234501", "10001234502", "10001234503"
PRACTITIONER, SUSPENDED, NOBODY = "10001234504", "10001234505", "10009999999"
SITES = (
    Site(emetteur="csrom41200", number=423, name="Romorantin (CH)"),
    Site(emetteur="csorl45000", number=450, name="Orléans (CHR)"),
)
_PEOPLE = (
    (CORRESPONDENT, "csrom41200", Role.CORRESPONDENT),
    (ELSEWHERE, "csorl45000", Role.CORRESPONDENT),
    (REFERENT, "csorl45000", Role.REFERENT),
    (PRACTITIONER, "csrom41200", Role.PRACTITIONER),
    (SUSPENDED, "csrom41200", Role.CORRESPONDENT),
)


class Commands:
    """`url` is of a migrated database; the state, with the key of the traces, is under `folder`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.state = folder / "state"
        self.config = folder / "imagora.toml"
        self.config.write_text(f'[server]\nstate_dir = "{self.state}"\n')
        asyncio.run(self._people())

    async def _people(self) -> None:
        async with Database(self.url) as database:
            await RegistryStore(database).seed(SITES)
            store = PractitionerStore(database)
            for rpps, site, role in _PEOPLE:
                await store.add(rpps=rpps, name=f"NOM^{rpps[-1]}", site=site, role=role)
            await store.set_active(SUSPENDED, active=False)

    def __call__(self, *arguments: str) -> Result:
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        env = {**cleared, "IMAGORA_DATABASE__URL": self.url}
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.config)], env=env)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--format", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def fetch(self, *commands: str) -> list[dict[str, Any]]:
        """Rows of the last command."""

        async def run() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.url)
            try:
                for command in commands[:-1]:
                    await connection.execute(command)
                return [dict(row) for row in await connection.fetch(commands[-1])]
            finally:
                await connection.close()

        return asyncio.run(run())

    def traces(self, kind: str) -> list[dict[str, Any]]:
        """What stands in the table, oldest first, `detail` read."""
        rows = self.fetch("SELECT * FROM trace ORDER BY recorded_at, writer, sequence")
        return [{**row, "detail": json.loads(row["detail"])} for row in rows if row["kind"] == kind]
