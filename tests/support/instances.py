"""Instances as hospitals have them, written and read by pydicom, and what tagging is to make of them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID

from federation.identity import Identity, Naming
from federation.instance import InstanceTagger
from federation.part10 import HeadRewriter
from registry import Site
from support.values import DIRECTORY, ROMORANTIN, record

EXPLICIT, DEFLATED, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
STUDY = "1.2.250.1.423.7"
TAGGED = {0x00080080, 0x00080082, 0x00100020, 0x00100021, 0x00100024, 0x00101002}
PIXELS = np.arange(64, dtype="<u2").tobytes()
LOCAL = Naming(qualified=False, issuer="IMAGORA")
QUALIFIED = Naming(qualified=True, issuer="IMAGORA", oid="1.2.250.1.999")


def dataset(
    patient_id: str | None = "4547", *, charset: str | None = "ISO_IR 100", syntax: str = EXPLICIT
) -> FileDataset:
    ds = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("1.2.250.1.423.7.1.1")
    if charset is not None:
        ds.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    ds.Modality = "CT"
    ds.PatientName = "DUPONT^MARIE"
    if patient_id is not None:
        ds.PatientID = patient_id
    ds.Rows = ds.Columns = 8
    ds.BitsAllocated = 16
    if syntax == JPEG:
        ds.PixelData = encapsulate([PIXELS, PIXELS[:30]])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    else:
        ds.PixelData = PIXELS
        ds["PixelData"].VR = "OW"
    return ds


def bytes_of(ds: FileDataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def refuse(_: Identity) -> None:
    raise AssertionError("a stranger came")


def tagged(
    stream: bytes,
    located: Identity,
    holder: Site = ROMORANTIN,
    naming: Naming = QUALIFIED,
    *,
    stranger: Callable[[Identity], None] = refuse,
    tagger: InstanceTagger | None = None,
) -> bytes:
    rewriter = HeadRewriter(tagger or InstanceTagger(located, holder, DIRECTORY, naming, stranger))
    return b"".join(bytes(b) for b in [*rewriter.feed(stream), *rewriter.finish()])


def located(*args: str, holder: Site = ROMORANTIN, coded: Site | None = None) -> Identity:
    return Identity(records=tuple(record(a, holder, coded=coded) for a in args))


def read(stream: bytes) -> FileDataset:
    ds = dcmread(io.BytesIO(stream))
    ds.decode()
    return ds


def other_ids(ds: Dataset) -> list[tuple[str, str]]:
    return [(i.PatientID, i.get("IssuerOfPatientID", "")) for i in ds.get("OtherPatientIDsSequence", [])]


def assert_same_but_for_tags(before: bytes, after: bytes) -> None:
    a, b = read(before), read(after)
    assert a.file_meta == b.file_meta
    for ds in (a, b):
        for tag in TAGGED:
            if tag in ds:
                del ds[tag]
        for group in (0x0008, 0x0010):
            if (group, 0) in ds:
                del ds[group, 0]
    assert a == b
    assert a.get("PixelData") == b.get("PixelData")


def assert_tagged(ds: Dataset, ipp: str, authority: Site, origin: Site) -> None:
    assert ds.PatientID == f"{ipp}@{authority.emetteur}"
    assert ds.IssuerOfPatientID == "IMAGORA"
    (qualifiers,) = ds.IssuerOfPatientIDQualifiersSequence
    assert (qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType) == ("1.2.250.1.999", "ISO")
    (code,) = ds.InstitutionCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == (str(origin.number), "99IMAGORA")
    assert other_ids(ds).count((ipp, authority.emetteur)) == 1


# What instances look like at hospitals.


def nested(ds: FileDataset) -> None:
    inner, outer = Dataset(), Dataset()
    inner.PatientID = "INNER"
    inner.CodeValue = "T-1"
    outer.ReferencedSOPInstanceUID = "1.2.3"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner, Dataset()])
    ds.ReferencedImageSequence = Sequence([outer, outer])
    ds.RequestAttributesSequence = Sequence([outer])


def nested_undefined(ds: FileDataset) -> None:
    nested(ds)
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True


def private(ds: FileDataset) -> None:
    block = ds.private_block(0x0009, "IMAGO 1", create=True)
    block.add_new(1, "LO", "x")
    block.add_new(2, "UN", b"\xfe\xff\0\xe0\xff\xff\xff\xff")
    ds.private_block(0x000B, "ODD", create=True).add_new(1, "FD", 1.5)
    ds.private_block(0x0011, "LATER", create=True).add_new(1, "LO", "y")


def institution(ds: FileDataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "750", "FINESS", "elsewhere"
    ds.InstitutionCodeSequence = Sequence([code])
    ds.InstitutionName = "Chez nous"


def others(ds: FileDataset) -> None:
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = "É99", "ASSURANCE", "TEXT"
    ds.OtherPatientIDsSequence = Sequence([other])


def others_undefined(ds: FileDataset) -> None:
    others(ds)
    ds["OtherPatientIDsSequence"].is_undefined_length = True
    ds.OtherPatientIDsSequence[0].is_undefined_length_sequence_item = True


def issuer(ds: FileDataset) -> None:
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.3.4", "ISO"
    ds.IssuerOfPatientID = "PACS"
    ds.IssuerOfPatientIDQualifiersSequence = Sequence([qualifiers])


SHAPES = (nested, nested_undefined, private, institution, others, others_undefined, issuer)
CHARSETS = ("ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", None)
