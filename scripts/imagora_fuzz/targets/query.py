"""Query strings: parsed or refused, written for members and read back, and no match lost for a member's weakness."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

from starlette.requests import Request
from support.values import DIRECTORY, SITES, record

from dicomweb import wado_uri
from dicomweb.negotiate import frame_list, render_parameters
from dicomweb.wire import query
from federation.dictionary import vr_of
from federation.errors import BadRequest, NotAcceptable
from federation.identity import Naming
from federation.matching import PATIENT_ID, PATIENT_NAME, filters_for, matches_row, matches_value
from federation.model import Attributes, Level, Scope
from federation.scoping import has_patient_criterion
from federation.wildcards import regex
from imagora_fuzz.oracles import expect

LONGEST = 400
SEEDS = [
    b"PatientName=DUPONT*&StudyDate=20200101-20201231&limit=25&offset=50",
    b"00100010=L%C3%89VY%5EMarie&00100020=4547%40csrom41200&includefield=all",
    b"StudyInstanceUID=1.2.3,1.2.4%5C1.5&includefield=00081030%2CStudyDescription&fuzzymatching=true",
    b"00400275.00400009=A*&StudyTime=10:30-&ModalitiesInStudy=CT\\MR&own_site=include",
    b"AccessionNumber=A%26B%3D1&NumberOfStudyRelatedInstances=12&charset=utf-8&accept=application/json",
    b"requestType=WADO&studyUID=1.2&seriesUID=1.3&objectUID=1.4&contentType=image/jpeg&frameNumber=2&windowCenter=4",
    b"window=40,400,linear&viewport=512,512,0,0&quality=90&annotation=patient&iccprofile=no&x=1,2,5",
    b"PatientBirthDate=1960-05-12&PatientID=%7E0123456789abcdef&00080054=CSROM41200&IssuerOfPatientID=*",
]
WORDS = [
    *(b"PatientName=", b"00100020=", b"00100010=", b"StudyDate=", b"StudyTime=", b"StudyInstanceUID=", b"limit="),
    *(b"offset=", b"includefield=", b"fuzzymatching=true", b"own_site=include", b"charset=", b"00080018="),
    *(b"0040A120=", b"AccessionNumber=", b"ModalitiesInStudy=", b"00400275.00400009=", b"%5C", b"%C3%89", b"%00"),
    *(b"%0D%0A", b"%2C", b"@csrom41200", b"19600512-", b"-235959.999999", b"+0100", b"*", b"?", b"^", b"=", b"&"),
    *(b"1.2.840.",),
]
_NAMING = Naming(qualified=True, issuer="IMAGORA")
_HEADER = re.compile(r"[\x20-\x7e]*")


def check(data: bytes) -> None:
    # Servers refuse a request whose target holds anything else than visible ASCII.
    sent = b"".join(b"%c" % b if 0x21 <= b < 0x7F else b"%%%02X" % b for b in data)
    scope = {"type": "http", "path": "/", "query_string": sent, "headers": [(b"host", b"x")], "scheme": "http"}
    query_string = Request(scope).url.query
    _others(query_string)
    level = (Level.STUDY, Level.SERIES, Level.INSTANCE)[len(data) % 3]
    try:
        parsed = query.parse(query_string, level, Scope(), study_uid="1.2.3" if len(data) % 5 == 0 else None)
    except BadRequest as error:
        error.message.encode()
        return
    asked = parsed.query
    for notice in parsed.notices:
        expect(_HEADER.fullmatch(notice), "a notice is fit for a header")
    expect(asked.limit is None or asked.limit >= 0, "a limit is no less than 0")
    expect(asked.offset >= 0, "an offset is no less than 0")
    expect(all(value for value in asked.filters.values()), "filters are never empty")
    expect(all(re.fullmatch(r"[0-9A-F]{8}(\.[0-9A-F]{8})*", p) for p in asked.filters), "filters are tag paths")
    has_patient_criterion(asked)

    written = query.for_member(
        asked.filters, sorted(asked.include), include_all=asked.include_all, limit=7, offset=asked.offset
    )
    expect(re.fullmatch(r"[\x21-\x7e]*", written), "what members are asked is plain ASCII")
    again = query.parse(written, level, Scope(), study_uid=asked.study_uid).query
    expect(
        replace(again, fuzzy=asked.fuzzy) == replace(asked, limit=7, include=again.include),
        "what members are asked is what was asked",
    )
    expect(
        {p.partition(".")[0] for p in asked.include} <= again.include, "members are asked for all that was asked for"
    )
    _without_escapes(dict(asked.filters))
    for site in SITES:
        variants = filters_for(
            asked.filters, site, _NAMING, DIRECTORY, fuzzy=asked.fuzzy, ignores_case=len(data) % 2 == 0
        )
        expect(len(variants) <= 220, "one search makes no flood of them at a member")
        for variant in variants:
            query.for_member(variant, [], include_all=False, limit=1, offset=0)
    mine = record("4547", SITES[0], name="LÉVY^Marie", birth_date="19600512", sex="F")
    row: Attributes = {
        **{p: {"vr": "LO", "Value": ["4547", None, 7]} for p in asked.filters if "." not in p},
        PATIENT_NAME: {"vr": "PN", "Value": [{"Alphabetic": "LÉVY^Marie"}]},
    }
    matches_row(row, asked.filters, mine, _NAMING, DIRECTORY, fuzzy=asked.fuzzy)


def _others(query_string: str) -> None:
    """WADO-URI, and the parameters of rendered resources and frames."""
    with contextlib.suppress(BadRequest, NotAcceptable):
        wado_uri.parse(query_string, ())
    try:
        given = dict(query.pairs(query_string))
        known, _ = render_parameters(given)
    except BadRequest:
        return
    expect(known.items() <= given.items(), "parameters of pictures are passed as they are")
    for value in given.values():
        with contextlib.suppress(BadRequest):
            expect(all(n > 0 for n in frame_list(value)), "frames are numbered from 1")


def _without_escapes(filters: dict[str, str]) -> None:
    """A member that takes `%C3%89` for what it says is asked without, and no match is lost."""
    searches = query.without_escapes(filters)
    for path, wanted in filters.items():
        tag = path.rpartition(".")[2]
        if vr_of(tag) not in ("LO", "SH", "CS", "AE") or path in (PATIENT_ID, PATIENT_NAME):
            continue
        alternatives = wanted.split("\\")
        stored = alternatives[0].replace("*", "ab").replace("?", "x").strip()
        if not stored or not matches_value(tag, wanted, [stored]):
            continue
        found = any(re.fullmatch(regex(s[path]), stored, re.DOTALL) for s in searches)
        expect(found, "what is asked without escapes finds what matches")
