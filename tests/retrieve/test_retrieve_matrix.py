"""Every file of pydicom's test set × every form × every media type: the right status, and what pydicom makes of it.

Unlike in test_retrieve_pydicom_files nothing is compared with what Orthanc says: pydicom decodes, windows and tells who
it is. One test is one form; what is wrong with which file stands in its message.
"""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest
from retrieve_expected import (
    DICOM,
    EXPLICIT,
    FORBIDDEN,
    FRAME_TYPES,
    JPEG2000,
    OCTETS,
    RELATED,
    SICK,
    XML,
    Asking,
    held,
    is_image,
    own_syntax,
    plain_syntaxes,
    problems_of,
    refused,
    root,
    stored_syntaxes,
    wrong_frames,
    wrong_greys,
    wrong_instance,
    wrong_picture,
    wrong_row,
)
from retrieve_files import Archive, Stored, number_of_frames
from retrieve_member import read
from retrieve_wire import Part, Seen
from support.native_model import data_set_of

# pydicom reads these files with many remarks about how they are made.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def ask(archive: Archive) -> Iterator[Asking]:
    with closing(Asking(archive)) as asking:
        yield asking


def test_instances(archive: Archive, ask: Asking) -> None:
    def check(stored: Stored) -> str:
        own, path = own_syntax(stored), root(stored)
        for accept, syntaxes in (
            (None, plain_syntaxes(stored)),
            (f"{RELATED(DICOM)}; transfer-syntax=*", stored_syntaxes(stored)),
            (f"{RELATED(DICOM)}; transfer-syntax={own}" if own else None, stored_syntaxes(stored)),
            (f"{RELATED(DICOM)}; transfer-syntax={JPEG2000}", {JPEG2000} & {own}),
            (DICOM, plain_syntaxes(stored)),
            ("application/dicom+json", set[str]()),
        ):
            seen = ask(path, accept)
            if not syntaxes or (accept and accept.endswith(f"={own}") and own in FORBIDDEN):
                problem = refused(seen, 406, *([502] if not own and accept and JPEG2000 in accept else []))
            elif seen.status != 200 or not seen.ended:
                problem = f"{seen.status}: {seen.body[:150]!r}"
            else:
                parts = [Part(seen.headers, seen.body)] if accept == DICOM else seen.parts
                problem = f"{len(parts)} parts" if len(parts) != 1 else wrong_instance(parts[0], stored, syntaxes)
            if problem:
                return f"{accept}: {problem}"
        return ""

    problems_of(archive, check)


@pytest.mark.parametrize("level", ["study", "series"])
def test_studies_and_series(level: str, archive: Archive, ask: Asking) -> None:
    """All that there is below it, each once, whatever else is in it."""
    seen_already: set[str] = set()

    def check(stored: Stored) -> str:
        path = root(stored, level)
        if path in seen_already:
            return ""
        seen_already.add(path)
        below = held(archive, path)
        for accept, syntaxes in ((None, plain_syntaxes), (f"{RELATED(DICOM)}; transfer-syntax=*", stored_syntaxes)):
            seen = ask(path, accept)
            if seen.status != 200 or not seen.ended:
                return f"{accept}: {seen.status}, {'whole' if seen.ended else 'cut'}: {seen.body[:150]!r}"
            parts = {str(read(part.body).SOPInstanceUID): part for part in seen.parts}
            if parts.keys() != below.keys() or len(seen.parts) != len(below):
                return f"{accept}: {len(seen.parts)} for {len(below)} instances"
            for sop, part in parts.items():
                # Where a member sends the first one so that it can't be tagged, all are asked for in another form.
                may = syntaxes(below[sop]) | ({EXPLICIT} if len(below) > 1 else set())
                if problem := wrong_instance(part, below[sop], may):
                    return f"{accept}: {below[sop].name}: {problem}"
        return ""

    problems_of(archive, check)
    assert len(seen_already) > 60


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_metadata(level: str, archive: Archive, ask: Asking) -> None:
    seen_already: set[str] = set()

    def check(stored: Stored) -> str:
        path = root(stored, level)
        if path in seen_already:
            return ""
        seen_already.add(path)
        below = held(archive, path) if level != "instance" else {stored.path.rpartition("/")[2]: stored}
        rows: dict[str, dict[str, Any]] = {}
        for accept in (None, "application/json", RELATED(XML)):
            seen = ask(f"{path}/metadata", accept)
            if seen.status != 200 or not seen.ended:
                return f"{accept}: {seen.status}: {seen.body[:150]!r}"
            if accept == RELATED(XML):
                found = [data_set_of(ET.fromstring(part.body)) for part in seen.parts]
            else:
                found = json.loads(seen.body)
                if seen.headers["content-type"] != (accept or "application/dicom+json"):
                    return seen.headers["content-type"]
            by_uid = {row["00080018"]["Value"][0]: row for row in found}
            if by_uid.keys() != below.keys() or len(found) != len(below):
                return f"{accept}: {len(found)} for {len(below)} instances"
            if accept == "application/json" and by_uid != rows:
                return "differs by the name of JSON"
            rows = rows or by_uid
        return next((p for sop, row in rows.items() if (p := wrong_row(row, below[sop]))), "")

    problems_of(archive, check)


def test_frames(archive: Archive, ask: Asking) -> None:
    def check(stored: Stored) -> str:
        path, own = f"{root(stored)}/frames", own_syntax(stored)
        count = number_of_frames(stored.dataset)
        numbers = sorted({1, max(1, count // 2), count})
        if not is_image(stored) or (stored.name in SICK and stored.name != "JPEG-lossy.dcm"):
            statuses = (406,) if not is_image(stored) else (502, 413)
            other = ask(f"{path}/1", RELATED("image/jls"))
            return refused(ask(f"{path}/1"), *statuses) or refused(other, 406, *statuses)
        compressed = own.startswith("1.2.840.10008.1.2.4.") or own == "1.2.840.10008.1.2.5"
        here = ",".join(map(str, numbers))
        own_type = next((t for t, syntaxes in FRAME_TYPES.items() if own in syntaxes), OCTETS)
        for accept, named, syntax in (
            (None, OCTETS, EXPLICIT),
            (f"{RELATED(OCTETS)}; transfer-syntax={EXPLICIT}", OCTETS, EXPLICIT),
            (f"{RELATED(OCTETS)}; transfer-syntax=*", own_type, own if compressed else EXPLICIT),
            (f"{RELATED(own_type)}; transfer-syntax={own}" if compressed else RELATED(OCTETS), own_type, own),
        ):
            seen = ask(f"{path}/{here}", accept)
            # Of what is asked for as octets, a member may name the media type of what is in them.
            octets = RELATED(OCTETS) in (accept or "") and seen.status == 200 and seen.parts[0].type.startswith(OCTETS)
            media_type = OCTETS if octets else named
            used = syntax if compressed else EXPLICIT
            if problem := wrong_frames(seen, numbers, stored, media_type, used):
                return f"{accept}: {problem}"
        if compressed:
            in_octets = ask(f"{path}/{here}", f"{RELATED(OCTETS)}; transfer-syntax={own}")
            media_type = OCTETS if in_octets.status == 200 and in_octets.parts[0].type.startswith(OCTETS) else own_type
            if problem := wrong_frames(in_octets, numbers, stored, media_type, own):
                return f"octets in {own}: {problem}"
        for media_type in ("image/jp2", "image/dicom-rle"):  # Orthanc makes JPEG and JPEG-LS of others
            if media_type != own_type and (problem := refused(ask(f"{path}/1", RELATED(media_type)), 406)):
                return f"{media_type}: {problem}"
        return refused(ask(f"{path}/{count + 1}"), 404)

    problems_of(archive, check)


def test_pictures(archive: Archive, ask: Asking) -> None:
    levels: set[str] = set()

    def check(stored: Stored) -> str:
        path = root(stored)
        if not is_image(stored) or stored.name in SICK:
            for form in ("rendered", "thumbnail"):
                seen = ask(f"{path}/{form}", "image/gif")  # which Orthanc does not give
                problem = refused(seen, 406) if not is_image(stored) else refused(seen, 502, 413)
                if problem:
                    return f"{form}: {problem}"
            return ""
        for below, accept in (
            ("rendered", None),
            ("rendered", "image/png"),
            ("rendered", "image/gif"),
            ("frames/1/rendered", "image/jpeg"),
            ("frames/1/rendered", "image/png"),
            ("frames/1/rendered", "image/gif"),
            ("thumbnail", None),
            ("thumbnail", "image/png"),
            ("thumbnail", "image/gif"),
            ("frames/1/thumbnail", "image/jpeg"),
            ("frames/1/thumbnail", "image/png"),
            ("frames/1/thumbnail", "image/gif"),
        ):
            seen = ask(f"{path}/{below}", accept)
            longest = 128 if "thumbnail" in below else None
            problem = wrong_picture(seen, accept or "image/jpeg", stored, longest=longest)
            problem = problem or wrong_greys(seen, stored, middle=below == "thumbnail")
            if problem:
                return f"{below} as {accept}: {problem}"
        return refused(ask(f"{path}/rendered", "video/mp4"), 406)

    problems_of(archive, check)

    def above(stored: Stored) -> str:
        for level in ("study", "series"):
            path = root(stored, level)
            if path in levels or any(not is_image(s) or s.name in SICK for s in held(archive, path).values()):
                continue
            levels.add(path)
            below = held(archive, path)
            for form, accept in itertools.product(("rendered", "thumbnail"), (None, "image/png", "image/gif")):
                seen = ask(f"{path}/{form}", accept)
                one = below.get(seen.headers.get("content-location", "").rpartition("/")[2])
                if one is None:
                    return f"{form}: {seen.status}: no instance of it is named: {seen.body[:150]!r}"
                problem = wrong_picture(
                    seen, accept or "image/jpeg", one, longest=128 if form == "thumbnail" else None
                ) or wrong_greys(seen, one, middle=form == "thumbnail")
                if problem:
                    return f"{form} as {accept}: {problem}"
        return ""

    problems_of(archive, above)
    assert len(levels) > 60


def test_wado_uri(archive: Archive, ask: Asking) -> None:
    """Below which lies what WADO-RS gives: its parameters, and a picture as the default."""

    def check(stored: Stored) -> str:
        _, study, _, series, _, sop = stored.path.strip("/").split("/")
        uids = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": sop}

        def uri(**more: str) -> Seen:
            return ask(f"/sites/{stored.site}/wado?{urlencode({**uids, **more})}")

        for more, syntaxes in (
            ({}, plain_syntaxes(stored)),
            ({"transferSyntax": "*"}, stored_syntaxes(stored)),
            ({"transferSyntax": own_syntax(stored)} if own_syntax(stored) else {}, stored_syntaxes(stored)),
        ):
            seen = uri(contentType=DICOM, **more)
            if set(more.values()) & FORBIDDEN:
                problem = refused(seen, 406)
            elif seen.status != 200 or not seen.ended:
                problem = f"{seen.status}: {seen.body[:150]!r}"
            else:
                problem = wrong_instance(Part(seen.headers, seen.body), stored, syntaxes)
            if problem:
                return f"{more}: {problem}"
        if not is_image(stored):
            return refused(uri(), 406)
        return "" if stored.name in SICK else wrong_picture(uri(), "image/jpeg", stored)

    problems_of(archive, check)
