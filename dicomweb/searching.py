"""Searches of one member (QIDO-RS): what it may not understand is asked in the ways that are left.

The member's profile says which way is tried first. Another is spared only if this process saw lately that it need not
be tried: an old or wrong profile costs time, never rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace

from dicomweb.member_paths import search_path
from dicomweb.seen import Seen
from dicomweb.wire import query as wire_query
from federation.dictionary import vr_of
from federation.errors import MemberCannot, MemberError, MemberGarbage, MemberNotFound
from federation.identity import text_of
from federation.model import UID_PATTERN, Attributes, Deadline, Level, MemberRows, Query, Scope
from registry import Quirks

#: path with its query, deadline → (data sets, whether the member says that it has more)
Ask = Callable[[str, Deadline], Awaitable[tuple[list[Attributes], bool]]]

STUDY_UID = "0020000D"
UID_TAGS = {Level.STUDY: STUDY_UID, Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}
#: UIDs of a list that are asked one by one at once, and in all: the rest counts as not given.
_AT_ONCE = 8
_ONE_BY_ONE_MAX = 128


class Searching:
    """`quirks` are the member's profile as it stands when a search begins."""

    def __init__(self, ask: Ask, quirks: Callable[[], Quirks]) -> None:
        self._ask = ask
        self._quirks = quirks
        self._seen = Seen()
        self._decodes = False  # whether it was seen to understand percent-encoded values
        self._holds: tuple[str, ...] = ()  # two studies that it named last

    async def search(self, query: Query, limit: int, deadline: Deadline) -> MemberRows:
        """At most `limit` rows, and whether there are more."""
        tag = next((t for t, v in query.filters.items() if _is_list(t, v)), None)
        if tag is None:
            return await self._values(query, limit, deadline)
        return await self._listed(query, tag, limit, deadline)

    # Lists of UIDs ----------------------------------------------------------------------------------------------

    async def _listed(self, query: Query, tag: str, limit: int, deadline: Deadline) -> MemberRows:
        """PS3.18 §8.3.4.1: UIDs separated by commas (once by backslashes). Who does not know lists finds nothing."""
        uids = list(dict.fromkeys(query.filters[tag].split(",")))
        rows: list[Attributes] = []
        more = False
        found: set[str] = set()
        knows: bool | None = None
        for separator in self._separators():
            lists = {t: v.replace(",", separator) for t, v in query.filters.items() if _is_list(t, v)}
            listed = replace(query, filters={**query.filters, **lists})
            try:
                answer = await self._values(listed, limit, deadline)
            except (MemberCannot, MemberGarbage):
                knows = None
                continue
            rows, more = _distinct(query.level, [*rows, *answer.rows]), more or answer.more
            found |= {uid for uid in uids if any(uid in _values_of(row, tag) for row in answer.rows)}
            sure = len(found) == len(uids) or len(rows) >= limit
            knows = sure or await self._knows_lists(separator, found, deadline)
            if knows:
                return MemberRows(rows=rows[:limit], more=more or len(rows) > limit)
        if knows is False:
            self._seen.note("no lists")
        left = [uid for uid in uids if uid not in found]
        more = more or len(left) > _ONE_BY_ONE_MAX
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(uid: str) -> MemberRows:
            async with gate:
                single = replace(query, filters={**query.filters, tag: uid})
                return await self.search(single, limit, deadline)  # there may be another list in it

        answers = await _together([one(uid) for uid in left[:_ONE_BY_ONE_MAX]])
        rows = _distinct(query.level, [*rows, *(row for a in answers for row in a.rows)])
        return MemberRows(rows=rows[:limit], more=more or len(rows) > limit or any(a.more for a in answers))

    def _separators(self) -> Sequence[str]:
        quirks = self._quirks()
        if self._seen.lately("no lists"):
            return ()
        if quirks.takes_uid_lists is False:
            # One by one is the sure way, so nothing else need be tried.
            return ("\\",) if quirks.takes_uid_lists_backslash else ()
        return (",", "\\") if quirks.takes_uid_lists_backslash else (",",)

    async def _knows_lists(self, separator: str, found: set[str], deadline: Deadline) -> bool | None:
        """Seen lately, or by an answer that finds two of one list; else it is asked for two that it holds.

        None = cannot be told now.
        """
        what = f"lists {separator}"
        if len(found) > 1:
            self._seen.note(what)
        elif not self._seen.lately(what):
            try:
                if len(self._holds) < 2 and self._quirks().honours_limit is not False:  # it might send all that it has
                    await self._pages(_STUDIES, {}, 3, deadline)
                holds = self._holds
                if len(holds) < 2:
                    return None
                answer = await self._values(replace(_STUDIES, filters={STUDY_UID: separator.join(holds)}), 4, deadline)
            except MemberError:
                return None
            if not set(holds) <= {uid for row in answer.rows for uid in _values_of(row, STUDY_UID)}:
                self._holds = ()  # it may have lost them, which is no habit: others are taken next time
                return False
            self._seen.note(what)
        return True

    # Values that must be percent-encoded ------------------------------------------------------------------------

    async def _values(self, query: Query, limit: int, deadline: Deadline) -> MemberRows:
        if self._decodes or wire_query.is_plain(query.filters):
            return await self._pages(query, query.filters, limit, deadline)
        if self._quirks().decodes_values is False:
            loose = await self._loosely(query, limit, deadline)
            if loose.rows and not loose.more:
                return loose
            exact = await self._exactly(query, limit, deadline)
            rows = _distinct(query.level, [*exact.rows, *loose.rows])
            return MemberRows(rows=rows[:limit], more=len(rows) > limit or exact.more or loose.more)
        exact = await self._exactly(query, limit, deadline)
        # Nothing found: or it looked for the encoded text itself.
        return exact if exact.rows or self._decodes else await self._loosely(query, limit, deadline)

    async def _exactly(self, query: Query, limit: int, deadline: Deadline) -> MemberRows:
        answer = await self._pages(query, query.filters, limit, deadline)
        self._decodes = self._decodes or _shows_decoding(answer.rows, query.filters)
        return answer

    async def _loosely(self, query: Query, limit: int, deadline: Deadline) -> MemberRows:
        searches = wire_query.without_escapes(query.filters)
        answers = await _together([self._pages(query, f, limit, deadline) for f in searches])
        rows = [row for a in answers for row in a.rows]
        return MemberRows(rows=rows[:limit], more=len(rows) > limit or any(a.more for a in answers))

    # Series and instances across studies ------------------------------------------------------------------------

    async def _pages(self, query: Query, filters: Mapping[str, str], limit: int, deadline: Deadline) -> MemberRows:
        """A search that names one study goes below it where the member has no search across studies."""
        uid = filters.get(STUDY_UID, "")
        below = query.study_uid is None and query.level is not Level.STUDY and UID_PATTERN.fullmatch(uid)
        if not below:
            return await self._walk(query, filters, limit, deadline)
        quirks = self._quirks()
        offered = quirks.searches_series if query.level is Level.SERIES else quirks.searches_instances
        rest = {tag: value for tag, value in filters.items() if tag != STUDY_UID}
        across, within = (query, filters), (replace(query, study_uid=uid), rest)
        refused: MemberError | None = None
        for asked, matching in (within, across) if offered is False else (across, within):
            try:
                answer = await self._walk(asked, matching, limit, deadline)
            except (MemberCannot, MemberGarbage) as error:
                refused = refused or error
                continue
            if answer.rows or asked.study_uid is None:
                return answer
        if refused is not None and not await self._is_truly_none(within[0], deadline):
            raise refused
        return MemberRows(rows=[])

    async def _is_truly_none(self, query: Query, deadline: Deadline) -> bool:
        """Nothing was found below the study: no match, no such study, or no such address?"""
        what = f"{query.level} below studies"
        if not self._seen.lately(what):
            if not (await self._walk(query, {}, 1, deadline)).rows:
                return not (await self._walk(_STUDIES, {STUDY_UID: query.study_uid or ""}, 1, deadline)).rows
            self._seen.note(what)
        return True

    # One question -----------------------------------------------------------------------------------------------

    async def _walk(self, query: Query, filters: Mapping[str, str], limit: int, deadline: Deadline) -> MemberRows:
        """Asks on where the member says that it holds rows back, until it gives nothing new."""
        path = search_path(query)
        uid_tag = UID_TAGS[query.level]
        rows: list[Attributes] = []
        seen: set[tuple[str, str, str]] = set()
        while True:
            text = wire_query.for_member(
                filters,
                sorted(query.include),
                include_all=query.include_all,
                limit=limit - len(rows),
                offset=len(rows),
            )
            try:
                body, says_more = await self._ask(f"{path}?{text}", deadline)
            except MemberNotFound as error:
                if query.study_uid is not None:
                    return MemberRows(rows=[])
                # No match is 204 or []; this address has no search at all, and silence would hide that.
                raise MemberGarbage(str(error)) from None
            fresh = []
            for row in body:
                key = _key(row, uid_tag)
                if key not in seen:
                    seen.add(key)
                    fresh.append(row)
            rows += fresh
            if query.level is Level.STUDY:
                self._remember(rows)
            if len(rows) >= limit or not says_more or not fresh:
                return MemberRows(rows=rows[:limit], more=says_more or len(rows) > limit)

    def _remember(self, rows: Sequence[Attributes]) -> None:
        if not rows:
            return
        named = [uid for row in (rows[0], rows[-1]) for uid in _values_of(row, STUDY_UID)[:1]]
        self._holds = tuple(dict.fromkeys([*named, *self._holds]))[:2]


_STUDIES = Query(level=Level.STUDY, scope=Scope())


def _is_list(tag: str, value: str) -> bool:
    return "," in value and vr_of(tag.rpartition(".")[2]) == "UI"


async def _together(searches: Sequence[Coroutine[None, None, MemberRows]]) -> list[MemberRows]:
    """All, or none: where one fails the others are not asked any further."""
    tasks = [asyncio.ensure_future(search) for search in searches]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _values_of(row: Attributes, tag: str) -> list[str]:
    return [value for value in row.get(tag, {}).get("Value", ()) if isinstance(value, str)]


def _distinct(level: Level, rows: Sequence[Attributes]) -> list[Attributes]:
    return list({_key(row, UID_TAGS[level]): row for row in rows}.values())


def _key(row: Attributes, uid_tag: str) -> tuple[str, str, str]:
    return (text_of(row, uid_tag), text_of(row, STUDY_UID), text_of(row, "00100020"))


def _shows_decoding(rows: Sequence[Attributes], filters: Mapping[str, str]) -> bool:
    """True if a row was found by a value that had to be percent-encoded, and not by chance."""
    encoded = [tag for tag, value in filters.items() if not wire_query.is_plain({tag: value})]
    return any(
        not wire_query.is_plain({tag: str(value if not isinstance(value, dict) else "".join(map(str, value.values())))})
        for row in rows
        for tag in encoded
        for value in row.get(tag, {}).get("Value", ())
    )
