"""What each form of an instance has to be, by pydicom's own reading, decoding and windowing."""

from __future__ import annotations

import http.client
import io
import json
import pprint
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from retrieve_files import Archive, Stored, number_of_frames, wrong_tags
from retrieve_member import read
from retrieve_wire import Part, Seen
from support.showing import Array, expected_colour, expected_grey, frames_of, is_grey, shown_size

EXPLICIT, JPEG2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
#: Not for the web (PS3.18 §8.7.3); "" is for files without file meta.
FORBIDDEN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}
DICOM, OCTETS, XML = "application/dicom", "application/octet-stream", "application/dicom+xml"
PICTURES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}
#: Table 8.7.3-5, for the transfer syntaxes that are among the files.
FRAME_TYPES = {
    "image/jpeg": {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)},
    "image/jls": {f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)},
    "image/jp2": {f"1.2.840.10008.1.2.4.{n}" for n in (90, 91)},
    "image/dicom-rle": {"1.2.840.10008.1.2.5"},
}
#: Orthanc sends no file meta, in whatever form it is asked: nobody can say what that is.
NO_FILE = {"ExplVR_LitEndNoMeta.dcm"}
#: With what is wrong in them, which a picture or a frame comes up against: 502, or 413 where it declares too much.
SICK = {
    "badVR.dcm": "NumberOfFrames is 1A",
    "chrJapMulti.dcm": "describes an image without pixels",
    "chrJapMultiExplicitIR6.dcm": "describes an image without pixels",
    "chrKoreanMulti.dcm": "describes an image without pixels",
    "JPEG2000-embedded-sequence-delimiter.dcm": "its codestream is damaged",
    "JPEG-lossy.dcm": "its codestream is damaged: Orthanc shows what there is of it",
}
#: What Orthanc gives of these is another than pydicom reads in them, and nobody can tell that from its answer:
WORDS = {"rtdose_expb.dcm", "rtdose_expb_1frame.dcm"}  # 32 bits in OW, big endian: DCMTK turns words, pydicom numbers
NAMES = {"chrH32.dcm", "chrJapMultiExplicitIR6.dcm"}  # its metadata lose ISO 2022's escapes
LACKING = {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}  # its metadata have some elements less
RELATED = 'multipart/related; type="{}"'.format


class Asking:
    """One kept-alive connection."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        address = urlsplit(archive.server.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)

    def __call__(self, path: str, accept: str | None = None) -> Seen:
        self._connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer = self._connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        try:
            return Seen(answer.status, headers, answer.read(), ended=True)
        except (http.client.HTTPException, ConnectionError) as error:
            self._connection.close()
            return Seen(answer.status, headers, getattr(error, "partial", b""))

    def close(self) -> None:
        self._connection.close()


def root(stored: Stored, level: str = "instance") -> str:
    path = f"/sites/{stored.site}/dicom-web{stored.path}"
    return {"study": path.partition("/series")[0], "series": path.partition("/instances")[0], "instance": path}[level]


def own_syntax(stored: Stored) -> str:
    return str(stored.dataset.file_meta.get("TransferSyntaxUID", ""))


_frames: dict[int, Array | None] = {}


def decoded(stored: Stored) -> Array | None:
    """(frames, rows, columns[, 3]) by pydicom; None if it can't."""
    key = id(stored)
    if key not in _frames:
        _frames[key] = frames_of(stored.dataset) if "PixelData" in stored.dataset else None
    return _frames[key]


def is_image(stored: Stored) -> bool:
    return "PixelData" in stored.dataset or "Rows" in stored.dataset


def held(archive: Archive, root_: str) -> dict[str, Stored]:
    """By SOPInstanceUID, what was stored below a study or series."""
    return {s.path.rpartition("/")[2]: s for s in archive.stored if root(s).startswith(f"{root_}/")}


def problems_of(archive: Archive, check: Callable[[Stored], str], *, number: int = 140) -> None:
    """Fails with what `check` says of each file, "" = nothing."""
    said = {f"{s.name} ({s.site})": check(s) for s in archive.stored if s.name not in NO_FILE}
    problems = {name: problem for name, problem in said.items() if problem}
    assert not problems, pprint.pformat(problems, width=220)
    assert len(said) > number


def refused(seen: Seen, *statuses: int) -> str:
    """ "" if it is one of these plain errors."""
    if seen.status not in statuses or not seen.ended:
        return f"{seen.status} for {statuses}: {seen.body[:150]!r}"
    return "" if seen.headers["content-type"] == "application/json" and json.loads(seen.body)["error"] else "no error"


# Instances ------------------------------------------------------------------------------------------------------------


def wrong_instance(part: Part, stored: Stored, syntaxes: set[str]) -> str:
    dataset = read(part.body)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in syntaxes or part.type != f"{DICOM}; transfer-syntax={syntax}":
        return f"{part.type} holds {syntax}, not {syntaxes}"
    if not part.location.endswith(root(stored)) and (part.location or stored.name not in LACKING):
        return f"location {part.location}"
    expected = decoded(stored)
    if expected is not None and stored.name not in WORDS:
        same = dataset.get("PhotometricInterpretation") == stored.dataset.PhotometricInterpretation
        shown = frames_of(dataset) if same else None
        if shown is None:  # another colour space, which the data set says: then the colours are to be the same
            pair = [np.asarray(pixel_array(d)).astype(int) for d in (dataset, stored.dataset)]
            if np.abs(pair[0] - pair[1]).max() > 4:
                return f"colours differ by {np.abs(pair[0] - pair[1]).max()}"
        elif not same_pixels(shown, expected, stored):
            return f"pixels differ in {syntax}: by {np.abs(shown.astype(float) - expected).max()}"
    return wrong_tags(dataset, stored.dataset, stored.site)


def same_pixels(shown: Array, expected: Array, stored: Stored) -> bool:
    """Exact; two decoders of lossy JPEG may round otherwise."""
    if shown.shape != expected.shape:
        return False
    lossy = own_syntax(stored) in {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51)}
    return bool(np.abs(shown.astype(np.int64) - expected.astype(np.int64)).max() <= (3 if lossy else 0))


def plain_syntaxes(stored: Stored) -> set[str]:
    """In which the default may come: what can't be decoded comes as it is stored (PS3.18 §8.7.3.5.2)."""
    sick = "PixelData" in stored.dataset and decoded(stored) is None
    return {EXPLICIT, own_syntax(stored)} if sick else {EXPLICIT}


def stored_syntaxes(stored: Stored) -> set[str]:
    own = own_syntax(stored)
    return {EXPLICIT} if own in {*FORBIDDEN, ""} else {own}


# Metadata -------------------------------------------------------------------------------------------------------------


def wrong_row(row: dict[str, Any], stored: Stored) -> str:
    try:
        dataset = Dataset.from_json(row, bulk_data_uri_handler=lambda *_: None)
        for _ in dataset.iterall():
            pass
    except Exception as error:
        return f"pydicom can't read it: {error!r}"
    wanted = {tag for tag in stored.dataset.keys() if tag.group > 2 and tag.element and tag.group < 0x7FE0}  # noqa: SIM118
    missing = sorted(tag for tag in wanted - dataset.keys() if tag.group != 0xFFFC)
    if missing and stored.name not in LACKING:
        return f"missing {missing[:5]}"
    for keyword in ("SOPInstanceUID", "SOPClassUID", "Rows", "Columns", "BitsStored", "PatientName", "StudyDate"):
        theirs, ours = stored.dataset.get(keyword), dataset.get(keyword)
        if keyword == "PatientName" and stored.name in NAMES:
            continue
        if theirs not in (None, "") and str(theirs).rstrip("^=") != str(ours).rstrip("^="):
            return f"{keyword}: {ours!r} for {theirs!r}"
    return wrong_tags(dataset, stored.dataset, stored.site)


# Frames ---------------------------------------------------------------------------------------------------------------


def wrong_frames(seen: Seen, numbers: list[int], stored: Stored, media_type: str, syntax: str) -> str:
    if seen.status != 200 or not seen.ended:
        return f"{seen.status}: {seen.body[:150]!r}"
    if {p.type for p in seen.parts} != {f"{media_type}; transfer-syntax={syntax}"} or len(seen.parts) != len(numbers):
        return f"{[p.type for p in seen.parts]} for {media_type} in {syntax}"
    if [p.location.rpartition("/frames/")[2] for p in seen.parts] != list(map(str, numbers)):
        return f"locations {[p.location for p in seen.parts]}"
    dataset = stored.dataset
    bodies = [p.body.rstrip(b"\0") for p in seen.parts]
    if syntax != EXPLICIT:
        streams = list(generate_frames(dataset.PixelData, number_of_frames=number_of_frames(dataset)))
        return "" if bodies == [streams[n - 1].rstrip(b"\0") for n in numbers] else "other bytes"
    expected = decoded(stored)
    if (
        expected is None
        or stored.name in WORDS
        or dataset.BitsAllocated == 1
        or str(dataset.PhotometricInterpretation).startswith("YBR")
    ):
        return ""  # packed, or of another colour space, which the bytes can't tell: tests/pixels
    for number, part in zip(numbers, seen.parts, strict=True):
        frame = expected[number - 1]
        shown = np.frombuffer(part.body[: frame.nbytes], frame.dtype.newbyteorder("<"))
        planar = dataset.get("PlanarConfiguration") == 1 and frame.ndim == 3
        layouts = [frame, frame.transpose(2, 0, 1)] if planar else [frame]  # as stored, or as the decoder gives it
        if shown.size != frame.size or not any(same_pixels(shown, one.reshape(-1), stored) for one in layouts):
            return f"frame {number} differs"
    return ""


# Pictures -------------------------------------------------------------------------------------------------------------


def wrong_picture(seen: Seen, media_type: str, stored: Stored, *, longest: int | None = None) -> str:
    if seen.status != 200 or not seen.ended:
        return f"{seen.status}: {seen.body[:150]!r}"
    if seen.headers["content-type"] != media_type:
        return seen.headers["content-type"]
    image = Image.open(io.BytesIO(seen.body))
    image.load()
    if image.format != PICTURES[media_type]:
        return f"{image.format}"
    if longest is not None:
        return "" if max(image.size) == longest else f"{image.size}"
    plain = (stored.dataset.Columns, stored.dataset.Rows)
    if image.size not in (plain, shown_size(stored.dataset)):
        return f"{image.size} for {plain}"
    return ""


#: Sides, in pixels, that JPEG's blocks don't show.
TINY = 8
#: Most that a picture may be off on average, of 255: its greys, and its colours, of which GIF has 256. JPEG and another
#: size lose some of both.
GREYS_OFF, COLOURS_OFF, RESIZED_OFF = {"PNG": 1.0, "GIF": 1.0, "JPEG": 4.0}, {"PNG": 1.0, "GIF": 20.0, "JPEG": 8.0}, 4.0


def wrong_greys(seen: Seen, stored: Stored, *, middle: bool = False) -> str:
    """The first frame, or the middle one, against pydicom's decoding and windowing, made as large as the picture."""
    pixels = decoded(stored)
    if pixels is None or stored.name in WORDS or min(pixels.shape[1:3]) < TINY:
        return ""
    image = Image.open(io.BytesIO(seen.body))
    frame = len(pixels) // 2 if middle else 0
    grey, shown_one = is_grey(stored.dataset), pixels[frame]
    if grey:
        expected = expected_grey(stored.dataset, shown_one, shown_one)
    else:
        expected = expected_colour(stored.dataset, shown_one, frame)
    most = (GREYS_OFF if grey else COLOURS_OFF)[str(image.format)]
    if image.size != (stored.dataset.Columns, stored.dataset.Rows):
        whole = Image.fromarray(np.asarray(expected).round().astype(np.uint8))
        expected = np.asarray(whole.resize(image.size, Image.Resampling.BILINEAR)).astype(float)
        most += RESIZED_OFF
    shown = np.asarray(image.convert("L" if grey else "RGB")).astype(float)
    off = float(np.abs(shown - expected).mean())

    return f"off by {off:.1f}" if off > most else ""
