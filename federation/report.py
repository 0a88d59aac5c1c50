"""What an answer says about itself: which sources took part, and what else its reader should know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from federation.errors import MemberError, MemberNotFound, SourceStatus
from federation.model import Outcome


@dataclass(slots=True, kw_only=True)
class SourceReport:
    emetteur: str
    status: SourceStatus
    rows: int = 0  # rows that the requester may see
    elapsed_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Report:
    """`notices` are sentences for people, without patient data."""

    sources: dict[str, SourceReport] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def add(self, outcomes: Iterable[Outcome[object]]) -> None:
        """Note how each member did. A member's worst status stands; its times add up."""
        for outcome in outcomes:
            result = outcome.result
            status = result.status if isinstance(result, MemberError) else SourceStatus.OK
            self.note(outcome.site.emetteur, status, outcome.elapsed_s)

    def note(self, emetteur: str, status: SourceStatus, elapsed_s: float = 0.0) -> None:
        standing = self.sources.get(emetteur)
        if standing is None:
            self.sources[emetteur] = SourceReport(emetteur=emetteur, status=status, elapsed_s=elapsed_s)
            return
        standing.elapsed_s += elapsed_s
        if _WEIGHT[status] > _WEIGHT[standing.status]:
            standing.status = status

    def forgive(self, emetteur: str) -> None:
        """It could not give something in the form that was asked for, and that was made from what it gave."""
        standing = self.sources.get(emetteur)
        if standing is not None and standing.status in (SourceStatus.ERROR, SourceStatus.REFUSED):
            standing.status = SourceStatus.OK

    def begun_anew(self) -> Report:
        """The same, of which no row is counted yet."""
        return Report(
            sources={name: replace(source, rows=0) for name, source in self.sources.items()}, notices=[*self.notices]
        )

    @property
    def failed(self) -> list[SourceReport]:
        return [s for s in self.sources.values() if s.status.failed]

    @property
    def capped(self) -> list[SourceReport]:
        return [s for s in self.sources.values() if s.status is SourceStatus.CAPPED]

    @property
    def none_answered(self) -> bool:
        return bool(self.sources) and len(self.failed) == len(self.sources)

    def sentences(self) -> list[str]:
        """All there is to say, missing sources first."""
        said = []
        failed = self.failed
        if failed:
            named = ", ".join(f"{s.emetteur} ({s.status})" for s in failed)
            said.append(f"{len(failed)} of {len(self.sources)} sources did not answer: {named}")
        return [*said, *self.notices]


_WEIGHT = {
    SourceStatus.OK: 0,
    SourceStatus.CAPPED: 1,
    SourceStatus.REFUSED: 2,
    SourceStatus.ERROR: 3,
    SourceStatus.SKIPPED: 4,
    SourceStatus.TIMEOUT: 5,
}


def answered(outcome: Outcome[object]) -> bool:
    """A member that says "I don't have it" has answered."""
    return not isinstance(outcome.result, MemberError) or isinstance(outcome.result, MemberNotFound)
