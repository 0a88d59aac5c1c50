"""What rows of a page lack and their members can tell otherwise: counts and modalities from the series of a study,
attributes that were asked for from an instance below.

Only for rows that are about to be sent, within bounds of number and time; what was not done is said. Whatever is read
counts only where it bears the patient's id under which its holder files the row: what another person has under the
same UID, shown or not, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from consent import Requester
from federation.dictionary import vr_of
from federation.errors import MemberError, MemberNotFound
from federation.gate import Gate
from federation.identity import Identity, Naming, instance_identity, origin_code, record_of, text_of, with_ins
from federation.levels import MODALITIES, told_by_instances
from federation.locate import BATCH, IDENTITY_TAGS, Locator
from federation.matching import PATIENT_ID
from federation.members import Members
from federation.merge import COUNTS, Merged
from federation.model import Attributes, Deadline, Form, Level, Member, MemberRows, Outcome, Query, Scope, Target
from federation.tagging import element, first_number, no_bulk, scrub
from registry import Site

STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
MODALITY, SERIES_COUNT, INSTANCE_COUNT, IN_SERIES_COUNT = "00080060", "00201206", "00201208", "00201209"
#: Rows of one answer that are completed, and how many of them by a question for each. Those in front come first.
ROWS_MAX = 250
SINGLY_MAX = 32
#: How long an answer waits for this, in seconds.
FILL_S = 2.0
_AT_ONCE = 4
#: Series of one question about many studies.
_SERIES_MAX = 5000


@dataclass(slots=True)
class _Errand:
    """What one member is to be asked for. `left` are the rows that are not completed yet, by `id`; `run` None = it is
    beyond the bounds."""

    site: Site
    left: dict[int, Merged]
    run: Callable[[_Errand], Coroutine[Any, Any, None]] | None

    def done(self, m: Merged) -> None:
        self.left.pop(id(m), None)


@dataclass(slots=True)
class _Wanted:
    """What is to be filled in for one answer."""

    requester: Requester
    level: Level
    rows: Sequence[Merged]
    include: frozenset[str]
    singly: int = SINGLY_MAX  # rows that may still have questions of their own

    def one(self) -> bool:
        self.singly -= 1
        return self.singly >= 0


class Filler:
    def __init__(self, members: Members, locator: Locator, gate: Gate, naming: Naming) -> None:
        self._members = members
        self._locator = locator
        self._gate = gate
        self._naming = naming
        self._limits: dict[str, asyncio.Semaphore] = {}

    async def fill(self, requester: Requester, query: Query, rows: Sequence[Merged]) -> list[str]:
        """Complete rows in place. → sentences on those that stay as they were."""
        wanted = _Wanted(requester, query.level, rows, query.include)
        errands = [*self._to_count(wanted), *self._to_read(wanted)]
        tasks = [asyncio.ensure_future(e.run(e)) for e in errands if e.run is not None]
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=FILL_S)
            finally:
                for task in tasks:
                    task.cancel()
                failures = await asyncio.gather(*tasks, return_exceptions=True)
            for failure in failures:
                if isinstance(failure, Exception):
                    raise failure
        lacking: dict[str, set[int]] = {}
        for errand in errands:
            if errand.left:
                lacking.setdefault(errand.site.emetteur, set()).update(errand.left)
        return [
            f"includefield: {len(some)} rows of {emetteur} lack attributes that could not be completed now"
            for emetteur, some in sorted(lacking.items())
        ]

    def _limit(self, site: Site) -> asyncio.Semaphore:
        return self._limits.setdefault(site.emetteur, asyncio.Semaphore(_AT_ONCE))

    # Counts and modalities --------------------------------------------------------------------------------------

    def _to_count(self, wanted: _Wanted) -> Iterator[_Errand]:
        lacking: dict[str, tuple[Site, list[Merged]]] = {}
        for m in wanted.rows:
            for site in _uncounted(wanted.level, m):
                lacking.setdefault(site.emetteur, (site, []))[1].append(m)
        for site, rows in lacking.values():
            if wanted.level is Level.SERIES:
                for mine in _by_study(rows):
                    yield _errand(site, mine, self._count_instances if wanted.one() else None)
            else:
                for at in range(0, len(rows), BATCH):
                    run = partial(self._count, wanted) if at < ROWS_MAX else None
                    yield _errand(site, rows[at : at + BATCH], run)

    async def _count(self, wanted: _Wanted, errand: _Errand) -> None:
        rows = list(errand.left.values())
        series = await self._series(errand.site, rows)
        # Those that need questions of their own, one after the other: the others do not wait for them.
        for m in sorted(rows, key=lambda m: any(IN_SERIES_COUNT not in row for row in series.get(m.study_uid, ()))):
            if await self._count_study(wanted, errand.site, m, series.get(m.study_uid, ())):
                errand.done(m)

    async def _count_study(self, wanted: _Wanted, site: Site, m: Merged, series: Sequence[Attributes]) -> bool:
        mine = _his(series, m.identity, site)
        if not mine:
            return False
        told = {text_of(row, MODALITY) for row in mine.values()} - {""}
        told |= {value for value in m.row.get(MODALITIES, {}).get("Value", ()) if isinstance(value, str) and value}
        if told:
            m.row[MODALITIES] = element("CS", *sorted(told))
        if len(m.holders) > 1:
            return bool(told)  # what they have together was counted
        if first_number(m.row, SERIES_COUNT) is None:
            m.row[SERIES_COUNT] = element("IS", len(mine))
        if first_number(m.row, INSTANCE_COUNT) is None:
            numbers = [n for row in mine.values() if (n := first_number(row, IN_SERIES_COUNT)) is not None]
            if len(numbers) < len(mine):
                contents = await self._contents(site, m.study_uid) if wanted.one() else None
                if contents is None:
                    return False
                numbers = [sum(1 for uid in contents.values() if uid in mine)]
            m.row[INSTANCE_COUNT] = element("IS", sum(numbers))
        return bool(told)

    async def _count_instances(self, errand: _Errand) -> None:
        rows = list(errand.left.values())
        contents = await self._contents(errand.site, rows[0].study_uid)
        if contents is None:
            return
        for m in rows:
            m.row[IN_SERIES_COUNT] = element("IS", sum(1 for series in contents.values() if series == m.uid))
            errand.done(m)

    async def _contents(self, site: Site, study_uid: str) -> dict[str, str] | None:
        async with self._limit(site):
            return (await self._locator.inventory(study_uid, [site])).contents.get(site.emetteur)

    async def _series(self, site: Site, rows: Sequence[Merged]) -> dict[str, list[Attributes]]:
        """Study UID → its series there. Empty if they can't be had whole."""
        include = IDENTITY_TAGS | {STUDY_UID, SERIES_UID, MODALITY, IN_SERIES_COUNT}
        uids = ",".join(sorted({m.study_uid for m in rows}))
        query = Query(level=Level.SERIES, scope=Scope(), filters={STUDY_UID: uids}, include=include)
        answer = await self._search(site, query, _SERIES_MAX)
        found: dict[str, list[Attributes]] = {}
        for row in answer.rows if answer is not None and not answer.more else ():
            found.setdefault(text_of(row, STUDY_UID), []).append(row)
        return found

    async def _search(self, site: Site, query: Query, limit: int) -> MemberRows | None:
        async def call(member: Member, deadline: Deadline) -> MemberRows:
            return await member.search(query, limit=limit, deadline=deadline)

        async with self._limit(site):
            (outcome,) = await self._members.ask([site], "complete", call, of_object=True)
        return None if isinstance(outcome.result, MemberError) else outcome.result

    # Attributes that were asked for -----------------------------------------------------------------------------

    def _to_read(self, wanted: _Wanted) -> Iterator[_Errand]:
        tags = {tag for tag in wanted.include if told_by_instances(wanted.level, tag)}
        if not tags:
            return
        given: dict[str, set[str]] = {}  # what a member gives to one row, it gives to all that have it
        for m in wanted.rows:
            given.setdefault(m.hits[0].holder.emetteur, set()).update(tags & m.row.keys())
        lacking: dict[str, tuple[Site, list[Merged]]] = {}
        for m in wanted.rows:
            site = m.hits[0].holder
            if any(_leaves_out(site, tag) for tag in tags - m.row.keys() - given[site.emetteur]):
                lacking.setdefault(site.emetteur, (site, []))[1].append(m)
        for site, rows in lacking.values():
            if wanted.level is Level.INSTANCE:
                for mine in _by_series(rows):
                    yield _errand(site, mine, partial(self._read_series, wanted, tags) if wanted.one() else None)
                continue
            within = [m for m in rows if wanted.one()]
            yield _errand(site, within, partial(self._read_below, wanted, tags) if within else None)
            yield _errand(site, rows[len(within) :], None)

    async def _read_below(self, wanted: _Wanted, tags: set[str], errand: _Errand) -> None:
        rows = list(errand.left.values())
        series = await self._series(errand.site, rows) if wanted.level is Level.STUDY else {}

        async def read(m: Merged) -> None:
            series_uid = m.uid
            if wanted.level is Level.STUDY:
                series_uid = min(_his(series.get(m.study_uid, ()), m.identity, errand.site), default="")
            found = await self._one_below(errand.site, m.study_uid, series_uid) if series_uid else None
            if found is not None and self._take(wanted, errand.site, m, found, tags):
                errand.done(m)

        await asyncio.gather(*map(read, rows))

    async def _one_below(self, site: Site, study_uid: str, series_uid: str) -> Attributes | None:
        query = Query(level=Level.INSTANCE, scope=Scope(), study_uid=study_uid, series_uid=series_uid)
        answer = await self._search(site, query, 1)
        uid = text_of(answer.rows[0], INSTANCE_UID) if answer is not None and answer.rows else ""
        if not uid:
            return None
        target = Target(study_uid=study_uid, series_uid=series_uid, instance_uid=uid, form=Form.METADATA)
        return (await self._metadata(site, target)).get(uid)

    async def _read_series(self, wanted: _Wanted, tags: set[str], errand: _Errand) -> None:
        rows = list(errand.left.values())
        series_uid = text_of(rows[0].row, SERIES_UID)
        target = Target(study_uid=rows[0].study_uid, series_uid=series_uid, form=Form.METADATA)
        metadata = await self._metadata(errand.site, target) if series_uid else {}
        for m in rows:
            if m.uid in metadata and self._take(wanted, errand.site, m, metadata[m.uid], tags):
                errand.done(m)

    async def _metadata(self, site: Site, target: Target) -> dict[str, Attributes]:
        """SOPInstanceUID → its data set, of the study that is meant; empty if they can't be had."""

        async def call(member: Member, deadline: Deadline) -> MemberRows:
            answer = await member.metadata(target, deadline=deadline)
            if not answer.rows:
                raise MemberNotFound(f"{member.site.emetteur}: no metadata")
            return answer

        async def ask() -> Outcome[MemberRows]:
            return (await self._members.ask([site], "metadata", call, of_object=True))[0]

        async with self._limit(site):
            result = (await self._locator.metadata.get(site, target, ask)).result
        if isinstance(result, MemberError):
            return {}
        return {
            text_of(row, INSTANCE_UID): row
            for row in result.rows
            if text_of(row, STUDY_UID) == target.study_uid and PATIENT_ID in row
        }

    def _take(self, wanted: _Wanted, site: Site, m: Merged, metadata: Attributes, tags: set[str]) -> bool:
        """An instance tells more of whose it is than a row: it must be the row's, and permitted by itself."""
        directory = self._members.directory()
        own = record_of(metadata, site, directory, long_ids=self._naming.long_ids)
        if not m.identity.knows(own.raw_patient_id, site):
            return False
        whose = instance_identity(m.identity, own, coded=origin_code(metadata, directory) is not None)
        if whose is m.identity:
            whose = with_ins(m.identity, own)
        permitted = whose is m.identity or self._gate.permits_instance(wanted.requester, m.study_uid, m.identity, whose)
        if permitted:
            some = {tag: metadata[tag] for tag in tags if tag in metadata and tag not in m.row}
            scrub(some, no_bulk)
            m.row.update({tag: content for tag, content in some.items() if content.get("Value")})
        return permitted


def _errand(site: Site, rows: Sequence[Merged], run: Callable[[_Errand], Coroutine[Any, Any, None]] | None) -> _Errand:
    return _Errand(site, {id(m): m for m in rows}, run)


def _by_study(rows: Sequence[Merged]) -> list[list[Merged]]:
    found: dict[str, list[Merged]] = {}
    for m in rows:
        found.setdefault(m.study_uid, []).append(m)
    return list(found.values())


def _by_series(rows: Sequence[Merged]) -> list[list[Merged]]:
    found: dict[tuple[str, str], list[Merged]] = {}
    for m in rows:
        found.setdefault((m.study_uid, text_of(m.row, SERIES_UID)), []).append(m)
    return list(found.values())


def _uncounted(level: Level, m: Merged) -> list[Site]:
    """Holders whose rows lack what is counted."""
    if level is Level.INSTANCE:
        return []
    counts = [tag for tag in COUNTS if (tag == IN_SERIES_COUNT) is (level is Level.SERIES)]
    if len(m.holders) == 1 and any(first_number(m.row, tag) is None for tag in counts):
        return [m.holders[0]]
    if level is Level.SERIES:
        return []
    bare = {h.holder.emetteur: h.holder for h in m.hits if not text_of(h.row, MODALITIES)}
    return list(bare.values())


def _his(series: Sequence[Attributes], identity: Identity, site: Site) -> dict[str, Attributes]:
    """Series UID → row, of those that are filed under the id of the row that they are to complete. Nothing where the
    member does not say under which: that must not hang on whether another person has series here too."""
    if not all(PATIENT_ID in row for row in series):
        return {}
    return {text_of(row, SERIES_UID): row for row in series if identity.knows(text_of(row, PATIENT_ID), site)}


def _leaves_out(site: Site, tag: str) -> bool:
    """May a member leave out what it has? Some give no sequences in rows (Orthanc), some nothing that is asked for."""
    return vr_of(tag) == "SQ" or site.quirks.honours_includefield is False
