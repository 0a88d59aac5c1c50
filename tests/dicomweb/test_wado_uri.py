"""WADO-URI: what older viewers write, and what becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.wado_uri import PARAMETERS, UriRequest, parse
from dicomweb.wire.media import parse_accept
from federation.errors import BadRequest, NotAcceptable, RequestError
from federation.model import Form

EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
DICOM = "application/dicom"
UIDS = "studyUID=1.2&seriesUID=1.2.3&objectUID=1.2.3.4"


def asked(more: str = "", accept: str = "*/*") -> UriRequest:
    return parse(f"requestType=WADO&{UIDS}{more}", parse_accept(accept))


def test_uids_name_one_instance() -> None:
    target = asked().target
    assert (target.study_uid, target.series_uid, target.instance_uid) == ("1.2", "1.2.3", "1.2.3.4")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", ["requestType", "studyUID", "seriesUID", "objectUID"]),
        (UIDS, ["requestType"]),
        ("requestType=WADO&studyUID=1.2", ["seriesUID", "objectUID"]),
        ("requestType=WADO&studyUID=&seriesUID=1.2&objectUID=1.3", ["studyUID"]),
        (f"requesttype=WADO&{UIDS}", ["requestType"]),  # names are case-sensitive
    ],
)
def test_what_is_missing_is_named(query: str, named: list[str]) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(query, ())
    assert refusal.value.message == f"WADO-URI needs {', '.join(named)}."


@pytest.mark.parametrize(
    ("more", "accept", "form", "first"),
    [
        ("", "", Form.RENDERED, "image/jpeg"),
        ("", "*/*", Form.RENDERED, "image/jpeg"),
        ("", "image/avif,image/webp,*/*;q=0.8", Form.RENDERED, "image/jpeg"),
        ("", DICOM, Form.DICOM, DICOM),
        ("&contentType=application/dicom", "*/*", Form.DICOM, DICOM),
        ("&contentType=application%2Fdicom", "image/png", Form.DICOM, DICOM),
        ("&contentType=image/png", "*/*", Form.RENDERED, "image/png"),
        ("&contentType=image/jp2,image/gif;q=0.5,image/png;q=0.9", "*/*", Form.RENDERED, "image/png"),
        ("&contentType=text/html", "*/*", Form.RENDERED, "image/jpeg"),
        ("&contentType=text/html", "application/dicom, image/png;q=0.9", Form.DICOM, DICOM),
    ],
)
def test_media_types(more: str, accept: str, form: Form, first: str) -> None:
    found = asked(more, accept)
    assert (found.target.form, found.accept.choices[0][0], found.accept.multipart) == (form, first, False)


def test_what_cannot_be_had_is_not_acceptable() -> None:
    for more, accept in (
        ("&contentType=text/html", ""),
        ("&contentType=text/html", "application/json"),
        (f"&contentType={DICOM}&transferSyntax={IMPLICIT}", "*/*"),
    ):
        with pytest.raises(NotAcceptable):
            asked(more, accept)


@pytest.mark.parametrize(("given", "syntax"), [("", EXPLICIT), (JPEG, JPEG), ("*", "*")])
def test_transfer_syntaxes(given: str, syntax: str) -> None:
    found = asked(f"&contentType={DICOM}" + (f"&transferSyntax={given}" if given else ""))
    assert found.accept.choices == ((DICOM, syntax),)


@pytest.mark.parametrize(
    ("more", "frames", "parameters"),
    [
        ("&frameNumber=3", (3,), {}),
        ("&rows=256&columns=512", (), {"viewport": "512,256"}),
        ("&rows=256", (), {"viewport": "256,256"}),
        ("&columns=64", (), {"viewport": "64,64"}),
        ("&windowCenter=-600.5&windowWidth=%2B1500", (), {"window": "-600.5,1500,linear"}),
        ("&imageQuality=70&annotation=patient,technique", (), {"quality": "70", "annotation": "patient,technique"}),
        ("&imageAnnotation=technique", (), {"annotation": "technique"}),
    ],
)
def test_pictures(more: str, frames: tuple[int, ...], parameters: dict[str, str]) -> None:
    found = asked(more)
    assert (found.target.frames, dict(found.target.parameters), found.notices) == (frames, parameters, ())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("&frameNumber=0", "frameNumber"),
        ("&frameNumber=1,2", "frameNumber"),
        ("&rows=0", "rows"),
        ("&columns=1.5", "columns"),
        ("&windowCenter=40", "windowWidth"),
        ("&windowWidth=40", "windowCenter"),
        ("&windowCenter=a&windowWidth=1", "windowCenter"),
        ("&windowCenter=1&windowWidth=1e3", "windowWidth"),
        ("&imageQuality=101", "imageQuality"),
        ("&annotation=name", "annotation"),
        ("&anonymize=yes", "anonymize"),
        ("&anonymize=no", "anonymize"),
        ("&region=0,0,1,1", "region"),
        ("&presentationUID=1.2&presentationSeriesUID=1.2", "presentationUID"),
        ("&studyUID=1.2", "studyUID"),
        ("&rows=1&rows=1", "rows"),
        (f"&contentType={DICOM}&windowCenter=1&windowWidth=1", "windowCenter"),
        (f"&contentType={DICOM}&transferSyntax=JPEG", "transferSyntax"),
        (f"&contentType={DICOM}&transferSyntax={EXPLICIT}&transferSyntax=*", "transferSyntax"),
        (f"&contentType={DICOM};transfer-syntax=*", "contentType"),
        (f"&contentType={DICOM},image/png", "contentType"),
    ],
)
def test_what_is_wrong_is_named(more: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        asked(more)


def test_wrong_request_types_and_uids_are_named() -> None:
    with pytest.raises(BadRequest, match="requestType"):
        parse(f"requestType=wado&{UIDS}", ())
    for name in ("studyUID", "seriesUID", "objectUID"):
        with pytest.raises(BadRequest, match=name):
            parse(f"requestType=WADO&{UIDS}".replace(f"{name}=1", f"{name}=x"), ())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("&contentType=application/dicom&frameNumber=2", "frameNumber"),
        ("&contentType=application/dicom&rows=5", "rows"),
        ("&contentType=application/dicom&charset=iso-8859-1", "charset"),
        ("&transferSyntax=*", "transferSyntax"),
        ("&nonsense=1", "nonsense"),
    ],
)
def test_what_counts_for_nothing_is_told(more: str, named: str) -> None:
    (notice,) = asked(more).notices
    assert named in notice
    assert asked("&charset=UTF-8").notices == ()


_names = st.sampled_from([*PARAMETERS, "anonymize", "region", "x"])
_values = st.sampled_from(["1.2.3", "WADO", "application/dicom", "image/png", "1", "-5", "patient", "", "*"]) | st.text(
    st.characters(exclude_characters="&=#", exclude_categories=("Cs",)), max_size=10
)


@given(st.lists(st.tuples(_names, _values), max_size=8), st.booleans())
def test_any_query_is_read_or_refused(pairs: list[tuple[str, str]], complete: bool) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    taken = {name for name, _ in pairs}
    if complete:
        own = ("requestType=WADO", *UIDS.split("&"))
        query += "".join(f"&{pair}" for pair in own if pair.partition("=")[0] not in taken)
    try:
        found = parse(query, ())
    except RequestError as refusal:
        if refusal.http_status not in (400, 406):
            raise
        return
    assert found.target.instance_uid
    assert found.accept.choices
    assert set(found.target.parameters) <= {"window", "viewport", "quality", "annotation"}
