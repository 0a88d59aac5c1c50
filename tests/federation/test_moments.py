"""Ranges of dates and times, each by itself and as one."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import BLOIS, DIRECTORY, record

from federation.identity import Naming
from federation.matching import filters_for, matches_row
from federation.model import Attributes
from federation.moments import combined, matches_moment, matches_range, time_of, to_ask

NAMING = Naming(qualified=True, issuer="IMAGORA")
DATE, TIME = "00080020", "00080030"
BORN, BORN_AT = "00100030", "00100032"


@pytest.mark.parametrize(
    ("wanted", "value", "yes"),
    [
        ("20200131", "20200131", True),
        ("20200131", "20200130", False),
        ("202001", "20200131", True),
        ("2020", "20200131", True),
        ("2020", "20210131", False),
        ("20200131", "", False),
        ("20200131", "2020.01.31", True),  # ACR-NEMA, still met
        ("20200101-20200131", "20200101", True),
        ("20200101-20200131", "20200131", True),
        ("20200101-20200131", "20200201", False),
        ("20200101-20200131", "20191231", False),
        ("2020-2021", "20211231", True),
        ("2020-2021", "20220101", False),
        ("202001-202002", "20200229", True),
        ("-20200131", "19991231", True),
        ("-20200131", "20200201", False),
        ("-2020", "20201231", True),
        ("20200131-", "20200131", True),
        ("20200131-", "20200130", False),
        ("20200131-", "", False),
        ("0930", "093015", True),
        ("0930", "0930", True),
        ("093000", "0930", True),  # a time that says less
        ("093015", "0930", False),
        ("0930", "09:30:15", True),
        ("0930-1000", "093000", True),
        ("0930-1000", "100059.5", True),  # the whole minute
        ("0930-1000", "100100", False),
        ("0930-1000", "0929", False),
        ("093000.25-", "093000.5", True),
        ("093000.25-", "093000", False),
        ("-093000.25", "093000.250", True),
        ("-093000.25", "093000.3", False),
        ("-093015", "0930", True),
        ("09-10", "103000", True),
    ],
)
def test_dates_and_times(wanted: str, value: str, yes: bool) -> None:
    assert matches_range(wanted, value) is yes


_dates = st.dates().map(lambda d: d.strftime("%Y%m%d").zfill(8))


@given(_dates, _dates, _dates, st.sampled_from([4, 6, 8]))
def test_date_ranges_hold_whole_periods(value: str, low: str, high: str, precision: int) -> None:
    low, high = low[:precision], high[:precision]
    within = low <= value[:precision] <= high
    assert matches_range(f"{low}-{high}", value) is within
    assert matches_range(f"{low}-", value) is (low <= value[:precision])
    assert matches_range(f"-{high}", value) is (value[:precision] <= high)
    assert matches_range(low, value) is (value[:precision] == low)


# A date and its time as one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "time_of_day", "yes"),
    [
        # PS3.4 C.2.2.2.5.4 has this very range.
        ("20060705", "095959", False),
        ("20060705", "100000", True),
        ("20060705", "230000", True),
        ("20060706", "030000", True),
        ("20060707", "093000", True),
        ("20060707", "180059", True),  # the whole minute
        ("20060707", "180100", False),
        ("20060708", "120000", False),
        ("20060704", "120000", False),
        ("2006.07.06", "03:00:00", True),
        ("20060706", "", True),
        ("20060705", "", True),  # it may have been after ten
        ("20060707", "", True),
        ("20060708", "", False),
        ("", "120000", False),
    ],
)
def test_days_and_hours_are_one_range(day: str, time_of_day: str, yes: bool) -> None:
    assert matches_moment("20060705-20060707", "1000-1800", day, time_of_day) is yes


def digits(moment: datetime, length: int) -> tuple[str, str]:
    """DA, and TM with so many digits; behind the sixth stands the point."""
    text = moment.strftime("%H%M%S%f")[:length]
    return moment.strftime("%Y%m%d").zfill(8), f"{text[:6]}.{text[6:]}" if length > 6 else text


_precisions = st.sampled_from([2, 4, 6, 7, 9, 12])
_moments = st.datetimes(datetime(2019, 12, 30), datetime(2020, 3, 2))


@st.composite
def bounds(draw: st.DrawFn) -> tuple[str, str, datetime, datetime]:
    """One bound: its date and time as typed, and the first and the last moment that it stands for."""
    moment = draw(_moments)
    of_day, of_time = draw(st.sampled_from([4, 6, 8, 8, 8])), draw(_precisions)
    day, time_of_day = digits(moment, of_time)
    lasts = timedelta(microseconds={2: 3_600_000_000, 4: 60_000_000}.get(of_time, 10 ** (12 - of_time)))
    midnight = datetime.min.time()
    begins = (moment - datetime.combine(moment.date(), midnight)) // lasts * lasts
    first = {8: moment.date(), 6: moment.date().replace(day=1), 4: date(moment.year, 1, 1)}[of_day]
    month = date(moment.year + moment.month // 12, moment.month % 12 + 1, 1) - timedelta(days=1)
    last = {8: moment.date(), 6: month, 4: date(moment.year, 12, 31)}[of_day]
    return (
        day[:of_day],
        time_of_day,
        datetime.combine(first, midnight) + begins,
        datetime.combine(last, midnight) + begins + lasts - timedelta(microseconds=1),
    )


@given(bounds(), bounds(), _moments, _precisions, st.sampled_from(["a-b", "a-", "-b"]), st.booleans())
@settings(max_examples=600)
def test_combined_ranges_hold_the_moments_between_their_bounds(
    low: tuple[str, str, datetime, datetime],
    high: tuple[str, str, datetime, datetime],
    moment: datetime,
    precision: int,
    form: str,
    known: bool,
) -> None:
    """Against moments on a clock. What a value does not say is naught; a time that is not known may be any."""
    day, time_of_day = digits(moment, precision)
    dates, times = (
        (f"{low[n]}-", f"-{high[n]}", f"{low[n]}-{high[n]}")[("a-", "-b", "a-b").index(form)] for n in (0, 1)
    )
    begin = datetime.min if form == "-b" else low[2]
    end = datetime.max if form == "a-" else high[3]
    if known:
        said = datetime.strptime(day + time_of_day.replace(".", "").ljust(12, "0"), "%Y%m%d%H%M%S%f")
        expected = begin <= said <= end
    else:
        midnight = datetime.combine(moment.date(), datetime.min.time())
        latest = midnight + timedelta(days=1, microseconds=-1)
        time_of_day, expected = "", max(begin, midnight) <= min(end, latest)
    assert matches_moment(dates, times, day, time_of_day) is expected


def row(day: str | None, time_of_day: str | None, *, date_tag: str = DATE, time_tag: str = TIME) -> Attributes:
    """None = the member gives no such attribute."""
    made: Attributes = {}
    for tag, vr, text in ((date_tag, "DA", day), (time_tag, "TM", time_of_day)):
        if text is not None:
            made[tag] = {"vr": vr, "Value": [text]} if text else {"vr": vr}
    return made


def found(filters: dict[str, str], candidate: Attributes) -> bool:
    return matches_row(candidate, filters, record("1", BLOIS, birth_date="19600512"), NAMING, DIRECTORY)


RANGE = {DATE: "20060705-20060707", TIME: "1000-1800"}


@pytest.mark.parametrize(
    ("filters", "candidate", "yes"),
    [
        (RANGE, row("20060706", "030000"), True),
        (RANGE, row("20060705", "030000"), False),
        (RANGE, row("20060706", None), True),
        (RANGE, row("20060706", ""), True),
        (RANGE, row(None, "030000"), True),
        (RANGE, row("", "030000"), False),
        ({DATE: "20060705-", TIME: "1000-"}, row("20060706", "030000"), True),
        ({DATE: "-20060707", TIME: "-1800"}, row("20060706", "230000"), True),
        # Not of one form: each by itself.
        ({DATE: "20060705-20060707", TIME: "1000-"}, row("20060706", "030000"), False),
        ({DATE: "20060705-", TIME: "1000-1800"}, row("20060706", "030000"), False),
        ({DATE: "20060706", TIME: "1000-1800"}, row("20060706", "030000"), False),
        ({DATE: "20060706", TIME: "1000-1800"}, row("20060706", "120000"), True),
        ({DATE: "20060705-20060707", TIME: "03"}, row("20060706", "030000"), True),
        ({DATE: "20060705-20060707", "00080031": "1000-1800"}, row("20060706", "030000"), True),
        ({**RANGE, "00100010": "MARTIN"}, row("20060706", "030000"), False),
    ],
)
def test_rows(filters: dict[str, str], candidate: Attributes, yes: bool) -> None:
    assert found(filters, candidate) is yes


@pytest.mark.parametrize(
    ("birth_date", "yes"), [("19600512", True), ("19600513", False), (None, True)], ids=["within", "after", "not given"]
)
def test_a_birth_date_that_the_row_does_not_give_is_that_of_its_study(birth_date: str | None, yes: bool) -> None:
    filters = {BORN: "19600511-19600512", BORN_AT: "0000-2359"}
    assert found(filters, row(birth_date, "1200", date_tag=BORN, time_tag=BORN_AT)) is yes
    assert not found({BORN: "1970-", BORN_AT: "00-"}, {})


def test_date_and_time_of_one_item_are_meant() -> None:
    step = "00400100"
    filters = {f"{step}.00400002": "20060705-20060707", f"{step}.00400003": "1000-1800"}
    early = row("20060705", "090000", date_tag="00400002", time_tag="00400003")
    late = row("20060708", "110000", date_tag="00400002", time_tag="00400003")
    good = row("20060706", "030000", date_tag="00400002", time_tag="00400003")
    assert not found(filters, {step: {"vr": "SQ", "Value": [early, late]}})
    assert found(filters, {step: {"vr": "SQ", "Value": [early, good]}})
    assert found(filters, {})


def test_times_are_known_by_their_dates() -> None:
    assert time_of(DATE) == TIME
    assert time_of("00400244") == "00400245"  # PerformedProcedureStepStartDate
    assert time_of("00181200") == "00181201"  # DateOfLastCalibration
    assert time_of("00400100.00400002") == "00400100.00400003"
    for none in (TIME, "001021D0", "00080018", "00091001", ""):  # LastMenstrualDate has no time
        assert time_of(none) is None


# What members are asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wanted", "asked"),
    [
        (DATE, "20240105", "20240105"),
        (DATE, "20240105-20240107", "20240105-20240107"),
        (DATE, "20240105-", "20240105-"),
        (DATE, "2024", "20240101-20241231"),
        (DATE, "202402-", "20240201-"),
        (DATE, "-202402", "-20240229"),
        (TIME, "03", "03-035959.999999"),
        (TIME, "101500", "1015-101500.999999"),
        (TIME, "100000.0-180000", "10-180000.999999"),
        (TIME, "000000-", "00-"),
        (TIME, "-1800", "-180059.999999"),
        (TIME, "-180000.25", "-180000.259999"),
        ("00400100.00400003", "0930", "0930-093059.999999"),
        ("00100010", "2024", "2024"),
    ],
)
def test_shortened_dates_and_times_are_written_out(path: str, wanted: str, asked: str) -> None:
    assert to_ask(path, wanted) == asked


_ranges = st.sampled_from(["{}-{}", "{}-", "-{}", "{}"])


def by_letters(wanted: str, value: str) -> bool:
    """As Orthanc has it."""
    low, dash, high = wanted.partition("-")
    return (low <= value and (not high or value <= high)) if dash else value == wanted


@given(_ranges, _ranges, bounds(), bounds(), _moments, _precisions)
@settings(max_examples=600)
def test_a_member_that_compares_letters_and_matches_times_apart_gives_every_row(
    of_dates: str, of_times: str, one: tuple[Any, ...], other: tuple[Any, ...], moment: datetime, precision: int
) -> None:
    filters = {DATE: of_dates.format(one[0], other[0]), TIME: of_times.format(one[1], other[1])}
    day, time_of_day = digits(moment, precision)
    for asked_for in (filters, {DATE: filters[DATE]}, {TIME: filters[TIME]}):
        if found(asked_for, row(day, time_of_day)):
            (asked,) = filters_for(asked_for, BLOIS, NAMING, DIRECTORY)
            told = {DATE: day, TIME: time_of_day}
            assert all(by_letters(wanted, told[tag]) for tag, wanted in asked.items()), asked


def test_of_a_combined_range_only_the_dates_are_asked_for() -> None:
    assert filters_for(RANGE, BLOIS, NAMING, DIRECTORY) == [{DATE: RANGE[DATE]}]
    apart = {DATE: "20060706", TIME: "1000-1800"}
    assert filters_for(apart, BLOIS, NAMING, DIRECTORY) == [{DATE: "20060706", TIME: "10-180059.999999"}]
    assert combined(apart) == ()
