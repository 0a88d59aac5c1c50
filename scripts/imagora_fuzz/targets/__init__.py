"""The targets, by name. Each module has `SEEDS`, `WORDS` (tokens for the mutator), `LONGEST` (bytes of an input) and
`check(data)`, which returns, or raises what nobody promised."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: Name → what is fed.
TARGETS = {
    "query": "query strings of searches, and what members are asked for them",
    "accept": "Accept, Accept-Encoding and Content-Type",
    "multipart": "multipart bodies, of members and of stores",
    "store": "instances that come in",
    "part10": "instances that pass: their heads rewritten",
    "tagging": "whose an instance is: tags in it, and in its metadata",
    "members": "answers of members: read, matched, merged, tagged",
    "xml": "data sets written as DICOM XML",
    "names": "names, dates and texts compared",
}


class Target(NamedTuple):
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    longest: int
    check: Callable[[bytes], None]


def load(name: str) -> Target:
    module = importlib.import_module(f"imagora_fuzz.targets.{name}")
    return Target(module.SEEDS, module.WORDS, module.LONGEST, module.check)
