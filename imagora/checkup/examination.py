"""The examination: one question after the other, from the connection to a picture."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from dicomweb.client import JSON_TYPES
from dicomweb.probe import Page, ProbedMember
from federation.errors import (
    MemberCannot,
    MemberError,
    MemberGarbage,
    MemberNotFound,
    MemberRefused,
    MemberTimeout,
    MemberUnreachable,
)
from federation.identity import text_of
from federation.model import UID_PATTERN, Attributes
from imagora.checkup.asking import (
    ASKED,
    DATE,
    NAME,
    PATIENT_ID,
    ROWS,
    STUDY_UID,
    TIME,
    Asking,
    Checkup,
    LeftAlone,
    Result,
)
from imagora.checkup.habits import Habits
from imagora.checkup.images import Images
from imagora.checkup.looking import MayRead
from imagora.checkup.names import Names
from registry import Site
from registry.profiles import Feature


async def examine(member: ProbedMember, deadline_s: float, may_read: MayRead) -> Checkup:
    """Examine one member; each of some forty questions has `deadline_s`. Nothing is raised but cancellation.

    Nothing is read of a study but what searches tell, unless `may_read` lets it.
    """
    checkup = Checkup(member.site)
    with contextlib.suppress(LeftAlone):
        await _Examination(member, deadline_s, checkup, may_read).run()
    checkup.ended_at = datetime.now(UTC)
    return checkup


class _Examination(Asking):
    def __init__(self, member: ProbedMember, deadline_s: float, checkup: Checkup, may_read: MayRead) -> None:
        super().__init__(member, deadline_s, checkup)
        self._may_read = may_read
        self._filters: dict[str, str] = {}
        self._exact = False  # whether a UID finds its study and no other

    async def run(self) -> None:
        first = await self._first()
        if first is None:
            return
        self.checkup.answered = True
        rows = first.rows
        if not rows:
            self.checkup.note("studies", Result.UNKNOWN, "it holds no exam, so nothing more could be tried")
            return
        if not self._rows_are_sound(rows):
            return
        know = self.checkup.know
        know(Feature.LIMIT, await self._limit(first))
        know(Feature.OFFSET, await self._paging(len(rows[:ROWS])))
        if not await self._one_study(rows[0]):
            return
        await Names(self, rows).examine()
        await Habits(self, rows, exact=self._exact).examine()
        await Images(self, rows, self._may_read).examine()
        know(Feature.UTF_8, self.member.utf_8)
        if self.member.utf_8 is False:
            text = "does not write its answers in UTF-8: letters with accents may be read wrongly"
            self.checkup.note("character set", Result.LIMIT, text)
        elif self.member.utf_8:
            self.checkup.note("character set", Result.OK, "writes its answers in UTF-8")

    async def _first(self) -> Page | None:
        """The first rows, or None if there is no answer to a search for studies."""
        refused: MemberError | None = None
        try:
            page = await self._in_its_json()
        except (MemberTimeout, MemberRefused, MemberGarbage, MemberUnreachable, MemberNotFound) as error:
            self._no_answer(error)
            return None
        except MemberError as error:
            refused = error  # 400, 413, 500…: perhaps it only refuses so wide a question
            self._filters = {DATE: f"{datetime.now() - timedelta(days=30):%Y%m%d}-"}
            try:
                page = await self.page("/studies", self._filters, include=ASKED)
            except MemberError:
                self._no_answer(refused)
                return None
        self.checkup.note("connection", Result.OK, "it answers", page.elapsed_s)
        if refused is None:
            self.checkup.note("studies", Result.OK, "lists exams")
        else:
            text = f"lists exams only for a question that is not too wide ({self.why(refused)})"
            self.checkup.note("studies", Result.LIMIT, text)
        return page

    async def _in_its_json(self) -> Page:
        """The first question of all, under the name that the member takes for DICOM JSON."""
        try:
            page = await self.page("/studies", {}, include=ASKED)
        except MemberCannot as refused:
            self.member.json_type = JSON_TYPES[1]
            try:
                page = await self.page("/studies", {}, include=ASKED)
            except MemberError:
                self.member.json_type = JSON_TYPES[0]
                raise refused from None
            self.checkup.note("media type", Result.LIMIT, "takes application/json only, which takes a second request")
        self.checkup.know(Feature.DICOM_JSON, self.member.json_type == JSON_TYPES[0])
        return page

    def _no_answer(self, error: MemberError) -> None:
        self.checkup.note("connection", Result.FAILED, self.why(error))

    def _rows_are_sound(self, rows: Sequence[Attributes]) -> bool:
        if not all(UID_PATTERN.fullmatch(text_of(row, STUDY_UID)) for row in rows):
            self.checkup.note("rows", Result.FAILED, "rows lack StudyInstanceUID: nothing could be opened")
            return False
        wanted = {"PatientID": PATIENT_ID, "PatientName": NAME, "StudyDate": DATE}
        lacking = [keyword for keyword, tag in wanted.items() if not any(tag in row for row in rows)]
        if lacking:
            self.checkup.note("rows", Result.LIMIT, f"rows lack {', '.join(lacking)}: it takes more requests to tell")
        return True

    # Paging -----------------------------------------------------------------------------------------------------

    async def _limit(self, first: Page) -> bool | None:
        """Does it give no more rows than asked for?"""
        honours: bool | None = None
        async with self.about("limit", Result.UNKNOWN):
            if len(first.rows) > ROWS:
                honours = False
            elif len(first.rows) > 1:
                fewer = await self.page("/studies", self._filters, limit=len(first.rows) - 1)
                honours = len(fewer.rows) <= len(first.rows) - 1
            if honours is None:
                self.checkup.note("limit", Result.UNKNOWN, "it holds too few exams to tell")
            elif honours:
                self.checkup.note("limit", Result.OK, "gives no more rows than asked for")
            else:
                self.checkup.note("limit", Result.LIMIT, "ignores limit: it sends all its rows, which takes longer")
        return honours

    async def _paging(self, number: int) -> bool | None:
        """Are rows skipped as asked? In passing: in which order do they come?"""
        honours: bool | None = None
        async with self.about("offset", Result.UNKNOWN):
            steady = False
            for _ in range(2):  # an exam that arrives meanwhile moves all the others
                before = await self._uids(number, 0)
                skipped = await self._uids(number, 1)
                again = await self._uids(number, 0)
                if steady := bool(before) and [uid for uid, _ in before] == [uid for uid, _ in again]:
                    break
            self._order(before, steady=steady)
            if not steady:
                self.checkup.note("offset", Result.UNKNOWN, "cannot be told, since its order changes")
                return None
            rest, got = [uid for uid, _ in before[1:]], [uid for uid, _ in skipped]
            if got[:1] == [before[0][0]]:
                honours = False
                text = "ignores offset: rows that it holds back cannot be had"
                self.checkup.note("offset", Result.LIMIT, text)
            elif got[: len(rest)] == rest and (rest or not got):
                honours = True
                self.checkup.note("offset", Result.OK, "skips as many rows as asked")
            else:
                self.checkup.note("offset", Result.UNKNOWN, "what it skips cannot be told from its rows")
        return honours

    async def _uids(self, number: int, offset: int) -> list[tuple[str, str]]:
        """→ (StudyInstanceUID, date and time) of the first rows."""
        page = await self.page("/studies", self._filters, include=(DATE, TIME), limit=number, offset=offset)
        return [(text_of(r, STUDY_UID), text_of(r, DATE) + text_of(r, TIME)) for r in page.rows[:number]]

    def _order(self, rows: Sequence[tuple[str, str]], *, steady: bool) -> None:
        self.checkup.know(Feature.STEADY_ORDER, steady if len(rows) > 1 else None)
        if not steady:
            self.checkup.note("order", Result.LIMIT, "gives rows in another order each time; they are sorted here")
            return
        moments = [moment for _, moment in rows]
        if len(rows) > 1 and moments == sorted(moments, reverse=True):
            self.checkup.note("order", Result.OK, "gives the same order each time, newest first as far as was seen")
        else:
            self.checkup.note("order", Result.OK, "gives the same order each time; rows are sorted by date here")

    async def _one_study(self, row: Attributes) -> bool:
        """A study is asked for by its UID, as before each retrieve."""
        found = False
        async with self.about("study by UID", Result.FAILED, "its exams could not be opened"):
            uid = text_of(row, STUDY_UID)
            page = await self.page("/studies", {STUDY_UID: uid})
            uids = [text_of(r, STUDY_UID) for r in page.rows]
            found = uid in uids
            self._exact = uids == [uid]
            if not found:
                text = "does not find an exam that it listed: its exams could not be opened"
                self.checkup.note("study by UID", Result.FAILED, text)
            elif uids != [uid]:
                text = "finds other exams besides the one asked for; they are left out here"
                self.checkup.note("study by UID", Result.LIMIT, text)
            else:
                self.checkup.note("study by UID", Result.OK, "finds one exam by its UID", page.elapsed_s)
        return found


async def examine_all(
    members: Sequence[tuple[ProbedMember, float]], may_read: Callable[[Site], MayRead], at_once: int = 4
) -> list[Checkup]:
    """Examine several members (each with its deadline in seconds), and close them."""
    gate = asyncio.Semaphore(at_once)

    async def one(member: ProbedMember, deadline_s: float) -> Checkup:
        try:
            async with gate:
                return await examine(member, deadline_s, may_read(member.site))
        finally:
            await member.aclose()

    return list(await asyncio.gather(*(one(member, deadline_s) for member, deadline_s in members)))
