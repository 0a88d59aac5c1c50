"""The soak itself, so short that it proves little, but says all that it is to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from imagora_soak.rest import DESCRIPTORS, MEMORY_MB, TASKS, Held

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_soak_holds_and_tells_what_became_of_every_request(tmp_path: Path) -> None:
    paths = ":".join(map(str, (ROOT, ROOT / "scripts", ROOT / "tests")))
    sizes = [
        "--minutes",
        "0.05",
        "--clients",
        "4",
        "--studies",
        "1",
        "--instances",
        "2",
        "--rest-s",
        "2",
        "--without",
        "stuck",
        "--without",
        "silent",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "imagora_soak", *sizes],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/bin", "PYTHONPATH": paths},
    )
    told = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]
    assert run.stdout.splitlines()[-1] == "holds", run.stderr
    assert run.returncode == 0
    assert sum(int(cells[2].replace(",", "")) for cells in told[2:-1]) == int(told[-1][2].replace(",", "")) > 0
    assert not [cells for cells in told if cells[1] in ("wrong", "no answer")]
    assert "rows in" in run.stderr  # what `traces verify` says


def test_what_is_held_beyond_the_first_rest_is_told() -> None:
    before = Held(memory=100 << 20, descriptors=20, tasks=10, under_way=0, children=2)
    assert before.beyond(before) == before.grown(before) == []
    most = Held(memory=(100 + MEMORY_MB) << 20, descriptors=20 + DESCRIPTORS, tasks=10 + TASKS, under_way=0, children=2)
    assert most.beyond(before) == most.grown(before) == []
    more = Held(memory=(101 + MEMORY_MB) << 20, descriptors=21 + DESCRIPTORS, tasks=11 + TASKS, under_way=1, children=2)
    assert len(more.beyond(before)) == 3
    assert len(more.grown(before)) == 1
