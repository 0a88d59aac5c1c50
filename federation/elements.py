"""Data elements of explicit VR little endian data sets as bytes (PS3.5 §7): where they stand, and writing them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

#: First tag that is no longer head.
HEAD_END = 0x0011_0000
META_END = 0x0003_0000

#: VRs with a 32-bit length, PS3.5 table 7.1-1.
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
UNDEFINED = 0xFFFF_FFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
TAG = struct.Struct("<HH")
U16 = struct.Struct("<H")
U32 = struct.Struct("<I")


class BadPart10(Exception):
    """These bytes are not a Part-10 stream that can be tagged. The text holds no data of the stream."""


class UntaggableSyntax(BadPart10):
    """Implicit VR or Big Endian: shall not be used with Web Services (PS3.18 §8.7.3)."""


@dataclass(frozen=True, slots=True)
class Element:
    """One top-level data element of the head, by its place in the head's bytes."""

    tag: int
    vr: bytes
    start: int
    value: int
    end: int


@dataclass(slots=True, kw_only=True)
class Head:
    """The head as it came. `elements` by tag."""

    transfer_syntax: str
    data: bytes
    elements: dict[int, Element]
    # Which study and series it is of: "" if that does not stand within `AHEAD_MAX` bytes behind the head
    study_uid: str = ""
    series_uid: str = ""

    def value(self, tag: int) -> bytes:
        """Raw value bytes; b"" if absent. Of an undefined length sequence: with its delimiter."""
        element = self.elements.get(tag)
        return self.data[element.value : element.end] if element is not None else b""

    def vr(self, tag: int) -> bytes:
        """b"" if absent."""
        element = self.elements.get(tag)
        return element.vr if element is not None else b""

    def text(self, tag: int) -> str:
        """A value of the default repertoire."""
        return self.value(tag).decode("ascii", "replace").strip(" \0")

    def has_undefined_length(self, tag: int) -> bool:
        element = self.elements[tag]
        return element.vr in LONG_VRS and self.data[element.value - 4 : element.value] == b"\xff\xff\xff\xff"


#: Whole encoded elements by tag, None = leave it out.
Changes = dict[int, bytes | None]


def encode_element(tag: int, vr: str, value: bytes, *, implicit: bool = False) -> bytes:
    """Explicit VR Little Endian (implicit: what stands in a sequence of unknown VR), padded to even length."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    if implicit:
        return TAG.pack(tag >> 16, tag & 0xFFFF) + U32.pack(len(value)) + value
    head = TAG.pack(tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr.encode() in LONG_VRS:
        return head + b"\0\0" + U32.pack(len(value)) + value
    if len(value) > 0xFFFE:
        raise BadPart10("value too long for its VR")
    return head + U16.pack(len(value)) + value


def encode_item(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return TAG.pack(0xFFFE, 0xE000) + U32.pack(len(content)) + content


def items_of(value: bytes, *, implicit: bool = False) -> list[dict[int, bytes]]:
    """The items of a sequence's value: raw values of their own elements by tag. What is nested deeper stays raw."""
    data = bytearray(value)
    items: list[dict[int, bytes]] = []
    at = 0
    while at < len(data):
        if len(data) < at + 8:
            raise BadPart10("a sequence of the head can't be read")
        tag, length = TAG.unpack_from(data, at), U32.unpack_from(data, at + 4)[0]
        at += 8
        if tag == (0xFFFE, 0xE0DD):
            break
        end = None if length == UNDEFINED else at + length
        scanner = Scanner(data, at, stop_at=ITEM_END, end=end, implicit=implicit, ordered=False)
        scanner.scan()
        if tag != (0xFFFE, 0xE000) or not scanner.done or (end is not None and scanner.at != end):
            raise BadPart10("a sequence of the head can't be read")
        items.append({e.tag: bytes(data[e.value : e.end]) for e in scanner.elements.values()})
        at = scanner.at if end is not None else scanner.at + 8
    return items


@dataclass(slots=True)
class Scanner:
    """Finds the top-level elements of an explicit VR little endian data set, byte by byte if need be.

    `at` is where the next header is expected; undefined lengths are walked with a stack, never by recursion.
    """

    data: bytearray
    at: int = 0
    elements: dict[int, Element] = field(default_factory=dict)
    done: bool = False
    _open: tuple[int, bytes, int, int] | None = None  # the top-level element being walked
    _stack: list[tuple[bool, bool]] = field(default_factory=list)  # (is an item, implicit VR inside)
    stop_at: int = HEAD_END
    last: int = -1
    end: int | None = None  # where the data set ends, if that is known
    implicit: bool = False
    ordered: bool = True  # refuse elements that are not in ascending order

    def scan(self) -> None:
        """Go as far as the data allow; sets `done` at the first tag that is not head."""
        while not self.done and self._step():
            pass

    def _step(self) -> bool:
        data, at = self.data, self.at
        if self.end is not None and at >= self.end:
            if at > self.end or self._stack:
                raise BadPart10("file meta or an item is not as long as it says")
            self.done = len(data) >= at  # a skipped value may not be here yet
            return False
        if len(data) < at + 4:
            return False
        group, number = TAG.unpack_from(data, at)
        tag = group << 16 | number
        if not self._stack:
            if tag >= self.stop_at:
                self.done = True
                return False
            if tag <= self.last and self.ordered:
                raise BadPart10("elements are not in ascending order")
        if len(data) < at + 8:
            return False
        if tag >= 0xFFFE_0000:
            return self._delimiter(tag)
        if self._stack and not self._stack[-1][0]:
            raise BadPart10("a sequence holds something else than items")
        implicit = self._stack[-1][1] if self._stack else self.implicit
        if implicit:
            vr, value, length = b"UN", at + 8, U32.unpack_from(data, at + 4)[0]
        else:
            vr = bytes(data[at + 4 : at + 6])
            if not vr.isalpha() or not vr.isupper():
                raise BadPart10("an element has no valid VR")
            if vr in LONG_VRS:
                if len(data) < at + 12:
                    return False
                value, length = at + 12, U32.unpack_from(data, at + 8)[0]
            else:
                value, length = at + 8, U16.unpack_from(data, at + 6)[0]
        if not self._stack and tag == 0x0002_0000 and self.end is None and self.stop_at == META_END:
            if len(data) < value + length:
                return False
            self._add(Element(tag, vr, at, value, value + length))
            self.at = value + length
            # PS3.10 §7.1: where it is given it says where file meta ends, whatever the bytes behind it look like
            self.end = self.at + int.from_bytes(data[value : self.at], "little")
            return True
        if length == UNDEFINED:
            if not self._stack:
                self._open = (tag, vr, at, value)
            # PS3.5 §6.2.2: what stands in an undefined length UN is implicit VR little endian
            self._stack.append((False, implicit or vr == b"UN"))
            self.at = value
            return True
        if not self._stack:
            self._add(Element(tag, vr, at, value, value + length))
        self.at = value + length
        return True

    def _delimiter(self, tag: int) -> bool:
        if not self._stack:
            raise BadPart10("an item stands outside of a sequence")
        length = U32.unpack_from(self.data, self.at + 4)[0]
        in_item, implicit = self._stack[-1]
        self.at += 8
        if tag == ITEM and not in_item:
            if length == UNDEFINED:
                self._stack.append((True, implicit))
            else:
                self.at += length
        elif tag == ITEM_END and in_item:
            self._stack.pop()
        elif tag == SEQUENCE_END and not in_item:
            self._stack.pop()
            if not self._stack:
                assert self._open is not None
                self._add(Element(*self._open, self.at))
        else:
            raise BadPart10("a delimiter stands where none belongs")
        return True

    def _add(self, element: Element) -> None:
        self.elements[element.tag] = element
        self.last = element.tag

    @property
    def complete(self) -> bool:
        """At the end of the data with nothing half-read."""
        return not self._stack and self.at == len(self.data)


def apply(head: Head, changes: Changes) -> bytes:
    """The head with elements replaced, added in their place or left out; group lengths set right again."""
    whole = dict[int, bytes]()
    for tag, element in head.elements.items():
        whole[tag] = head.data[element.start : element.end]
    for tag, encoded in changes.items():
        if encoded is None:
            whole.pop(tag, None)
        else:
            whole[tag] = encoded
    for tag in [t for t in whole if t & 0xFFFF == 0]:  # PS3.5 §7.2: retired, yet it must not lie
        length = sum(len(v) for t, v in whole.items() if t >> 16 == tag >> 16 and t != tag)
        whole[tag] = encode_element(tag, "UL", U32.pack(length))
    return b"".join(whole[tag] for tag in sorted(whole))
