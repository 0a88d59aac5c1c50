"""The command line as people run it, on a real embedded PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result

from imagora.cli import cli
from registry import migrate
from registry.embedded import Lease, embedded

TABLE = Path(__file__).parent.parent / "data" / "sites.csv"


class Commands:
    """Runs commands of `imagora` with one settings file."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}

    def __call__(self, *arguments: str) -> Result:
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.config)], env=cleared)

    def sites(self) -> dict[str, dict[str, object]]:
        result = self("sites", "list", "--format", "json")
        assert result.exit_code == 0, result.output
        return {site["emetteur"]: site for site in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def held_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder whose database keeps running, so that each command finds it up."""
    state = tmp_path_factory.mktemp("cli") / "state"
    lease = Lease(state)
    lease.acquire()
    try:
        yield state
    finally:
        lease.release()


@pytest.fixture
def imagora(held_state: Path, tmp_path: Path) -> Commands:
    asyncio.run(_empty(held_state))
    config = tmp_path / "imagora.toml"
    config.write_text(f'[server]\nstate_dir = "{held_state}"\n')
    return Commands(config)


async def _empty(state: Path) -> None:
    async with embedded(state) as url:
        await migrate.migrate(url)
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SET session_replication_role = replica")  # some tables are append-only
            await connection.execute("TRUNCATE site, folder, trace, trace_head CASCADE")
        finally:
            await connection.close()


def test_the_regions_own_table_is_imported_and_listed(imagora: Commands) -> None:
    result = imagora("sites", "import", str(TABLE))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("22 sites added, 0 updated, 0 unchanged; 2 folders added.")
    listed = imagora("sites", "list").stdout.splitlines()
    assert listed[0].split() == ["EMETTEUR", "SITE", "NAME", "FOLDER", "AVAILABILITY", "STATUS", "ADDRESS", "HEALTH"]
    assert len({line.index("none") for line in listed[1:23]}) == 1  # columns stand under each other
    assert listed[-1] == "22 sites: 21 member, 1 unreferenced; 0 asked."
    sites = imagora.sites()
    assert list(sites) == [line.partition(",")[0] for line in TABLE.read_text().splitlines()[1:]]
    assert not any(site["asked"] for site in sites.values())


def test_a_bad_table_imports_nothing(imagora: Commands, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(TABLE.read_text() + "a b,1,X,,,member\n")
    result = imagora("sites", "import", str(bad))
    assert result.exit_code == 1
    assert "line 24, column emetteur" in result.stderr
    bad.write_text(TABLE.read_text() + "other,423,X,,,member\n")
    result = imagora("sites", "import", str(bad))
    assert result.exit_code == 1
    assert "SITE 423 belongs to both" in result.stderr
    assert imagora.sites() == {}


def test_a_site_is_suspended_and_resumed(imagora: Commands) -> None:
    with imagora.config.open("a") as file:
        file.write('[[sites]]\nemetteur = "csrom41200"\nsite = 423\nname = "Romorantin (CH)"\n')
        file.write('dicomweb = "http://127.0.0.1:8042/dicom-web"\n')
    assert imagora.sites()["csrom41200"]["asked"]
    result = imagora("sites", "suspend", "CSROM41200")
    assert (result.exit_code, result.stdout) == (0, "csrom41200 is suspended: it is not asked any more.\n")
    assert imagora.sites()["csrom41200"]["status"] == "suspended"  # though the file says member, at each start
    assert imagora("sites", "suspend", "csrom41200").stdout == "csrom41200 is suspended already.\n"
    imported = imagora("sites", "import", str(TABLE))
    assert "csrom41200 stays suspended" in imported.stderr
    assert not imagora.sites()["csrom41200"]["asked"]
    assert imagora("sites", "resume", "csrom41200").stdout == "csrom41200 is a member again.\n"
    assert imagora.sites()["csrom41200"]["asked"]
    assert imagora("sites", "resume", "csrom41200").stdout == "csrom41200 is a member already.\n"


def test_what_cannot_be_done_is_told_in_one_line(imagora: Commands) -> None:
    imagora("sites", "import", str(TABLE))
    for arguments, words in (
        (("sites", "suspend", "nobody"), "no site has the EMETTEUR 'nobody'"),
        (("sites", "resume", "csven41106"), "csven41106 is unreferenced"),
    ):
        result = imagora(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {words}")
        assert result.stderr.count("\n") == 1


def test_a_file_that_contradicts_the_registry_is_a_wrong_configuration(imagora: Commands) -> None:
    imagora("sites", "import", str(TABLE))
    with imagora.config.open("a") as file:
        file.write('[[sites]]\nemetteur = "other"\nsite = 423\nname = "Other"\n')
    result = imagora("sites", "list")
    assert result.exit_code == 2
    assert "SITE 423 belongs to both csrom41200 and other" in result.stderr


def test_wrong_settings_are_told_with_status_2(imagora: Commands) -> None:
    imagora.config.write_text('[server]\nhost = "0.0.0.0"\nprot = 1\n')
    result = imagora("sites", "list")
    assert result.exit_code == 2
    assert "server.host: '0.0.0.0' can be reached from other machines" in result.stderr
    assert "server.prot: unknown key: did you mean port?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_is_not_there_is_told_with_status_1(imagora: Commands) -> None:
    imagora.config.write_text('[database]\nurl = "postgresql://x@127.0.0.1:1/x"\n')
    for arguments in (("sites", "list"), ("migrate",)):
        result = imagora(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: the database cannot be reached")


def test_a_server_of_ones_own_is_migrated_by_its_command_only(imagora: Commands, held_state: Path) -> None:
    url = Lease(held_state)
    address = url.acquire()
    try:

        async def create() -> None:
            connection = await asyncpg.connect(address)
            await connection.execute("CREATE DATABASE own")
            await connection.close()

        asyncio.run(create())
        imagora.config.write_text("")
        own = {"IMAGORA_DATABASE__URL": address.replace("@/postgres?", "@/own?")}
        arguments = ["--config", str(imagora.config)]
        result = CliRunner().invoke(cli, ["sites", "list", *arguments], env=own)
        assert (result.exit_code, "run `imagora migrate` first" in result.stderr) == (1, True)
        result = CliRunner().invoke(cli, ["migrate", *arguments], env=own)
        assert (result.exit_code, result.stdout) == (0, f"The database was brought to version {migrate.newest()}.\n")
        assert CliRunner().invoke(cli, ["migrate", *arguments], env=own).stdout.startswith("Nothing to do")
        assert CliRunner().invoke(cli, ["sites", "list", *arguments], env=own).exit_code == 0
    finally:
        url.release()


def test_the_settings_file_may_stand_before_or_behind_the_command(imagora: Commands) -> None:
    config = str(imagora.config)
    for arguments in (["--config", config, "sites", "list"], ["sites", "--config", config, "list"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("arguments", [["nonsense"], ["sites", "nonsense"], ["sites", "list", "--format", "xml"]])
def test_a_wrong_command_line_has_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_help_names_every_command() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"\n  {name} " in text for name in ("migrate", "sites"))
    text = CliRunner().invoke(cli, ["sites", "-h"]).output
    assert all(f"\n  {name} " in text for name in ("import", "list", "suspend", "resume"))


def test_a_command_alone_starts_the_database_and_stops_it(tmp_path: Path, imagora: Commands) -> None:
    state = tmp_path / "state"
    environment = {**imagora.environment, "IMAGORA_SERVER__STATE_DIR": str(state)}
    result = subprocess.run(
        [sys.executable, "-c", "from imagora.cli import main; main()", "sites", "import", str(TABLE)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (state / "postgres" / "PG_VERSION").exists()
    assert not (state / "postgres" / "postmaster.pid").exists()
    assert not (state / "postgres-run" / "connection.json").exists()
