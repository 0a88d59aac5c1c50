"""The fuzzer itself: its targets hold for their seeds, see what they are there for, and are run."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from imagora_fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: targets lower limits of the code under test."""
    paths = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests"), *filter(None, sys.path)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(dict.fromkeys(paths))}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, env=environment)


def test_every_target_holds_for_its_seeds() -> None:
    run = python("-m", "imagora_fuzz", "--replay")
    assert run.returncode == 0, run.stderr
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == [*TARGETS]


@pytest.mark.parametrize(
    ("target", "sabotage", "promise"),
    [
        (
            "query",
            "from dicomweb.wire import query as q; q.without_escapes = lambda filters: [dict.fromkeys(filters, 'x')]",
            "what is asked without escapes finds what matches",
        ),
        (
            "multipart",
            "from dicomweb.wire.multipart import MultipartReader as R; R._safe_end = lambda self, data, at: len(data)",
            "a body says the same in any chunking",
        ),
        (
            "part10",
            "from federation import part10; part10.apply = lambda head, changes: head.data",
            "what passes is tagged",
        ),
        (
            "tagging",
            "from federation import instance; instance._decode = lambda raw, encodings: '1'",
            "an instance of the study bears an id of the study",
        ),
        (
            "members",
            "from federation import identity; identity.same_person = lambda a, b: True",
            "who is put together is one person by an id, or by all traits",
        ),
    ],
)
def test_a_target_sees_what_it_is_there_for(target: str, sabotage: str, promise: str) -> None:
    work = f"from imagora_fuzz.targets import load\n{sabotage}\nt = load({target!r})\nfor s in t.seeds: t.check(s)"
    run = python("-c", work)
    assert run.returncode == 1
    assert "Broken" in run.stderr
    assert promise in run.stderr


def test_a_run_tells_what_it_did_and_what_it_found(tmp_path: Path) -> None:
    run = python("-m", "imagora_fuzz", "accept", "--minutes", "0.03", "--seed", "1", "--corpus", str(tmp_path))
    if sys.platform != "linux" or platform.machine() != "x86_64":
        assert run.returncode != 0
        assert "atheris" in run.stderr  # there is no package of it
        return
    assert run.returncode == 0, run.stderr
    cells = [cell.strip() for cell in run.stdout.splitlines()[2].split("|")[1:-1]]
    assert cells[0] == "accept"
    assert int(cells[1].replace(",", "")) > 0
    assert cells[-1] == "yes"
    assert (tmp_path / "accept" / "inputs").is_dir()
