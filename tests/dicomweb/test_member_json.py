"""DICOM JSON as members send it: what is taken, what is garbage, and nothing by which a member calls itself."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from dicomweb.member_json import data_sets
from federation.errors import MemberGarbage
from federation.identity import first_of, other_ids, text_of
from federation.names import alphabetic
from federation.tagging import no_bulk, scrub

ROW = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "LÉVY^ÉLISE"}]}}


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (b"", []),
        (b" \r\n", []),
        (b"[]", []),
        (b"[{}]", [{}]),
        (orjson.dumps(ROW), [ROW]),  # the array left out
        (orjson.dumps([ROW, ROW]), [ROW, ROW]),
        (b'[{"00100020": {"vr": "LO", "Value": null}}]', [{"00100020": {"vr": "LO"}}]),
        (b'[{"00100020": {"vr": "LO", "Value": [null]}}]', [{"00100020": {"vr": "LO", "Value": [None]}}]),
        (b'[{"00100020": {"vr": "LO"}}]', [{"00100020": {"vr": "LO"}}]),
        (b'[{"00400275": {"vr": "SQ", "Value": [null, {}]}}]', [{"00400275": {"vr": "SQ", "Value": [None, {}]}}]),
        (b'[{"00100020": {"vr": 3, "Value": ["1"]}}]', [{"00100020": {"Value": ["1"]}}]),
        (b'[{"00100020": {"vr": null}}]', [{"00100020": {}}]),
    ],
)
def test_what_is_taken(raw: bytes, rows: list[Any]) -> None:
    assert data_sets(raw) == rows


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"1",
        b'"text"',
        b"[1]",
        b"[[]]",
        b"[null]",
        b"<html>busy</html>",
        b"[{}",
        b"\xff\xfe[]",
        b'[{"PatientID": {"vr": "LO"}}]',
        b'[{"0010002": {"vr": "LO"}}]',
        b'[{"00100020": "4547"}]',
        b'[{"00100020": null}]',
        b'[{"00100020": {"vr": "LO", "Value": "4547"}}]',
        b'[{"00100020": {"vr": "LO", "Value": {"a": 1}}}]',
        b'[{"00400275": {"vr": "SQ", "Value": ["x"]}}]',
        b'[{"00400275": {"vr": "SQ", "Value": [{"x": {}}]}}]',
        b'[{"00400275": {"vr": "SQ", "Value": [{"00400009": 3}]}}]',
        b'[{"00400275": {"Value": [{"x": {}}]}}]',  # a sequence, whether it is called one or not
        b'[{"00400275": {"vr": ["SQ"], "Value": [{"0040000\xc3\xbf": {}}]}}]',
        b'[{"00101002": {"vr": "PN", "Value": [{"Alphabetic": "LEVY"}]}}]',
        b"[" * 100_000,
        b'[{"00400275":{"vr":"SQ","Value":' * 5_000,
        b"[NaN]",
    ],
    ids=lambda raw: raw[:40].decode("latin-1"),
)
def test_what_is_garbage(raw: bytes) -> None:
    with pytest.raises(MemberGarbage):
        data_sets(raw)


def test_an_id_of_several_values_is_one_id() -> None:
    """Of `4547\\A` and `4547\\B` the first value must not be taken for both."""
    (row,) = data_sets(
        b'[{"00100020": {"vr": "LO", "Value": ["4547 ", "A"]}, "00101002": {"vr": "SQ", "Value": '
        b'[{"00100020": {"vr": "LO", "Value": [null, 7]}, "00100021": {"vr": "LO", "Value": ["x"]}}]}}]'
    )
    assert text_of(row, "00100020") == "4547\\A"
    assert other_ids(row) == [("\\7", "x")]


def test_json_that_is_not_utf8_is_read_in_the_character_set_that_it_names_or_in_latin_1() -> None:
    text = '[{"00100020": {"vr": "LO", "Value": ["É’Ÿ"]}}]'
    for raw, charset in [
        (text.encode(), "iso-8859-1"),  # it is UTF-8, whatever it says
        (text.encode("cp1252"), ""),
        (text.replace("’", "").replace("Ÿ", "").encode("latin-1"), "iso-8859-1"),
        (text.encode("utf-16"), "utf-16"),
    ]:
        (row,) = data_sets(raw, charset)
        assert text_of(row, "00100020").startswith("É")
    for charset in ("no-such-charset", "undefined", "rot13", "ascii", "\0"):
        with pytest.raises(MemberGarbage):
            data_sets(text.encode("cp1252"), charset)


_json: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["00100020", "00100010", "00101002", "00400275", "vr", "Value", "BulkDataURI", "x"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)
_content = st.fixed_dictionaries(
    {}, optional={"vr": st.sampled_from(["SQ", "LO", "PN", "UN", 3, None]), "Value": _json, "BulkDataURI": _json}
)
_row = st.dictionaries(st.sampled_from(["00100020", "00100010", "00101002", "00081190", "00400275"]), _content)


@given(st.one_of(_json, st.lists(_row, max_size=3)))
def test_any_json_is_taken_or_garbage_and_then_handled(value: Any) -> None:
    raw = orjson.dumps(value)
    try:
        rows = data_sets(raw)
    except MemberGarbage:
        return
    for row in rows:
        text_of(row, "00100020")
        alphabetic(first_of(row, "00100010"))
        other_ids(row)
        scrub(row, no_bulk)
        assert b"BulkDataURI" not in orjson.dumps(row) or "BulkDataURI" in repr(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_garbage(raw: bytes) -> None:
    try:
        data_sets(raw)
        data_sets(raw, "utf-16")
    except MemberGarbage:
        return


def test_a_member_s_own_addresses_leave_no_trace() -> None:
    at_home = "http://127.0.0.21/zq-member-a/studies/1.2/bulkdata/1"
    nested = {
        "00081190": {"vr": "UR", "Value": [at_home]},
        "00080054": {"vr": "AE", "Value": ["ZQPACS"]},
        "0040E010": {"vr": "UR", "Value": [at_home]},
        "00091001": {"vr": "OB", "BulkDataURI": at_home},
    }
    row: dict[str, Any] = {
        **deepcopy(nested),
        "00020016": {"vr": "AE", "Value": ["ZQPACS"]},
        "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
        "7FE00010": {"vr": "OW", "BulkDataURI": at_home},
        "00400275": {"vr": "SQ", "Value": [deepcopy(nested), None]},
        "00400555": {"Value": [deepcopy(nested)]},  # the VR left out
        "00400556": {"vr": "UN", "Value": [{"00400275": {"vr": "SQ", "Value": [deepcopy(nested)]}}]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "LÉVY"}]},
    }
    assert scrub(row, no_bulk) == 5
    assert b"zq" not in orjson.dumps(row).lower()
    assert set(row) == {"00020010", "7FE00010", "00400275", "00400555", "00400556", "00100010", "00091001"}
    assert row["00100010"]["Value"] == [{"Alphabetic": "LÉVY"}]


def test_bulk_data_references_become_ours() -> None:
    row: dict[str, Any] = {"7FE00010": {"vr": "OW", "BulkDataURI": "a"}, "00091001": {"vr": "OB", "BulkDataURI": 3}}
    assert scrub(row, lambda uri: f"ours/{uri}") == 1
    assert row == {"7FE00010": {"vr": "OW", "BulkDataURI": "ours/a"}, "00091001": {"vr": "OB"}}
