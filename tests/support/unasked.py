"""What the stand-ins for members share whose tests look at searches only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from federation.model import Accept, Deadline, Delivery, MemberStored, PartEvent, Target


class OnlySearched:
    """The rest of `federation.members.MemberClient`: a test in which it is asked for fails."""

    @contextlib.asynccontextmanager
    async def retrieve(self, target: Target, accept: Accept, *, deadline: Deadline) -> AsyncIterator[Delivery]:
        raise AssertionError("nothing is to be retrieved in this test")
        yield  # type: ignore[unreachable]  # that makes it a generator

    async def store(self, parts: AsyncIterator[Sequence[PartEvent]], study_uid: str | None) -> MemberStored:
        raise AssertionError("nothing is to be stored in this test")

    def link_of(self, uri: str, study_uid: str) -> str | None:
        return None

    async def aclose(self) -> None:
        return
