"""What the targets share: how an oracle says that it is broken, and cutting bytes into chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: Sizes of chunks: single bytes, those around the lengths of headers, and those that networks make.
_SIZES = (1, 1, 2, 3, 5, 8, 13, 64, 257, 1460, 8192)


class Broken(AssertionError):
    """A promise of the code under test is not kept. The text says which."""


def expect(kept: object, promise: str) -> None:
    """Raises `Broken` with the promise if it is not kept."""
    if not kept:
        raise Broken(promise)


def chunks(data: bytes, how: int) -> Iterator[bytes]:
    """`data` cut at places that `how` decides: 0 byte by byte, all others at random, alike each time."""
    if how == 0:
        yield from (data[i : i + 1] for i in range(len(data)))
        return
    dice = random.Random(how)
    at = 0
    while at < len(data):
        size = dice.choice(_SIZES)
        yield data[at : at + size]
        at += size


def fields(data: bytes, count: int) -> list[bytes]:
    """Lines of `data`, as many as are asked for: what is missing is empty, what is too much is left out."""
    return [*data.split(b"\n"), *[b""] * count][:count]


def text(data: bytes) -> str:
    """UTF-8 where it is that, Latin-1 else: every text can be reached, and no byte is refused."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
