"""Run the measurements and print their table."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from imagora_demo.orthanc import OrthancError, stop_all

from imagora_bench import clients, control, data, frames, oppositions, scale, viewer
from imagora_bench.machine import describe
from imagora_bench.parts import PROFILED, Bench, Plan
from imagora_bench.processes import BenchError
from imagora_bench.ratios import Row, table

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "search": Bench.search,
    "scale": scale.measure,
    "study": Bench.study,
    "frames": frames.measure,
    "memory": Bench.memory,
    "clients": clients.measure,
    "oppositions": oppositions.measure,
    "access": control.measure,
    "ohif": viewer.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # Whoever ends us ends what we started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        _run(options, tell)
    except (BenchError, OrthancError) as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    tell("done")
    return 0


def _run(options: argparse.Namespace, tell: object) -> None:
    assert callable(tell)
    plan = _plan(options)
    parts = [p for p in PARTS if p in (options.parts or (["study"] if options.profile else PARTS))]
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagora-bench-")))
        # PostgreSQL works as another user when we are root, and must be able to get at its folder.
        temporary.chmod(0o711)
        kept = Path(options.keep).absolute() if options.keep else temporary
        tell("Orthancs")
        orthancs = data.start(kept / "orthanc", parts)
        stack.callback(stop_all if options.keep else data.kill_all, list(orthancs.values()))
        data.load(orthancs, studies=plan.studies, instances=plan.instances, tell=tell)
        machine = describe(list(orthancs.values()))
        with Bench(plan, temporary, orthancs, tell) as bench:
            if options.profile:
                for part in parts:
                    print(bench.profile(part))
                return
            rows: list[Row] = []
            for part in parts:
                rows += PARTS[part](bench)
        machine["Load after"] = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    print(table(rows))
    print()
    openings = f" ({plan.openings} of OHIF)" if "ohif" in parts else ""
    print(f"{plan.rounds} interleaved rounds{openings} after one that does not count; ratios are taken within a round.")
    print("\n".join(f"- {name}: {value}" for name, value in machine.items()))
    for row in rows:
        if spent := row.measured.get("cpu_s"):
            print(f"- Processor time of one request, {row.what}: {_cpu(spent)}")
    if options.json:
        written = {"machine": machine, "plan": asdict(plan), "rows": [asdict(row) for row in rows]}
        Path(options.json).write_text(json.dumps(written, indent=2, ensure_ascii=False), encoding="utf-8")


def _cpu(spent: dict[str, float]) -> str:
    """Where all that takes part is known, how long it takes at the least on this machine."""
    cores = os.cpu_count() or 1
    each = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in spent.items())
    least = f": at least {sum(spent.values()) / cores * 1000:.0f} ms on {cores} cores" if len(spent) > 1 else ""
    return each + least


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan()
    if options.quick:
        plan = replace(plan, rounds=3, relay_bytes=256 << 20, slow_s=3.0, clients_s=5.0, openings=2)
    given = {
        "rounds": options.rounds,
        "studies": options.studies,
        "instances": options.instances,
        "relay_bytes": options.relay_mb and options.relay_mb << 20,
        "slow_s": options.slow_s,
        "rows": options.rows,
        "oppositions": options.oppositions and tuple(options.oppositions),
        "frames": options.frames,
        "members": options.members and tuple(options.members),
        "clients": options.clients,
        "clients_s": options.clients_s,
        "client_members": options.client_members,
        "openings": options.openings,
    }
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller study to relay")
    parser.add_argument("--profile", action="store_true", help="profile the server (in a study retrieve) instead")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the loaded Orthancs there for the next run")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"interleaved runs (default {plan.rounds})")
    parser.add_argument("--studies", type=int, metavar="N", help=f"studies in each of three Orthancs ({plan.studies})")
    parser.add_argument("--instances", type=int, metavar="N", help=f"images of the CT study ({plan.instances})")
    parser.add_argument("--relay-mb", type=int, metavar="N", help=f"MiB to relay ({plan.relay_bytes >> 20})")
    parser.add_argument(
        "--slow-s", type=float, metavar="N", help=f"seconds that the slow client is slow ({plan.slow_s:g})"
    )
    parser.add_argument("--rows", type=int, metavar="N", help=f"rows of a search with oppositions ({plan.rows})")
    parser.add_argument(
        "--oppositions", type=int, nargs=2, metavar="N", help=f"few and many {plan.oppositions}".replace("%", "%%")
    )
    parser.add_argument("--frames", type=int, metavar="N", help=f"frames of one timed run ({plan.frames})")
    parser.add_argument("--members", type=int, nargs=3, metavar="N", help=f"members that are asked {plan.members}")
    parser.add_argument("--clients", type=int, metavar="N", help=f"clients that read at once ({plan.clients})")
    parser.add_argument(
        "--clients-s", type=float, metavar="N", help=f"seconds that each of them reads ({plan.clients_s:g})"
    )
    parser.add_argument(
        "--client-members", type=int, metavar="N", help=f"members that they read from ({plan.client_members})"
    )
    parser.add_argument("--openings", type=int, metavar="N", help=f"interleaved openings in OHIF ({plan.openings})")
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: {', '.join(PARTS)}")
        if options.profile and part not in PROFILED:
            parser.error(f"the part {part!r} can't be profiled: {', '.join(PROFILED)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
