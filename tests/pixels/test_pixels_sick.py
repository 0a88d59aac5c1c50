"""Files that lie, are cut or are made to do harm: a clear error, before memory is taken for what they declare."""

from __future__ import annotations

import asyncio
import io
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pixels_files import PIXELS, instance, readable
from pixels_files import test_file as file_bytes
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from federation.errors import BadRequest
from federation.pixels import jobs
from federation.pixels.codestream import Declared, declared
from federation.pixels.errors import NoSuchFrame, PixelError, SickFile, TooLarge, UnsupportedSyntax
from federation.pixels.limits import Limits
from federation.pixels.metadata import metadata
from federation.pixels.options import MediaType, RenderOptions
from federation.pixels.pool import PixelPool, PoolSettings
from federation.pixels.render import render, thumbnail
from federation.pixels.source import BoundedFile
from federation.pixels.transcode import frames, to_explicit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LIMITS = Limits()
SMALL = np.zeros((4, 4), np.uint8)


def jpeg(width: int, height: int, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, "JPEG")
    return out.getvalue()


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def jp2(*boxes: tuple[int, bytes]) -> bytes:
    out = io.BytesIO()
    Image.new("L", (4, 4)).save(out, "JPEG2000", no_jp2=True)
    head = b"\0\0\0\x0cjP  \r\n\x87\n" + b"".join(struct.pack(">I", length) + name for length, name in boxes)
    return head + struct.pack(">I", len(out.getvalue()) + 8) + b"jp2c" + out.getvalue()


def jpeg2000(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "JPEG2000", no_jp2=True)
    data = bytearray(out.getvalue())
    data[8:16] = struct.pack(">II", width, height)
    return bytes(data)


EVERYTHING: dict[str, Callable[[bytes], object]] = {
    "render": lambda data: list(render(io.BytesIO(data), RenderOptions(), LIMITS)),
    "thumbnail": lambda data: thumbnail(io.BytesIO(data), RenderOptions(), LIMITS),
    "frames": lambda data: list(frames(io.BytesIO(data), None, LIMITS, as_stored=False)),
    "to_explicit": lambda data: to_explicit(io.BytesIO(data), io.BytesIO(), LIMITS),
}

SICK: dict[str, tuple[type[PixelError], bytes]] = {
    "20,000 × 20,000 pixels in a compressed frame": (
        TooLarge,
        instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[jpeg(4, 4)], Rows=20000, Columns=20000),
    ),
    "many bytes per pixel": (
        TooLarge,
        instance(SMALL, syntax=RLELossless, encoded=[b"\0" * 64], Rows=9000, Columns=9000, BitsAllocated=64),
    ),
    "JPEG header that declares a giant": (
        TooLarge,
        instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[with_jpeg_size(jpeg(4, 4), 65000, 65000)]),
    ),
    "JPEG 2000 header that declares a giant": (
        TooLarge,
        instance(SMALL, syntax=JPEG2000, encoded=[jpeg2000(1 << 31, 1 << 31)]),
    ),
    "JPEG of another size": (SickFile, instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[jpeg(8, 2)])),
    "JPEG of other samples": (SickFile, instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[jpeg(4, 4, "RGB")])),
    "JPEG that is none": (SickFile, instance(SMALL, syntax=JPEGLSLossless, encoded=[b"what is this?"])),
    "JP2 whose boxes lead nowhere": (SickFile, instance(SMALL, syntax=JPEG2000, encoded=[jp2((0, b"jp2h"))])),
    "JPEG that is cut": (
        SickFile,
        instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[jpeg(4, 4)[: jpeg(4, 4).index(b"\xff\xda")]]),
    ),
    "fragments that are cut": (
        SickFile,
        instance(SMALL, syntax=JPEGBaseline8Bit, encoded=[jpeg(4, 4)])[:-200],
    ),
    "fewer fragments than frames": (
        SickFile,
        instance(np.zeros((9, 4, 4), np.uint8), frames=9, syntax=RLELossless, encoded=[b"\0" * 64] * 2),
    ),
    "pixels that are cut": (SickFile, instance(np.zeros((64, 64), np.uint16))[:-100]),
    "more frames than pixels": (SickFile, instance(SMALL, NumberOfFrames=10**9)),
    "no frames": (SickFile, instance(SMALL, NumberOfFrames=-1)),
    "no rows": (SickFile, instance(SMALL, Rows=0)),
    "bits that do not exist": (SickFile, instance(SMALL, BitsAllocated=13)),
    "more bits stored than allocated": (SickFile, instance(SMALL, BitsStored=99)),
    "no samples": (SickFile, instance(SMALL, SamplesPerPixel=0)),
    "native pixels in a compressed syntax": (
        SickFile,
        instance(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
    ),
    "no DICOM": (SickFile, b"GIF89a" + b"\0" * 400),
    "nothing": (SickFile, b""),
    "an unknown transfer syntax": (
        UnsupportedSyntax,
        instance(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"),
    ),
}


#: In Explicit VR Little Endian already: nothing of them is decoded, so they are the receiver's to judge.
PASSED_ON = {
    "more frames than pixels",
    "no frames",
    "no rows",
    "bits that do not exist",
    "more bits stored than allocated",
    "no samples",
}


@pytest.mark.parametrize("name", SICK)
@pytest.mark.parametrize("job", EVERYTHING)
def test_sick_file_is_told_before_memory_is_taken(name: str, job: str) -> None:
    kind, data = SICK[name]
    if job == "to_explicit" and name in PASSED_ON:
        out = io.BytesIO()
        to_explicit(io.BytesIO(data), out, LIMITS)
        assert out.getvalue() == data
        return

    def attempt(*_: object) -> None:
        EVERYTHING[job](data)

    tracemalloc.start()
    try:
        with pytest.raises(PixelError) as raised:
            jobs.run(attempt, io.BytesIO(), jobs.Output(io.BytesIO(), LIMITS), {}, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert type(raised.value) is kind, raised.value.message


def test_what_is_not_decoded_may_be_of_any_size() -> None:
    _, data = SICK["20,000 × 20,000 pixels in a compressed frame"]
    [frame] = frames(io.BytesIO(data), None, LIMITS, as_stored=True)
    assert frame.data.rstrip(b"\0") == jpeg(4, 4).rstrip(b"\0")


def test_video_is_given_as_it_is_only() -> None:
    data = instance(SMALL, NumberOfFrames=5, syntax=MPEG2MPML, encoded=[b"\0\0\1\xb3stream"])
    with pytest.raises(UnsupportedSyntax):
        EVERYTHING["render"](data)
    [stream] = frames(io.BytesIO(data), None, LIMITS, as_stored=True)
    assert (stream.media_type, stream.data) == ("video/mpeg", b"\0\0\1\xb3stream")
    with pytest.raises(NoSuchFrame):
        list(frames(io.BytesIO(data), [2], LIMITS, as_stored=True))


def deflated(plain: bytes, *, cut: int | None = None) -> bytes:
    explicit = instance(None)
    meta_end = 132 + 12 + int.from_bytes(explicit[140:144], "little")
    head = instance(None, syntax=DeflatedExplicitVRLittleEndian)
    head = head[: 132 + 12 + int.from_bytes(head[140:144], "little")]
    packer = zlib.compressobj(wbits=-15)
    return head + (packer.compress(explicit[meta_end:] + plain) + packer.flush())[:cut]


def test_file_that_inflates_without_end_is_refused_at_the_limit() -> None:
    bomb = deflated(b"\x09\x00\x10\x00OB\0\0" + struct.pack("<I", 64 << 20) + b"\0" * (64 << 20))
    assert len(bomb) < 1 << 20
    limits = Limits(input_bytes=16 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="inflates"):
            metadata(io.BytesIO(bomb), limits, bulk_over=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_deflated_file_that_is_cut_or_damaged_is_told() -> None:
    for cut in (1, 10, 40):
        with pytest.raises(SickFile, match="deflated"):
            metadata(io.BytesIO(deflated(b"", cut=cut)), LIMITS, bulk_over=10)
    data = bytearray(deflated(b""))
    data[-40:] = b"\xff" * 40
    with pytest.raises(SickFile, match="deflated"):
        metadata(io.BytesIO(bytes(data)), LIMITS, bulk_over=10)


def test_instance_that_is_cut_anywhere_is_told_but_between_two_elements() -> None:
    item = Dataset()
    item.CodeValue = "T-1"
    whole = instance(None, ReferencedImageSequence=[item], StudyDescription="x" * 40)
    sequence = whole.index(b"\x08\x00\x40\x11")
    ends = {whole.index(tag) for tag in (b"\x08\x00\x30\x10", b"\x08\x00\x40\x11", b"\x10\x00\x10\x00")}
    ends |= {whole.index(b"\x10\x00\x20\x00"), len(whole)}
    silent = set()
    for end in range(sequence - 50, len(whole) + 1):
        out = jobs.Output(io.BytesIO(), LIMITS)
        try:
            jobs.run(jobs.JOBS["metadata"], io.BytesIO(whole[:end]), out, {"bulk_over": 10, "uris": False}, LIMITS)
            silent.add(end)
        except SickFile:
            pass
    assert silent == ends


def test_no_more_is_read_than_is_there() -> None:
    file = BoundedFile(io.BytesIO(b"abcdef"))
    assert file.read(4) == b"abcd"
    assert file.read(1 << 60) == b"ef"
    assert file.read(1 << 60) == b""


def test_more_output_than_allowed_is_refused() -> None:
    frames_ = np.zeros((100, 10, 10), np.uint8)
    out = jobs.Output(io.BytesIO(), Limits(output_bytes=5000))
    params = {"frames": None, "as_stored": False}
    with pytest.raises(TooLarge):
        jobs.run(jobs.JOBS["frames"], io.BytesIO(instance(frames_, frames=100)), out, params, LIMITS)


STARTS = [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"]


@given(st.binary(max_size=80), st.sampled_from(STARTS))
def test_any_codestream_has_a_header_or_none(data: bytes, start: bytes) -> None:
    assert isinstance(declared(start + data), Declared | None)


def test_headers_of_codestreams_are_read() -> None:
    for data, expected in (
        (jpeg(300, 20), (300, 20, 1, 8)),
        (jpeg(3, 2, "RGB"), (3, 2, 3, 8)),
        (jpeg2000(40, 50), (40, 50, 1, 8)),
        (jp2((8, b"jp2h"), (8, b"uuid")), (4, 4, 1, 8)),
        (b"\xff\xd8\xff\xff\xd0" + jpeg(300, 20)[2:], (300, 20, 1, 8)),
    ):
        seen = declared(data)
        assert seen is not None
        assert (seen.width, seen.height, seen.samples, seen.precision) == expected
        assert 0 < seen.end < data.index(b"\xff\xd9")


#: Images of pydicom's that are small enough to be changed many times.
SEEDS = [
    path.read_bytes()
    for path, dataset in readable()
    if path.stat().st_size < 60_000 and any(keyword in dataset for keyword in PIXELS)
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 5))):
        end = len(data) if draw(st.booleans()) else min(len(data), 3000)
        at = draw(st.integers(0, max(0, end - 1)))
        match draw(st.sampled_from(["set", "set", "word", "cut out", "put in", "end"])):
            case "set":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "word":
                data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80", b"\xfe\xff\x00\xe0"]))
            case "cut out":
                del data[at : at + draw(st.integers(1, 40))]
            case "put in":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "end":
                del data[at:]
    return bytes(data)


def test_any_bytes_give_an_image_or_one_of_our_errors() -> None:
    """Through a real pool: what crashes a codec here crashes no test."""
    with asyncio.Runner() as runner:
        pool = PixelPool(PoolSettings(processes=1, niceness=0, deadline_s=20))
        outcomes = Counter[str]()

        async def attempt(job: str, data: bytes) -> None:
            params: dict[str, dict[str, Any]] = {
                "render": {"options": RenderOptions(media_type=MediaType.PNG, frames=(1,)).to_json()},
                "frames": {"frames": None, "as_stored": False},
                "to_explicit": {},
                "metadata": {"bulk_over": 100, "uris": True},
            }
            try:
                with await pool.submit(job, data, params[job]) as result:
                    if job == "render":
                        Image.open(io.BytesIO(result.read(result.pieces[0]))).verify()
                outcomes["image" if result.pieces else "nothing"] += 1
            except (PixelError, BadRequest) as error:
                outcomes["error" if error.message else "no reason"] += 1

        @given(st.sampled_from(["render", "render", "frames", "to_explicit", "metadata"]), mutated())
        @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        def attempts(job: str, data: bytes) -> None:
            runner.run(attempt(job, data))

        try:
            attempts()
        finally:
            runner.run(pool.aclose())
    assert outcomes.keys() == {"image", "error"}
    assert min(outcomes.values()) > 10


def test_file_of_the_archive_is_whole_before_it_is_mutated() -> None:
    assert len(SEEDS) > 60
    assert file_bytes("CT_small.dcm") in SEEDS
