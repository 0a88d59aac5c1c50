"""QIDO-RS query strings: what is read, what is refused and by which name, what a member is sent."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.wire.query import Parsed, for_member, parse, tag_path
from federation.errors import BadRequest
from federation.model import Level, Scope

NAME, ID, BORN, DATE, TIME = "00100010", "00100020", "00100030", "00080020", "00080030"
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"


def study(text: str) -> Parsed:
    return parse(text, Level.STUDY, Scope())


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", {}),
        ("&&", {}),
        ("PatientName=DUPONT%5EM*", {NAME: "DUPONT^M*"}),
        ("PatientName=DUPONT^M*", {NAME: "DUPONT^M*"}),
        ("00100010=L%C3%89VY", {NAME: "LÉVY"}),
        ("PatientName=DE+LA+TOUR", {NAME: "DE LA TOUR"}),
        ("PatientName=DE%20LA%20TOUR", {NAME: "DE LA TOUR"}),
        ("0020000d=1.2.3", {STUDY: "1.2.3"}),
        ("StudyInstanceUID=1.2,1.3", {STUDY: "1.2,1.3"}),
        ("StudyInstanceUID=1.2%2C1.3", {STUDY: "1.2,1.3"}),  # OHIF encodes commas
        ("StudyInstanceUID=1.2%5C1.3", {STUDY: "1.2,1.3"}),
        ("StudyInstanceUID=1.2,%201.3,", {STUDY: "1.2,1.3"}),
        ("StudyDate=20200131", {DATE: "20200131"}),
        ("StudyDate=2020-01-31", {DATE: "20200131"}),
        ("StudyDate=2020", {DATE: "2020"}),
        ("StudyDate=20200101-20200131", {DATE: "20200101-20200131"}),
        ("StudyDate=2020-01-01-2020-01-31", {DATE: "20200101-20200131"}),
        ("StudyDate=-20200131", {DATE: "-20200131"}),
        ("StudyDate=20200101-", {DATE: "20200101-"}),
        ("StudyDate=2020-2021", {DATE: "2020-2021"}),
        ("StudyTime=0930-1130", {TIME: "0930-1130"}),
        ("StudyTime=09:30:15", {TIME: "093015"}),
        ("StudyTime=235960.123456", {TIME: "235960.123456"}),
        ("0008002A=20200101120000.5%2B0100", {"0008002A": "20200101120000.5+0100"}),
        ("PatientID=4547%40csrom41200", {ID: "4547@csrom41200"}),
        ("00101002.00100020=4547", {"00101002.00100020": "4547"}),
        ("OtherPatientIDsSequence.PatientID=4547", {"00101002.00100020": "4547"}),
        ("RequestAttributesSequence.00400009=9", {"00400275.00400009": "9"}),
        ("SeriesNumber=%203%20", {"00200011": "3"}),
        ("SeriesNumber=-3", {"00200011": "-3"}),
        ("PatientWeight=71.5", {"00101030": "71.5"}),
        ("PatientWeight=7e1", {"00101030": "7e1"}),
        ("ModalitiesInStudy=CT%5CMR", {"00080061": "CT\\MR"}),
        ("00091001=x", {"00091001": "x"}),
        ("AccessionNumber=A*", {"00080050": "A*"}),
        ("PatientName=a=b", {NAME: "a=b"}),
    ],
)
def test_filters_are_read(text: str, filters: dict[str, str]) -> None:
    parsed = study(text)
    assert parsed.query.filters == filters
    assert parsed.notices == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=9999999999", "limit"),
        ("limit=%D9%A3", "limit"),  # a digit, but not one of ours
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("PatientName=A=B=C=D", "PatientName"),
        ("offset=1&offset=1", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("own_site=yes", "own_site"),
        ("0010001=x", "0010001"),
        ("00100010x=x", "00100010x"),
        ("0010,0010=x", "0010,0010"),
        ("00101002.0010=x", "0010"),
        ("StudyDate=yesterday", "StudyDate"),
        ("StudyDate=20201301", "StudyDate"),
        ("StudyDate=20200132", "StudyDate"),
        ("StudyDate=202001", None),
        ("StudyDate=2020-01", "StudyDate"),
        ("StudyDate=-", "StudyDate"),
        ("StudyDate=20200101-20200131-", "StudyDate"),
        ("StudyDate=20200101%5C20200102", "StudyDate"),
        ("StudyDate=%D9%A2%D9%A0%D9%A2%D9%A0", "StudyDate"),
        ("StudyDate=2020*", "StudyDate"),
        ("StudyTime=2500", "StudyTime"),
        ("StudyTime=0960", "StudyTime"),
        ("StudyTime=9", "StudyTime"),
        ("0008002A=20201", "0008002A"),
        ("StudyInstanceUID=abc", "StudyInstanceUID"),
        ("StudyInstanceUID=1..2", "StudyInstanceUID"),
        ("StudyInstanceUID=1.2.*", "StudyInstanceUID"),
        ("StudyInstanceUID=..", "StudyInstanceUID"),
        ("StudyInstanceUID=,", "StudyInstanceUID"),  # an empty list would match every study
        ("StudyInstanceUID=%5C", "StudyInstanceUID"),
        ("StudyInstanceUID=1.2,x", "StudyInstanceUID"),
        (f"StudyInstanceUID={'1.' * 32}1", "StudyInstanceUID"),
        ("SeriesNumber=three", "SeriesNumber"),
        ("SeriesNumber=1.5", "SeriesNumber"),
        ("PatientWeight=heavy", "PatientWeight"),
        ("PatientName=A&PatientName=B", "PatientName"),
        ("PatientName=A&00100010=B", "00100010"),
        ("PatientName=%FF", "PatientName"),
        (f"PatientName={'x' * 5000}", "PatientName"),
    ],
)
def test_malformed_values_are_refused_by_name(text: str, named: str | None) -> None:
    if named is None:
        assert study(text).query.filters
        return
    with pytest.raises(BadRequest) as refusal:
        study(text)
    assert named in refusal.value.message


@pytest.mark.parametrize(
    "text", ["StudyWeather=fine", "abc.def=1", "=x", "includefiled=all", "00101002.=x", "OtherPatientIDsSequence..x=1"]
)
def test_unknown_parameters_are_ignored_with_a_notice(text: str) -> None:
    parsed = study(f"{text}&PatientID=1")
    assert parsed.query.filters == {ID: "1"}
    (notice,) = parsed.notices
    assert "nknown parameter ignored" in notice
    assert text.partition("=")[0] in notice


def test_a_notice_is_fit_for_a_header() -> None:
    (notice,) = study("na%0D%0AX-Evil%3A1=1").notices
    assert notice.isprintable()
    assert notice.isascii()


@pytest.mark.parametrize(
    ("text", "include", "everything"),
    [
        ("includefield=00081030", {"00081030"}, False),
        ("includefield=StudyDescription,00080080", {"00081030", "00080080"}, False),
        ("includefield=StudyDescription%2C00080080", {"00081030", "00080080"}, False),
        ("includefield=StudyDescription&includefield=00080080", {"00081030", "00080080"}, False),
        ("includefield=all", set(), True),
        ("includefield=ALL,00080080", {"00080080"}, True),
        ("includefield=00101002.00100020", {"00101002"}, False),
        ("includefield=,", set(), False),
        ("PatientName=", {NAME}, False),
        ("PatientName=*", {NAME}, False),
        ("PatientName=+*%0D", {NAME}, False),
        ("PatientName=**&00101002.00100020=", {NAME, "00101002"}, False),
    ],
)
def test_fields_are_asked_for(text: str, include: set[str], everything: bool) -> None:
    parsed = study(text)
    assert (parsed.query.include, parsed.query.include_all) == (include, everything)
    assert parsed.query.filters == {}
    assert parsed.notices == ()


def test_an_unknown_field_is_ignored_with_a_notice() -> None:
    parsed = study("includefield=StudyWeather,00080080")
    assert parsed.query.include == {"00080080"}
    assert len(parsed.notices) == 1
    with pytest.raises(BadRequest):
        study("includefield=0008008")


def test_pages_flags_and_the_own_site() -> None:
    parsed = study("limit=25&offset=50&fuzzymatching=false&emptyvaluematching=false&accept=a/b&own_site=include")
    assert (parsed.query.limit, parsed.query.offset, parsed.query.fuzzy, parsed.own_site) == (25, 50, False, True)
    assert parsed.notices == ()
    assert study("own_site=exclude").own_site is False
    assert study("").own_site is None
    assert study("LIMIT=0").query.limit == 0
    assert study("offset=%1D1+").query.offset == 1  # white space to some, and not to others


def test_alternatives_are_asked_for_without_what_pads_them() -> None:
    assert study("ModalitiesInStudy=CT%20%5C%20MR%5C").query.filters == {"00080061": "CT\\MR"}
    assert study("ModalitiesInStudy=%5C").query.filters == {"00080061": "\\"}


def test_fuzzy_matching_is_asked_for_and_nothing_is_said_of_it() -> None:
    parsed = study("fuzzymatching=true")
    assert (parsed.query.fuzzy, parsed.notices) == (True, ())
    assert not study("fuzzymatching=false").query.fuzzy


def test_a_uid_of_the_path_is_no_filter() -> None:
    parsed = parse(f"{STUDY}=1.2&SeriesInstanceUID=1.3", Level.INSTANCE, Scope(), study_uid="1.2", series_uid="1.3")
    assert parsed.query.filters == {}
    assert (parsed.query.study_uid, parsed.query.series_uid) == ("1.2", "1.3")
    with pytest.raises(BadRequest):
        parse(f"{STUDY}=1.2", Level.SERIES, Scope(), study_uid="1.3")


def test_tag_paths() -> None:
    assert tag_path("PatientName") == NAME
    assert tag_path("00400275.ScheduledProcedureStepID") == "00400275.00400009"
    assert tag_path("7fe00010") == "7FE00010"
    assert tag_path("NoSuchKeyword") is None


def test_a_member_is_sent_encoded_text() -> None:
    text = for_member({NAME: "D*^M?&x=1", STUDY: "1.2,1.3"}, ["00081030"], include_all=False, limit=26, offset=50)
    assert text == ("00100010=D*%5EM?%26x%3D1&0020000D=1.2,1.3&includefield=00081030&limit=26&offset=50")
    everything = for_member({}, ["00081030"], include_all=True, limit=1, offset=0)
    assert everything == "includefield=all&includefield=00081030&limit=1"


_values = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(_values, _values)
def test_what_a_member_is_sent_reads_back(name: str, accession: str) -> None:
    text = for_member({NAME: name, "00080050": accession}, [], include_all=False, limit=5, offset=0)
    assert text.isascii()
    assert dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True)) == {
        NAME: name,
        "00080050": accession,
        "limit": "5",
    }


_keys = st.sampled_from(
    [NAME, "PatientID", STUDY, DATE, TIME, "0008002A", "limit", "offset", "includefield", "00101002.00100020", "x", "0"]
)
_texts = st.one_of(st.text(max_size=12), st.from_regex(r"[0-9.,:*+\\-]{0,20}", fullmatch=True))


def read_or_refused(text: str) -> Parsed | None:
    try:
        return study(text)
    except BadRequest:
        return None


@given(st.lists(st.tuples(_keys, _texts), max_size=4))
def test_any_query_is_read_or_refused(items: list[tuple[str, str]]) -> None:
    parsed = read_or_refused("&".join(f"{k}={quote(v, errors='surrogatepass')}" for k, v in items))
    if parsed is not None:
        assert all(v and v == v.strip() for v in parsed.query.filters.values())
        for_member(parsed.query.filters, sorted(parsed.query.include), include_all=False, limit=1, offset=0)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refused(text)


def test_charset_is_known_and_only_utf_8_is_given() -> None:
    for value, notices in (("utf-8", 0), ("ISO-8859-1;q=0.1,UTF-8", 0), ("*", 0), ("iso-8859-1", 1)):
        parsed = parse(f"charset={value}", Level.STUDY, Scope())
        assert len(parsed.notices) == notices
        assert all("UTF-8" in notice for notice in parsed.notices)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("emptyvaluematching=true", "emptyvaluematching is not offered here and was ignored"),
        ("multiplevaluematching=true", "multiplevaluematching is not offered here and was ignored"),
        ("TimezoneOffsetFromUTC=%2B0100", "TimezoneOffsetFromUTC was ignored: times are matched as sources store them"),
        ("00080201=%2B0100", "TimezoneOffsetFromUTC was ignored: times are matched as sources store them"),
    ],
)
def test_what_the_standard_knows_and_is_not_offered_is_said_to_be_ignored(asked: str, says: str) -> None:
    parsed = study(f"StudyDate=20240101&{asked}")
    assert parsed.notices == (says,)
    assert parsed.query.filters == {"00080020": "20240101"}


def test_what_is_not_wished_is_not_spoken_of() -> None:
    assert study("emptyvaluematching=false&multiplevaluematching=false").notices == ()
    with pytest.raises(BadRequest, match="emptyvaluematching takes true or false"):
        study("emptyvaluematching=maybe")
