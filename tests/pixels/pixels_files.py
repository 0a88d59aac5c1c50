"""Instances for the tests of pixels: pydicom's own, and ones made to measure."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def pydicom_files() -> list[Path]:
    every = {*pydicom.data.get_testdata_files(), *pydicom.data.get_charset_files()}
    return sorted(Path(file) for file in every if Path(file).is_file())


def readable() -> list[tuple[Path, Dataset]]:
    """Those that are DICOM files which say their transfer syntax."""
    found = []
    for path in pydicom_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how these files are made
            dataset = dcmread(path, force=True)
        if dataset.file_meta.get("TransferSyntaxUID"):
            found.append((path, dataset))
    return found


def test_file(name: str) -> bytes:
    return Path(str(pydicom.data.get_testdata_file(name))).read_bytes()


def instance(
    pixels: np.ndarray[Any, Any] | None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    encoded: list[bytes] | None = None,
    frames: int = 1,
    **attributes: Any,
) -> bytes:
    """A Part-10 file of (frames × rows × columns) or (… × rows × columns × 3) stored values."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = "MARTIN^HÉLÈNE", "IPP77"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    if pixels is not None:
        shape = pixels.shape[1:] if frames > 1 else pixels.shape
        dataset.Rows, dataset.Columns = shape[0], shape[1]
        dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
        if len(shape) == 3:
            dataset.PlanarConfiguration = 0
        if frames > 1:
            dataset.NumberOfFrames = frames
        bits = pixels.dtype.itemsize * 8
        dataset.BitsAllocated = bits
        if pixels.dtype.kind == "f":
            setattr(dataset, "FloatPixelData" if bits == 32 else "DoubleFloatPixelData", pixels.tobytes())
        else:
            dataset.BitsStored, dataset.HighBit = bits, bits - 1
            dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
            data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
            dataset.PixelData = encapsulate(encoded) if encoded is not None else data + b"\0" * (len(data) % 2)
            dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    file = FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128)
    out = io.BytesIO()
    form = UID(syntax)
    dcmwrite(out, file, implicit_vr=form.is_implicit_VR, little_endian=form.is_little_endian, enforce_file_format=True)
    return out.getvalue()
