"""Which members hold a study, as whose, and what each of them has of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from federation.copies import Copies
from federation.errors import MemberError, MemberNotFound
from federation.identity import Identity, Naming, record_of, text_of
from federation.members import Members
from federation.merge import Hit, merge
from federation.metadata_cache import MetadataCache
from federation.model import Attributes, Deadline, Level, Member, MemberRows, Outcome, Query, Scope
from federation.report import Report
from registry import Site

#: How long a member's word about a study is believed, in seconds. Its silence is no word: who can wait asks again.
PRESENT_S = 300.0
ABSENT_S = 20.0
SILENT_S = 5.0
#: Study UIDs in one question to a member: keeps its URL under 4 KB.
BATCH = 50
#: Such questions to one member at a time: a common name finds thousands of studies.
_BATCHES_AT_ONCE = 4
#: More instances than any study has; a member that stops earlier is asked for the rest.
INSTANCES_MAX = 100_000
_CACHE_MAX = 50_000
_INVENTORY_MAX = 500

#: What is asked of a study beyond the standard's return keys, to know whose it is.
IDENTITY_TAGS = frozenset(
    {"00100010", "00100020", "00100021", "00100024", "00100030", "00100040", "00080050", "00080082", "00101002"}
)

#: Instance UID → series UID, of one holder, by InstanceNumber.
Contents = dict[str, str]
#: Study UID and what is remembered of it → may it be used?
MayRemember = Callable[[str, Callable[[], Sequence[Identity]]], bool]


@dataclass(slots=True, kw_only=True)
class Location:
    """Where a study is. `identities` of different people stay apart. `silent` members may hold it too."""

    study_uid: str
    identities: list[Identity]
    hits: list[Hit]
    report: Report

    @property
    def silent(self) -> set[str]:
        return {s.emetteur for s in self.report.failed}


class Told(NamedTuple):
    """How a question about some studies ended."""

    study_uids: frozenset[str]
    outcome: Outcome[list[Hit]]


@dataclass(slots=True)
class _Entry:
    """A member's last word about a study: what it holds, or how it failed to say."""

    expires: float
    word: tuple[Hit, ...] | MemberError


@dataclass(slots=True)
class _Question:
    """One question to one member under way, and how many requests wait for its answer."""

    task: asyncio.Task[Outcome[list[Hit]]]
    waiting: int = 0


@dataclass(slots=True)
class Inventory:
    """Contents by EMETTEUR. `silent` holders could not be asked."""

    contents: dict[str, Contents]
    report: Report = field(default_factory=Report)

    def union(self) -> Contents:
        return {sop: series for contents in self.contents.values() for sop, series in contents.items()}


class Locator:
    """Remembers for minutes who said to hold what; asks those whose word is missing. Requests under way are shared."""

    def __init__(self, members: Members, naming: Naming, copies: Copies) -> None:
        self._members = members
        self._naming = naming
        self._copies = copies
        self._known: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._under_way: dict[tuple[str, str], _Question] = {}
        self._inventories: OrderedDict[tuple[str, str], tuple[float, Contents]] = OrderedDict()
        self.metadata = MetadataCache()
        copies.heard_of = lambda copy: self._found(copy.emetteur, copy.study_uid)

    def forget(self) -> None:
        """The registry changed: what was known of origins may be wrong."""
        self._known.clear()
        self._inventories.clear()
        self.metadata.clear()

    def disbelieve(self, site: Site, study_uid: str) -> None:
        """A member that was said to hold a study does not give it."""
        self._known.pop((site.emetteur, study_uid), None)
        self._inventories.pop((site.emetteur, study_uid), None)
        self.metadata.forget(site, study_uid)

    def learn(self, site: Site, study_uid: str, hits: Sequence[Hit]) -> None:
        """A search told what a member holds."""
        self._put((site.emetteur, study_uid), _Entry(time.monotonic() + PRESENT_S, tuple(hits)))

    def found(self, site: Site, study_uid: str) -> None:
        """A search found at a member what it said that it does not hold: whose the study is may rest on this holder.
        What another process found is told by `Copies`."""
        self._found(site.emetteur, study_uid)

    def _found(self, emetteur: str, study_uid: str) -> None:
        entry = self._known.get((emetteur, study_uid))
        if entry is not None and entry.word == ():
            del self._known[(emetteur, study_uid)]

    def _put(self, key: tuple[str, str], entry: _Entry) -> None:
        self._known[key] = entry
        self._known.move_to_end(key)
        while len(self._known) > _CACHE_MAX:
            self._known.popitem(last=False)

    def _recall(self, site: Site, study_uid: str) -> tuple[Hit, ...] | None:
        entry = self._known.get((site.emetteur, study_uid))
        if entry is None or isinstance(entry.word, MemberError) or entry.expires <= time.monotonic():
            return None
        return entry.word

    async def locate(
        self, sites: Sequence[Site], study_uid: str, may: MayRemember, *, hurried: bool = False
    ) -> Location:
        """Ask every site whose word is missing. The answer is complete only if none was silent.

        What is remembered counts only where it shows a study that `may` be remembered for this requester; else every
        site is asked anew, as for a study that nobody has.

        `hurried` is for the hundreds of frames of a study that was located a moment ago: last words count even when
        they are due to be asked again, which then happens aside. A member that hangs must not hold each frame up.
        """
        now = time.monotonic()
        held = [hit for site in sites for hit in self._recall(site, study_uid) or ()]
        unheard = {site.emetteur for site in sites if self._recall(site, study_uid) is None}
        if not held or not may(study_uid, lambda: self._identities(sites, study_uid, held, unheard)):
            outcomes = await asyncio.gather(*(self._asked(site, study_uid) for site in sites))
        elif hurried:
            outcomes = await asyncio.gather(*(self._last_word(site, study_uid, now) for site in sites))
        else:
            outcomes = await asyncio.gather(*(self._one(site, study_uid) for site in sites))
        report = Report()
        report.add(outcomes)
        hits = [h for o in outcomes if not isinstance(o.result, MemberError) for h in o.result]
        identities = self._identities(sites, study_uid, hits, {s.emetteur for s in report.failed})
        for identity in identities:
            self._copies.learn(study_uid, identity)
        return Location(study_uid=study_uid, identities=identities, hits=hits, report=report)

    def _identities(
        self, sites: Sequence[Site], study_uid: str, hits: Sequence[Hit], silent: set[str]
    ) -> list[Identity]:
        heard = {s.emetteur for s in sites} - silent
        directory = self._members.directory()
        known = self._copies.absent(study_uid, [h.record for h in hits], heard, directory, self._naming.long_ids)
        return [m.identity for m in merge(Level.STUDY, hits, directory, {study_uid: known})]

    async def _last_word(self, site: Site, study_uid: str, now: float) -> Outcome[list[Hit]]:
        entry = self._known.get((site.emetteur, study_uid))
        if entry is None:
            return await self._one(site, study_uid)
        if entry.expires <= now and (site.emetteur, study_uid) not in self._under_way:
            self._question(site, study_uid).waiting += 1  # nobody waits for it, and nobody's leaving ends it
        word = entry.word
        return Outcome(site=site, result=word if isinstance(word, MemberError) else list(word), elapsed_s=0.0)

    async def _one(self, site: Site, study_uid: str) -> Outcome[list[Hit]]:
        recalled = self._recall(site, study_uid)
        if recalled is not None:
            return Outcome(site=site, result=list(recalled), elapsed_s=0.0)
        return await self._asked(site, study_uid)

    async def _asked(self, site: Site, study_uid: str) -> Outcome[list[Hit]]:
        question = self._question(site, study_uid)
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)
        finally:
            question.waiting -= 1
            if not question.waiting and not question.task.done():  # every client that asked has left
                self._answered((site.emetteur, study_uid), question.task)
                question.task.cancel()

    def _question(self, site: Site, study_uid: str) -> _Question:
        """The question under way, asked now if there is none."""
        key = (site.emetteur, study_uid)
        question = self._under_way.get(key)
        if question is None:
            question = self._under_way[key] = _Question(asyncio.ensure_future(self._ask_one(site, study_uid)))
            question.task.add_done_callback(lambda task: self._answered(key, task))
        return question

    def _answered(self, key: tuple[str, str], task: asyncio.Task[Outcome[list[Hit]]]) -> None:
        question = self._under_way.get(key)
        if question is not None and question.task is task:
            del self._under_way[key]

    async def _ask_one(self, site: Site, study_uid: str) -> Outcome[list[Hit]]:
        outcome = (await self._ask([site], [study_uid]))[0]
        if isinstance(outcome.result, MemberNotFound):  # some members say 404 for "no match"
            outcome = Outcome(site=site, result=[], elapsed_s=outcome.elapsed_s)
        word = outcome.result
        if isinstance(word, MemberError):
            entry = _Entry(time.monotonic() + SILENT_S, word)
        else:
            entry = _Entry(time.monotonic() + (PRESENT_S if word else ABSENT_S), tuple(word))
        self._put((site.emetteur, study_uid), entry)
        return outcome

    async def complete(
        self, wanted: dict[str, tuple[Site, list[str]]], *, at_once: int = BATCH
    ) -> tuple[list[Hit], list[Told]]:
        """Ask each site about the studies listed for it (EMETTEUR → (site, study UIDs)), in batches of `at_once`.

        → (what they hold of them, how each question ended). A batch's silence about a study is not remembered:
        some members don't understand lists.
        """
        found: list[Hit] = []
        questions: list[tuple[Site, list[str]]] = []
        for site, uids in wanted.values():
            unknown = []
            for uid in uids:
                recalled = self._recall(site, uid)
                if recalled is None:
                    unknown.append(uid)
                else:
                    found.extend(recalled)
            questions += [(site, unknown[i : i + at_once]) for i in range(0, len(unknown), at_once)]
        limits = {site.emetteur: asyncio.Semaphore(_BATCHES_AT_ONCE) for site, _ in questions}

        async def ask(site: Site, uids: list[str]) -> list[Outcome[list[Hit]]]:
            async with limits[site.emetteur]:  # its deadline begins here, not while others are before it
                return await self._ask([site], uids)

        answers = await asyncio.gather(*(ask(site, uids) for site, uids in questions))
        told = [Told(frozenset(uids), answer[0]) for (_, uids), answer in zip(questions, answers, strict=True)]
        for _, outcome in told:
            if isinstance(outcome.result, MemberError):
                continue
            by_study: dict[str, list[Hit]] = {}
            for hit in outcome.result:
                by_study.setdefault(hit.study_uid, []).append(hit)
            for uid, hits in by_study.items():
                self.learn(outcome.site, uid, hits)
            found.extend(outcome.result)
        return [replace(hit, matched=False) for hit in found], told

    async def _ask(self, sites: Sequence[Site], study_uids: Sequence[str]) -> list[Outcome[list[Hit]]]:
        query = Query(
            level=Level.STUDY, scope=Scope(), filters={"0020000D": ",".join(study_uids)}, include=IDENTITY_TAGS
        )
        wanted = set(study_uids)

        async def call(member: Member, deadline: Deadline) -> list[Hit]:
            answer = await member.search(query, limit=4 * len(wanted) + 16, deadline=deadline)
            return self.hits(member.site, answer, wanted)

        return await self._members.ask(sites, "locate", call)

    def hits(self, site: Site, answer: MemberRows, wanted: set[str]) -> list[Hit]:
        directory = self._members.directory()
        return [
            Hit(
                record=record_of(row, site, directory, long_ids=self._naming.long_ids),
                row=row,
                study_uid=uid,
            )
            for row in answer.rows
            if (uid := text_of(row, "0020000D")) in wanted
        ]

    async def inventory(self, study_uid: str, holders: Iterable[Site]) -> Inventory:
        """Every instance that each holder has of a study."""
        contents: dict[str, Contents] = {}
        unknown: list[Site] = []
        for site in holders:
            entry = self._inventories.get((site.emetteur, study_uid))
            if entry is not None and entry[0] > time.monotonic():
                contents[site.emetteur] = entry[1]
            else:
                unknown.append(site)
        query = Query(level=Level.INSTANCE, scope=Scope(), study_uid=study_uid)

        async def call(member: Member, deadline: Deadline) -> Contents:
            answer = await member.search(query, limit=INSTANCES_MAX, deadline=deadline)
            rows = sorted(answer.rows, key=_place_in_series)
            return {sop: text_of(row, "0020000E") for row in rows if (sop := text_of(row, "00080018"))}

        outcomes = await self._members.ask(unknown, "inventory", call)
        report = Report()
        report.add(outcomes)
        for outcome in outcomes:
            if not isinstance(outcome.result, MemberError):
                contents[outcome.site.emetteur] = outcome.result
                self._inventories[(outcome.site.emetteur, study_uid)] = (
                    time.monotonic() + ABSENT_S,
                    outcome.result,
                )
        while len(self._inventories) > _INVENTORY_MAX:
            self._inventories.popitem(last=False)
        return Inventory(contents=contents, report=report)


def _place_in_series(row: Attributes) -> tuple[float, str]:
    """By InstanceNumber, so that the middle image is the middle one in whatever order a member tells them."""
    number = text_of(row, "00200013")
    return (float(number) if number.isdecimal() else math.inf, text_of(row, "00080018"))
