"""What an instance says of itself: the same in any chunking, and never more than an error of ours from any bytes."""

from __future__ import annotations

import pydicom
import pytest
import store_wire as wire
from hypothesis import given, settings
from hypothesis import strategies as st
from imagora_demo import exams
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from federation.elements import BadPart10
from federation.incoming import Incoming, IncomingReader

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def made(syntax: str) -> tuple[pydicom.Dataset, bytes]:
    dataset = wire.read(exams.study(seed="incoming", patient_id="4547", rows=24, columns=24)[0])
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset, wire.written(dataset)


MADE = {syntax: made(syntax) for syntax in SYNTAXES}


def fed(data: bytes, cuts: list[int]) -> tuple[Incoming | None, bytes]:
    reader = IncomingReader()
    out = b""
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        out += b"".join(bytes(p) for p in reader.feed(data[at:cut]))
        at = cut
    out += b"".join(bytes(p) for p in reader.finish())
    return reader.instance, out


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_it_is_read_as_pydicom_reads_it(syntax: str) -> None:
    dataset, data = MADE[syntax]
    instance, out = fed(data, [])
    assert out == data
    assert instance == Incoming(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        patient_id="4547",
        transfer_syntax=syntax,
    )


@given(syntax=st.sampled_from(SYNTAXES), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_chunking_gives_the_same(syntax: str, data: st.DataObject) -> None:
    _, sent = MADE[syntax]
    cuts = data.draw(st.lists(st.integers(0, min(len(sent), 1500)), max_size=40))
    assert fed(sent, cuts) == fed(sent, [])


@given(syntax=st.sampled_from(SYNTAXES), length=st.integers(0, 4000))
@settings(max_examples=150, deadline=None)
def test_a_cut_one_is_refused_or_known(syntax: str, length: int) -> None:
    _, sent = MADE[syntax]
    try:
        instance, out = fed(sent[:length], [])
    except BadPart10:
        return
    assert instance == fed(sent, [])[0]
    assert out == sent[:length]


@given(syntax=st.sampled_from(SYNTAXES), data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_give_an_instance_or_an_error_of_ours(syntax: str, data: st.DataObject) -> None:
    sent = bytearray(MADE[syntax][1])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(sent), 1400) - 1))
        sent[at] = data.draw(st.integers(0, 255))
    try:
        instance, out = fed(bytes(sent), data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    except BadPart10:
        return
    assert instance is not None
    assert out == sent


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_any_bytes_behind_the_prefix(data: bytes) -> None:
    with pytest.raises(BadPart10):
        fed(bytes(128) + b"DICM" + data, [])
