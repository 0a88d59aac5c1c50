"""Which holder gives what: everything once, in as few requests as the holdings allow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import BLOIS, ROMORANTIN, SITES, TOURS

from federation.model import Form, Target
from federation.plan import Fetch, missing_series, plan
from registry import Site

STUDY = Target(study_uid="1.1")
Holdings = dict[str, dict[str, str]]


def gives(fetch: Fetch, holder: Site, contents: Holdings) -> set[str]:
    """The instances that a holder answers a request with."""
    target = fetch.target
    return {
        sop
        for sop, series in contents[holder.emetteur].items()
        if target.series_uid in (None, series) and target.instance_uid in (None, sop)
    }


def instances(series: str, *numbers: int) -> dict[str, str]:
    return {f"{series}.{n}": series for n in numbers}


_holdings = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 4)).map(lambda t: (f"1.{t[0]}", f"1.{t[0]}.{t[1]}")), max_size=8
).map(lambda pairs: {sop: series for series, sop in pairs})
_targets = st.one_of(
    st.just(STUDY),
    st.integers(1, 3).map(lambda s: Target(study_uid="1.1", series_uid=f"1.{s}", form=Form.METADATA)),
    st.tuples(st.integers(1, 3), st.integers(1, 4)).map(
        lambda t: Target(study_uid="1.1", series_uid=f"1.{t[0]}", instance_uid=f"1.{t[0]}.{t[1]}")
    ),
)


@given(_targets, st.lists(_holdings, min_size=1, max_size=4), st.permutations(SITES))
@settings(max_examples=400)
def test_every_instance_comes_once_from_whichever_candidate(
    target: Target, holdings: list[dict[str, str]], order: list[Site]
) -> None:
    holders = order[: len(holdings)]
    contents = {site.emetteur: held for site, held in zip(holders, holdings, strict=True)}
    whole = Fetch(target=target, candidates=(), expected=None)
    wanted = set[str]().union(*(gives(whole, site, contents) for site in holders))
    fetches = plan(target, contents, holders)
    seen: list[str] = []
    for fetch in fetches:
        assert fetch.candidates
        assert list(fetch.candidates) == [s for s in holders if s in fetch.candidates]  # in order of preference
        assert (fetch.target.study_uid, fetch.target.form) == (target.study_uid, target.form)
        for holder in fetch.candidates:
            assert gives(fetch, holder, contents) == fetch.expected
        assert fetch.expected
        seen += fetch.expected
    assert sorted(seen) == sorted(wanted)
    alone = [s for s in holders if wanted and gives(whole, s, contents) == wanted]
    if alone:
        assert [(f.target, list(f.candidates)) for f in fetches] == [(target, alone)]
    series = {s for c in contents.values() for sop, s in c.items() if sop in wanted}
    together = [s for s in series if not any(_has_all(s, site, wanted, contents) for site in holders)]
    if not together and wanted:
        assert len(fetches) <= len(series)


def _has_all(series: str, site: Site, wanted: set[str], contents: Holdings) -> bool:
    of_series = {sop for c in contents.values() for sop, s in c.items() if s == series and sop in wanted}
    return of_series <= contents[site.emetteur].keys()


def test_a_whole_study_comes_from_one_holder() -> None:
    full = instances("1.2", 1, 2) | instances("1.3", 1)
    (fetch,) = plan(
        STUDY, {"csrom41200": full, "csblo41000": full, "CHUTours": instances("1.2", 1)}, [TOURS, BLOIS, ROMORANTIN]
    )
    assert (fetch.target, fetch.candidates) == (STUDY, (BLOIS, ROMORANTIN))


def test_series_by_series_where_nobody_has_all() -> None:
    contents = {"csrom41200": instances("1.2", 1, 2), "csblo41000": instances("1.3", 1) | instances("1.2", 1)}
    fetches = plan(STUDY, contents, [ROMORANTIN, BLOIS])
    assert [(f.target.series_uid, f.target.instance_uid, f.candidates) for f in fetches] == [
        ("1.2", None, (ROMORANTIN,)),
        ("1.3", None, (BLOIS,)),
    ]


def test_instance_by_instance_where_holders_of_a_series_differ() -> None:
    contents = {"csrom41200": instances("1.2", 1, 2), "csblo41000": instances("1.2", 2, 3)}
    fetches = plan(STUDY, contents, [BLOIS, ROMORANTIN])
    assert [(f.target.instance_uid, f.candidates) for f in fetches] == [
        ("1.2.1", (ROMORANTIN,)),
        ("1.2.2", (BLOIS, ROMORANTIN)),
        ("1.2.3", (BLOIS,)),
    ]


def test_nothing_is_fetched_of_what_nobody_has() -> None:
    assert plan(STUDY, {}, [BLOIS]) == []
    assert plan(Target(study_uid="1.1", series_uid="9"), {"csblo41000": instances("1.2", 1)}, [BLOIS]) == []


@pytest.mark.parametrize(
    ("remembered", "series_uid", "missing"),
    [
        ({}, None, set()),
        ({"CHUTours": frozenset({"1.2", "1.3"})}, None, {"1.3"}),
        ({"CHUTours": frozenset({"1.3"}), "csblo41000": frozenset({"1.4"})}, None, {"1.3", "1.4"}),
        ({"CHUTours": frozenset({"1.3", "1.4"})}, "1.4", {"1.4"}),
        ({"CHUTours": frozenset({"1.3"})}, "1.2", set()),
    ],
)
def test_what_silent_holders_had_is_missed(
    remembered: dict[str, frozenset[str]], series_uid: str | None, missing: set[str]
) -> None:
    target = Target(study_uid="1.1", series_uid=series_uid)
    assert missing_series(target, {"csrom41200": instances("1.2", 1)}, remembered) == missing
