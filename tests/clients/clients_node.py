"""Node.js for tests: the machine's, or the one that `scripts/setup` brought."""

from __future__ import annotations

import shutil
from pathlib import Path

OURS = Path(__file__).parents[2] / "state" / "tools" / "node" / "bin" / "node"


def node() -> str:
    """Raises `AssertionError` that says what to do where there is none."""
    found = shutil.which("node") or (str(OURS) if OURS.is_file() else None)
    assert found is not None, "There is no Node.js: run scripts/setup --tests"
    return found
