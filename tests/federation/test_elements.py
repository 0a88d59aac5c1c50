"""Elements and items as bytes: read and written."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from part10_streams import (
    DEFLATE,
    EXPLICIT,
    SCRAPS,
    UID,
)
from support.elements import (
    ITEM_END,
    PATIENT_ID,
    SEQUENCE_END,
    element,
    implicit,
    item,
    meta,
    sequence,
)

from federation.elements import BadPart10, encode_element, encode_item, items_of

_starts = st.sampled_from([meta(EXPLICIT), meta(EXPLICIT, length=None), meta(EXPLICIT, length=6), meta(DEFLATE), b""])


def test_items_of_sequences_are_read_in_every_form() -> None:
    texts = {0x0010_0020: b"4547", 0x0010_0021: b"PACS"}
    content = b"".join(element(t, "LO", v) for t, v in texts.items())
    inner = sequence(0x0010_0024, item(UID, undefined=True), undefined=True)
    for undefined in (False, True):
        end = implicit(SEQUENCE_END, b"") if undefined else b""
        value = item(content, undefined=undefined) + item(b"") + item(content + inner, undefined=not undefined) + end
        first, second, third = items_of(value)
        assert first == texts
        assert second == {}
        assert third == {**texts, 0x0010_0024: inner[12:]}
        plain = b"".join(implicit(t, v) for t, v in texts.items())
        assert items_of(item(plain, undefined=undefined) + end, implicit=True) == [texts]
    assert items_of(b"") == []
    assert items_of(encode_item(encode_element(PATIENT_ID, "LO", b"odd"))) == [{PATIENT_ID: b"odd "}]
    assert items_of(encode_item(encode_element(PATIENT_ID, "LO", b"odd", implicit=True)), implicit=True) == [
        {PATIENT_ID: b"odd "}
    ]


@pytest.mark.parametrize(
    "value", [b"\0", UID, item(UID)[:-1], item(UID, undefined=True)[:-8], item(b"\0" * 7), implicit(ITEM_END, b"")]
)
def test_unreadable_items_are_refused(value: bytes) -> None:
    with pytest.raises(BadPart10):
        items_of(value)


@given(st.lists(st.one_of(SCRAPS, st.binary(max_size=12)), max_size=8).map(b"".join), st.booleans())
def test_any_items_are_read_or_refused(value: bytes, unknown: bool) -> None:
    try:
        items_of(value, implicit=unknown)
    except BadPart10:
        return


def test_many_items_take_linear_time() -> None:
    started = time.process_time()
    assert len(items_of(item(b"", undefined=True) * 65_000)) == 65_000
    assert time.process_time() - started < 3.0


def test_encoding_elements() -> None:
    assert encode_element(PATIENT_ID, "LO", b"odd") == element(PATIENT_ID, "LO", b"odd ")
    assert encode_element(0x0008_0018, "UI", b"1.2") == element(0x0008_0018, "UI", b"1.2\0")
    assert encode_element(0x0010_1002, "SQ", b"") == sequence(0x0010_1002)
    with pytest.raises(BadPart10):
        encode_element(PATIENT_ID, "LO", b"x" * 0xFFFF)
