"""Frames as a viewer asks for them, many at once, of an Orthanc through Imagora and through nginx."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from imagora_demo import exams
from imagora_demo.orthanc import free_port

from imagora_bench import nginx
from imagora_bench.data import FRAME_BYTES, FRAME_COUNT, FRAMES, FRAMES_UID
from imagora_bench.parts import Bench
from imagora_bench.processes import BenchError, cpu_s
from imagora_bench.ratios import Row, compare, interleave
from imagora_bench.servers import prepare, started

#: The same string as Imagora sends to a member for it, so that both routes ask Orthanc the same.
FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
AT_ONCE = 25
#: Imagora's throughput is to be 0.7 of nginx's at the least.
TARGET = 1.43


def measure(bench: Bench) -> list[Row]:
    orthanc = bench.orthancs[FRAMES]
    with ExitStack() as stack:
        server = stack.enter_context(started(bench, prepare(bench, "frames", {FRAMES: orthanc.dicomweb_url})))
        port = free_port()
        proxy = stack.enter_context(nginx.proxy(bench.folder, port=port, upstream=orthanc.url))
        proxy.wait_ready(port)
        urls = {"imagora": _urls(server.url), "nginx": _urls(f"http://127.0.0.1:{port}")}
        _same_frames(bench, urls)
        bench.tell(f"frames, {FRAME_BYTES >> 10} KB, {AT_ONCE} at once, through Imagora and nginx")
        pids = {"Imagora": server.pid, "nginx": proxy.process.pid, "Orthanc": orthanc.pid}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        seconds = interleave({name: partial(_read, bench, u) for name, u in urls.items()}, bench.plan.rounds)
        times = bench.plan.frames * (bench.plan.rounds + 1)
        spent = {name: (cpu_s(pid) - before[name]) / times for name, pid in pids.items()}
    row = compare(
        f"Frames, {FRAME_BYTES >> 10} KB, {AT_ONCE} at once, against nginx before Orthanc",
        seconds["imagora"],
        seconds["nginx"],
        most=TARGET,
        unit=bench.plan.frames,
    )
    row.measured["nginx_cpu_s"] = spent.pop("nginx")
    # Orthanc serves both: what one frame costs it is half of that.
    row.measured["cpu_s"] = {**spent, "Orthanc": spent["Orthanc"] / len(urls)}
    return [row]


def _urls(server: str) -> list[str]:
    series = exams.uid(FRAMES_UID, "series", 1)
    below = f"/dicom-web/studies/{FRAMES_UID}/series/{series}/instances"
    return [f"{server}{below}/{exams.uid(series, 'instance', number)}/frames/1" for number in range(1, FRAME_COUNT + 1)]


def _same_frames(bench: Bench, urls: dict[str, list[str]]) -> None:
    """Each frame, or their times say nothing. All differ from one another."""
    found = {name: [_digest(bench, url) for url in routes] for name, routes in urls.items()}
    if found["imagora"] != found["nginx"] or len(set(found["nginx"])) != FRAME_COUNT:
        raise BenchError("the routes do not bring the same frames")


def _digest(bench: Bench, url: str) -> str:
    answer = bench.sink.ask({"do": "inspect", "url": url, "accept": FRAME, "tail": FRAME_BYTES})
    if answer["parts"] != 1:
        raise BenchError(f"{answer['parts']} parts came for one frame")
    digest: str = answer["digest"]
    return digest


def _read(bench: Bench, urls: list[str]) -> float:
    answer = bench.sink.ask(
        {"do": "many", "urls": urls, "accept": FRAME, "times": bench.plan.frames, "at_once": AT_ONCE}
    )
    if answer["least"] < FRAME_BYTES:
        raise BenchError(f"a frame of {answer['least']} bytes came")
    seconds: float = answer["seconds"]
    return seconds
