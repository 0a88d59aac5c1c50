"""What docs/operations.md says of backups, restoring and the keys of traces, tried with the real programs."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from ops_postgres import Postgres, environment, imagora, programs
from retrieve.retrieve_process import ServeProcess

from consent.heads import load_keys
from registry import migrate

pytestmark = pytest.mark.slow

MEMBERS = {"csrom41200": "http://127.0.0.1:9/dicom-web"}


@dataclass
class Place:
    """A server's folder and its PostgreSQL, where a few searches were traced."""

    folder: Path
    postgresql: Postgres
    config: Path

    def serve(self, searches: int, database: str = "kept") -> None:
        """Serve, be searched, and stop in order: all traces are signed then."""
        environment = {"IMAGORA_DATABASE__URL": self.postgresql.url("imagora_owner", database)}
        with ServeProcess(self.folder, MEMBERS, environment=environment) as server:
            for number in range(searches):
                assert requests.get(f"{server.dicomweb}/studies?PatientID={number}", timeout=20).status_code == 503
        assert server.process.returncode == 0

    def verify(self, database: str = "kept") -> subprocess.CompletedProcess[str]:
        """The check is traced itself: of a restored copy it uses a state folder of its own, with copies in it."""
        config = self.config
        if database != "kept":
            trial = self.folder / "trial"
            trial.mkdir(exist_ok=True)
            for name in ("trace-key.pem", "trace-heads.jsonl"):
                shutil.copy2(self.folder / "state" / name, trial)
            config = self.folder / "trial.toml"
            config.write_text(f'[server]\nstate_dir = "{trial}"\n', encoding="utf-8")
        return imagora(config, self.postgresql.url("imagora_owner", database), "traces", "verify")

    def dump(self) -> Path:
        path = self.postgresql.folder / "imagora.dump"
        self.postgresql.run(
            "pg_dump", "--format", "custom", "--file", str(path), self.postgresql.url("postgres", "kept")
        )
        return path

    def restore(self, dump: Path, database: str) -> None:
        self.postgresql.sql("postgres", f"DROP DATABASE IF EXISTS {database}")
        self.postgresql.create(database)
        self.postgresql.run(
            "pg_restore", "--exit-on-error", "--dbname", self.postgresql.url("postgres", database), str(dump)
        )

    @property
    def key(self) -> Path:
        return self.folder / "state" / "trace-key.pem"


@pytest.fixture
def place(postgresql: Postgres, tmp_path: Path) -> Place:
    if not (programs() / "pg_dump").exists():
        pytest.skip("pg_dump is missing: the package postgresql has it")
    postgresql.sql("postgres", "DROP DATABASE IF EXISTS kept")
    postgresql.create("kept")
    asyncio.run(migrate.migrate(postgresql.url("imagora_owner", "kept")))
    place = Place(tmp_path, postgresql, tmp_path / "imagora.toml")
    place.serve(3)
    return place


def test_restored_backup_is_whole_and_an_older_one_is_told(place: Place) -> None:
    dump = place.dump()
    place.restore(dump, "restored")
    whole = place.verify("restored")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "3 rows in 1 chain checked" in whole.stdout

    # What was traced after the backup is missing from it, and the file of heads, kept elsewhere, knows.
    place.serve(2)
    assert place.verify().returncode == 0
    place.restore(dump, "restored")
    older = place.verify("restored")
    assert older.returncode == 1
    assert older.stdout.startswith("cut off: ")


def test_server_goes_on_over_an_older_backup_and_the_gap_stays_told(place: Place) -> None:
    dump = place.dump()
    place.serve(2)
    place.postgresql.sql("postgres", "DROP DATABASE kept")
    place.restore(dump, "kept")
    lost = place.verify()
    assert lost.returncode == 1
    place.serve(1)
    again = place.verify()
    assert again.returncode == 1
    assert [line for line in again.stdout.splitlines() if line.startswith("cut off")] == [
        line for line in lost.stdout.splitlines() if line.startswith("cut off")
    ]


def test_changed_trace_of_a_restored_backup_is_named(place: Place) -> None:
    place.restore(place.dump(), "changed")
    # Who rules the database can put the table's own guard aside.
    put_aside = "SET session_replication_role = replica"
    place.postgresql.sql("changed", put_aside, "UPDATE trace SET requester_id = 'nobody' WHERE sequence = 2")
    done = place.verify("changed")
    assert done.returncode == 1
    assert re.search(r"^changed: row 2 of ", done.stdout, re.MULTILINE), done.stdout


def test_key_is_replaced_and_what_the_old_one_signed_stays_trusted(place: Place) -> None:
    """The commands of docs/operations.md."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    old = load_keys(place.key)
    assert old is not None

    def run(*arguments: str) -> str:
        done = subprocess.run([openssl, *arguments], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    public = run("pkey", "-in", str(place.key), "-pubout")
    fresh = place.key.with_name("new.pem")
    run("genpkey", "-algorithm", "ed25519", "-out", str(fresh))
    with fresh.open("a", encoding="utf-8") as file:
        file.write(public)
    fresh.chmod(0o600)
    fresh.replace(place.key)
    new = load_keys(place.key)
    assert new is not None
    assert new.name != old.name
    assert new.knows(old.name)
    place.serve(1)
    done = place.verify()
    assert done.returncode == 0, done.stdout
    # Without the old one's public part its heads are no proof.
    fresh.write_text(place.key.read_text(encoding="utf-8").partition("-----BEGIN PUBLIC")[0], encoding="utf-8")
    fresh.chmod(0o600)
    fresh.replace(place.key)
    assert place.verify().returncode == 1


def test_migration_finds_the_database_by_what_the_secret_of_its_job_gives(postgresql: Postgres) -> None:
    """conf/kubernetes/migrate.yaml: no password stands in a URL."""
    postgresql.sql("postgres", "DROP DATABASE IF EXISTS fresh")
    postgresql.create("fresh")
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(postgresql.port), "PGUSER": "imagora_owner", "PGDATABASE": "fresh"}
    command = [str(Path(sys.executable).with_name("imagora")), "migrate"]
    given = environment(IMAGORA_DATABASE__URL="postgresql://", **where)
    first, second = (subprocess.run(command, env=given, capture_output=True, text=True, timeout=60) for _ in range(2))
    assert first.stdout.startswith("The database was brought to version "), first.stderr
    assert second.stdout.startswith("Nothing to do"), second.stderr
