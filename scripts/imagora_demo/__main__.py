"""Run the demonstration: see `scripts/demo`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from imagora_demo.check import run_checks
from imagora_demo.enrolment import enrol
from imagora_demo.guide import guide
from imagora_demo.members import DemoError, load, start_members
from imagora_demo.orthanc import OrthancError, find_dicomweb_plugin, find_program, free_port
from imagora_demo.server import Imagora, write_settings
from registry.embedded import EmbeddedError, Lease

ROOT = Path(__file__).resolve().parents[2]
PORT = 8080
LOCK = ".lock"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    arguments = _arguments()
    for number in ENDINGS:
        signal.signal(number, _end)
    # What is set for another Imagora is not meant for this one.
    for name in [n for n in os.environ if n.startswith("IMAGORA_") and not n.startswith("IMAGORA_ORTHANC")]:
        del os.environ[name]
    try:
        return _run(arguments)
    except (DemoError, OrthancError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--port", type=_port, help=f"port to listen on ({PORT}; with --check a free one)")
    parser.add_argument("--state", type=Path, default=ROOT / "state" / "demo", help="folder of all that is kept")
    parser.add_argument("--fresh", action="store_true", help="forget what was kept first")
    parser.add_argument("--check", action="store_true", help="ask a few questions, then stop; status 0 if all is well")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    state: Path = arguments.state.absolute()
    find_program()  # these two say what to install, before anything is made
    find_dicomweb_plugin()
    port = arguments.port or (free_port() if arguments.check else PORT)
    with contextlib.ExitStack() as ending, _locked(state):
        _check_port(port)
        if arguments.fresh:
            _forget(state)
        ending.callback(_tell, "Stopped")
        _tell("Starting four members (Orthanc)")
        members = start_members(state / "members")
        ending.callback(members.stop)
        _tell("Loading their exams, unless they hold them already")
        load(members, lambda line: print(f"    {line}", flush=True))
        settings = state / "imagora.toml"
        write_settings(settings, port=port, state=state / "imagora", urls=members.urls)
        _tell("Starting the database, and recording who may ask and what patients refuse")
        with _database(state / "imagora"):
            enrol(settings)
            _tell("Starting Imagora")
            imagora = Imagora(settings, state / "imagora.log", port)
            ending.callback(imagora.stop)
            imagora.start()
        ending.callback(_begin_ending)
        if arguments.check:
            _tell(f"Asking {imagora.url}")
            return 0 if run_checks(imagora.url, settings, lambda line: print(f"    {line}", flush=True)) else 1
        shown = settings.relative_to(Path.cwd()) if settings.is_relative_to(Path.cwd()) else settings
        print(guide(imagora.url, str(shown)), flush=True)
        _tell("Running; Ctrl-C stops everything")
        while imagora.exit_status is None:
            time.sleep(0.5)
        raise DemoError(f"imagora serve ended with status {imagora.exit_status}:\n{imagora.log_tail()}")


@contextlib.contextmanager
def _database(state: Path) -> Iterator[None]:
    """Keep the embedded database up between what uses it, which would else start and stop it each time."""
    lease = Lease(state)
    try:
        lease.acquire()
        yield
    except EmbeddedError as error:
        raise DemoError(str(error)) from None
    finally:
        lease.release()


def _tell(what: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody may be reading any more while we stop
        print(f"==> {what}", flush=True)


def _end(number: int, _frame: FrameType | None) -> None:
    """Unwind: everything that was started is stopped on the way, in order, undisturbed by a second Ctrl-C."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


def _begin_ending() -> None:
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    _tell("Stopping")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} of this machine cannot be had ({error.strerror}). "
                "Choose another with scripts/demo --port N"
            ) from None


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the state folder for this process alone."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / LOCK).open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DemoError(f"a demonstration already runs from {state} (process {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _forget(state: Path) -> None:
    for entry in state.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


if __name__ == "__main__":
    sys.exit(main())
