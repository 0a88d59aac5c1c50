"""One target under libFuzzer, in a process of its own: it ends the process, at a finding and at its time.

Arguments: the target, then libFuzzer's own.
"""

from __future__ import annotations

import logging
import sys

import atheris

#: What is followed: the mutator goes on from inputs that reach new lines of these.
FOLLOWED = ["dicomweb", "federation", "consent"]


def main() -> None:
    logging.disable(logging.CRITICAL)
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=FOLLOWED):
        from imagora_fuzz.targets import load  # noqa: PLC0415  # what it imports is to be followed

        target = load(name)
    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
