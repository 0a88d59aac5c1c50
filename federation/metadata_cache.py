"""Members' metadata of a study or series, kept for half a minute, compressed; and questions under way, asked once.

What is kept is what the member said, before anything was decided or tagged: each answer is made from it anew. A change
of rules drops all of it, so that nothing of an exam that is opposed stays.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from federation.errors import MemberError
from federation.model import MemberRows, Outcome, Target
from registry import Site

KEPT_S = 30.0
BYTES_MAX = 64 << 20
#: Compressing more than this at once would hold the loop up: it is done in pieces, with pauses.
_PIECE = 1 << 18

Key = tuple[str, str, str, str]
Ask = Callable[[], Awaitable[Outcome[MemberRows]]]


@dataclass(slots=True)
class _Kept:
    packed: bytes
    until: float


class MetadataCache:
    def __init__(
        self, *, bytes_max: int = BYTES_MAX, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bytes_max = bytes_max
        self._kept_s = kept_s
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._generation = 0
        self._under_way: dict[Key, asyncio.Task[tuple[Outcome[MemberRows], bytes | None]]] = {}
        self._waiting: dict[Key, int] = {}

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def clear(self) -> None:
        """The rules changed. What is under way is not kept either."""
        self._kept.clear()
        self._bytes = 0
        self._generation += 1
        self._under_way.clear()
        self._waiting.clear()

    def forget(self, site: Site, study_uid: str) -> None:
        """A member was given more of a study, or does not give what it was said to hold."""
        for key in [k for k in self._kept if k[:2] == (site.emetteur, study_uid)]:
            self._drop(key)

    async def get(self, site: Site, target: Target, ask: Ask) -> Outcome[MemberRows]:
        """The member's answer, its rows the caller's own to change. Failures are shared while under way, never kept."""
        key = (site.emetteur, target.study_uid, target.series_uid or "", target.instance_uid or "")
        kept = self._kept.get(key)
        if kept is not None and kept.until > self._clock():
            self._kept.move_to_end(key)
            return Outcome(site=site, result=MemberRows(rows=_unpacked(kept.packed)), elapsed_s=0.0)
        self._drop(key)
        task = self._under_way.get(key)
        first = task is None
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(self._ask(key, ask, self._generation))
            task.add_done_callback(lambda done: self._ended(key, done))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            outcome, packed = await asyncio.shield(task)
        finally:
            self._left(key, task)
        result = outcome.result
        if first or packed is None or isinstance(result, MemberError):
            return outcome
        rows = MemberRows(rows=_unpacked(packed), more=result.more)
        return Outcome(site=site, result=rows, elapsed_s=outcome.elapsed_s)

    async def _ask(self, key: Key, ask: Ask, generation: int) -> tuple[Outcome[MemberRows], bytes | None]:
        outcome = await ask()
        if isinstance(outcome.result, MemberError):
            return outcome, None
        packed = await _packed(orjson.dumps(outcome.result.rows))
        if generation == self._generation and not outcome.result.more:
            self._keep(key, packed)
        return outcome, packed

    def _left(self, key: Key, task: asyncio.Task[tuple[Outcome[MemberRows], bytes | None]]) -> None:
        if self._under_way.get(key) is not task:
            return
        self._waiting[key] -= 1
        if not self._waiting[key] and not task.done():  # every client that asked has left
            self._ended(key, task)
            task.cancel()

    def _ended(self, key: Key, task: asyncio.Task[tuple[Outcome[MemberRows], bytes | None]]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
            self._waiting.pop(key, None)

    def _keep(self, key: Key, packed: bytes) -> None:
        self._drop(key)
        while self._kept and self._bytes + len(packed) > self._bytes_max:
            self._drop(next(iter(self._kept)))
        if len(packed) <= self._bytes_max:
            self._kept[key] = _Kept(packed, self._clock() + self._kept_s)
            self._bytes += len(packed)

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.packed)


async def _packed(raw: bytes) -> bytes:
    compressor = zlib.compressobj(1)
    out = []
    for at in range(0, len(raw), _PIECE):
        out.append(compressor.compress(raw[at : at + _PIECE]))
        await asyncio.sleep(0)
    return b"".join([*out, compressor.flush()])


def _unpacked(packed: bytes) -> list[dict[str, dict[str, object]]]:
    rows: list[dict[str, dict[str, object]]] = orjson.loads(zlib.decompress(packed))
    return rows
