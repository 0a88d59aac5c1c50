"""Every file of pydicom's test set that an Orthanc accepts, relayed as that Orthanc itself answers, but tagged."""

from __future__ import annotations

import io
import pprint
import re
import zlib
from typing import Any

import pytest
import retrieve_wire as wire
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from retrieve_files import NOT_DICOM, REFUSED_BY_ORTHANC, Archive, Stored, number_of_frames, wrong_tags
from retrieve_member import read
from retrieve_wire import Part, Seen

# pydicom reads these files with many remarks about how they are made.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
DICOM, OCTETS = "application/dicom", "application/octet-stream"

#: Orthanc sends them without preamble and file meta, also when asked for Explicit VR Little Endian: that is no
#: Part-10 stream, and it is refused before the first byte.
NOT_PART_10 = {"ExplVR_LitEndNoMeta.dcm"}
#: Orthanc (DCMTK) draws a new MediaStorageSOPInstanceUID for each answer, so no two of its own answers are equal.
META_DRAWN = {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}
#: Orthanc sends these as stored whatever form that is; PS3.18 §8.7.3 forbids it, so they are asked for in Explicit
#: VR Little Endian instead.
NOT_FOR_THE_WEB = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", ""}

#: What the façade may change, and the two that it adds to by rule (DESIGN §5).
TAGGED = {0x00080080, 0x00080082, 0x00100020, 0x00100021, 0x00100024, 0x00101002}
#: Group lengths (retired) are set right again where their group was changed.
GROUP_LENGTHS = {0x00080000, 0x00100000}


def test_exclusions_are_those_named(archive: Archive) -> None:
    assert archive.refused == NOT_DICOM | REFUSED_BY_ORTHANC.keys()
    assert len(archive.stored) > 140


@pytest.mark.parametrize("syntax", ["*", None])
def test_instances_are_relayed_unchanged_but_for_their_tags(syntax: str | None, archive: Archive) -> None:
    related = f'multipart/related; type="{DICOM}"'
    accept = f"{related}; transfer-syntax={syntax}" if syntax else related
    problems: dict[str, str] = {}
    forms: dict[str, int] = {}
    for stored in archive.stored:
        direct = stored.direct("", accept)
        if syntax is None or (direct.status == 200 and syntax_of(direct.parts[0].body) in NOT_FOR_THE_WEB):
            direct = stored.direct("", f"{related}; transfer-syntax={EXPLICIT}")
        seen = archive.relayed(stored, "", accept)
        if direct.status != 200 and stored.name not in NOT_PART_10:
            continue  # made here: test_retrieve_matrix
        if stored.name in NOT_PART_10:
            # It can't give this one in a form that can be tagged: said as a plain error, before the first byte.
            if (seen.status, seen.ended) != (502, True):
                problems[stored.name] = f"Orthanc answers {direct.status}, relayed as {seen.status}"
            continue
        problem = differs(stored, direct, seen)
        if problem:
            problems[stored.name] = problem
        else:
            used = syntax_of(direct.parts[0].body)
            forms[used] = forms.get(used, 0) + 1
    assert not problems, pprint.pformat(problems, width=200)
    assert forms[EXPLICIT] > 100
    if syntax == "*":
        assert {DEFLATED, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"} <= forms.keys()


def differs(stored: Stored, direct: Seen, seen: Seen) -> str:
    """What is wrong with a relayed instance; "" if nothing is."""
    if seen.status != 200 or not seen.ended:
        return f"{seen.status}, {'whole' if seen.ended else 'cut'}: {seen.body[:200]!r}"
    if len(seen.parts) != 1:
        return f"{len(seen.parts)} parts"
    ours, theirs = seen.parts[0].body, direct.parts[0].body
    used = syntax_of(theirs)
    if seen.parts[0].type != f"{DICOM}; transfer-syntax={used}":
        return f"called {seen.parts[0].type}"
    if ours[:132] != theirs[:132] or (head(ours).file_meta != head(theirs).file_meta and stored.name not in META_DRAWN):
        return "file meta changed"
    if rest(ours) != rest(theirs):
        return "what follows the patient's module changed"
    for tag in sorted({*head(ours).keys(), *head(theirs).keys()}):
        if tag in TAGGED | GROUP_LENGTHS:
            continue
        if raw(head(ours), tag) != raw(head(theirs), tag):
            return f"{tag} changed"
    return wrong_tags(read(ours), read(theirs), stored.site)


def syntax_of(data: bytes) -> str:
    return str(head(data).file_meta.get("TransferSyntaxUID", ""))


def head(data: bytes) -> Dataset:
    return read_partial(io.BytesIO(data), stop_when=lambda tag, *_: tag >= 0x00110000, force=True)


def rest(data: bytes) -> bytes:
    """All bytes from the first element behind group 0010; of a deflated one, inflated."""
    if syntax_of(data) == DEFLATED:
        start = 132 + 12 + head(data).file_meta.FileMetaInformationGroupLength
        whole = zlib.decompress(data[start:], -15)
        return whole[whole.index(_first_behind(data)) :]
    stream = io.BytesIO(data)
    read_partial(stream, stop_when=lambda tag, *_: tag >= 0x00110000, force=True)
    return data[stream.tell() :]


def _first_behind(data: bytes) -> bytes:
    tag = min(element.tag for element in read(data) if element.tag >= 0x00110000)
    return tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")


def raw(dataset: Dataset, tag: Any) -> Any:
    """An element as it was encoded, as far as pydicom keeps that."""
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    return (element.VR, element.value)


@pytest.mark.parametrize("syntax", ["*", None])
def test_frames_are_those_of_the_member(syntax: str | None, archive: Archive) -> None:
    related = f'multipart/related; type="{OCTETS}"'
    accept = f"{related}; transfer-syntax={syntax}" if syntax else related
    problems: dict[str, str] = {}
    same = 0
    for stored in archive.stored:
        if "PixelData" not in stored.dataset:
            continue
        count = number_of_frames(stored.dataset)
        below = "/frames/" + ",".join(map(str, range(1, min(count, 4) + 1)))
        direct = stored.direct(below, accept)
        if direct.status != 200:
            direct = stored.direct(below, f"{related}; transfer-syntax={EXPLICIT}")
        seen = archive.relayed(stored, below, accept)
        if direct.status != 200:
            if problem := _not_as_pydicom(stored, seen, as_stored=syntax == "*"):
                problems[stored.name] = f"Orthanc answers {direct.status}, {problem}"
            continue
        if seen.status != 200 or not seen.ended:
            problems[stored.name] = f"{seen.status}: {seen.body[:200]!r}"
        elif [p.body for p in seen.parts] != [p.body for p in direct.parts]:
            problems[stored.name] = "other bytes"
        elif [_plain(p) for p in seen.parts] != [_plain(p) for p in direct.parts]:
            problems[stored.name] = f"other types: {[p.type for p in seen.parts]} for {[p.type for p in direct.parts]}"
        else:
            same += 1
    assert not problems, pprint.pformat(problems, width=200)
    assert same > 80


def _not_as_pydicom(stored: Stored, seen: Seen, *, as_stored: bool) -> str:
    """What the member can't give is made here, or said to be damaged: "" if that is right."""
    if seen.status in (502, 406, 413) and seen.ended:
        return "" if not _decodable(stored.dataset) else f"made into {seen.status}"
    if seen.status != 200 or not seen.ended:
        return f"made into {seen.status}"
    if as_stored:
        return ""  # held in tests/pixels
    decoded = stored.dataset.pixel_array
    frames = decoded if number_of_frames(stored.dataset) > 1 else [decoded]
    made = [p.body.rstrip(b"\0") for p in seen.parts]
    colour = stored.dataset.PhotometricInterpretation.startswith("YBR")  # whose space may be another
    same = colour or made == [f.tobytes().rstrip(b"\0") for f in frames[: len(made)]]
    return "" if same else "made into other pixels"


def _decodable(dataset: Dataset) -> bool:
    try:
        return dataset.pixel_array is not None
    except Exception:
        return False


def _plain(part: Part) -> str:
    """In explicit VR little endian for implicit: of pixels both say the same, and the latter is not for the web."""
    return re.sub(r"=1\.2\.840\.10008\.1\.2$", f"={EXPLICIT}", part.type.replace(" ", "").replace('"', ""))


def test_metadata_are_those_of_the_member(archive: Archive) -> None:
    """But for the tags, the sources, UTF-8, and bulk data by our URLs, each of which gives the member's bytes."""
    ours_only = {f"{tag:08X}" for tag in TAGGED} | {"00080005", "00080054", "00081190"}
    problems: dict[str, str] = {}
    followed = 0
    for stored in archive.stored:
        direct = wire.json_of(stored.direct("/metadata", "application/dicom+json"))[0]
        seen = archive.relayed(stored, "/metadata", "application/dicom+json")
        if seen.status != 200:
            problems[stored.name] = f"{seen.status}: {seen.body[:200]!r}"
            continue
        relayed = wire.json_of(seen)[0]
        for tag in sorted(direct.keys() | relayed.keys()):
            if tag in ours_only or tag.startswith("0002"):
                continue
            theirs, mine = direct.get(tag), relayed.get(tag)
            if theirs != mine and not (theirs and mine and "BulkDataURI" in theirs and "BulkDataURI" in mine):
                if theirs is not None and _without_uris(theirs) == _without_uris(mine):
                    continue
                problems[stored.name] = f"{tag}: {theirs} became {mine}"[:300]
        uri = relayed.get("7FE00010", {}).get("BulkDataURI")
        if uri is not None:
            followed += 1
            ours, theirs_ = wire.get(uri, ""), wire.get(direct["7FE00010"]["BulkDataURI"], "")
            if [p.body for p in ours.parts] != [p.body for p in theirs_.parts]:
                problems[stored.name] = "bulk data differ"
    assert not problems, pprint.pformat(problems, width=200)
    assert followed > 40


def _without_uris(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_uris(v) if k != "BulkDataURI" else "" for k, v in value.items()}
    return [_without_uris(v) for v in value] if isinstance(value, list) else value
