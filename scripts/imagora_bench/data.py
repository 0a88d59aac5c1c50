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
FRAMES = "bench-frames"
CT_UID = str(exams.uid("bench", "ct"))
#: A study of small images: `FRAME_BYTES` each, `FRAME_COUNT` of them.
FRAMES_UID = str(exams.uid("bench", "small frames"))
FRAME_BYTES = 128 * 128 * 2
FRAME_COUNT = 100

#: Which Orthancs a part asks.
ASKED = {"search": LIGHT, "study": (HEAVY,), "frames": (FRAMES,), "ohif": (HEAVY,)}


def start(folder: Path, parts: Iterable[str]) -> dict[str, OrthancServer]:
    """Those that these parts ask, by EMETTEUR."""
    names = dict.fromkeys(name for part in parts for name in ASKED.get(part, ()))
    servers = {name: OrthancServer(folder / name, name=name) for name in names}
    start_all(list(servers.values()))
    return servers


def kill_all(servers: Iterable[OrthancServer]) -> None:
    """Of what they hold nothing is kept, and an orderly end takes seconds."""
    for server in servers:
        server.kill()


def load(servers: dict[str, OrthancServer], *, studies: int, instances: int, tell: Callable[[str], None]) -> None:
    """Fill each server, unless it holds just that from an earlier run."""
    for name, server in servers.items():
        wanted = {HEAVY: f"{instances} CT", FRAMES: f"{FRAME_COUNT} small CT"}.get(name, f"{studies} light studies")
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
    if name == FRAMES:
        return exams.iter_study(study_uid=FRAMES_UID, n_instances=FRAME_COUNT, rows=128, columns=128)
    return exams.light_studies(studies, seed=name)


def _is_loaded(stamp: Path, wanted: str, server: OrthancServer) -> bool:
    try:
        said = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said == [wanted, server.count()["instances"]])
