"""A registered member whose protocol this version does not speak: never asked, always named as missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from federation.errors import MemberUnreachable
from federation.model import Accept, Deadline, Delivery, MemberRows, MemberStored, PartEvent, Query, Target
from registry import Site


class UnspokenMember:
    """`federation.model.Member` for a PACS with DIMSE only."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def _refuse(self) -> MemberUnreachable:
        return MemberUnreachable(f"{self.site.emetteur}: speaks DIMSE only, which this version does not")

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        raise self._refuse()

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        raise self._refuse()

    @contextlib.asynccontextmanager
    async def retrieve(self, target: Target, accept: Accept, *, deadline: Deadline) -> AsyncIterator[Delivery]:
        raise self._refuse()
        yield  # type: ignore[unreachable]

    async def store(self, parts: AsyncIterator[Sequence[PartEvent]], study_uid: str | None) -> MemberStored:
        raise self._refuse()

    def link_of(self, uri: str, study_uid: str) -> str | None:
        return None

    async def aclose(self) -> None:
        return
