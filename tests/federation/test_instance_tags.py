"""Tagging instances: what pydicom reads after it, nothing else changed, and no other patient's identity."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import FileDataset
from support.instances import (
    CHARSETS,
    DEFLATED,
    EXPLICIT,
    JPEG,
    LOCAL,
    PIXELS,
    QUALIFIED,
    SHAPES,
    STUDY,
    assert_same_but_for_tags,
    assert_tagged,
    bytes_of,
    dataset,
    institution,
    issuer,
    located,
    nested,
    nested_undefined,
    other_ids,
    others,
    others_undefined,
    private,
    read,
    refuse,
    tagged,
)
from support.values import BLOIS, DIRECTORY, ROMORANTIN, SITES, TOURS, record

from dicomweb.member_json import data_sets
from federation.elements import BadPart10
from federation.identity import Identity, Naming, nobody, record_of
from federation.instance import InstanceTagger
from federation.part10 import HeadRewriter
from registry import Site


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, JPEG])
@pytest.mark.parametrize("shape", SHAPES)
def test_instances_are_tagged_and_otherwise_unchanged(
    shape: Callable[[FileDataset], None], syntax: str, charset: str | None
) -> None:
    ds = dataset(syntax=syntax, charset=charset)
    if charset is None:
        ds.PatientName = "DUPONT"
    shape(ds)
    if charset is None and "OtherPatientIDsSequence" in ds:
        ds.OtherPatientIDsSequence[0].PatientID = "E99"
    before = bytes_of(ds)
    after = tagged(before, located("4547"))
    assert_same_but_for_tags(before, after)
    now = read(after)
    assert_tagged(now, "4547", ROMORANTIN, ROMORANTIN)
    kept = [(i.PatientID, i.IssuerOfPatientID) for i in ds.get("OtherPatientIDsSequence", [])]
    assert other_ids(now) == [*kept, ("4547", "csrom41200")]
    added = now.OtherPatientIDsSequence[-1]
    assert added.TypeOfPatientID == "TEXT"
    assert added.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == ROMORANTIN.oid
    assert now.InstitutionName == ("Chez nous" if shape is institution else "Romorantin (CH)")


def test_group_lengths_are_true_afterwards() -> None:
    before = bytes_of(dataset())
    for tag in (b"\x08\0\x05\0CS", b"\x10\0\x10\0PN", b"\x28\0\x10\0US"):  # pydicom leaves group lengths out
        before = before.replace(tag, tag[:2] + b"\0\0UL\4\0" + struct.pack("<I", 22) + tag)
    after = tagged(before, located("4547"))
    assert_same_but_for_tags(before, after)
    now = dcmread(io.BytesIO(after))
    edges = [after.index(tag) for tag in (b"\x08\0\0\0UL", b"\x10\0\0\0UL", b"\x20\0\x0d\0UI")]
    assert now[0x0008, 0].value == edges[1] - edges[0] - 12
    assert now[0x0010, 0].value == edges[2] - edges[1] - 12
    assert now[0x0028, 0].value == 22  # not ours


_shapes = st.lists(st.sampled_from([s for s in SHAPES if s not in (others, nested)]), max_size=4, unique=True)
_ids = st.sampled_from(["4547", "É 12", "a@b", "@csrom41200", "4547@csrom41200", "4547@CSBLO41000", "x" * 60, "~1", ""])


@given(
    _shapes, st.sampled_from(CHARSETS[:3]), st.sampled_from([EXPLICIT, DEFLATED, JPEG]), _ids, st.sampled_from(SITES)
)
@settings(max_examples=60)
def test_tagging_twice_changes_nothing(
    shapes: list[Callable[[FileDataset], None]], charset: str, syntax: str, patient_id: str, holder: Site
) -> None:
    """What was tagged comes back from another holder: not qualified again, of the same origin and patient."""
    if charset == "\\ISO 2022 IR 87":
        patient_id = patient_id.replace("É", "E")
    ds = dataset(patient_id, charset=charset, syntax=syntax)
    for shape in shapes:
        if shape is others_undefined and "87" in charset:
            continue
        shape(ds)
    known: dict[str, tuple[str, str]] = {}
    naming = Naming(qualified=True, issuer="IMAGORA", oid="1.2.250.1.999", long_ids=known.get, note=known.__setitem__)
    mine = record(patient_id, holder)
    identity = Identity(records=(replace(mine, study_uid=STUDY),))
    once = tagged(bytes_of(ds), identity, holder, naming)
    assert_same_but_for_tags(bytes_of(ds), once)
    first = read(once)
    for elsewhere in SITES:
        moved = record(first.PatientID, elsewhere, coded=identity.origin)
        twice = read(tagged(once, Identity(records=(moved,)), elsewhere, naming, stranger=lambda _: None))
        assert twice.PatientID == first.PatientID
        assert twice.InstitutionCodeSequence == first.InstitutionCodeSequence
        assert [i for i in other_ids(twice) if i[0] != first.PatientID.rpartition("@")[0] or patient_id] == other_ids(
            first
        )


def test_a_copy_at_another_holder_keeps_its_patient_and_origin() -> None:
    once = tagged(bytes_of(dataset()), located("4547"))
    copy = located("4547@csrom41200", holder=BLOIS)
    now = read(tagged(once, copy, BLOIS))
    assert_tagged(now, "4547", ROMORANTIN, ROMORANTIN)
    assert other_ids(now) == [("4547", "csrom41200")]


def test_a_copy_filed_under_the_holder_s_own_id_is_never_that_id_of_the_origin() -> None:
    """Blois took Romorantin's exam in under its own IPP and kept the rest of the tags."""
    ds = read(tagged(bytes_of(dataset()), located("4547")))
    ds.PatientID = "B99"
    strangers: list[Identity] = []
    now = read(tagged(bytes_of(ds), located("B99", holder=BLOIS), BLOIS, stranger=strangers.append))
    assert_tagged(now, "4547", ROMORANTIN, ROMORANTIN)  # the id that was appended on the way out says whose it is
    assert len(strangers) == 1
    del ds.OtherPatientIDsSequence
    now = read(tagged(bytes_of(ds), located("B99", holder=BLOIS), BLOIS, stranger=strangers.append))
    assert_tagged(now, "B99", BLOIS, ROMORANTIN)


def test_every_holder_s_id_is_appended() -> None:
    identity = Identity(records=(record("4547", ROMORANTIN), record("B99", BLOIS), record("4547@csrom41200", TOURS)))
    now = read(tagged(bytes_of(dataset()), identity))
    assert other_ids(now) == [("4547", "csrom41200"), ("B99", "csblo41000")]
    now = read(tagged(bytes_of(dataset("B99")), identity, BLOIS))
    assert now.PatientID == "4547@csrom41200"
    assert other_ids(now) == [("4547", "csrom41200"), ("B99", "csblo41000")]


@pytest.mark.parametrize("patient_id", ["666", "", None, "4547@csblo41000", "4547 bis", "04547"])
def test_an_instance_of_somebody_else_is_never_given_the_study_s_identity(patient_id: str | None) -> None:
    strangers: list[Identity] = []
    identity = Identity(records=(record("4547", ROMORANTIN),))
    now = read(tagged(bytes_of(dataset(patient_id)), identity, stranger=strangers.append))
    (stranger,) = strangers
    assert now.PatientID == QUALIFIED.patient_id(stranger.main)
    assert not now.PatientID.startswith("4547@csrom41200")
    assert ("4547", "csrom41200") not in other_ids(now)
    if not patient_id:
        assert (stranger.main.ipp, other_ids(now)) == ("", [])


def test_a_stranger_that_may_not_pass_stops_the_stream() -> None:
    class Withheld(Exception):
        pass

    def check(_: Identity) -> None:
        raise Withheld

    with pytest.raises(Withheld):
        tagged(bytes_of(dataset("666")), located("4547"), stranger=check)


def test_each_instance_is_judged_by_itself() -> None:
    """A tagger remembers what it made of the last head; the next may be another person's."""
    strangers: list[Identity] = []
    tagger = InstanceTagger(located("4547"), ROMORANTIN, DIRECTORY, QUALIFIED, strangers.append)
    ids = ["4547", "4547", "666", "4547", "666"]
    found = [read(tagged(bytes_of(dataset(i)), located("4547"), tagger=tagger)).PatientID for i in ids]
    assert found == [f"{i}@csrom41200" for i in ids]
    assert len(strangers) == 2


def test_an_instance_without_patient_id_gets_one_that_no_other_exam_has() -> None:
    ds = dataset(None)
    empty = replace(record("", ROMORANTIN), study_uid=STUDY)
    now = read(tagged(bytes_of(ds), Identity(records=(empty,))))
    assert now.PatientID == nobody(STUDY, ROMORANTIN)
    assert other_ids(now) == []
    assert_same_but_for_tags(bytes_of(ds), tagged(bytes_of(ds), Identity(records=(empty,))))


def test_local_ids_stay_bare_with_the_site_as_issuer() -> None:
    before = bytes_of(dataset())
    now = read(tagged(before, located("4547"), naming=LOCAL))
    assert (now.PatientID, now.IssuerOfPatientID) == ("4547", "csrom41200")
    assert now.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == ROMORANTIN.oid
    assert "OtherPatientIDsSequence" not in now
    again = tagged(
        bytes_of(now), located("4547", holder=BLOIS, coded=ROMORANTIN), BLOIS, LOCAL, stranger=lambda _: None
    )
    assert (read(again).PatientID, read(again).IssuerOfPatientID) == ("4547", "csrom41200")


def test_qualifiers_of_another_issuer_do_not_stay() -> None:
    ds = dataset()
    issuer(ds)
    now = read(tagged(bytes_of(ds), located("4547"), naming=Naming(qualified=True, issuer="IMAGORA")))
    assert now.IssuerOfPatientID == "IMAGORA"
    assert "IssuerOfPatientIDQualifiersSequence" not in now


def test_names_fit_the_character_set_of_the_instance() -> None:
    site = Site(emetteur="orl", number=451, name="Orléans – Œuvre de l’Hôpital " + "é" * 60)
    for charset, name in [
        ("ISO_IR 192", site.name[:64]),
        ("ISO_IR 100", None),
        (None, None),
        ("\\ISO 2022 IR 87", None),
        ("ISO_IR 13", None),
    ]:
        mine = record("1", site)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            now = read(tagged(bytes_of(dataset("1", charset=charset)), Identity(records=(mine,)), site))
        assert len(now.InstitutionName) <= 64
        if name is not None:
            assert now.InstitutionName == name
        else:
            assert now.InstitutionName.startswith(("Orleans - ", "Orléans"))


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("ISO_IR 100", "É12".encode("latin-1"), "É12"),
        ("ISO_IR 192", "É12".encode(), "É12"),
        ("ISO_IR 192", "山12".encode(), "山12"),
        ("\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B12", "山田12"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B12", "山田12"),
        ("ISO_IR 13", b"\xd4\xcf\xc0\xde12", "ﾔﾏﾀﾞ12"),
    ],
)
def test_patient_ids_keep_their_letters(charset: str, raw: bytes, text: str) -> None:
    ds = dataset("4547", charset=charset)
    stream = bytes_of(ds).replace(
        b"\x10\0\x20\0LO\4\x004547",
        b"\x10\0\x20\0LO" + struct.pack("<H", len(raw) + len(raw) % 2) + raw + b" " * (len(raw) % 2),
    )
    now = read(tagged(stream, located(text)))
    assert_tagged(now, text, ROMORANTIN, ROMORANTIN)


@pytest.mark.parametrize("raw", [b"4547\xa0", b"\x0b4547", b"4547\\A ", b"4547\\", b" \\4547 "])
def test_an_instance_is_whose_its_metadata_say(raw: bytes) -> None:
    """Nothing but padding is left out of an id, and what would be read as several values is one."""
    raw += b" " * (len(raw) % 2)
    stream = bytes_of(dataset()).replace(b"LO\x04\x004547", b"LO" + struct.pack("<H", len(raw)) + raw)
    now = read(tagged(stream, located("4547"), stranger=lambda _: None))
    (metadata,) = data_sets(orjson.dumps([dcmread(io.BytesIO(stream)).to_json_dict()]))
    own = record_of(metadata, ROMORANTIN, DIRECTORY)
    assert own.ipp != "4547"
    assert now.PatientID == QUALIFIED.patient_id(own)


@pytest.mark.parametrize("charset", [None, "ISO_IR 192", "ISO_IR 999", "\\ISO 2022 IR 87", "ISO-IR 100"])
def test_two_patient_ids_in_a_wrong_character_set_stay_two(charset: str | None) -> None:
    shown = set()
    for raw in (b"\xc9\xff12", b"\xc8\xff12", b"\x1b$B!\xff12 ", b'\x1b$B"\xff12 ', b"E 12"):
        stream = (
            bytes_of(dataset(charset="ISO_IR 101"))
            .replace(b"4547", raw[:4])
            .replace(b"CS\x0a\0ISO_IR 101", _charset(charset))
        )
        ours = tagged(stream, located("4547"), stranger=lambda _: None)
        at = ours.index(b"\x10\0\x20\0LO")
        shown.add(ours[at : at + 30])
    assert len(shown) >= 4


def _charset(charset: str | None) -> bytes:
    value = (charset or "").encode()
    value += b" " * (len(value) % 2)
    return b"CS" + struct.pack("<H", len(value)) + value


def test_ids_are_appended_to_a_sequence_of_unknown_vr() -> None:
    """A gateway that does not know (0010,1002) sends it as UN: implicit VR inside (PS3.5 §6.2.2)."""
    ds = dataset()
    others(ds)
    before = bytes_of(ds)
    start = before.index(b"\x10\0\x02\x10SQ")
    end = start + 12 + struct.unpack_from("<I", before, start + 8)[0]

    def implicit(tag: int, value: bytes) -> bytes:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value

    item = implicit(0xFFFEE000, implicit(0x00100020, b"\xc999 ") + implicit(0x00100021, b"ASSURANCE "))
    for value, length in [(item, len(item)), (item + implicit(0xFFFEE0DD, b""), 0xFFFFFFFF)]:
        unknown = b"\x10\0\x02\x10UN\0\0" + struct.pack("<I", length) + value
        now = read(tagged(before[:start] + unknown + before[end:], located("4547")))
        assert other_ids(now) == [("É99", "ASSURANCE"), ("4547", "csrom41200")]
        assert now.PixelData == PIXELS


_scraps = st.one_of(
    st.binary(max_size=30), st.sampled_from([b"\x1b$B", b"\\", b"=^", b"99IMAGORA ", b"423 ", b"@csrom41200"])
)


@given(
    st.lists(_scraps, min_size=6, max_size=6),
    st.sampled_from([b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO 2022 IR 58\\ISO 2022 IR 149", b"GB18030 ", b"\xff\xff"]),
    st.sampled_from([b"SQ", b"UN", b"LO"]),
    st.booleans(),
)
def test_any_values_are_tagged_or_refused(values: list[bytes], charset: bytes, vr: bytes, wrapped: bool) -> None:
    def short(tag: int, kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind + struct.pack("<H", len(value)) + value

    def long(tag: int, value: bytes) -> bytes:
        if vr == b"LO":
            return short(tag, vr, value)
        if wrapped:
            value = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + b"\0\0" + struct.pack("<I", len(value)) + value

    code, name, patient_id, sex, other, other_id = values
    item = short(0x00080100, b"SH", code) + short(0x00080102, b"SH", b"99IMAGORA")
    head = (
        short(0x00080005, b"CS", charset)
        + long(0x00080082, item if len(code) % 2 else code)
        + short(0x00100010, b"PN", name)
        + short(0x00100020, b"LO", patient_id)
        + short(0x00100040, b"CS", sex)
        + long(0x00101002, short(0x00100020, b"LO", other_id) if len(other) % 2 else other)
    )
    meta = bytes_of(dataset())
    meta = meta[: meta.index(b"\x08\0\x05\0CS")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            tagged(meta + head, located("4547"), stranger=lambda _: None)
        except BadPart10:
            return


def chunks(stream: bytes, size: int) -> Iterable[bytes]:
    return (stream[i : i + size] for i in range(0, len(stream), size))


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, JPEG])
def test_tagging_in_any_chunking(syntax: str) -> None:
    ds = dataset(syntax=syntax)
    for shape in (nested_undefined, private, others_undefined):
        shape(ds)
    stream = bytes_of(ds)
    whole = read(tagged(stream, located("4547")))
    for size in (1, 7, 100):
        rewriter = HeadRewriter(InstanceTagger(located("4547"), ROMORANTIN, DIRECTORY, QUALIFIED, refuse))
        out = [bytes(b) for chunk in chunks(stream, size) for b in rewriter.feed(chunk)]
        out += [bytes(b) for b in rewriter.finish()]
        assert read(b"".join(out)) == whole
