"""`imagora …` under cProfile. SIGUSR1 starts and stops counting; what was counted is written at the end.

Arguments: the file to write, then Imagora's own.
"""

from __future__ import annotations

import cProfile
import signal
import sys
from types import FrameType

from imagora.cli import main as imagora


def main() -> None:
    target = sys.argv.pop(1)
    profile = cProfile.Profile()
    counting = False

    def toggle(_number: int, _frame: FrameType | None) -> None:
        nonlocal counting
        counting = not counting
        if counting:
            profile.enable()
        else:
            profile.disable()

    signal.signal(signal.SIGUSR1, toggle)
    try:
        imagora()
    finally:
        profile.disable()
        profile.dump_stats(target)


if __name__ == "__main__":
    main()
