"""The benchmark itself, made so small that it says nothing, but says it in full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from imagora_bench.processes import SCRIPTS
from imagora_bench.ratios import compare, interleave, quartiles, table

#: What the table must hold, and which lines have a target.
LINES = {
    "QIDO, 25 rows over 3 Orthancs, against a bare gather": "≤ 1.3 ×",
    "QIDO, all 36 rows over 3 Orthancs, against a bare gather": "≤ 1.3 ×",
    "Study retrieve, 4 CT, 2 MB, re-tagged, against Orthanc directly": "≤ 1.25 ×",
    "Study retrieve, 4 CT, 2 MB, re-tagged, against nginx before Orthanc": "≤ 0.9 ×",
    "nginx before Orthanc, against Orthanc directly": "",
    "Peak memory growth, 24 MiB relayed to a fast client": "≤ 32 MiB",
    "Peak memory growth, 24 MiB relayed to a client that reads 16 MB/s for 0.5 s": "≤ 32 MiB",
}


def test_every_measurement_is_made_and_told(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    sizes = ["--rounds", "1", "--studies", "12", "--instances", "4", "--relay-mb", "24", "--slow-s", "0.5"]
    run = subprocess.run(
        [sys.executable, "-m", "imagora_bench", "--json", str(written), *sizes],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/bin", "PYTHONPATH": str(SCRIPTS), "TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]
    assert {cells[0]: cells[3] for cells in lines[2:]} == LINES
    assert all(cells[4] in ("yes", "no") for cells in lines[2:] if cells[3])
    for fact in ("Processor", "Kernel", "Python", "Orthanc", "nginx"):
        assert f"- {fact}: " in run.stdout
    told = json.loads(written.read_text(encoding="utf-8"))
    assert [row["what"] for row in told["rows"]] == [*LINES]
    assert not list(tmp_path.glob("imagora-bench-*"))


def test_interleave_alternates_and_leaves_the_first_round_out() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert "".join(order) == "ababab"
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_comparison_takes_ratios_within_a_round() -> None:
    # The machine was ten times slower in the second round, for both.
    row = compare("x", [1.2, 12.0, 1.3], [1.0, 10.0, 1.0], most=1.25)
    assert (row.value, row.met) == ("1.20 ×", True)
    assert quartiles([1.0]) == (1.0, 1.0, 1.0)
    assert table([row]).splitlines()[-1] == "| x | 1.20 × | 1.20 – 1.25 | ≤ 1.25 × | yes | 1.30 s / 1.00 s |"
