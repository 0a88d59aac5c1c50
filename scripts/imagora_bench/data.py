"""The Orthancs that are asked, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all

#: EMETTEURs.
LIGHT = ("bench-a", "bench-b", "bench-c")
HEAVY = "bench-ct"
CT_UID = str(exams.uid("bench", "ct"))


def start(folder: Path, *, light: bool, heavy: bool) -> dict[str, OrthancServer]:
    names = [*(LIGHT if light else ()), *((HEAVY,) if heavy else ())]
    servers = {name: OrthancServer(folder / name, name=name) for name in names}
    start_all(list(servers.values()))
    return servers


def load(servers: dict[str, OrthancServer], *, studies: int, instances: int, tell: Callable[[str], None]) -> None:
    """Fill each server, unless it holds just that from an earlier run."""
    for name, server in servers.items():
        wanted = f"{instances} CT" if name == HEAVY else f"{studies} light studies"
        stamp = server.folder / "loaded.json"
        if _is_loaded(stamp, wanted, server):
            continue
        tell(f"{name}: {wanted}")
        stamp.unlink(missing_ok=True)
        server.clear()
        server.upload(_instances(name, studies=studies, instances=instances))
        stamp.write_text(json.dumps([wanted, server.count()["instances"]]), encoding="utf-8")


def _instances(name: str, *, studies: int, instances: int) -> Iterable[bytes]:
    if name == HEAVY:
        return exams.iter_study(study_uid=CT_UID, n_instances=instances, rows=512, columns=512)
    return exams.light_studies(studies, seed=name)


def _is_loaded(stamp: Path, wanted: str, server: OrthancServer) -> bool:
    try:
        said = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said == [wanted, server.count()["instances"]])
