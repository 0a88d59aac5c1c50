"""Which holder gives which part of a study. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from federation.model import Target
from registry import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One request to one of `candidates`, in order of preference; each has all of `expected`.

    `expected` None = the only word on what there is is the holder's own.
    """

    target: Target
    candidates: tuple[Site, ...]
    expected: frozenset[str] | None = None  # SOPInstanceUIDs


def plan(target: Target, contents: Mapping[str, Mapping[str, str]], holders: Sequence[Site]) -> list[Fetch]:
    """The fewest requests that bring every instance of `target` once.

    `contents` by EMETTEUR: instance UID → series UID. `holders` in order of preference. One holder that has all is
    asked for all; else series by series; an instance at a time where no holder has a whole series.
    """
    within = {
        site.emetteur: frozenset(
            sop
            for sop, series in contents.get(site.emetteur, {}).items()
            if target.series_uid in (None, series) and target.instance_uid in (None, sop)
        )
        for site in holders
    }
    union = frozenset[str]().union(*within.values())
    if not union:
        return []
    whole = tuple(s for s in holders if within[s.emetteur] == union)
    if whole:
        return [Fetch(target=target, candidates=whole, expected=union)]
    series_of = {sop: series for c in contents.values() for sop, series in c.items() if sop in union}
    fetches: list[Fetch] = []
    for series_uid in sorted(set(series_of.values())):
        mine = frozenset(sop for sop in union if series_of[sop] == series_uid)
        having = tuple(s for s in holders if mine <= within[s.emetteur])
        if having:
            fetches.append(Fetch(target=replace(target, series_uid=series_uid), candidates=having, expected=mine))
            continue
        fetches += [
            Fetch(
                target=replace(target, series_uid=series_uid, instance_uid=sop),
                candidates=tuple(s for s in holders if sop in within[s.emetteur]),
                expected=frozenset({sop}),
            )
            for sop in sorted(mine)
        ]
    return fetches


def missing_series(
    target: Target, contents: Mapping[str, Mapping[str, str]], remembered: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """Series that silent holders had when last seen and that no answering holder has."""
    had = frozenset[str]().union(*remembered.values())
    if target.series_uid is not None:
        had &= {target.series_uid}
    return had - {series for c in contents.values() for series in c.values()}
