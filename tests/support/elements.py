"""A writer of Part-10 bytes that shares nothing with the code under test, and can write what is wrong."""

from __future__ import annotations

import struct
import zlib

LONG = ("OB", "OW", "SQ", "UN", "UR", "UT", "OF")
PATIENT_ID = 0x0010_0020
ITEM, ITEM_END, SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD


def tag_bytes(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def element(tag: int, vr: str, value: bytes, *, undefined: bool = False) -> bytes:
    length = 0xFFFFFFFF if undefined else len(value)
    if vr in LONG:
        return tag_bytes(tag) + vr.encode() + b"\0\0" + struct.pack("<I", length) + value
    return tag_bytes(tag) + vr.encode() + struct.pack("<H", len(value)) + value


def implicit(tag: int, value: bytes, *, undefined: bool = False) -> bytes:
    return tag_bytes(tag) + struct.pack("<I", 0xFFFFFFFF if undefined else len(value)) + value


def item(content: bytes, *, undefined: bool = False) -> bytes:
    whole = implicit(ITEM, content, undefined=undefined)
    return whole + implicit(ITEM_END, b"") if undefined else whole


def sequence(tag: int, *items: bytes, undefined: bool = False, vr: str = "SQ") -> bytes:
    end = implicit(SEQUENCE_END, b"") if undefined else b""
    return element(tag, vr, b"".join(items) + end, undefined=undefined)


def meta(syntax: str, *, length: int | None = 0, more: bytes = b"") -> bytes:
    """`length` = what the group length is off by; None = no group length."""
    value = syntax.encode("latin-1") + b"\0" * (len(syntax) % 2)
    content = element(0x0002_0001, "OB", b"\0\1") + element(0x0002_0010, "UI", value) + more
    said = b"" if length is None else element(0x0002_0000, "UL", struct.pack("<I", len(content) + length))
    return b"\0" * 128 + b"DICM" + said + content


def deflated(data: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, wbits=-15)
    return packer.compress(data) + packer.flush()
