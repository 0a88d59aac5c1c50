"""Instances that come in: refused, or read as pydicom reads them; sent on as they came, whatever the chunking."""

from __future__ import annotations

import io
import warnings

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import UID
from support.instances import DEFLATED, EXPLICIT, JPEG, SHAPES, bytes_of, dataset

from federation import incoming
from federation.elements import BadPart10
from federation.incoming import Incoming, IncomingReader, WrongSyntax
from federation.part10 import IMPLICIT
from imagora_fuzz.oracles import chunks, expect

LONGEST = 1600
#: Limits so low that inputs meet them.
incoming.HEAD_MAX = 900  # type: ignore[attr-defined]


def _implicit(ds: FileDataset) -> bytes:
    ds.file_meta.TransferSyntaxUID = UID(IMPLICIT)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def _seeds() -> list[bytes]:
    made = [bytes_of(dataset(syntax=syntax)) for syntax in (EXPLICIT, DEFLATED, JPEG)]
    for shape in SHAPES:
        ds = dataset()
        shape(ds)
        made += [bytes_of(ds), _implicit(ds)]
    # Preambles and versions tell nothing, and files are to be short.
    return [bytes([i]) + m[132:] for i, m in enumerate(made)]


SEEDS = _seeds()
WORDS = [
    *(b"\x02\0\x10\0UI", b"\x08\0\x16\0UI", b"\x08\0\x18\0UI", b"\x10\0\x20\0LO", b"\x20\0\x0d\0UI"),
    *(b"\x20\0\x0e\0UI", b"\xfe\xff\0\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"),
    *(b"SQ\0\0\xff\xff\xff\xff", b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"),
    *(b"UN\0\0", b"\x02\0\0\0UL\4\0"),
]
_NAMES = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
}


def check(data: bytes) -> None:
    if not data:
        return
    stream = bytes(128) + b"DICM" + data[1:]
    whole = _read(stream, None)
    again = _read(stream, data[0] if data[0] % 16 else 0)
    expect(again == whole, "an instance is the same, or refused, in any chunking")
    if whole is not None:
        _as_pydicom_reads(stream, whole)


def _read(stream: bytes, how: int | None) -> Incoming | None:
    """None = refused."""
    reader = IncomingReader()
    out: list[bytes] = []
    try:
        for chunk in [stream] if how is None else chunks(stream, how):
            passed = reader.feed(chunk)
            expect(not passed or reader.instance is not None, "nothing passes before it is known")
            out += map(bytes, passed)
        out += map(bytes, reader.finish())
    except (BadPart10, WrongSyntax) as error:
        expect(not out, "what is refused has not begun to pass")
        expect(str(error).isascii(), "an error repeats nothing of an instance")
        return None
    expect(b"".join(out) == stream, "what is stored is what was sent")
    return reader.instance


def _as_pydicom_reads(stream: bytes, instance: Incoming) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            ds = pydicom.dcmread(io.BytesIO(stream), stop_before_pixels=True)
            found = {ours: str(ds[theirs].value) for ours, theirs in _NAMES.items()}
            patient_id = ds.get("PatientID")
            patient_id = "" if patient_id is None else str(patient_id)
            syntax = str(ds.file_meta.TransferSyntaxUID)
            ds.decode()
        except Exception:  # it is no judge of what it can't read
            return
    for ours, value in found.items():
        expect(getattr(instance, ours) == value.strip(" \0"), f"{ours} is what pydicom reads")
    expect(instance.transfer_syntax == syntax.strip(" \0"), "the transfer syntax is what pydicom reads")
    if patient_id.isascii() and "\\" not in patient_id and "\x1b" not in patient_id:
        expect(instance.patient_id.strip() == patient_id.strip(" \0").strip(), "the PatientID is what pydicom reads")
