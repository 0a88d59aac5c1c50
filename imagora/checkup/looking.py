"""Which exam a check may read an instance of: one that is hidden from nobody, and only once that is traced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from consent import Access, EventKind, Requester, Unavailable
from consent.book import Book
from consent.heads import HeadFile, load_or_make_keys
from consent.journal import Journal
from consent.keeper import Keeper
from consent.policy import Rules
from consent.reading import BookReader
from federation.gate import Gate
from federation.identity import Identity, Naming, record_of, text_of
from federation.model import Attributes, Scope, ScopeKind
from imagora.checkup.asking import STUDY_UID
from imagora.naming import naming_of
from imagora.settings import Settings
from registry import Directory, Site
from registry.database import Database
from registry.store import RegistryStore
from registry.watch import RegistryCache

#: Of a study, by the member's row of it. True: its access is traced, durably.
MayRead = Callable[[Attributes], Awaitable[bool]]
#: Who checks by himself, on a schedule.
SERVER = Requester(id="imagora:check", name="imagora: scheduled check")


class Looking:
    """What `requester`, who works at no site, may read of members to check them."""

    def __init__(
        self, gate: Gate, naming: Naming, directory: Callable[[], Directory], requester: Requester = SERVER
    ) -> None:
        self._gate = gate
        self._naming = naming
        self._directory = directory
        self._requester = requester

    def at(self, site: Site) -> MayRead:
        async def may_read(row: Attributes) -> bool:
            record = record_of(row, site, self._directory(), long_ids=self._naming.long_ids)
            identity, study_uid = Identity(records=(record,)), text_of(row, STUDY_UID)
            try:
                await self._gate.confirm()
                if not self._gate.permits(self._requester, study_uid, identity):
                    return False
                scope = Scope(ScopeKind.SITE, site.emetteur)
                await self._gate.trace_access(
                    EventKind.ACCESSED, self._requester, scope, study_uid, identity, (site,), "check"
                )
            except Unavailable:
                return False
            return True

        return may_read


@asynccontextmanager
async def open_looking(
    settings: Settings, database: Database, store: RegistryStore, requester: Requester
) -> AsyncIterator[Looking]:
    """For a command. Raises `KeyProblem`, `DatabaseError`."""
    book = Book()
    keys, heads = load_or_make_keys(settings.trace_key_path), HeadFile(settings.heads_path)
    journal = Journal(database)
    naming = naming_of(settings)
    async with (
        RegistryCache(store, (BookReader(book),)) as registry,
        # Entered before the journal, so that it signs the journal's rows after they are written.
        Keeper(database, journal, keys, heads, retention_months=settings.traces.retention_months),
        journal,
    ):
        gate = Gate(Access(Rules(book), journal.write, registry), naming)
        yield Looking(gate, naming, lambda: registry.directory, requester)
        await gate.aclose()
