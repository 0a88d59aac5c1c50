"""What access control costs: bearer tokens and the rules of consent over oppositions, against a server without either.

The holder answers from memory (`shelf` for frames, `member` for the study), so that the time is Imagora's own.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from imagora.demo_issuer import demo_token
from imagora.settings import load_settings
from imagora_bench import filling, member, shelf
from imagora_bench.parts import DICOM, RELAY, Bench
from imagora_bench.processes import BenchError, cpu_s
from imagora_bench.ratios import Row, compare, interleave
from imagora_bench.servers import Guarded, prepare, shelved, together

FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
AT_ONCE = 25
INSTANCES = 100  # of the study whose frames are read, over and over


def measure(bench: Bench) -> list[Row]:
    count = bench.plan.oppositions[0]
    with ExitStack() as stack:
        sites = {**stack.enter_context(shelved(bench.folder, 0)), RELAY: f"{bench.member_url}/dicom-web"}
        on = prepare(bench, "access-on", sites, auth="demo")
        off = prepare(bench, "access-off", sites)
        shown = [*shelf.all_rows(0), member.row(member.MIDDLE_STUDY_UID)]
        spared = asyncio.run(filling.alike(on.database, count, shown))
        opposed = [shelf.PROBE_UID]
        asyncio.run(filling.oppose(on.database, count, emetteurs=shelf.NAMES, spared=spared, more_studies=opposed))
        asyncio.run(filling.oppose(off.database, 0, emetteurs=shelf.NAMES, more_studies=opposed))
        token = demo_token(load_settings(on.settings), filling.RPPS)
        stack.enter_context(together(bench, "access", [on, off], unguarded=[off]))
        _check(on, off, token)
        bench.tell(f"frames, {AT_ONCE} at once, with and without access control")
        frames = _compare(bench, on, off, partial(_frames, bench, token=token), bench.plan.frames)
        bench.tell("study retrieve, with and without access control")
        study = _compare(bench, on, off, partial(_study, bench, token=token), 1)
    size = f"{shelf.FRAME_BYTES >> 10} KB, {AT_ONCE} at once"
    megabytes = bench.plan.instances * member.INSTANCE_BYTES / 1e6
    what = f"bearer token and {count:,} oppositions against no access control"
    return [
        _row(f"Frames, {size}, {what}", frames, bench.plan.frames),
        _row(f"Study retrieve, {megabytes:.0f} MB, {what}", study, 1),
    ]


def _check(on: Guarded, off: Guarded, token: str) -> None:
    """One is guarded, the other is not: else nothing is measured."""
    found = {}
    for server, bearer in ((on, {"Authorization": f"Bearer {token}"}), (off, {})):
        url = f"{server.studies}?StudyInstanceUID={shelf.PROBE_UID}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=bearer), timeout=20) as answer:
            found[server.name] = answer.status
    if found != {on.name: 204, off.name: 200}:
        raise BenchError(f"an opposed exam, where access is controlled and where it is not: {found}")


Run = Callable[[Guarded, bool], float]


def _compare(
    bench: Bench, on: Guarded, off: Guarded, run: Run, requests: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """→ (seconds, processor seconds of one request)."""
    spent = {"on": 0.0, "off": 0.0}

    def timed(server: Guarded, name: str) -> float:
        before = cpu_s(server.pid)
        seconds = run(server, name == "on")
        spent[name] += cpu_s(server.pid) - before
        return seconds

    seconds = interleave({"on": partial(timed, on, "on"), "off": partial(timed, off, "off")}, bench.plan.rounds)
    times = requests * (bench.plan.rounds + 1)
    return seconds, {f"access control {name}": used / times for name, used in spent.items()}


def _row(what: str, measured: tuple[dict[str, list[float]], dict[str, float]], requests: int) -> Row:
    seconds, spent = measured
    row = compare(what, seconds["on"], seconds["off"], most=1.05, unit=requests)
    row.measured["cpu_s"] = spent
    return row


def _frames(bench: Bench, server: Guarded, guarded: bool, *, token: str) -> float:
    answer = bench.sink.ask(
        {
            "do": "many",
            "urls": [
                f"{server.studies}/{shelf.FRAMES_UID}/series/1.2.3/instances/1.2.3.{number}/frames/1"
                for number in range(1, INSTANCES + 1)
            ],
            "accept": FRAME,
            "token": token if guarded else "",
            "times": bench.plan.frames,
            "at_once": AT_ONCE,
        }
    )
    if answer["least"] < shelf.FRAME_BYTES:
        raise BenchError(f"a frame of {answer['least']} bytes came")
    seconds: float = answer["seconds"]
    return seconds


def _study(bench: Bench, server: Guarded, guarded: bool, *, token: str) -> float:
    url = f"{server.studies}/{member.MIDDLE_STUDY_UID}"
    answer = bench.sink.ask({"do": "stream", "url": url, "accept": DICOM, "token": token if guarded else ""})
    if answer["bytes"] < bench.plan.instances * member.INSTANCE_BYTES:
        raise BenchError(f"only {answer['bytes']} bytes came")
    seconds: float = answer["seconds"]
    return seconds
