"""What comes with images: a structured report, a letter as encapsulated PDF, a dose sheet as secondary capture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, BasicTextSRStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from imagora_demo.exams import StudyHeader, begin_series, number_instance, set_pixels, to_bytes

#: Headings of a radiology report: code value in LOINC or DCM, designator, meaning.
HEADINGS = {
    "Indication": ("121109", "DCM", "Indications for Procedure"),
    "Technique": ("121064", "DCM", "Current Procedure Descriptions"),
    "Résultats": ("121070", "DCM", "Findings"),
    "Conclusion": ("121076", "DCM", "Conclusions"),
}
LINES_A_PAGE = 46


def report(
    header: StudyHeader,
    sections: Sequence[tuple[str, str]],
    *,
    evidence: Sequence[tuple[UID, UID, UID]] = (),
    author: str = "FONTAINE^Hélène",
    number: int = 900,
) -> Iterator[bytes]:
    """A Basic Text SR (PS3.3 A.35.1): one container of the `(heading, text)` sections, headings of `HEADINGS`.

    evidence: (series UID, SOP class, SOP instance UID) of images of this study that the report rests on.
    """
    dataset = begin_series(
        header, modality="SR", number=number, description="Compte rendu", sop_class=BasicTextSRStorage
    )
    number_instance(dataset, 1)
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence()
    dataset.PerformedProcedureCodeSequence = DicomSequence()
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "VERIFIED"
    observer = Dataset()
    observer.VerifyingObserverName = author
    observer.VerifyingObserverIdentificationCodeSequence = DicomSequence()
    observer.VerifyingOrganization = header.institution or "Imagerie médicale"
    observer.VerificationDateTime = f"{header.study_date}{header.study_time}"
    dataset.VerifyingObserverSequence = [observer]
    if evidence:
        dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(header.study_uid, evidence)]
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    dataset.ContentSequence = [
        _person(author),
        *(_section(heading, text) for heading, text in sections),
    ]
    yield to_bytes(dataset)


def letter(
    header: StudyHeader, lines: Sequence[str], *, title: str = "Compte rendu d'imagerie", number: int = 901
) -> Iterator[bytes]:
    """An Encapsulated PDF (PS3.3 A.45.1) of these lines of text."""
    dataset = begin_series(
        header, modality="DOC", number=number, description="Courrier", sop_class=EncapsulatedPDFStorage
    )
    number_instance(dataset, 1)
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    dataset.AcquisitionDateTime = f"{header.study_date}{header.study_time}"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document = pdf([title, "", *lines])
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    yield to_bytes(dataset)


def dose_sheet(header: StudyHeader, lines: Sequence[str], *, number: int = 902) -> Iterator[bytes]:
    """A colour Secondary Capture (PS3.3 A.8.1) that shows these lines, as scanners make of the dose."""
    image = Image.new("RGB", (512, 384), (12, 16, 28))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 511, 30), fill=(36, 72, 120))
    draw.text((12, 7), "Rapport de dose", fill="white", font=ImageFont.load_default(15))
    for row, line in enumerate(lines):
        draw.text((14, 46 + 22 * row), line, fill=(225, 228, 210), font=ImageFont.load_default(14))
    dataset = begin_series(
        header,
        modality="CT",
        number=number,
        description="Rapport de dose",
        sop_class=SecondaryCaptureImageStorage,
    )
    number_instance(dataset, 1)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    set_pixels(dataset, np.asarray(image, np.uint8))
    yield to_bytes(dataset)


def pdf(lines: Sequence[str]) -> bytes:
    """A PDF 1.4 document of plain lines in Helvetica; the first is set larger."""
    pages = [lines[start : start + LINES_A_PAGE] for start in range(0, max(1, len(lines)), LINES_A_PAGE)]
    kids = " ".join(f"{4 + 2 * page} 0 R" for page in range(len(pages)))
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for page, content in enumerate(pages):
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * page} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        stream = _page_stream(content, first=page == 0)
        bodies.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    document = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(document)
    document += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    for offset in offsets:
        document += b"%010d 00000 n \n" % offset
    document += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, table)
    return bytes(document)


def _page_stream(lines: Sequence[str], *, first: bool) -> bytes:
    drawn = [b"BT", b"60 780 Td", b"16 TL"]
    for row, line in enumerate(lines):
        drawn.append(b"/F1 16 Tf" if first and row == 0 else b"/F1 11 Tf")
        text = line.encode("cp1252", "replace")
        for special in (b"\\", b"(", b")"):
            text = text.replace(special, b"\\" + special)
        drawn.append(b"(%s) Tj T*" % text)
    drawn.append(b"ET")
    return b"\n".join(drawn)


def _section(heading: str, text: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "TEXT"
    value, scheme, _ = HEADINGS[heading]
    item.ConceptNameCodeSequence = [_code(value, scheme, heading)]
    item.TextValue = text
    return item


def _person(name: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = "HAS OBS CONTEXT"
    item.ValueType = "PNAME"
    item.ConceptNameCodeSequence = [_code("121008", "DCM", "Person Observer Name")]
    item.PersonName = name
    return item


def _evidence(study_uid: str, images: Sequence[tuple[UID, UID, UID]]) -> Dataset:
    by_series: dict[UID, list[Dataset]] = {}
    for series_uid, sop_class, sop_instance in images:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = sop_class, sop_instance
        by_series.setdefault(series_uid, []).append(image)
    study = Dataset()
    study.StudyInstanceUID = study_uid
    series_items = []
    for series_uid, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedSOPSequence = series_uid, instances
        series_items.append(item)
    study.ReferencedSeriesSequence = series_items
    return study


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
