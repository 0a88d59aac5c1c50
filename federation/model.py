"""The engine's vocabulary: what is asked of members and what comes back. Values and protocols, no I/O."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from federation.errors import MemberError
from registry import Site

#: One DICOM JSON object (PS3.18 Annex F): tag → {"vr": …, "Value": […]}. The currency of search everywhere.
Attributes = dict[str, dict[str, Any]]
#: A piece of a body: relayed by reference, never joined.
Buffer = bytes | bytearray | memoryview
T_co = TypeVar("T_co", covariant=True)


class Level(StrEnum):
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


#: PS3.5 §9.1, leading zeros let through: they exist. Never `.` or `..`, which mean something in a path.
UID_PATTERN = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)*")


class ScopeKind(StrEnum):
    ALL = "all"
    FOLDER = "folder"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class Scope:
    """The sites that a request addresses. `name` is a folder's slug or an EMETTEUR (registry case)."""

    kind: ScopeKind = ScopeKind.ALL
    name: str = ""

    @property
    def wide(self) -> bool:
        return self.kind is not ScopeKind.SITE

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a QIDO-RS or C-FIND request asks, free of either protocol.

    `filters` maps a tag path (`00100010`, `00400275.00400009`) to its value as typed, never empty.
    `include` are tag paths to add, or `include_all`. `limit` None = all.
    """

    level: Level
    scope: Scope
    filters: Mapping[str, str] = field(default_factory=dict)
    include: frozenset[str] = frozenset()
    include_all: bool = False
    fuzzy: bool = False
    limit: int | None = None
    offset: int = 0
    study_uid: str | None = None  # from the path
    series_uid: str | None = None  # from the path

    @property
    def names_uid(self) -> bool:
        return self.study_uid is not None or any(t in self.filters for t in ("0020000D", "0020000E", "00080018"))


class Deadline:
    """A moment on the loop's clock after which an answer no longer counts."""

    __slots__ = ("at",)

    def __init__(self, seconds: float) -> None:
        self.at = asyncio.get_running_loop().time() + seconds

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.at - asyncio.get_running_loop().time())

    def within(self, seconds: float) -> Deadline:
        """This deadline, or one `seconds` from now if that is sooner."""
        other = Deadline(seconds)
        return other if other.at < self.at else self


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRows:
    """A member's answer to a search. `more` = it has rows that it was not asked for or did not give."""

    rows: list[Attributes]
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStored:
    """A member's word on what it was sent: SOPInstanceUID → warning reason (0 = none), → failure reason."""

    stored: Mapping[str, int]
    failed: Mapping[str, int]


class Form(StrEnum):
    """The forms in which pixels and attributes are retrieved (PS3.18 §10.4)."""

    DICOM = "dicom"  # Part-10 instances
    METADATA = "metadata"
    FRAMES = "frames"
    BULKDATA = "bulkdata"
    RENDERED = "rendered"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be retrieved. `frames` are 1-based. `link` is a member's own bulk data reference."""

    study_uid: str
    series_uid: str | None = None
    instance_uid: str | None = None
    form: Form = Form.DICOM
    frames: tuple[int, ...] = ()
    link: str | None = None
    holder: str | None = None  # EMETTEUR whose reference `link` is
    parameters: Mapping[str, str] = field(default_factory=dict)  # of rendered forms

    @property
    def level(self) -> Level:
        if self.instance_uid is not None:
            return Level.INSTANCE
        return Level.SERIES if self.series_uid is not None else Level.STUDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One range of a body, in bytes, both ends included (RFC 9110 §14.1.2): from `first` to `last`, None = to its end;
    without `first`, the last `last` bytes. `only_if` = for as long as it bears this tag, else the whole."""

    first: int | None
    last: int | None
    only_if: str | None = None

    def of(self, total: int) -> range | None:
        """Where it lies in a body of `total` bytes; None: nowhere."""
        if self.first is None:
            return range(max(total - (self.last or 0), 0), total) if self.last else None
        if self.first >= total:
            return None
        return range(self.first, total if self.last is None else min(self.last + 1, total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """What the client can take, best first: (media type, transfer syntax or None) pairs.

    Transfer syntax `*` = as stored. `multipart` False = a single part was asked for. `span` = of bulk data as a single
    part, only these bytes; None = the whole.
    Transfer syntax `*` = as stored. `multipart` False = a single part was asked for. `or_stored` = instances that can't
    be decoded may come as they are stored, since no transfer syntax was named (PS3.18 §8.7.3.5.2).
    """

    choices: tuple[tuple[str, str | None], ...]
    multipart: bool = True
    span: Span | None = None
    or_stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBegin:
    """A new part begins. `location` is what the member calls it: never relayed as it is.

    `length` of the whole in bytes, where it is known and this is the only part. `at` = which of its bytes come, None =
    all.
    """

    content_type: str
    location: str = ""
    length: int | None = None
    at: range | None = None


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


PART_END = PartEnd()
PartEvent = PartBegin | PartEnd | Buffer


class Delivery(Protocol):
    """An open transfer. `events` yields batches in stream order and ends only if the body was complete:
    a body that breaks off raises `MemberError`. `multipart` False = the member sent a single body. `partial` = the
    member itself says that this is not all that there is (206), and no range was asked for. `tag` = a name for these
    very bytes, which says nothing of the member (None = it gives none)."""

    media_type: str
    multipart: bool
    partial: bool
    tag: str | None

    def events(self) -> AsyncIterator[Sequence[PartEvent]]: ...


class Member(Protocol):
    """One connected site. Errors are `MemberError`s."""

    site: Site

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        """At most `limit` rows (offset and page are the engine's business)."""
        ...

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        """`more` = the member itself says that this is not all."""
        ...

    def retrieve(self, target: Target, accept: Accept, *, deadline: Deadline) -> AbstractAsyncContextManager[Delivery]:
        """`deadline` is for the answer's head; the body has an idle limit of the client's own."""
        ...

    async def store(self, parts: AsyncIterator[Sequence[PartEvent]], study_uid: str | None) -> MemberStored:
        """Send Part-10 parts as they come; `study_uid` = all are of this study.

        `parts` is read by the caller's task: what it raises breaks the request off and is raised again, and after a
        `MemberError` it may be read on. Nothing is known to be stored then.
        """
        ...

    def link_of(self, uri: str, study_uid: str) -> str | None:
        """A BulkDataURI of this member's as a reference that `retrieve` takes back, None if it leads elsewhere."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T_co]):
    """One member's answer: its result, or why there is none."""

    site: Site
    result: T_co | MemberError
    elapsed_s: float
