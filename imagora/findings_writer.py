"""Writes down what deciding brought to light: near matches into the correspondents' queue, studies to oppositions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Self

from consent.findings import Findings
from consent.model import NearMatch
from consent.oppositions import OppositionStore
from registry.database import Database, DatabaseError, DatabaseUnavailable

_log = logging.getLogger(__name__)

#: What comes meanwhile is written together; after a failure, how long to wait.
_GATHER_S = 0.1
_RETRY_S = 2.0


class FindingsWriter:
    """Runs in every process that serves, as an asynchronous context. On leaving, what is left is written if it can be;
    what cannot is found again, because the exams are."""

    def __init__(self, database: Database, findings: Findings) -> None:
        self._store = OppositionStore(database)
        self._findings = findings
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._findings.wake = self._wake.set
        self._task = asyncio.create_task(self._run(), name="findings-writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            await self._write()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_GATHER_S if await self._write() else _RETRY_S)

    async def _write(self) -> bool:
        near, bound = self._findings.take_near(), self._findings.take_bound()
        try:
            await self._store.note_near_matches(near)
            for opposition, study_uids in bound.items():
                await self._store.bind_studies(opposition, study_uids)
        except DatabaseUnavailable as error:
            _log.warning("near matches could not be queued yet: %s", error)
            self._findings.put_back(near, bound)
            self._wake.set()
            return False
        except DatabaseError:
            await self._one_by_one(near, bound)
        return True

    async def _one_by_one(self, near: Sequence[NearMatch], bound: Mapping[int, Sequence[str]]) -> None:
        """One that the database refuses must not hold up the others. Its exams stay withheld."""
        for match in near:
            try:
                await self._store.note_near_matches([match])
            except DatabaseError as error:
                _log.error("a near match of opposition %d cannot be queued: %s", match.opposition, error)
        for opposition, study_uids in bound.items():
            try:
                await self._store.bind_studies(opposition, study_uids)
            except DatabaseError as error:
                _log.error("studies of opposition %d cannot be bound: %s", opposition, error)
