"""Answers under way, so that what must not be shown any more is broken off, whoever reads it how slowly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from consent import Requester
from federation.errors import Withdrawn
from federation.identity import Identity

_log = logging.getLogger(__name__)

#: (StudyInstanceUID, whose it is there) of all that an answer tells of.
Exams = Iterable[tuple[str, Identity]]


@dataclass(eq=False, slots=True)
class _UnderWay:
    requester: Requester
    exams: Callable[[], Exams]
    limit: asyncio.Timeout
    withdrawn: bool = False

    def cut(self) -> None:
        """Break it off, whatever it waits for."""
        if not self.withdrawn:
            self.withdrawn = True
            self.limit.reschedule(asyncio.get_running_loop().time())


class Transfers:
    def __init__(self, permits: Callable[[Requester, str, Identity], bool]) -> None:
        self._permits = permits
        self._under_way: set[_UnderWay] = set()

    @contextlib.asynccontextmanager
    async def begin(self, requester: Requester, exams: Callable[[], Exams]) -> AsyncIterator[None]:
        """Inside, what must not go on is broken off within a second. Raises `Withdrawn` then.

        `exams` = what is, or may be, in it: more may turn up.
        """
        mine: _UnderWay | None = None
        try:
            async with asyncio.timeout(None) as limit:
                mine = _UnderWay(requester, exams, limit)
                self._under_way.add(mine)
                try:
                    yield
                finally:
                    self._under_way.discard(mine)
        except TimeoutError:
            if mine is None or not mine.withdrawn:
                raise
            raise Withdrawn("it must not be shown any more") from None

    def review(self) -> None:
        """Something changed: cut what may not be seen any more."""
        for mine in [*self._under_way]:
            try:
                goes_on = all(self._permits(mine.requester, study_uid, i) for study_uid, i in mine.exams())
            except Exception as error:  # of one, which must not save the others
                _log.error("a transfer could not be reviewed and is cut: %s", type(error).__name__)
                goes_on = False
            if not goes_on:
                mine.cut()
