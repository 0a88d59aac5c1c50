"""Feed the parsers what nobody would send, guided by the lines that it reaches, and print what was run."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagora_fuzz.targets import TARGETS, Target, load

ROOT = Path(__file__).resolve().parents[2]
#: A single input may take this long, in seconds, on a machine that does other things too: they take milliseconds.
INPUT_S = 10
#: Memory of a target's process, in MiB: they take about 150. And of one allocation.
MEMORY_MB, ALLOCATION_MB = 600, 64
_RUNS = re.compile(r"^stat::number_of_executed_units: +(\d+)$", re.MULTILINE)
_REACHED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one target did. `finding` = the input that broke it, None = none did."""

    name: str
    runs: int
    seconds: float
    reached: str
    finding: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = options.targets or list(TARGETS)
    if options.replay is not None:
        return _replay(names, options.replay)
    outcomes = []
    try:
        for name in names:
            print(f"{name}: {TARGETS[name]}", file=sys.stderr, flush=True)
            outcomes.append(_run(name, options.corpus / name, 60 * options.minutes / len(names), options.seed))
    except KeyboardInterrupt:
        return 130
    print(_table(outcomes))
    findings = [o for o in outcomes if o.finding is not None]
    for outcome in findings:
        print(f"scripts/fuzz: {outcome.name} is broken by {outcome.finding}", file=sys.stderr)
        print(f"    scripts/fuzz {outcome.name} --replay {outcome.finding}", file=sys.stderr)
    return 1 if findings else 0


def _run(name: str, corpus: Path, seconds: float, seed: int) -> Outcome:
    """One target in a process of its own, which ends with us. What it learnt is kept in `corpus` for the next time.
    A seed of 0 is a new one."""
    target = load(name)
    _plant(corpus, target)
    log = corpus / "log"
    command = [
        *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "imagora_fuzz.run", name),
        *(f"-max_total_time={max(1, round(seconds))}", f"-timeout={INPUT_S}", "-print_final_stats=1"),
        *(f"-rss_limit_mb={MEMORY_MB}", f"-malloc_limit_mb={ALLOCATION_MB}", f"-dict={corpus / 'words'}"),
        *(f"-seed={seed}", f"-artifact_prefix={corpus}/", str(corpus / "inputs")),
    ]
    before = set(_findings(corpus))
    began = time.monotonic()
    with log.open("wb") as output:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment())
    told = log.read_text(encoding="utf-8", errors="replace")
    new = sorted(set(_findings(corpus)) - before)
    if ended.returncode and not new:
        raise SystemExit(f"scripts/fuzz: {name} ended with status {ended.returncode}:\n{told[-3000:]}")
    if new:
        print(told[-3000:], file=sys.stderr)
    runs, reached = _RUNS.search(told), list(_REACHED.finditer(told))
    return Outcome(
        name=name,
        runs=int(runs[1]) if runs is not None else _counted(told),
        seconds=time.monotonic() - began,
        reached="{} edges, {} features, {} inputs".format(*reached[-1].groups()) if reached else "",
        finding=new[0] if new else None,
    )


def _plant(corpus: Path, target: Target) -> None:
    """Seeds and words, beside what earlier runs found."""
    inputs = corpus / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (inputs / f"seed-{number:02}").write_bytes(seed)
    words = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    (corpus / "words").write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")


def _findings(corpus: Path) -> list[Path]:
    return [f for kind in ("crash", "timeout", "oom", "slow-unit") for f in corpus.glob(f"{kind}-*")]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("IMAGORA_")}


def _counted(told: str) -> int:
    """As far as it had counted when it was broken."""
    return max((int(n) for n in re.findall(r"^#(\d+)", told, re.MULTILINE)), default=0)


def _replay(names: Sequence[str], inputs: Sequence[Path]) -> int:
    """Inputs once, without the fuzzer: what breaks is raised as it is."""
    for name in names:
        target = load(name)
        fed = [path.read_bytes() for path in inputs] or target.seeds
        for data in fed:
            target.check(data)
        print(f"{name}: {len(fed)} inputs, all hold")
    return 0


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = ["| Target | Executions | Minutes | Reached | Holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {o.name} | {o.runs:,} | {o.seconds / 60:.1f} | {o.reached} | {'yes' if o.finding is None else 'no'} |"
        for o in outcomes
    ]
    total = f"| all | {sum(o.runs for o in outcomes):,} | {sum(o.seconds for o in outcomes) / 60:.1f} | | |"
    return "\n".join([*lines, total])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    listed = "; ".join(f"{name}: {what}" for name, what in TARGETS.items())
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__, epilog=listed)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="in all (default 10)")
    parser.add_argument(
        "--corpus", type=Path, default=ROOT / "state" / "fuzz", metavar="FOLDER", help="what earlier runs reached"
    )
    parser.add_argument(
        "--replay", type=Path, nargs="*", metavar="FILE", help="feed one target these inputs, once; without, its seeds"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draw as another run with this seed did")
    options = parser.parse_args(arguments)
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}: {', '.join(TARGETS)}")
    if options.replay and len(options.targets) != 1:
        parser.error("name the target whose inputs these are")
    return options


if __name__ == "__main__":
    sys.exit(main())
