"""Start, fill and stop real Orthanc servers with the DICOMweb plugin: for demonstration, tests, benchmarks.

    with OrthancServer(folder, name="member-a", host="127.0.0.21", root="/zq-member-a/dicom-web/") as member:
        member.upload(exams.light_study(seed="one"))
        print(member.dicomweb_url)        # http://127.0.0.21:41233/zq-member-a/dicom-web

    async with OrthancServer(folder) as member:
        await member.upload_async(paths)

A server runs in the folder given, with its configuration, storage and log inside; without a folder it works
in a temporary one that `stop` removes. Port 0 takes a free one, kept through `stop` and `start`, so a member
can go and come back at the same address. Every server dies with the process that started it, however that
dies.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imagora_demo.orthanc_files import OrthancError, available, find_dicomweb_plugin, find_program

__all__ = [
    "OrthancError",
    "OrthancServer",
    "UploadRefusedError",
    "available",
    "find_dicomweb_plugin",
    "find_program",
    "free_port",
    "start_all",
    "stop_all",
]

#: Uploads run on this many connections. Orthanc stores one instance at a time, so more does not help.
UPLOAD_CONNECTIONS = 4
STORE_TRIES = 3
#: OrthancStatus of what is no instance, whenever it comes: a bad file, a tag that is not there.
NO_INSTANCE = frozenset({15, 21})
LOG_TAIL_LINES = 25
START_ATTEMPTS = 3

STATISTICS = {
    "patients": "CountPatients",
    "studies": "CountStudies",
    "series": "CountSeries",
    "instances": "CountInstances",
    "bytes": "TotalDiskSize",
}

#: PR_SET_PDEATHSIG fires when the *thread* that launched the child ends, not the process. So one thread,
#: which lives as long as the process, launches every server.
_launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orthanc-launcher")


class UploadRefusedError(OrthancError):
    """Orthanc refused an instance."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class OrthancServer:
    """One Orthanc with DICOMweb. Usable as `with` and `async with`; several may run at once.

    folder: where configuration, storage and log live; kept. None = a temporary folder, removed by `stop`.
    name: what `/system` says.
    host: loopback address that the URLs name (any of 127.0.0.0/8). Orthanc itself listens on every address
        and answers local clients only, so two servers need two ports even at different addresses.
    port: HTTP port; 0 = a free one.
    root: path of DICOMweb, e.g. `/zq-member-a/dicom-web/`.
    aet, dicom_port: with an `aet` the DICOM (DIMSE) server runs too, on `dicom_port` (0 = a free one), and
        allows C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE to anybody; else it stays off.
    config: more configuration, laid over ours; nested objects are merged
        (`{"DicomWeb": {"StudiesMetadata": "MainDicomTags"}, "RegisteredUsers": {"a": "b"}}`).
    verbose: let Orthanc log each request.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        name: str = "Orthanc",
        host: str = "127.0.0.1",
        port: int = 0,
        root: str = "/dicom-web/",
        aet: str | None = None,
        dicom_port: int = 0,
        config: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="orthanc-") if folder is None else folder).absolute()
        self.name = name
        self.host = host
        self.port = port
        self.root = f"/{root.strip('/')}/"
        self.aet = aet
        self.dicom_port = dicom_port
        self._config = dict(config or {})
        self._verbose = verbose
        self._port_is_ours_to_choose = port == 0
        self._process: subprocess.Popen[bytes] | None = None

    # -- addresses and files -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Base URL of Orthanc's own REST API, without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    @property
    def dicomweb_url(self) -> str:
        """Base URL of DICOMweb, without a trailing slash."""
        return self.url + self.root.rstrip("/")

    @property
    def log_path(self) -> Path:
        return self.folder / "orthanc.log"

    @property
    def config_path(self) -> Path:
        return self.folder / "orthanc.json"

    @property
    def pid(self) -> int:
        """Process id. Raises `OrthancError` if the server does not run."""
        if self._process is None or self._process.poll() is not None:
            raise OrthancError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # -- life ----------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 30.0) -> Self:
        """Launch and wait until ready. Raises `OrthancError` with the log's tail. Does nothing if it runs."""
        for attempt in itertools.count(1):
            self.launch()
            try:
                return self.wait_ready(timeout_s)
            except OrthancError:
                self.kill()
                # Between our asking for a free port and Orthanc's binding it, somebody may have taken it.
                taken = self._port_is_ours_to_choose and "in use" in self.log_tail()
                if not taken or attempt == START_ATTEMPTS:
                    self.stop()
                    raise
                self.port = 0
        raise AssertionError("unreachable")

    def launch(self) -> None:
        """Launch without waiting, e.g. several at once before `wait_ready` of each."""
        if self.running:
            return
        program = find_program()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        if self.aet is not None:
            self.dicom_port = self.dicom_port or free_port()
        self.config_path.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(program)]
        if self._verbose:
            command.append("--verbose")
        command.append(str(self.config_path))
        with self.log_path.open("wb") as log:
            self._process = _launcher.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C in the terminal is for the one who started us to handle
            ).result()

    def wait_ready(self, timeout_s: float = 30.0) -> Self:
        """Wait until `/system` answers with our name. Raises `OrthancError` with the log's tail."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            self._check_alive(deadline, timeout_s)
            time.sleep(0.03)
        return self

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the server in order, by force after `timeout_s`. May be called again, and before `start`."""
        if self._temporary:
            self.kill()  # an orderly end takes Orthanc some seconds, for nothing that would be kept
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)  # a paused one would never hear the next
                self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the server at once, as a power cut would; `start` brings it back, data and port the same."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze the process: connections are accepted by the kernel and never answered."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        while not _all_threads_stopped(pid):  # a busy one may still answer for an instant
            time.sleep(0.002)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def start_async(self, timeout_s: float = 30.0) -> Self:
        return await asyncio.to_thread(self.start, timeout_s)

    async def stop_async(self, timeout_s: float = 10.0) -> None:
        await asyncio.to_thread(self.stop, timeout_s)

    async def __aenter__(self) -> Self:
        return await self.start_async()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_async()

    # -- content -------------------------------------------------------------------------------------------

    def upload(self, items: Iterable[bytes | Path | str], *, skip_refused: bool = False) -> list[dict[str, Any] | None]:
        """Store DICOM instances (Part-10 bytes, or paths of files) through `POST /instances`.

        Returns Orthanc's answer for each, in order: `{"ID": …, "ParentStudy": …, "Status": "Success" or
        "AlreadyStored", …}`. A refused one raises `UploadRefusedError`, or is None with `skip_refused`.
        """
        waiting = enumerate(items)
        answers: dict[int, dict[str, Any] | None] = {}
        lock = threading.Lock()

        def store_some() -> None:
            with contextlib.closing(self._connection(timeout_s=120.0)) as connection:
                while True:
                    with lock:  # generators are not thread-safe; also bounds what is built ahead
                        position, item = next(waiting, (-1, b""))
                    if position < 0:
                        return
                    answers[position] = self._store(connection, item, skip_refused)

        with ThreadPoolExecutor(UPLOAD_CONNECTIONS, thread_name_prefix="orthanc-upload") as pool:
            for future in [pool.submit(store_some) for _ in range(UPLOAD_CONNECTIONS)]:
                future.result()
        return [answers[position] for position in range(len(answers))]

    async def upload_async(
        self, items: Iterable[bytes | Path | str], *, skip_refused: bool = False
    ) -> list[dict[str, Any] | None]:
        return await asyncio.to_thread(lambda: self.upload(items, skip_refused=skip_refused))

    def get(self, path: str) -> Any:
        """JSON of a `GET` of Orthanc's REST API, e.g. `get("/statistics")`. Raises `OrthancError`."""
        return self._request("GET", path)

    def count(self) -> dict[str, int]:
        """Number of `patients`, `studies`, `series` and `instances` held, and `bytes`."""
        statistics = self.get("/statistics")
        return {name: int(statistics[key]) for name, key in STATISTICS.items()}

    def clear(self) -> None:
        """Delete all that is held."""
        for patient in self.get("/patients"):
            self._request("DELETE", f"/patients/{patient}")

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Last lines of the log; empty if there is none."""
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # -- inside --------------------------------------------------------------------------------------------

    def _configuration(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "Name": self.name,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "StorageCompression": False,
            "SyncStorageArea": False,  # what a power cut would lose can be made again
            "Plugins": [str(find_dicomweb_plugin())],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,  # local clients only
            "AuthenticationEnabled": False,
            "DicomServerEnabled": self.aet is not None,
            "DefaultEncoding": "Utf8",  # of its answers too: with Latin1 they lose what Latin1 lacks
            "ConcurrentJobs": 1,
            # A thread serves one kept-alive connection, idle or not: fewer than a client's pool stall it.
            "HttpThreadsCount": 50,
            "DicomThreadsCount": 2,
            "MaximumStorageCacheSize": 64,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": self.root, "EnableWado": False, "Ssl": False},
        }
        if self.aet is not None:
            base |= {
                "DicomAet": self.aet,
                "DicomPort": self.dicom_port,
                "DicomAlwaysAllowFind": True,
                "DicomAlwaysAllowGet": True,
                "DicomAlwaysAllowMove": True,
                "UnknownSopClassAccepted": True,
            }
        return _merged(base, self._config)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def _headers(self) -> dict[str, str]:
        users: Mapping[str, str] = self._config.get("RegisteredUsers", {})
        for user, password in users.items():
            token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
            return {"Authorization": f"Basic {token}"}
        return {}

    def _request(self, method: str, path: str, timeout_s: float = 30.0) -> Any:
        with contextlib.closing(self._connection(timeout_s)) as connection:
            connection.request(method, path, headers=self._headers())
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise OrthancError(f"{self.name}: {method} {path} answered {answer.status}: {body[:500]!r}")
        return json.loads(body)

    def _store(
        self, connection: http.client.HTTPConnection, item: bytes | Path | str, skip_refused: bool
    ) -> dict[str, Any] | None:
        body = item if isinstance(item, bytes) else Path(item).read_bytes()
        for tries in range(1, STORE_TRIES + 1):
            status, text = self._post(connection, body)
            answer: dict[str, Any] = json.loads(text) if text.lstrip().startswith(b"{") else {}
            if status == http.HTTPStatus.OK:
                return answer
            if answer.get("OrthancStatus") in NO_INSTANCE:
                if skip_refused:
                    return None
                break
            # Of images of one patient that come at once it now and then refuses one, and takes it a moment later.
            time.sleep(0.2 * tries)
        label = "instance" if isinstance(item, bytes) else str(item)
        raise UploadRefusedError(f"{self.name} refused {label} ({status}): {text[:500].decode(errors='replace')}")

    def _post(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/dicom", **self._headers()}
        try:
            connection.request("POST", "/instances", body=body, headers=headers)
            answer = connection.getresponse()
        except (ConnectionError, http.client.HTTPException):
            # Orthanc closes connections that are idle for a moment, as between two images that take time to
            # make. Storing an instance twice does no harm.
            connection.close()
            connection.request("POST", "/instances", body=body, headers=headers)
            answer = connection.getresponse()
        return answer.status, answer.read()

    def _is_ready(self) -> bool:
        try:
            return bool(self._request("GET", "/system", timeout_s=2.0)["Name"] == self.name)
        except (OSError, http.client.HTTPException, OrthancError, ValueError, KeyError):
            return False

    def _check_alive(self, deadline: float, timeout_s: float) -> None:
        if self._process is None:
            raise OrthancError(f"{self.name} was not launched")
        code = self._process.poll()
        if code is not None:
            raise OrthancError(f"{self.name} ended at start with exit status {code}:\n{self.log_tail()}")
        if time.monotonic() > deadline:
            raise OrthancError(f"{self.name} is not ready after {timeout_s:g} s:\n{self.log_tail()}")


def start_all(servers: Sequence[OrthancServer], timeout_s: float = 60.0) -> None:
    """Start several servers side by side. If one fails, all are stopped and its `OrthancError` is raised."""
    try:
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            for future in [pool.submit(server.start, timeout_s) for server in servers]:
                future.result()
    except BaseException:
        stop_all(servers)
        raise


def stop_all(servers: Sequence[OrthancServer]) -> None:
    """Stop several servers side by side."""
    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        for future in [pool.submit(server.stop) for server in servers]:
            future.result()


def _all_threads_stopped(pid: int) -> bool:
    # The state follows the name, which stands in parentheses and may hold any character (proc(5)).
    stats = (task / "stat" for task in Path(f"/proc/{pid}/task").iterdir())
    return all(stat.read_text(encoding="latin-1").rpartition(")")[2].split()[0] in "TtZX" for stat in stats)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result
