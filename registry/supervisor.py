"""Keeps one PostgreSQL running for as long as anybody holds the users' lock. Run as a script by `registry.embedded`.

A process of its own, because the server must outlive the command that happened to start it when others still use
it, and must not outlive them all, however they end. Locks of the kernel (flock) tell both: each user holds a shared
lock on `users.lock`, which even SIGKILL releases; this process holds `server.lock` for its whole life. Should it be
killed itself, the kernel tells PostgreSQL to shut down (PR_SET_PDEATHSIG).

Only the standard library is imported: it starts in some 20 ms, and stays small.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

READY = "ready"
POLL_S = 0.05
START_LIMIT_S = 60.0
RESTARTS_MAX = 5
LOG_MAX_BYTES = 10_000_000

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522

#: What the server is told on its command line, which goes before any file. Neither statements nor values may reach the
#: log: they hold patients' data. Messages of failed statements quote values too, so those are left to the client
#: (`log_min_messages = log` leaves out level ERROR).
SERVER_OPTIONS = {
    "cluster_name": "imagora",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
    "log_checkpoints": "off",
    "jit": "off",
    "max_connections": "500",  # some ten for each serving process
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the supervisor is told on its standard input, as one JSON object."""

    binaries: str  # folder of initdb and postgres
    data: str
    socket_dir: str
    socket_dir_is_temporary: bool
    log: str
    run: str  # folder of the locks, password and connection file
    password: str
    role: str
    url: str
    uid: int | None  # whom PostgreSQL runs as, if not as ourselves: it refuses root
    gid: int | None
    capability: int | None  # CAP_…, for a server that could not enter its folders otherwise


class Failed(Exception):
    """PostgreSQL cannot be had. The text says why."""


class Server:
    """One PostgreSQL process and how to make, start and stop it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._data = Path(plan.data)
        self._log = Path(plan.log)
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the data folder with initdb. It gets its name only when it is whole."""
        if (self._data / "PG_VERSION").exists():
            return
        fresh = self._data.with_name(self._data.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = fresh.with_name(fresh.name + ".password")
        try:
            fresh.mkdir(mode=0o700)
            write_private(password_file, self._plan.password)
            self._give(fresh, password_file)
            command = [
                str(Path(self._plan.binaries) / "initdb"),
                f"--pgdata={fresh}",
                f"--username={self._plan.role}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
            result = self._spawn(command, signal.SIGKILL, subprocess.PIPE)
            _, errors = result.communicate()
            if result.returncode != 0:
                last = errors.decode(errors="replace").strip().splitlines()[-1:]
                raise Failed(f"initdb failed: {''.join(last) or result.returncode}")
            fresh.rename(self._data)
        except OSError as error:
            raise Failed(f"cannot make the data folder {self._data}: {error.strerror}") from error
        finally:
            password_file.unlink(missing_ok=True)

    def start(self) -> None:
        """Start the server and return once it accepts connections."""
        self._clear_leftover()
        if self._log.exists() and self._log.stat().st_size > LOG_MAX_BYTES:
            self._log.rename(self._log.with_name(self._log.name + ".1"))
        command = [str(Path(self._plan.binaries) / "postgres"), "-D", str(self._data)]
        options = {**SERVER_OPTIONS, "unix_socket_directories": self._plan.socket_dir}
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begin = os.fstat(log).st_size
        try:
            self._process = self._spawn(command, signal.SIGINT, log)
        finally:
            os.close(log)
        limit = time.monotonic() + START_LIMIT_S
        while not self._ready():
            if self._process.poll() is not None:
                raise Failed(f"PostgreSQL did not start: {self._last_line(begin)}; see {self._log}")
            if time.monotonic() > limit:
                self._halt()
                raise Failed(f"PostgreSQL was not ready within {START_LIMIT_S:.0f} s; see {self._log}")
            time.sleep(0.01)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _halt(self) -> None:
        if self._process is not None:
            _end(self._process.pid, lambda: not self.alive())

    def stop(self) -> None:
        self._halt()
        if self._plan.socket_dir_is_temporary:
            shutil.rmtree(self._plan.socket_dir, ignore_errors=True)

    def _ready(self) -> bool:
        # postmaster.pid: process, data folder, start time, port, socket folder, address, shared memory, status
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return False
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _clear_leftover(self) -> None:
        """End a server that an earlier supervisor left on our data folder, as when both were killed at once."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return
        if _serves(pid, self._data):
            _end(pid, lambda: not _serves(pid, self._data))

    def _last_line(self, begin: int) -> str:
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(begin)
            lines = file.read(65536).decode(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].partition("] ")[2] or lines[-1]
        return "it said nothing"

    def _give(self, *paths: Path) -> None:
        if self._plan.uid is not None and self._plan.gid is not None:
            for path in paths:
                os.chown(path, self._plan.uid, self._plan.gid)

    def _spawn(self, command: list[str], death: signal.Signals, errors: int) -> subprocess.Popen[bytes]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "IMAGORA_"))
        } | {"LANG": "C", "TZ": "UTC"}
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd="/",
                start_new_session=True,
                # Safe: this process has one thread.
                preexec_fn=_becoming(self._plan, death, os.getpid()),  # noqa: PLW1509
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Failed(f"cannot run {command[0]}: {error}") from error


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _becoming(plan: Plan, death: signal.Signals, parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: take on its user, keep one capability, die with its parent."""
    libc = ctypes.CDLL(None, use_errno=True)

    def become() -> None:
        os.umask(0o077)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if plan.uid is not None and plan.gid is not None:
            os.setgroups([])
            os.setgid(plan.gid)
            if plan.capability is not None and libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0:
                # Without it the change of user drops all capabilities, and access(2), by which initdb looks for
                # its companions, ignores those that are left.
                raise OSError(ctypes.get_errno(), "securebits refused")
            os.setuid(plan.uid)
            if plan.capability is not None:
                bit = 1 << plan.capability
                header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
                sets = (_CapabilitySets * 2)(_CapabilitySets(bit, bit, bit))
                if libc.capset(ctypes.byref(header), sets) != 0 or (
                    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, plan.capability, 0, 0) != 0
                ):
                    raise OSError(ctypes.get_errno(), "capability refused")
        # After the change of user, which clears it.
        libc.prctl(_PR_SET_PDEATHSIG, int(death), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before it could be followed

    return become


def _serves(pid: int, data: Path) -> bool:
    """True if this process is a PostgreSQL on this data folder (which is its working folder)."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except (OSError, IndexError):
        return False


def _end(pid: int, gone: Callable[[], bool]) -> None:
    """Shut a server down: politely, then at once, then by force (PostgreSQL manual, "Shutting Down the Server")."""
    for number, patience_s in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a stopped process would not hear of it
        limit = time.monotonic() + patience_s
        while time.monotonic() < limit:
            if gone():
                return
            time.sleep(0.01)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; readers see the old or the new one, never a part."""
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.rename(path)


def _supervise(plan: Plan, report: IO[str]) -> None:
    run = Path(plan.run)
    connection = run / "connection.json"
    server = Server(plan)
    with (run / "server.lock").open("a") as mine, (run / "users.lock").open("a") as users:
        fcntl.flock(mine, fcntl.LOCK_EX)  # others look at it, but hold it for an instant only
        connection.unlink(missing_ok=True)
        try:
            try:
                server.initialise()
                server.start()
                write_private(
                    connection,
                    json.dumps({"url": plan.url, "socket_dir": plan.socket_dir, "supervisor": os.getpid()}),
                )
            except Failed as error:
                report.write(str(error))
                report.close()
                return
            report.write(READY)
            report.close()
            _keep(server, users)
        finally:
            # In this order: who comes now finds no connection, waits for the locks, and starts anew.
            connection.unlink(missing_ok=True)
            server.stop()


def _keep(server: Server, users: IO[str]) -> None:
    """Return when nobody uses the server any more, or it cannot be kept up."""
    failures = 0
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not server.alive():
            failures += 1
            if failures > RESTARTS_MAX:
                return
            time.sleep(0.2 * failures)
            with suppress(Failed):
                server.start()
        time.sleep(POLL_S)


def main() -> NoReturn:
    """Read the plan, leave the terminal and the caller's process group, and report once PostgreSQL is ready.

    `ready` on standard output and status 0, else the reason and status 1.
    """
    plan = Plan(**json.load(sys.stdin))
    reading, writing = os.pipe()
    if os.fork():
        # The caller's child ends when the server is ready, so the caller has no child to reap later.
        os.close(writing)
        with os.fdopen(reading) as reports:
            word = reports.read()
        sys.stdout.write(word)
        sys.stdout.flush()
        os._exit(0 if word == READY else 1)
    os.close(reading)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    # A stop of the whole service reaches this process too, while the server is still needed to trace the end of
    # running transfers. What ends it is that nobody uses the server any more.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    status = 0
    report = os.fdopen(writing, "w")
    try:
        _supervise(plan, report)
    except BaseException as error:  # the caller waits for a word
        status = 1
        with suppress(OSError, ValueError):
            report.write(f"{type(error).__name__}: {error}")
            report.close()
    os._exit(status)


if __name__ == "__main__":
    main()
