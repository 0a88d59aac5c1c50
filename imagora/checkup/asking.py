"""Questions to a member that is examined, and what is noted of its answers."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dicomweb.probe import Page, ProbedMember, TooManyQuestions, reason
from federation.errors import MemberError, MemberRefused, MemberTimeout, MemberUnreachable
from federation.locate import IDENTITY_TAGS
from federation.model import Deadline
from imagora.credentials import variable_stem
from registry import Quirks, Site
from registry.profiles import Feature, Profile, quirks_of

STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
NAME, PATIENT_ID, DATE, TIME = "00100010", "00100020", "00080020", "00080030"
MODALITIES, INSTANCES = "00080061", "00201208"
#: What tells whose an exam is, too: an instance is read only of one that may be shown.
ASKED = (DATE, TIME, MODALITIES, INSTANCES, *sorted(IDENTITY_TAGS))
#: Rows asked for at once; one more is read, to see whether there are too many.
ROWS = 3
#: After so many answers that did not come in time the member is left alone.
_TIMEOUTS = 3


class Result(StrEnum):
    OK = "ok"
    LIMIT = "limit"  # not as it should be, but Imagora gets along with it
    FAILED = "failed"  # the member cannot be used
    UNKNOWN = "unknown"  # could not be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried, and in words for people what came of it."""

    topic: str
    result: Result
    text: str
    elapsed_s: float | None = None


@dataclass(slots=True)
class Checkup:
    """What was found out about a member. `answered` False = nothing was learnt."""

    site: Site
    findings: list[Finding] = field(default_factory=list)
    answered: bool = False
    features: dict[Feature, bool] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)  # of answers to searches
    bytes_per_s: float | None = None
    ended_at: datetime | None = None

    @property
    def quirks(self) -> Quirks | None:
        return quirks_of(self.features) if self.answered else None

    @property
    def profile(self) -> Profile:
        return Profile(
            emetteur=self.site.emetteur,
            name=self.site.name,
            usable=self.usable,
            features=dict(self.features),
            latency_s=statistics.median(self.latencies_s) if self.latencies_s else None,
            bytes_per_s=self.bytes_per_s,
            checked_at=self.ended_at,
        )

    def know(self, feature: Feature, value: bool | None) -> None:
        """None: it could not be told, so what was thought before does not count either."""
        self.features.pop(feature, None)
        if value is not None:
            self.features[feature] = value

    @property
    def usable(self) -> bool:
        return all(f.result is not Result.FAILED for f in self.findings)

    @property
    def verdict(self) -> str:
        if not self.usable:
            return "not usable"
        return "usable, with limits" if any(f.result is Result.LIMIT for f in self.findings) else "usable"

    def note(self, topic: str, result: Result, text: str, elapsed_s: float | None = None) -> None:
        self.findings.append(Finding(topic=topic, result=result, text=text, elapsed_s=elapsed_s))


#: What says nothing of what a member can do.
SILENCE = (MemberTimeout, MemberUnreachable, MemberRefused)


class LeftAlone(Exception):
    """It keeps not answering: more questions would only take time."""


class Asking:
    """What the parts of an examination share: questions with their deadline, and what to do when they fail."""

    def __init__(self, member: ProbedMember, deadline_s: float, checkup: Checkup) -> None:
        self.member = member
        self.deadline_s = deadline_s
        self.checkup = checkup
        self._timeouts = 0

    async def page(
        self,
        path: str,
        filters: Mapping[str, str],
        *,
        include: Sequence[str] = (),
        limit: int = ROWS,
        offset: int = 0,
        most: int = ROWS + 1,
        encoded: str = "",
    ) -> Page:
        page = await self.member.page(
            path,
            filters,
            include=include,
            limit=limit,
            offset=offset,
            most=most,
            deadline=Deadline(self.deadline_s),
            encoded=encoded,
        )
        self.checkup.latencies_s.append(page.elapsed_s)
        return page

    @contextlib.asynccontextmanager
    async def about(
        self, topic: str, otherwise: Result, consequence: str = "", feature: Feature | None = None
    ) -> AsyncIterator[None]:
        """A `MemberError` inside becomes a finding, with what it means for people.

        An answer that refuses tells that the member lacks `feature`; silence tells nothing.
        """
        try:
            yield
        except TooManyQuestions:
            self.checkup.note("examination", Result.UNKNOWN, "ended early: it took too many questions")
            raise LeftAlone from None
        except MemberError as error:
            why = self.why(error)
            if feature is not None:
                self.checkup.know(feature, None if isinstance(error, SILENCE) else False)
            self.checkup.note(topic, otherwise, f"{why}; {consequence}" if consequence else why)
            if isinstance(error, MemberTimeout):
                self._timeouts += 1
                if self._timeouts >= _TIMEOUTS:
                    self.checkup.note("examination", Result.FAILED, "given up: it keeps not answering in time")
                    raise LeftAlone from None

    def why(self, error: MemberError) -> str:
        name = self.member.site.emetteur
        text = reason(error).removeprefix(f"{name}: ")
        if isinstance(error, MemberTimeout):
            return f"no answer within {self.deadline_s:g} s"
        if isinstance(error, MemberRefused):
            return f"it refuses us ({text}): are {variable_stem(name)}_USER and _PASSWORD, or _TOKEN, right?"
        return text
