"""The DICOM JSON model (PS3.18 Annex F) of instances made to measure."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
from pixels_files import instance
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from federation.pixels.limits import Limits
from federation.pixels.metadata import metadata
from federation.pixels.pool import PixelPool, PoolSettings

PIXELS = np.zeros((4, 4), np.uint8)


def model(data: bytes, **options: Any) -> dict[str, Any]:
    return metadata(io.BytesIO(data), Limits(), **{"bulk_over": 1000} | options)


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_values_have_the_forms_of_annex_f() -> None:
    seen = model(
        instance(
            PIXELS,
            PatientName="ABE^ÉLISE",
            ImageType=["ORIGINAL", "", "AXIAL"],
            WindowCenter=["40.5", "-12"],
            InstanceNumber="7",
            FrameIncrementPointer=0x00181063,
            AccessionNumber="",
            ReferencedImageSequence=[item(ReferencedSOPInstanceUID="1.2"), item()],
            StudyDate="20260131",
            RealWorldValueSlope=1.5,
        )
    )
    assert seen["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "ABE^ÉLISE"}]}
    assert seen["00080008"] == {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]}
    assert seen["00281050"] == {"vr": "DS", "Value": [40.5, -12]}
    assert seen["00200013"] == {"vr": "IS", "Value": [7]}
    assert seen["00280009"] == {"vr": "AT", "Value": ["00181063"]}
    assert seen["00080050"] == {"vr": "SH"}
    assert seen["00081140"] == {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}, {}]}
    assert seen["00080020"] == {"vr": "DA", "Value": ["20260131"]}
    assert seen["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert not [tag for tag in seen if tag.startswith("0002") or tag.endswith("0000")]


def test_numbers_that_are_none_are_told_as_text() -> None:
    seen = model(instance(PIXELS, RealWorldValueSlope=math.nan, RealWorldValueIntercept=-math.inf))
    assert seen["00409225"] == {"vr": "FD", "Value": ["NaN"]}
    assert seen["00409224"] == {"vr": "FD", "Value": ["-Infinity"]}


def test_value_that_its_vr_does_not_allow_is_told_as_it_stands() -> None:
    data = instance(PIXELS, InstanceNumber="77", WindowCenter="12.5").replace(b"IS\x02\x0077", b"IS\x02\x001A")
    large = model(data.replace(b"IS\x02\x001A", b"IS\x18\x00" + b"9" * 24))
    assert large["00200013"] == {"vr": "IS", "Value": ["9" * 24]}
    seen = model(data.replace(b"DS\x04\x0012.5", b"DS\x04\x001,5 "))
    assert seen["00200013"] == {"vr": "IS", "Value": ["1A"]}
    assert seen["00281050"] == {"vr": "DS", "Value": ["1,5"]}


def test_bulk_data_get_a_uri_or_are_left_out() -> None:
    private = item()
    private.add_new(0x00091010, "OB", b"x" * 200)
    data = instance(PIXELS, ReferencedImageSequence=[item(), private], EncapsulatedDocument=b"%PDF" * 50)
    seen = model(data, bulk_over=100, uri_of=lambda place: f"https://here/{place}")
    assert seen["00420011"] == {"vr": "OB", "BulkDataURI": "https://here/00420011"}
    assert seen["7FE00010"] == {"vr": "OB", "BulkDataURI": "https://here/7FE00010"}
    nested = seen["00081140"]["Value"][1]["00091010"]
    assert nested == {"vr": "OB", "BulkDataURI": "https://here/00081140/1/00091010"}
    bare = model(data, bulk_over=100)
    assert not {"00420011", "7FE00010"} & bare.keys()
    inline = model(data, bulk_over=200)["00420011"]["InlineBinary"]
    assert base64.b64decode(inline) == b"%PDF" * 50


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
async def test_pool_puts_the_callers_uris_in(syntax: str | None) -> None:
    private = item(EncapsulatedDocument=b"%PDF" * 50)
    data = instance(PIXELS, ReferencedImageSequence=[item(), private], **({"syntax": syntax} if syntax else {}))
    pool = PixelPool(PoolSettings(processes=1, niceness=0))
    try:
        seen = await pool.metadata(data, bulk_over=100, uri_of=lambda place: f"https://here/{place}")
        bare = await pool.metadata(data, bulk_over=100)
    finally:
        await pool.aclose()
    nested = seen["00081140"]["Value"][1]["00420011"]
    assert nested["BulkDataURI"] == "https://here/00081140/1/00420011"
    assert seen["7FE00010"]["BulkDataURI"] == "https://here/7FE00010"
    assert "7FE00010" not in bare
    assert seen["00100010"]["Value"] == [{"Alphabetic": "MARTIN^HÉLÈNE"}]
