"""Files without a name: what goes to a process of the pool and comes back from it.

They hold patient data: nobody else can open them, and none is left when this process ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from federation.model import Buffer

_CHUNK = 256 << 10


class Spool:
    """Write an instance into it as it arrives, then give it to the pool, as often as wanted."""

    def __init__(self, directory: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 — closed by `close`
        self.size = 0

    @classmethod
    def of(cls, data: Buffer, directory: Path | None = None) -> Self:
        spool = cls(directory)
        spool.write(data)
        return spool

    def write(self, chunk: Buffer) -> None:
        rest = memoryview(chunk)
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes from `offset` on, a little at a time. EOFError if there are fewer."""
        while length > 0:
            chunk = self.read(offset, min(_CHUNK, length))
            if not chunk:
                raise EOFError("the spool holds less than was announced")
            offset, length = offset + len(chunk), length - len(chunk)
            yield chunk

    def open_to_read(self) -> int:
        """A descriptor of its own, with a position of its own, that can't write."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
