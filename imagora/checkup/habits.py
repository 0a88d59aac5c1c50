"""Habits of a member's searches and of its HTTP that name nobody: lists, encoding, the answer to no match."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from federation.errors import MemberError
from federation.identity import text_of
from federation.model import Attributes, Deadline
from imagora.checkup.asking import SILENCE, STUDY_UID, Asking, Result
from registry.profiles import Feature


class Habits:
    """`exact` = a UID finds its study and no other, else little can be told by UIDs."""

    def __init__(self, asking: Asking, rows: Sequence[Attributes], *, exact: bool) -> None:
        self._asking = asking
        self._uids = list(dict.fromkeys(text_of(row, STUDY_UID) for row in rows))
        self._exact = exact

    async def examine(self) -> None:
        if self._exact:
            await self._decoding()
            await self._lists()
        await self._no_match()
        await self._methods()

    async def _decoding(self) -> None:
        """A UID with its dots percent-encoded is the same UID (RFC 3986 §2.3)."""
        note, know = self._asking.checkup.note, self._asking.checkup.know
        if Feature.PERCENT_DECODING not in self._asking.checkup.features:
            try:
                text = self._uids[0].replace(".", "%2E")
                page = await self._asking.page("/studies", {}, encoded=f"{STUDY_UID}={text}")
                know(Feature.PERCENT_DECODING, [text_of(row, STUDY_UID) for row in page.rows] == self._uids[:1])
            except MemberError as error:
                know(Feature.PERCENT_DECODING, None if isinstance(error, SILENCE) else False)
        decodes = self._asking.checkup.features.get(Feature.PERCENT_DECODING)
        if decodes:
            note("encoding", Result.OK, "decodes percent-encoded text")
        elif decodes is False:
            text = "does not decode percent-encoded text; such characters are asked for with wildcards"
            note("encoding", Result.LIMIT, text)

    async def _lists(self) -> None:
        note = self._asking.checkup.note
        if len(self._uids) < 2:
            note("lists of UIDs", Result.UNKNOWN, "it holds too few exams to tell")
            return
        found = {}
        for separator, feature in ((",", Feature.UID_LIST_COMMA), ("\\", Feature.UID_LIST_BACKSLASH)):
            wanted = self._uids[:2]
            try:
                page = await self._asking.page("/studies", {STUDY_UID: separator.join(wanted)})
                found[separator] = sorted(text_of(row, STUDY_UID) for row in page.rows) == sorted(wanted)
            except MemberError as error:
                if isinstance(error, SILENCE):
                    continue
                found[separator] = False
            self._asking.checkup.know(feature, found[separator])
        if found.get(","):
            note("lists of UIDs", Result.OK, "several exams can be asked for at once")
        elif found.get("\\"):
            note("lists of UIDs", Result.LIMIT, "are understood with backslashes between them only")
        elif found:
            text = "are not understood; exams are asked for one by one, which takes longer"
            note("lists of UIDs", Result.LIMIT, text)

    async def _no_match(self) -> None:
        """PS3.18 §10.6.3.1: 204, once 200 and an empty array. The UID is one that nobody has."""
        topic = "no match"
        async with self._asking.about(topic, Result.LIMIT, "looks like a failure where nothing is found"):
            page = await self._asking.page("/studies", {STUDY_UID: f"2.25.{uuid.uuid4().int}"})
            if page.rows:
                self._asking.checkup.note(topic, Result.LIMIT, "finds exams under a UID that does not exist")
                return
            self._asking.checkup.know(Feature.NO_MATCH_204, page.status == 204)
            self._asking.checkup.note(topic, Result.OK, "204" if page.status == 204 else "200 with an empty list")

    async def _methods(self) -> None:
        """Nothing of ours depends on them: a line in the scorecard for who connects other software."""
        offered = []
        for method, feature in (("HEAD", Feature.HEAD), ("OPTIONS", Feature.OPTIONS)):
            async with self._asking.about("HTTP", Result.OK, f"{method} is not needed", feature):
                path = f"/studies?{STUDY_UID}={self._uids[0]}&limit=1" if method == "HEAD" else "/studies"
                deadline = Deadline(self._asking.deadline_s)
                status, _ = await self._asking.member.answers(method, path, self._asking.member.json_type, deadline)
                self._asking.checkup.know(feature, status < 300)
                if status < 300:
                    offered.append(method)
        self._asking.checkup.note("HTTP", Result.OK, f"besides GET it answers {' and '.join(offered) or 'nothing'}")
