"""The whole engine in process, over hospitals that a test describes: no HTTP, no database, a clock of its own."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import selectors
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import slow_region as slow
from slow_region import PEOPLE, Habits, Held, Region, Who
from support.unasked import OnlySearched
from support.values import BLOIS, DIRECTORY, ORLEANS, ROMORANTIN, TOURS

from consent import Access, Event, Requester, Unavailable, utc_now
from consent.book import Book, Emergency, Opposition
from consent.policy import Rules
from consent.traits import Traits
from federation.copies import Copies
from federation.errors import Conflict, MemberFault, MemberNotFound, MemberUnreachable, RequestError
from federation.gate import Gate
from federation.identity import Naming
from federation.locate import Locator
from federation.members import Members
from federation.model import (
    Attributes,
    Deadline,
    Form,
    Level,
    MemberRows,
    Query,
    Scope,
    ScopeKind,
    Target,
)
from federation.report import Report
from federation.retrieve import Retriever
from federation.search import Searcher, SearchOptions
from federation.tagging import element
from registry import Site

assert [s.emetteur for s in (ROMORANTIN, BLOIS, TOURS, ORLEANS)] == [*slow.SITES]
#: The assigning authority of the INS, and those of our rows' UIDs.
INS_OID = "1.2.250.1.213.1.4.8"
UID_OF = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}


class EagerLoop(asyncio.SelectorEventLoop):
    """Where all would wait for a time to come, it comes at once."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return super().time() + self._ahead

    def skip(self, seconds: float) -> None:
        self._ahead += seconds


class _Skipping(selectors.SelectSelector):
    def __init__(self, loop: EagerLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._loop.skip(timeout)
        return ready


# A hospital -----------------------------------------------------------------------------------------------------


class Hospital(OnlySearched):
    """`federation.members.MemberClient` as a test describes it. It matches to the letter, or not at all."""

    def __init__(self, site: Site, region: Region, questions: Counter[str]) -> None:
        self.site = site
        self._questions = questions
        self._habits = region.habits_of(site.emetteur)
        held = [c for c in region.held if c.site == site.emetteur]
        self._held = held[::-1] if self._habits.backwards else held

    def _answers(self, *, names_study: bool) -> None:
        self._questions[self.site.emetteur] += 1
        if self._habits.down:
            raise MemberUnreachable("down")
        if names_study and self._habits.fails_on_uids:
            raise MemberFault("fails")

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        await asyncio.sleep(0)
        self._answers(names_study=query.names_uid)
        found = [
            row if query.level is Level.STUDY else _terse(row, self._habits)
            for copy in self._held
            for row in rows_of(copy, query.level)
            if query.study_uid in (None, copy.study)
            and query.series_uid in (None, _text(row, "0020000E"))
            and (self._habits.ignores_filters or self._matches(row, query))
        ]
        if self._habits.ignores_limit:
            return MemberRows(rows=found)
        return MemberRows(rows=found[:limit], more=len(found) > limit)

    def _matches(self, row: Attributes, query: Query) -> bool:
        fold = str.lower if self.site.quirks.names_ignore_case else str
        for tag, wanted in query.filters.items():
            text = _text(row, tag)
            if tag == "0020000D":
                good = text in wanted.split(",")
            elif tag == "00080020" and "-" in wanted:
                good = wanted.partition("-")[0] <= text <= wanted.partition("-")[2]
            elif tag == "00100010":
                good = fnmatch.fnmatchcase(fold(text), fold(wanted))
            else:
                good = fnmatch.fnmatchcase(text, wanted)
            if not good:
                return False
        return True

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        await asyncio.sleep(0)
        self._answers(names_study=True)
        if self._habits.fails_at_metadata:
            raise MemberFault("fails")
        found = [
            row
            for copy in self._held
            if copy.study == target.study_uid
            for row in rows_of(copy, Level.INSTANCE, whole=True)
            if target.series_uid in (None, _text(row, "0020000E"))
        ]
        if not found:
            raise MemberNotFound("none")
        return MemberRows(rows=found)


def _text(row: Attributes, tag: str) -> str:
    value = (row.get(tag, {}).get("Value") or [""])[0]
    return value["Alphabetic"] if isinstance(value, dict) and "Alphabetic" in value else str(value)


def _terse(row: Attributes, habits: Habits) -> Attributes:
    if habits.terse:
        return {t: v for t, v in row.items() if not t.startswith("0010") and t not in ("00080050", "00080082")}
    return {t: v for t, v in row.items() if not habits.nameless or t not in ("00100010", "00100030", "00100040")}


def rows_of(copy: Held, level: Level, *, whole: bool = False) -> list[Attributes]:
    """`whole`: as instances are, with all that they tell of their patient."""
    if level is Level.STUDY:
        return [_study(copy, whole=whole)]
    made = []
    for number in copy.series:
        row = _study(copy, whole=whole)
        row["0020000E"] = element("UI", copy.series_uid(number))
        row["00200011"] = element("IS", number)
        row["00080060"] = element("CS", "CT")
        if level is Level.INSTANCE:
            row["00080018"] = element("UI", f"{copy.series_uid(number)}.1")
            row["00200013"] = element("IS", 1)
        made.append(row)
    return made


def _study(copy: Held, *, whole: bool) -> Attributes:
    name, born, sex, _ = PEOPLE[copy.person]
    row: Attributes = {
        "00080020": element("DA", copy.date),
        "00080050": element("SH", copy.accession) if copy.accession else element("SH"),
        "00100010": element("PN", {"Alphabetic": name}),
        "00100020": element("LO", copy.patient_id) if copy.patient_id else element("LO"),
        "00100030": element("DA", born) if born else element("DA"),
        "00100040": element("CS", sex) if sex else element("CS"),
        "0020000D": element("UI", copy.study),
    }
    if copy.code:
        number = next(s.number for s in DIRECTORY.sites if s.emetteur == copy.code)
        row["00080082"] = element(
            "SQ", {"00080100": element("SH", str(number)), "00080102": element("SH", "99IMAGORA")}
        )
    if copy.issuer:
        row["00100021"] = element("LO", copy.issuer)
    others: list[Attributes] = []
    if copy.other is not None:
        others.append({"00100020": element("LO", copy.other[0]), "00100021": element("LO", copy.other[1])})
    if copy.ins == "rows" or (whole and copy.ins):
        qualifiers = element("SQ", {"00400032": element("UT", INS_OID), "00400033": element("CS", "ISO")})
        others.append({"00100020": element("LO", slow.INS), "00100024": qualifiers})
    if others:
        row["00101002"] = element("SQ", *others)
    return row


# The engine -----------------------------------------------------------------------------------------------------


def book_of(region: Region) -> Book:
    book = Book()
    now = utc_now()
    for refusal in region.refusals:
        book.put(
            Opposition(
                number=refusal.number,
                active=refusal.active,
                studies=refusal.studies,
                accession=refusal.accession,
                patient=refusal.patient,
                traits=_traits(refusal.person) if refusal.person is not None else None,
                ins=slow.INS if refusal.ins else None,
            )
        )
    for (number, ipp, emetteur, person), confirmed in region.decided.items():
        book.decide_near_match(number, emetteur, ipp, str(_traits(person)), confirmed=confirmed)
    for (study, emetteur), withheld in region.holds.items():
        book.hold(study, emetteur, withheld=withheld)
    for emetteur, withheld in region.defaults.items():
        book.hold_by_default(emetteur, withheld=withheld)
    for number, (requester, ipp, emetteur, running) in enumerate(region.emergencies):
        ends = now + timedelta(hours=1 if running else -1)
        emergency = Emergency(id=str(number), requester_id=requester, patient=(ipp, emetteur), expires_at=ends)
        book.put_emergency(emergency, now - timedelta(hours=2))
    return book


def _traits(person: int) -> Traits:
    _, born, sex, plain = PEOPLE[person]
    return Traits(plain, born, sex)


class Fresh:
    """A database that always confirms."""

    version = 1

    def is_fresh(self) -> bool:
        return True

    async def fresh(self, patience_s: float = 0) -> bool:
        return True


class Links:
    def retrieve_url(self, site: Site, study_uid: str, series_uid: str = "", instance_uid: str = "") -> str:
        return "/".join(("https://us", site.emetteur, study_uid, series_uid, instance_uid))

    def bulkdata_url(self, site: Site, study_uid: str, series_uid: str, instance_uid: str, link: str) -> str:
        return f"https://us/{site.emetteur}/{study_uid}/{series_uid}/{instance_uid}/{link}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All that a requester can tell an answer by, but for milliseconds. `error`: its type and words. `questions`: how
    often each hospital was asked, for what that takes is felt too."""

    rows: list[Attributes] = field(default_factory=list)
    error: tuple[str, ...] = ()
    sources: list[tuple[str, str, int]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    remaining: int = 0
    flags: tuple[bool, ...] = ()
    questions: dict[str, int] = field(default_factory=dict)

    def uids(self, level: str) -> list[tuple[str, str]]:
        """→ (UID, PatientID)."""
        return [(_text(r, UID_OF[level]), nameless(_text(r, "00100020"))) for r in self.rows]


def nameless(patient_id: str) -> str:
    """Without what tells the study in the id of a patient who has none."""
    return re.sub(r"^~none\.[0-9a-f]{16}@", "~none@", patient_id)


class Engine:
    """Searches and retrievals over a region. `events` are what was traced, by request."""

    def __init__(self, region: Region, *, member_cap: int = 1000, traces: bool = True) -> None:
        self.events: dict[str, list[Event]] = {}
        self._traces = traces
        self._number = 0
        self._questions: Counter[str] = Counter()
        members = Members(
            lambda: DIRECTORY,
            lambda site: Hospital(site, region, self._questions),
            deadline_s=10.0,
            breaker_failures=1_000_000,
        )
        naming = Naming(qualified=True, issuer="IMAGORA")
        copies = Copies()
        rules = Rules(book_of(region))
        self.gate = Gate(Access(rules, self._write, Fresh(), emergencies=rules.emergencies), naming)
        locator = Locator(members, naming, copies)
        options = SearchOptions(member_cap=member_cap, require_patient_criterion=False)
        self._searcher = Searcher(members, locator, copies, self.gate, naming, options)
        self._retriever = Retriever(members, locator, copies, self.gate, naming)

    async def _write(self, event: Event) -> None:
        await asyncio.sleep(0)
        if not self._traces:
            raise Unavailable("no database")
        self.events.setdefault(event.request_id, []).append(event)

    async def answer(self, who: Who, request: slow.Ask | slow.Get) -> tuple[Seen, list[Event]]:
        """→ (what is seen, what was traced of it)."""
        self._number += 1
        request_id = str(self._number)
        self._questions.clear()
        home = DIRECTORY.site(who.home) if who.home else None
        requester = Requester(id=who.id, home=home)
        try:
            if isinstance(request, slow.Ask):
                seen = await self._search(requester, request, request_id)
            else:
                seen = await self._metadata(requester, request, request_id)
        except RequestError as error:
            emetteurs = error.emetteurs if isinstance(error, Conflict) else ()
            words = (type(error).__name__, str(error.http_status), error.message, *emetteurs)
            seen = _seen(error.report or Report(), error=words)
        except Unavailable:
            seen = Seen(error=("Unavailable",))
        await self.gate.aclose()
        return replace(seen, questions=dict(self._questions)), self.events.get(request_id, [])

    async def _search(self, requester: Requester, ask: slow.Ask, request_id: str) -> Seen:
        query = Query(
            level=Level(ask.level),
            scope=_scope(ask.scope),
            filters=dict(ask.filters),
            limit=ask.limit,
            offset=ask.offset,
            study_uid=ask.study or None,
            series_uid=ask.series or None,
        )
        answer = await self._searcher.search(
            requester, query, Links(), request_id=request_id, asked_as=repr(ask), own_site=ask.own_site
        )
        flags = (answer.at_least, answer.asked)
        return _seen(answer.report, rows=answer.rows, remaining=answer.remaining, flags=flags)

    async def _metadata(self, requester: Requester, get: slow.Get, request_id: str) -> Seen:
        target = Target(study_uid=get.study, series_uid=get.series or None, form=Form.METADATA)
        answer = await self._retriever.metadata(requester, _scope(get.scope), target, Links(), request_id=request_id)
        return _seen(answer.report, rows=answer.rows, flags=(answer.complete,))


def _seen(report: Report, **more: Any) -> Seen:
    sources = [(s.emetteur, str(s.status), s.rows) for s in report.sources.values()]
    return Seen(sources=sources, notices=report.sentences(), **more)


def _scope(name: str) -> Scope:
    if name == "all":
        return Scope()
    return Scope(ScopeKind.FOLDER, "mirc-historique") if name == "folder" else Scope(ScopeKind.SITE, name)


def answers(
    region: Region, requests: Sequence[tuple[Who, slow.Ask | slow.Get]], **options: Any
) -> list[tuple[Seen, list[Event]]]:
    """What one engine answers to these requests, one after the other."""

    async def run() -> list[tuple[Seen, list[Event]]]:
        engine = Engine(region, **options)
        return [await engine.answer(who, request) for who, request in requests]

    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        return runner.run(run())
