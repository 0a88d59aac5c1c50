"""Implicit VR and Big Endian data sets become Explicit VR Little Endian, value by value."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels_files import instance
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from federation.pixels.explicit import turned
from federation.pixels.limits import Limits
from federation.pixels.metadata import metadata
from federation.pixels.transcode import to_explicit

LIMITS = Limits()


def explicit(data: bytes) -> Dataset:
    out = io.BytesIO()
    to_explicit(io.BytesIO(data), out, LIMITS)
    return dcmread(io.BytesIO(out.getvalue()))


def nested() -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", "1.2.3"
    item.add_new(0x00091010, "UN", b"raw")
    deeper = Dataset()
    deeper.CodeValue, deeper.CodeMeaning = "T-1", "Méninge"
    item.PurposeOfReferenceCodeSequence = [deeper]
    return item


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_values_of_every_kind_survive(syntax: str) -> None:
    pixels = np.arange(-30, 30, dtype="<i2").reshape(6, 10)
    values: dict[str, Any] = {
        "SmallestImagePixelValue": -30,
        "SimpleFrameList": [1, 70000],
        "RecommendedDisplayFrameRateInFloat": 1.5,
        "ReferencedImageSequence": [nested(), nested()],
        "FrameIncrementPointer": 0x00181063,
        "ImagePositionPatient": ["1.25", "-3", "1e-3"],
        "PatientComments": "Première ligne\\pas une valeur",
        "PixelPaddingValue": -5,
    }
    data = instance(pixels, syntax=syntax, **values)
    before, after = dcmread(io.BytesIO(data)), explicit(data)
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert before.keys() == after.keys()
    for element in before:
        if element.keyword != "PixelData":
            assert str(after[element.tag].value) == str(element.value), element.keyword
    assert after.PatientName == "MARTIN^HÉLÈNE"
    assert after["SmallestImagePixelValue"].VR == after["PixelPaddingValue"].VR == "SS"


def test_pixels_of_both_byte_orders_are_the_same() -> None:
    for dtype in ("u1", "u2", "i2", "u4"):
        pixels = np.arange(35, dtype=dtype).reshape(5, 7)
        big = instance(pixels.astype(pixels.dtype.newbyteorder("<")), syntax=ImplicitVRLittleEndian)
        assert np.array_equal(explicit(big).pixel_array, pixels)
        stored = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
        stored += b"\0" * (len(stored) % 2)
        data = instance(pixels, syntax=ExplicitVRBigEndian, PixelData=stored)
        vr = dcmread(io.BytesIO(data))["PixelData"].VR
        assert np.array_equal(explicit(data).pixel_array, pixels), (dtype, vr)


def test_words_in_elements_are_turned_too() -> None:
    lut = Dataset()
    lut.add_new(0x00283002, "US", [3, 0, 16])
    lut.add_new(0x00283006, "OW", b"\x00\x01\x02\x03\xff\xfe")
    data = instance(np.zeros((2, 2), np.uint8), syntax=ExplicitVRBigEndian, VOILUTSequence=[lut])
    assert explicit(data).VOILUTSequence[0].LUTData == b"\x01\x00\x03\x02\xfe\xff"
    model = metadata(io.BytesIO(data), LIMITS, bulk_over=100)
    assert model["00283010"]["Value"][0]["00283006"]["InlineBinary"] == "AQADAv7/"


def test_text_that_its_character_set_does_not_allow_keeps_its_bytes() -> None:
    data = instance(np.zeros((2, 2), np.uint8), syntax=ImplicitVRLittleEndian)
    wrong = data.replace("MARTIN^HÉLÈNE".encode("latin-1"), b"MARTIN^H\x81L\x9dNE").replace(b"IR 100", b"IR 192")
    assert len(wrong) == len(data)
    assert wrong != data
    out = io.BytesIO()
    to_explicit(io.BytesIO(wrong), out, LIMITS)
    assert b"PN\x0e\x00MARTIN^H\x81L\x9dNE " in out.getvalue()


@given(st.binary(), st.sampled_from([1, 2, 4, 8]))
def test_turning_twice_changes_nothing(value: bytes, width: int) -> None:
    once = turned(value, width)
    assert turned(once, width) == value
    assert len(once) == len(value)
    if len(value) >= width:
        assert once[:width] == value[:width][::-1]
