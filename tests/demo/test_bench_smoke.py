"""The benchmark itself, made so small that it says nothing, but says it in full."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from imagora_bench.processes import SCRIPTS
from imagora_bench.ratios import compare, interleave, quartiles, table

#: What the table must hold, and which lines have a target.
LINES = {
    "QIDO, 25 rows over 3 Orthancs, against a bare gather": "≤ 1.3 ×",
    "QIDO, all 36 rows over 3 Orthancs, against a bare gather": "≤ 1.3 ×",
    "QIDO, 10 rows of 2 members, against a bare gather": "≤ 1.25 ×",
    "QIDO, 15 rows of 3 members, against a bare gather": "≤ 1.25 ×",
    "QIDO, 20 rows of 4 members, against a bare gather": "≤ 1.25 ×",
    "QIDO, second page of 150 rows of 3 members, against the first": "≤ 0.2 ×",
    "Study retrieve, 4 CT, 2 MB, re-tagged, against Orthanc directly": "≤ 1.1 ×",
    "Study retrieve, 4 CT, 2 MB, re-tagged, against nginx before Orthanc": "≤ 0.9 ×",
    "nginx before Orthanc, against Orthanc directly": "",
    "Frames, 32 KB, 25 at once, against nginx before Orthanc": "≤ 1.43 ×",
    "Peak memory growth, 24 MiB relayed to a fast client": "≤ 32 MiB",
    "Peak memory growth, 24 MiB relayed to a client that reads 16 MB/s for 0.5 s": "≤ 32 MiB",
    "QIDO, 60 rows, with 20 oppositions, against 0": "≤ 1.05 ×",
    "QIDO, 60 rows, with 60 oppositions, against 0": "≤ 1.05 ×",
    "QIDO, 60 rows, with 60 oppositions, against 20": "≤ 1.05 ×",
    "QIDO, 13 of 60 rows, found by name, against by date": "",
    "QIDO, 13 of 60 rows, found by name, against by UIDs": "",
    "Server with 60 oppositions in memory, a whole process": "≤ 1200 MB",
    "Searches refused (503, Retry-After) while 60 oppositions come at once": "",
    "Frames, 32 KB, 25 at once, bearer token and 20 oppositions against no access control": "≤ 1.05 ×",
    "Study retrieve, 2 MB, bearer token and 20 oppositions against no access control": "≤ 1.05 ×",
}


@pytest.mark.slow
def test_every_measurement_is_made_and_told(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    # Chromium puts a socket into it, whose path must be short.
    temporary = Path(tempfile.mkdtemp(prefix="smoke-", dir="/tmp"))
    sizes = ["--rounds", "1", "--studies", "12", "--instances", "4", "--relay-mb", "24", "--slow-s", "0.5"]
    sizes += ["--rows", "60", "--oppositions", "20", "60", "--frames", "10"]
    sizes += ["--members", "2", "3", "4"]
    # Without `clients` and `ohif`, which take longest: what they say is looked at when they are run.
    parts = ["search", "scale", "study", "frames", "memory", "oppositions", "access"]
    run = subprocess.run(
        [sys.executable, "-m", "imagora_bench", "--json", str(written), *sizes, *parts],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/bin", "PYTHONPATH": str(SCRIPTS), "TMPDIR": str(temporary)},
    )
    assert run.returncode == 0, run.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]
    assert {cells[0]: cells[3] for cells in lines[2:]} == LINES
    assert all(cells[4] in ("yes", "no") for cells in lines[2:] if cells[3])
    for fact in ("Processor", "Kernel", "Python", "Orthanc", "nginx"):
        assert f"- {fact}: " in run.stdout
    told = json.loads(written.read_text(encoding="utf-8"))
    assert [row["what"] for row in told["rows"]] == [*LINES]
    assert not list(temporary.glob("imagora-bench-*"))
    shutil.rmtree(temporary)


def test_interleave_alternates_and_leaves_the_first_round_out() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert "".join(order) == "abbaab"
    assert seconds == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_comparison_takes_ratios_within_a_round() -> None:
    # The machine was ten times slower in the second round, for both.
    row = compare("x", [1.2, 12.0, 1.3], [1.0, 10.0, 1.0], most=1.25)
    assert (row.value, row.met) == ("1.20 ×", True)
    assert quartiles([1.0]) == (1.0, 1.0, 1.0)
    assert table([row]).splitlines()[-1] == "| x | 1.20 × | 1.20 – 1.25 | ≤ 1.25 × | yes | 1.30 s / 1.00 s |"
