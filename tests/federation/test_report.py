"""What an answer says of its sources, and how that becomes headers."""

from __future__ import annotations

import pytest
from support.values import BLOIS, ORLEANS, ROMORANTIN, TOURS, site

from dicomweb.respond import HEADER_MAX, report_headers, source_header, warning_headers
from federation.errors import (
    MemberCannot,
    MemberError,
    MemberGarbage,
    MemberNotFound,
    MemberRefused,
    MemberSkipped,
    MemberTimeout,
    MemberUnreachable,
    SourceStatus,
)
from federation.model import Outcome
from federation.report import Report, answered
from registry import Site


def outcome(of: Site, result: object, elapsed_s: float = 0.5) -> Outcome[object]:
    return Outcome(site=of, result=result, elapsed_s=elapsed_s)


@pytest.mark.parametrize(
    ("result", "status", "failed"),
    [
        ([], SourceStatus.OK, False),
        (MemberNotFound("x"), SourceStatus.OK, False),
        (MemberTimeout("x"), SourceStatus.TIMEOUT, True),
        (MemberUnreachable("x"), SourceStatus.ERROR, True),
        (MemberGarbage("x"), SourceStatus.ERROR, True),
        (MemberCannot("x"), SourceStatus.ERROR, True),
        (MemberRefused("x"), SourceStatus.REFUSED, True),
        (MemberSkipped("x"), SourceStatus.SKIPPED, True),
    ],
)
def test_each_way_to_answer_has_its_word(result: object, status: SourceStatus, failed: bool) -> None:
    report = Report()
    report.add([outcome(BLOIS, result)])
    assert report.sources["csblo41000"].status is status
    assert bool(report.failed) is failed
    assert report.none_answered is failed
    assert answered(outcome(BLOIS, result)) is (not isinstance(result, MemberError) or not failed)


def test_a_member_s_worst_status_stands_and_its_times_add_up() -> None:
    report = Report()
    report.add([outcome(BLOIS, []), outcome(BLOIS, MemberTimeout("x"), 10.0), outcome(BLOIS, MemberRefused("x"))])
    source = report.sources["csblo41000"]
    assert (source.status, source.elapsed_s) == (SourceStatus.TIMEOUT, 11.0)
    report.note("csblo41000", SourceStatus.CAPPED)
    assert source.status is SourceStatus.TIMEOUT


def test_missing_sources_are_named_first() -> None:
    report = Report(notices=["Something else"])
    report.add(
        [outcome(BLOIS, []), outcome(TOURS, MemberTimeout("10.0.0.7 said no")), outcome(ORLEANS, MemberRefused("x"))]
    )
    assert report.sentences() == [
        "2 of 3 sources did not answer: CHUTours (timeout), ch-orleans_45 (refused)",
        "Something else",
    ]
    assert not report.none_answered
    assert Report().sentences() == []
    assert not Report().none_answered


def test_a_capped_source_has_answered() -> None:
    report = Report()
    report.note("csblo41000", SourceStatus.CAPPED)
    assert report.failed == []
    assert [s.emetteur for s in report.capped] == ["csblo41000"]
    assert not report.none_answered


def test_headers() -> None:
    report = Report()
    report.add([outcome(ROMORANTIN, [], 0.0314), outcome(TOURS, MemberTimeout("x"), 10.0)])
    report.sources["csrom41200"].rows = 25
    assert report_headers(report, ["Exams of your own site are left out"]) == [
        (b"warning", b"299 imagora: 1 of 2 sources did not answer: CHUTours (timeout)"),
        (b"warning", b"299 imagora: Exams of your own site are left out"),
        (b"imagora-sources", b"CHUTours;timeout;0;10000, csrom41200;ok;25;31"),
    ]


def test_headers_are_bounded_failures_first() -> None:
    report = Report()
    sites = [site(f"emetteur-{n:03d}.xx", n) for n in range(300)]
    report.add(outcome(s, MemberTimeout("x") if s.number >= 290 else []) for s in sites)
    ((name, value),) = source_header(report)
    assert (name, len(value) <= HEADER_MAX) == (b"imagora-sources", True)
    items = value.decode().split(", ")
    assert [i.split(";")[1] for i in items[:11]] == ["timeout"] * 10 + ["ok"]
    assert all(i.count(";") == 3 for i in items)
    assert source_header(Report()) == []
    assert sum(len(v) for _, v in warning_headers(["x" * 500] * 100)) <= HEADER_MAX


def test_header_values_hold_nothing_but_ascii() -> None:
    ((_, value),) = warning_headers(["Hôpital"])
    assert value == b"299 imagora: H?pital"
