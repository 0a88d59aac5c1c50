"""Two servers behind nginx, over one PostgreSQL server: what people and machines outside get through it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from ops_nginx import CONF, NAME, Nginx
from ops_postgres import Postgres, imagora
from retrieve.retrieve_process import free_port
from retrieve.retrieve_wire import parts_of
from store.store_wire import RELATED, body, read, stored
from support.consenting import People
from support.people import SOON_S
from support.workers import METRICS_TOKEN, WorkersProcess, until

from imagora.settings import StoreSettings
from registry import Role
from registry.database import Database
from registry.practitioners import PractitionerStore

pytestmark = pytest.mark.slow

HOME, AWAY = "csrom41200", "csorl45000"
DOCTOR, STRANGER, CORRESPONDENT = "10001234567", "10001234568", "10001234569"
PATIENT = {"patient_id": "ZQIPP4547", "name": "ZQDUPONT^Zqmarie", "birth_date": "19600512", "sex": "F"}
#: What no log of nginx's may hold.
SECRETS = ("zq", "19600512", "dicom-web", "PatientName", "?", "1.2.826", "2.25.")
MULTIPART = 'multipart/related; type="application/dicom"'


@dataclass
class Region:
    nginx: Nginx
    one: WorkersProcess
    two: WorkersProcess
    people: People
    postgresql: Postgres
    big: tuple[str, list[bytes]]
    sessions: list[requests.Session] = field(default_factory=list)

    def session(self, by: str = DOCTOR) -> requests.Session:
        session = self.nginx.session(**self.people.bearer(by))
        self.sessions.append(session)
        return session

    def get(self, path: str, *, by: str = DOCTOR, **options: Any) -> requests.Response:
        return self.session(by).get(f"{self.nginx.url}{path}", **{"timeout": 30, **options})

    def post(self, data: Any, path: str = "/dicom-web/studies", **headers: str) -> requests.Response:
        session = self.session()
        return session.post(f"{self.nginx.url}{path}", data, headers={"Content-Type": RELATED, **headers}, timeout=60)

    @property
    def servers(self) -> tuple[WorkersProcess, WorkersProcess]:
        return self.one, self.two


@pytest.fixture(scope="module")
def region(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    folder = tmp_path_factory.mktemp("nginx")
    people = People(folder / "issuer")
    with ExitStack() as stack:
        port = free_port()
        orthanc = OrthancServer(name="home", port=port)
        members = {HOME: f"http://127.0.0.1:{port}/dicom-web", AWAY: "http://127.0.0.1:9/dicom-web"}
        options: dict[str, Any] = {
            "workers": 1,
            "database": postgresql.application,
            "auth": people.auth,
            "search": {"own_site": "include"},
            "server": {"public_url": f"https://{NAME}", "trusted_proxies": ["127.0.0.1"]},
        }
        one = WorkersProcess(folder / "one", members, **options)
        two = WorkersProcess(folder / "two", members, **options)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(stack.enter_context, (orthanc, one, two)))
        nginx = stack.enter_context(Nginx(folder / "front", [one.port, two.port]))
        register(postgresql.application)
        time.sleep(SOON_S)  # both have learnt of the practitioners
        big = study("big", rows=1024, columns=1024, n_instances=16)
        region = Region(nginx, one, two, people, postgresql, big)
        yield region
        for session in region.sessions:
            session.close()


def register(url: str) -> None:
    async def write() -> None:
        async with Database(url) as database:
            store = PractitionerStore(database)
            for rpps, site, role in (
                (DOCTOR, HOME, Role.PRACTITIONER),
                (STRANGER, AWAY, Role.PRACTITIONER),
                (CORRESPONDENT, HOME, Role.CORRESPONDENT),
            ):
                await store.add(rpps=rpps, name=f"NOM^{rpps[-1]}", site=site, role=role)
                await store.sign(rpps, "1")

    asyncio.run(write())


def study(seed: str, **options: Any) -> tuple[str, list[bytes]]:
    return str(exams.uid(seed, "study")), exams.study(seed=seed, **{"rows": 16, "columns": 16, **PATIENT, **options})


def instances(answer: requests.Response) -> list[bytes]:
    boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    return [part.body for part in parts_of(answer.content, boundary)]


# Asking and storing through it ------------------------------------------------------------------------------------


def test_big_study_is_stored_and_comes_back(region: Region) -> None:
    """Thirty megabytes each way, in chunks on the way in: more than nginx takes of anything else."""
    uid, data = region.big
    disk = [(region.nginx.folder / name) for name in ("nginx-body", "nginx-proxy")]
    before = [folder.stat().st_mtime_ns for folder in disk]
    whole = body(data)
    chunks = (whole[start : start + (1 << 20)] for start in range(0, len(whole), 1 << 20))
    answer = region.post(chunks)
    assert answer.status_code == 200, answer.text
    assert len(stored(answer.json())) == len(data)
    assert answer.json()["00081190"]["Value"] == [f"https://{NAME}/sites/{HOME}/dicom-web/studies/{uid}"]
    got = instances(region.get(f"/dicom-web/studies/{uid}", headers={"Accept": MULTIPART}))
    assert {read(g).PatientID for g in got} == {f"{PATIENT['patient_id']}@{HOME}"}
    assert {read(g).PixelData for g in got} == {read(d).PixelData for d in data}
    assert [folder.stat().st_mtime_ns for folder in disk] == before  # no file came and went there


def test_search_is_answered_under_the_public_name(region: Region) -> None:
    uid, data = study("searched")
    assert region.post(body(data)).status_code == 200
    answer = region.get("/dicom-web/studies", params={"PatientName": "ZQDUPONT*", "StudyInstanceUID": uid})
    (row,) = answer.json()
    assert row["00081190"]["Value"] == [f"https://{NAME}/sites/{HOME}/dicom-web/studies/{uid}"]
    # What says that something is missing gets through, and what isolates the viewer's page, each once.
    assert f"{AWAY};" in answer.headers["Imagora-Sources"]
    assert AWAY in answer.headers["Warning"]
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"


@pytest.mark.parametrize("server", ["one", "two"])
def test_both_servers_are_asked(region: Region, server: str) -> None:
    asked: WorkersProcess = getattr(region, server)
    seen = {region.get("/dicom-web/studies?PatientID=ZQIPP4547").headers["x-request-id"] for _ in range(8)}
    assert until(lambda: seen & {entry.get("request_id") for entry in asked.entries()})


def test_http2_retrieve(region: Region) -> None:
    uid, data = study("h2")
    assert region.post(body(data)).status_code == 200
    context = trusting(region.nginx)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(region.nginx, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() == "TLSv1.3"
    command = curl(region, f"/dicom-web/studies/{uid}", "--http2", "-w", "%{http_version} %{http_code}", "-o", "-")
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode == 0
    assert done.stdout.endswith(b"2 200")
    assert read(data[0]).PixelData in done.stdout


def test_old_protocols_are_refused(region: Region) -> None:
    context = trusting(region.nginx)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(region.nginx, context) as connection:
        name, _, _ = connection.cipher() or ("", "", 0)
        assert re.fullmatch(r"ECDHE-ECDSA-(AES\d+-GCM-SHA\d+|CHACHA20-POLY1305)", name)
        connection.sendall(f"GET /healthz HTTP/1.0\r\nHost: {NAME}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 505")
    # Of TLS 1.2, a cipher without forward secrecy; and TLS 1.1, which Python itself warns of.
    context.set_ciphers("AES128-GCM-SHA256:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), connected(region.nginx, context):
        pass
    old = trusting(region.nginx)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match=r"TLSVersion\.TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), connected(region.nginx, old):
        pass


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/x/../metrics", "/readyz"])
def test_what_is_for_the_inside_is_not_to_be_had_outside(region: Region, path: str) -> None:
    command = curl(region, path, "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", token=METRICS_TOKEN)
    assert subprocess.run(command, capture_output=True, timeout=30).stdout == b"404"


def test_collector_is_told_of_each_server_inside(region: Region) -> None:
    inside = f"http://127.0.0.1:{region.nginx.inside}"
    for name in ("one", "two"):
        answer = requests.get(
            f"{inside}/{name}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}, timeout=10
        )
        assert "imagora_requests_total" in answer.text
        assert requests.get(f"{inside}/{name}/metrics", timeout=10).status_code == 401
        assert requests.get(f"{inside}/{name}/readyz", timeout=10).text == "ready\n"
    assert requests.get(f"{inside}/dicom-web/studies", timeout=10).status_code == 404


def test_other_names_and_plain_http_get_nothing(region: Region) -> None:
    other = region.get("/dicom-web/studies?PatientID=ZQIPP4547", headers={"Host": "rebound.example"})
    assert other.status_code == 421
    plain = f"http://127.0.0.1:{region.nginx.plain}"
    asked = requests.get(f"{plain}/dicom-web/studies?PatientName=ZQDUPONT", timeout=10, allow_redirects=False)
    assert asked.status_code == 403
    root = requests.get(f"{plain}/", timeout=10, allow_redirects=False)
    assert (root.status_code, root.headers["location"]) == (308, f"https://{NAME}/")


def test_limit_of_a_request_is_imagoras_own() -> None:
    limits = re.findall(r"client_max_body_size (\d+)m;", (CONF / "imagora.conf").read_text(encoding="utf-8"))
    assert int(limits[-1]) == StoreSettings().request_mb


# Consent ------------------------------------------------------------------------------------------------------------


def test_opposition_holds_at_both_servers_within_a_second(region: Region) -> None:
    uid, data = study("opposed", patient_id="ZQIPP9")
    assert region.post(body(data)).status_code == 200
    asked = {"params": {"StudyInstanceUID": uid}, "headers": region.people.bearer(STRANGER), "timeout": 30}

    def shown() -> list[bool]:
        answers = [requests.get(f"{server.dicomweb}/studies", **asked) for server in region.servers]
        assert {answer.status_code for answer in answers} <= {200, 204}
        return [bool(answer.content) and bool(answer.json()) for answer in answers]

    assert shown() == [True, True]
    done = imagora(
        region.one.config,
        region.postgresql.application,
        *("oppositions", "add", "--study", uid, "--by", CORRESPONDENT, "--channel", "form"),
    )
    assert done.returncode == 0, done.stderr
    time.sleep(SOON_S)
    assert shown() == [False, False]
    for _ in range(4):  # whichever it is
        assert region.get(f"/dicom-web/studies/{uid}", by=STRANGER, headers={"Accept": MULTIPART}).status_code == 404


# Servers that go and come ---------------------------------------------------------------------------------------------


class Askers:
    """Clients that ask on and on over kept connections, until the context ends. `wrong`: answers that are none."""

    def __init__(self, region: Region, number: int = 3) -> None:
        self.wrong: list[str] = []
        self.right = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(region.session(),)) for _ in range(number)]
        self._url = f"{region.nginx.url}/dicom-web/studies?PatientID=ZQIPP4547"

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        until(lambda: self.right > 10)
        return self

    def __exit__(self, *_: object) -> None:
        had = self.right
        until(lambda: self.right > had + 20)  # it goes on after what happened
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, session: requests.Session) -> None:
        while not self._stop.is_set():
            try:
                answer = session.get(self._url, timeout=30)
            except requests.RequestException as error:
                self.wrong.append(repr(error))
                continue
            if answer.status_code == 200 and answer.json():
                self.right += 1
            else:
                self.wrong.append(f"{answer.status_code} {answer.text[:200]}")


@contextmanager
def slow_transfer(region: Region, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """curl, that gets the big study, more than all buffers hold, and can't go on until somebody reads its output."""
    command = curl(region, f"/dicom-web/studies/{region.big[0]}", *arguments, "-o", "-")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(100)
            yield process
        finally:
            process.kill()


def test_client_that_leaves_ends_the_transfer_behind(region: Region) -> None:
    with slow_transfer(region, "--http2"):
        pass
    until(lambda: any(e["message"] == "broken off" for server in region.servers for e in server.entries()), 20)


def test_server_that_stops_or_is_killed_fails_no_request_but_those_it_cuts(region: Region) -> None:
    assert region.get(f"/dicom-web/studies/{region.big[0]}/metadata").status_code == 200
    with Askers(region) as askers:
        assert region.one.stop() == 0
    assert askers.wrong == []
    # Only `two` is left, so both transfers are its own.
    with slow_transfer(region, "--http1.1") as old, slow_transfer(region, "--http2") as new:
        with region.one, Askers(region) as askers:
            time.sleep(1.2)  # nginx tries `one` again
            region.two.process.send_signal(signal.SIGKILL)
            region.two.process.wait(10)
            # curl says that the body was cut: 18 = partial file, 92 = HTTP/2 stream was not closed cleanly.
            for transfer in (old, new):
                rest, _ = transfer.communicate(timeout=30)
                assert len(rest) < sum(map(len, region.big[1]))
            assert (old.returncode, new.returncode) in ((18, 18), (18, 92))
        # An answer that was on its way is cut, and says so.
        assert [wrong for wrong in askers.wrong if "ended prematurely" not in wrong] == []


# Logs ----------------------------------------------------------------------------------------------------------------


def provoke(nginx: Nginx, token: dict[str, str]) -> None:
    """What nginx has something to say about: no server, too large, malformed, a wrong protocol; each with a patient."""
    with nginx.session(**token) as session:
        path = f"{nginx.url}/dicom-web/studies?PatientName=ZQDUPONT&StudyInstanceUID=2.25.77"
        answer = session.get(path, timeout=30)
        assert answer.status_code == 502
        assert "zq" not in answer.text.lower()
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
        assert session.post(f"{nginx.url}/emergency?of=ZQDUPONT", b" " * (2 << 20), timeout=30).status_code == 413
    for line in (f"GET /{'ZQDUPONT' * 6000} HTTP/1.1", "GET /ZQDUPONT HTTP/7.1", "GET ZQDUPONT"):
        with connected(nginx, trusting(nginx)) as connection:
            connection.sendall(f"{line}\r\nHost: {NAME}\r\n\r\n".encode())
            connection.recv(100)


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret.lower() in text.lower()]


def test_logs_hold_no_patient_whatever_goes_wrong(tmp_path: Path) -> None:
    people = People(tmp_path / "issuer")
    bearer = people.bearer(DOCTOR)
    with Nginx(tmp_path / "quiet", [9]) as quiet:
        provoke(quiet, bearer)
    logs = quiet.logs()
    assert logs.keys() == {"access.log", "error.log"}
    assert {name: leaks(text) for name, text in logs.items()} == {"access.log": [], "error.log": []}
    lines = [json.loads(line) for line in logs["access.log"].splitlines()]
    assert [line["status"] for line in lines] == [502, 413, 414, 505, 400]
    assert all(line.keys() == {"at", "method", "status", "bytes", "s", "request_id", "upstream"} for line in lines)
    # The same with nginx's usual messages: they do quote requests, so what was provoked would have shown.
    with Nginx(tmp_path / "usual", [9], error_log=f"error_log {tmp_path}/usual/messages.log info;") as usual:
        provoke(usual, bearer)
    assert {"zq", "?", "2.25."} <= set(leaks(usual.logs()["messages.log"]))


def test_logs_of_all_that_was_asked_hold_no_patient(region: Region) -> None:
    """Last in this file: of whatever was asked above."""
    assert region.get("/dicom-web/studies?PatientName=ZQDUPONT&PatientBirthDate=19600512").status_code
    logs = region.nginx.logs()
    assert not any(leaks(text) for text in logs.values())
    ids = [json.loads(line)["request_id"] for line in logs["access.log"].splitlines()]
    known = {entry.get("request_id") for server in region.servers for entry in server.entries()}
    assert known & set(ids)  # one id in both logs


def trusting(nginx: Nginx) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(nginx.trusted))


@contextmanager
def connected(nginx: Nginx, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", nginx.tls), 10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        yield connection


def curl(region: Region, path: str, *arguments: str, token: str = "") -> list[str]:
    program = shutil.which("curl")
    if program is None or "HTTP2" not in subprocess.run([program, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("curl with HTTP/2 is missing")
    bearer = f"Bearer {token}" if token else region.people.bearer(DOCTOR)["Authorization"]
    tls = region.nginx.tls
    return [
        *(program, "-s", "--cacert", str(region.nginx.trusted), "--resolve", f"{NAME}:{tls}:127.0.0.1"),
        *("-H", f"Authorization: {bearer}", "-H", f"Accept: {MULTIPART}" if "/studies/" in path else "Accept: */*"),
        *arguments,
        f"https://{NAME}:{tls}{path}",
    ]
