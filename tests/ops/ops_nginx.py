"""nginx with conf/nginx/imagora.conf itself: only ports, paths, the name and the servers are put in place."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from requests.adapters import HTTPAdapter
from retrieve.retrieve_process import free_port

CONF = Path(__file__).parents[2] / "conf" / "nginx"
NAME = "imagora.example"


def nginx_program() -> Path:
    places = map(Path, ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"))
    found = next((place for place in places if place.exists()), None)
    assert found is not None, "nginx is missing: scripts/setup --tests installs it"
    return found


def certificate(folder: Path) -> Path:
    """tls.crt and tls.key for `NAME`, signed by itself. → the certificate, to be trusted."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "tls.crt"


class Nginx:
    """`ports` of the servers behind. `error_log`: the line about messages of requests, in place of the file's own."""

    def __init__(self, folder: Path, ports: list[int], *, error_log: str = "") -> None:
        self.folder = folder
        self.tls, self.plain, self.inside = free_port(), free_port(), free_port()
        self.trusted = certificate(folder / "imagora" / "tls")
        includes = folder / "imagora"
        (includes / "name.conf").write_text((CONF / "name.conf").read_text(encoding="utf-8"), encoding="utf-8")
        servers = "".join(f"server 127.0.0.1:{port} fail_timeout=1s;\n" for port in ports)
        (includes / "servers.conf").write_text(servers, encoding="utf-8")
        collector = (CONF / "collector.conf").read_text(encoding="utf-8")
        for old, new in {"9145": self.inside, "8080": ports[0], "8081": ports[-1]}.items():
            collector = _replaced(collector, f"127.0.0.1:{old}", f"127.0.0.1:{new}")
        (includes / "collector.conf").write_text(collector, encoding="utf-8")
        text = (CONF / "imagora.conf").read_text(encoding="utf-8")
        changes = {
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.tls} ssl http2;",
            "listen [::]:443 ssl http2;": "",
            "listen 80;": f"listen 127.0.0.1:{self.plain};",
            "listen [::]:80;": "",
            "/etc/nginx/imagora/": f"{includes}/",
            "/var/log/nginx/": f"{folder}/",
            "/run/": f"{folder}/",
            "worker_processes auto;": "worker_processes 2;",
            "worker_rlimit_nofile 16384;": "",  # beyond what the tests' user may have
            "worker_connections 4096;": "worker_connections 256;",
        }
        if error_log:
            changes["error_log /dev/null emerg;"] = error_log
        for old, new in changes.items():
            text = _replaced(text, old, new)
        self.config = folder / "nginx.conf"
        self.config.write_text(text, encoding="utf-8")
        if os.geteuid() == 0:
            for parent in (folder, *folder.parents[:2]):  # its workers run as nobody
                parent.chmod(0o755)

    def __enter__(self) -> Nginx:
        command = [str(nginx_program()), "-e", str(self.folder / "error.log"), "-c", str(self.config)]
        self.process = subprocess.Popen([*command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)
        limit = time.monotonic() + 10
        while True:
            assert self.process.poll() is None, (self.folder / "error.log").read_text()
            assert time.monotonic() < limit
            try:
                socket.create_connection(("127.0.0.1", self.tls), 1).close()
                return self
            except OSError:
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    @property
    def url(self) -> str:
        """For a session: `NAME` is asked for, at loopback."""
        return f"https://127.0.0.1:{self.tls}"

    def session(self, **headers: str) -> requests.Session:
        session = requests.Session()
        session.mount("https://", _Named())
        session.trust_env = False  # the environment may name other authorities
        session.verify = str(self.trusted)
        session.headers.update({"Host": NAME, **headers})
        return session

    def logs(self) -> dict[str, str]:
        """All that it wrote, by the file's name."""
        return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in self.folder.glob("*.log")}


class _Named(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        options |= {"server_hostname": NAME, "assert_hostname": NAME}
        super().init_poolmanager(*arguments, **options)


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"{old} does not stand in the file"
    return text.replace(old, new)
