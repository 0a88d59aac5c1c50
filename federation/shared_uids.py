"""One StudyInstanceUID that stands for two patients at one holder: which of its instances are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from federation.errors import MemberError
from federation.identity import Identity, text_of
from federation.locate import IDENTITY_TAGS, INSTANCES_MAX, Contents
from federation.members import Members
from federation.model import Attributes, Deadline, Level, Member, MemberRows, Query, Scope
from federation.plan import Fetch
from federation.report import Report
from registry import Site


@dataclass(slots=True)
class Sorting:
    """By EMETTEUR of such holders. Those that could not be asked are in the report alone."""

    contents: dict[str, Contents] = field(default_factory=dict)  # what is this patient's
    foreign: dict[str, frozenset[str]] = field(default_factory=dict)  # series in which there is more
    unsure: set[str] = field(default_factory=set)  # have instances that don't tell, or tell two
    report: Report = field(default_factory=Report)

    def apart(self, fetch: Fetch) -> list[Fetch]:
        """A fetch, as requests that bring nothing else: by series, by instance where a series is mixed."""
        mixed = {site.emetteur for site in fetch.candidates} & self.contents.keys()
        if not mixed or fetch.expected is None:
            return [fetch]
        foreign = frozenset[str]().union(*(self.foreign[e] for e in mixed))
        series_of = {sop: series for e in mixed for sop, series in self.contents[e].items() if sop in fetch.expected}
        parts: dict[tuple[str, str], set[str]] = {}
        for sop, series in sorted(series_of.items()):
            parts.setdefault((series, sop if series in foreign else ""), set()).add(sop)
        return [
            Fetch(
                target=replace(fetch.target, series_uid=series, instance_uid=sop or fetch.target.instance_uid),
                candidates=fetch.candidates,
                expected=frozenset(sops),
            )
            for (series, sop), sops in parts.items()
        ]


async def sort_out(members: Members, study_uid: str, identity: Identity, sites: Sequence[Site]) -> Sorting:
    """Ask each of `sites`, all at once, which of a study's instances it files as this identity's patient."""
    sorting = Sorting()
    query = Query(level=Level.INSTANCE, scope=Scope(), study_uid=study_uid, include=IDENTITY_TAGS)

    async def call(member: Member, deadline: Deadline) -> MemberRows:
        return await member.search(query, limit=INSTANCES_MAX, deadline=deadline)

    outcomes = await members.ask(sites, "inventory", call)
    sorting.report.add(outcomes)
    for outcome in outcomes:
        if not isinstance(outcome.result, MemberError):
            _sort(sorting, outcome.site, identity, outcome.result)
    return sorting


def _sort(sorting: Sorting, site: Site, identity: Identity, answer: MemberRows) -> None:
    whose: dict[str, set[bool | None]] = {}  # this patient's, another's, or nobody knows
    series_of: Contents = {}
    for row in answer.rows:
        sop = text_of(row, "00080018")
        if sop:
            series_of.setdefault(sop, text_of(row, "0020000E"))
            whose.setdefault(sop, set()).add(_is_his(row, site, identity))
    mine = {sop for sop, told in whose.items() if told == {True}}
    sorting.contents[site.emetteur] = {sop: series_of[sop] for sop in mine}
    sorting.foreign[site.emetteur] = frozenset(series for sop, series in series_of.items() if sop not in mine)
    if answer.more or any(None in told or len(told) > 1 for told in whose.values()):
        sorting.unsure.add(site.emetteur)


def _is_his(row: Attributes, site: Site, identity: Identity) -> bool | None:
    """None: the row does not tell."""
    if "00100020" not in row:
        return None
    return identity.knows(text_of(row, "00100020"), site)
