"""The demonstration's members: Orthanc servers that keep their data between two starts."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagora_demo import cast
from imagora_demo.orthanc import OrthancServer, free_port, start_all, stop_all

#: Where ports are looked for first; the registry remembers a member's address, so it must not change.
FIRST_PORT = 18042
LOADED = "loaded.json"


class DemoError(RuntimeError):
    """The demonstration cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members' servers by EMETTEUR, and the base URLs of all, those that are down included."""

    servers: dict[str, OrthancServer]
    urls: dict[str, str]

    def stop(self) -> None:
        stop_all(list(self.servers.values()))


def start_members(folder: Path, sites: Sequence[cast.DemoSite] = cast.SITES) -> Members:
    """Start one Orthanc for each site that is up, at the address it had before. Raises `DemoError`, `OrthancError`."""
    ports = _ports(folder / "ports.json", sites)
    servers = {
        site.emetteur: OrthancServer(folder / site.emetteur, name=site.emetteur, port=ports[site.emetteur])
        for site in sites
        if site.up
    }
    start_all(list(servers.values()))
    urls = {site.emetteur: f"http://127.0.0.1:{ports[site.emetteur]}/dicom-web" for site in sites}
    return Members(servers, urls)


def load(members: Members, tell: Callable[[str], None]) -> None:
    """Fill each server with its exams, unless it holds them already from an earlier start."""
    edition = _edition()
    for site in cast.SITES:
        if (server := members.servers.get(site.emetteur)) is None:
            continue
        stamp = server.folder / LOADED
        if _is_loaded(stamp, edition, server):
            continue
        began = time.monotonic()
        stamp.unlink(missing_ok=True)
        server.clear()
        for exam in cast.held_by(site):
            server.upload(exam.instances())
        held = server.count()
        stamp.write_text(json.dumps({"edition": edition, "instances": held["instances"]}), encoding="utf-8")
        tell(
            f"{site.emetteur} {site.name}: {held['studies']} studies, {held['instances']} instances, "
            f"{held['bytes'] / 1e6:.0f} MB in {time.monotonic() - began:.1f} s"
        )


def _is_loaded(stamp: Path, edition: str, server: OrthancServer) -> bool:
    try:
        said = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said == {"edition": edition, "instances": server.count()["instances"]})


def _edition() -> str:
    """Changes whenever the code that makes the exams does."""
    digest = hashlib.sha256()
    for name in ("canvas", "cast", "chest", "documents", "exams", "pictures"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _ports(path: Path, sites: Sequence[cast.DemoSite]) -> dict[str, int]:
    """The port of each site: chosen at the first start, kept from then on."""
    ports: dict[str, int] = {}
    if path.exists():
        ports = json.loads(path.read_text(encoding="utf-8"))
    for site in sites:
        if site.emetteur in ports:
            if not _is_free(ports[site.emetteur]):
                raise DemoError(
                    f"port {ports[site.emetteur]}, where {site.emetteur} stood last time, is used by another program. "
                    "Stop that program, or start over with scripts/demo --fresh"
                )
            continue
        taken = set(ports.values())
        wished = (port for port in range(FIRST_PORT, FIRST_PORT + 40) if port not in taken and _is_free(port))
        ports[site.emetteur] = next(wished, 0) or free_port()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ports, indent=2), encoding="utf-8")
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what lingers from the last start is no user
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
