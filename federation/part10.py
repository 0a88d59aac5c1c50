"""Rewriting the head of a Part-10 stream as it passes: file meta and data set up to group 0010. No I/O.

PS3.10 §7 (file format), PS3.5 §7 (data elements), §A.4 (encapsulated), §A.5 (deflated). Only the head is held,
at most `HEAD_MAX` bytes of it; all that follows passes by reference.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from federation.model import Buffer

HEAD_MAX = 1 << 20
_PREAMBLE = 132
#: First tag that is no longer head.
_HEAD_END = 0x0011_0000
_META_END = 0x0003_0000
#: Where an instance belongs is told behind its head: looked for so far, not rewritten.
_SERIES_INSTANCE_UID = 0x0020_000E
AHEAD_MAX = 1 << 16
_INFLATE_STEP = 1 << 18
_HEAD_STEP = 1 << 13

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: PS3.5 §A.5 and the JPIP and HTJ2K forms of it.
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

#: VRs with a 32-bit length, PS3.5 table 7.1-1.
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UNDEFINED = 0xFFFF_FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_TAG = struct.Struct("<HH")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")


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
    series_uid: str = ""  # "" if it does not stand within `AHEAD_MAX` bytes behind the head

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
        return element.vr in _LONG and self.data[element.value - 4 : element.value] == b"\xff\xff\xff\xff"


#: Whole encoded elements by tag, None = leave it out.
Changes = dict[int, bytes | None]


def encode_element(tag: int, vr: str, value: bytes, *, implicit: bool = False) -> bytes:
    """Explicit VR Little Endian (implicit: what stands in a sequence of unknown VR), padded to even length."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    if implicit:
        return _TAG.pack(tag >> 16, tag & 0xFFFF) + _U32.pack(len(value)) + value
    head = _TAG.pack(tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr.encode() in _LONG:
        return head + b"\0\0" + _U32.pack(len(value)) + value
    if len(value) > 0xFFFE:
        raise BadPart10("value too long for its VR")
    return head + _U16.pack(len(value)) + value


def encode_item(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return _TAG.pack(0xFFFE, 0xE000) + _U32.pack(len(content)) + content


def items_of(value: bytes, *, implicit: bool = False) -> list[dict[int, bytes]]:
    """The items of a sequence's value: raw values of their own elements by tag. What is nested deeper stays raw."""
    data = bytearray(value)
    items: list[dict[int, bytes]] = []
    at = 0
    while at < len(data):
        if len(data) < at + 8:
            raise BadPart10("a sequence of the head can't be read")
        tag, length = _TAG.unpack_from(data, at), _U32.unpack_from(data, at + 4)[0]
        at += 8
        if tag == (0xFFFE, 0xE0DD):
            break
        end = None if length == _UNDEFINED else at + length
        scanner = _Scanner(data, at, stop_at=_ITEM_END, end=end, implicit=implicit, ordered=False)
        scanner.scan()
        if tag != (0xFFFE, 0xE000) or not scanner.done or (end is not None and scanner.at != end):
            raise BadPart10("a sequence of the head can't be read")
        items.append({e.tag: bytes(data[e.value : e.end]) for e in scanner.elements.values()})
        at = scanner.at if end is not None else scanner.at + 8
    return items


@dataclass(slots=True)
class _Scanner:
    """Finds the top-level elements of an explicit VR little endian data set, byte by byte if need be.

    `at` is where the next header is expected; undefined lengths are walked with a stack, never by recursion.
    """

    data: bytearray
    at: int = 0
    elements: dict[int, Element] = field(default_factory=dict)
    done: bool = False
    _open: tuple[int, bytes, int, int] | None = None  # the top-level element being walked
    _stack: list[tuple[bool, bool]] = field(default_factory=list)  # (is an item, implicit VR inside)
    stop_at: int = _HEAD_END
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
        group, number = _TAG.unpack_from(data, at)
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
            vr, value, length = b"UN", at + 8, _U32.unpack_from(data, at + 4)[0]
        else:
            vr = bytes(data[at + 4 : at + 6])
            if not vr.isalpha() or not vr.isupper():
                raise BadPart10("an element has no valid VR")
            if vr in _LONG:
                if len(data) < at + 12:
                    return False
                value, length = at + 12, _U32.unpack_from(data, at + 8)[0]
            else:
                value, length = at + 8, _U16.unpack_from(data, at + 6)[0]
        if not self._stack and tag == 0x0002_0000 and self.end is None and self.stop_at == _META_END:
            if len(data) < value + length:
                return False
            self._add(Element(tag, vr, at, value, value + length))
            self.at = value + length
            # PS3.10 §7.1: where it is given it says where file meta ends, whatever the bytes behind it look like
            self.end = self.at + int.from_bytes(data[value : self.at], "little")
            return True
        if length == _UNDEFINED:
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
        length = _U32.unpack_from(self.data, self.at + 4)[0]
        in_item, implicit = self._stack[-1]
        self.at += 8
        if tag == _ITEM and not in_item:
            if length == _UNDEFINED:
                self._stack.append((True, implicit))
            else:
                self.at += length
        elif tag == _ITEM_END and in_item:
            self._stack.pop()
        elif tag == _SEQUENCE_END and not in_item:
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


class HeadRewriter:
    """Feed it a Part-10 stream in any chunking; what comes out is the stream with `change(head)` applied.

    Nothing comes out before the head is complete: `head` is None until then. Errors are `BadPart10`.
    """

    def __init__(self, change: Callable[[Head], Changes]) -> None:
        self._change = change
        self._meta = bytearray()
        self._buffer = bytearray()
        self._scanner: _Scanner | None = None
        self._ahead: _Scanner | None = None
        self._meta_scanner = _Scanner(self._meta, at=_PREAMBLE, stop_at=_META_END)
        self._inflate: zlib._Decompress | None = None
        self._deflate: zlib._Compress | None = None
        self._odd = False  # the length of what was deflated so far
        self._syntax = ""
        self.head: Head | None = None

    @property
    def transfer_syntax(self) -> str:
        return self._syntax

    def feed(self, chunk: Buffer) -> list[Buffer]:
        """→ what can be passed on now."""
        out: list[Buffer] = []
        if self.head is None:
            # A little at a time, so that what comes behind the head in the same chunk is not copied.
            rest = memoryview(chunk)
            while rest and self.head is None:
                out += self._feed_head(rest[:_HEAD_STEP])
                rest = rest[_HEAD_STEP:]
            chunk = rest
        if chunk:
            out += [chunk] if self._inflate is None else self._pass_deflated(chunk)
        return out

    def _feed_head(self, chunk: Buffer) -> list[Buffer]:
        if self._scanner is None:
            self._meta += chunk
            self._scanner = self._read_meta()
            # Limits are on where the scanner is, so that they are the same in any chunking.
            if self._meta_scanner.at > HEAD_MAX:
                raise BadPart10("file meta is too long")
            if self._scanner is None:
                return []
            chunk = bytes(self._meta[self._meta_scanner.at :])
            del self._meta[self._meta_scanner.at :]
        return self._read_data(chunk, last=False)

    def finish(self) -> list[Buffer]:
        """The stream ended. → what is left to pass on."""
        out: list[Buffer] = []
        if self.head is None:
            if self._scanner is None:
                raise BadPart10("the stream ends in its file meta")
            out += self._read_data(b"", last=True)
        if self._inflate is not None and self._deflate is not None:
            if not self._inflate.eof:
                raise BadPart10("the deflated stream is cut")
            end = self._deflate.flush()
            out.append(end + b"\0" if self._odd ^ (len(end) % 2 == 1) else end)  # PS3.5 §A.5: of even length
        return out

    def _read_meta(self) -> _Scanner | None:
        """→ the scanner of the data set, once file meta is complete."""
        if len(self._meta) < _PREAMBLE:
            return None
        if self._meta[128:132] != b"DICM":
            raise BadPart10("no DICM prefix")
        scanner = self._meta_scanner
        scanner.scan()
        if not scanner.done:
            return None
        element = scanner.elements.get(0x0002_0010)
        if element is None:
            raise BadPart10("file meta names no TransferSyntaxUID")
        self._syntax = bytes(self._meta[element.value : element.end]).decode("ascii", "replace").strip(" \0")
        if self._syntax in (IMPLICIT, BIG_ENDIAN):
            raise UntaggableSyntax("implicit VR or big endian can't be tagged in the stream")
        if self._syntax in DEFLATED:
            self._inflate = zlib.decompressobj(-15)
            self._deflate = zlib.compressobj(wbits=-15)
        return _Scanner(self._buffer)

    def _read_data(self, chunk: Buffer, *, last: bool) -> list[Buffer]:
        scanner = self._scanner
        assert scanner is not None
        rest = chunk
        if self._inflate is None:
            self._buffer += chunk
            scanner.scan()
        else:
            rest = self._inflate_head(chunk, scanner)
        if last and not scanner.done:
            if not scanner.complete:
                raise BadPart10("the stream ends in its head")
            scanner.done = True
        if scanner.at > HEAD_MAX:
            raise BadPart10("the head is too long")
        return self._release(rest) if scanner.done and self._looked_ahead(last=last) else []

    def _looked_ahead(self, *, last: bool) -> bool:
        """Go on to the series' UID, as far as the data allow. → whether to look no further."""
        assert self._scanner is not None
        if self._ahead is None:
            at = self._scanner.at
            self._ahead = _Scanner(self._buffer, at, stop_at=_SERIES_INSTANCE_UID + 1, end=at + AHEAD_MAX)
        try:
            self._ahead.scan()
        except BadPart10:
            return True  # it is too far, or what is wrong there is not ours to judge
        return self._ahead.done or last

    def _series_uid(self) -> str:
        found = self._ahead.elements.get(_SERIES_INSTANCE_UID) if self._ahead is not None else None
        if found is None or found.vr != b"UI":
            return ""
        return bytes(self._buffer[found.value : found.end]).decode("ascii", "replace").strip(" \0")

    def _inflate_head(self, chunk: Buffer, scanner: _Scanner) -> Buffer:
        """Inflate step by step until the head is complete; → what was not needed for it."""
        assert self._inflate is not None
        for piece in self._inflated(chunk):
            self._buffer += piece
            scanner.scan()
            if (scanner.done and self._looked_ahead(last=False)) or scanner.at > HEAD_MAX:
                break
        return self._inflate.unconsumed_tail

    def _inflated(self, chunk: Buffer) -> Iterator[bytes]:
        """What `chunk` inflates to, a bounded piece at a time."""
        assert self._inflate is not None
        more = True
        while more and not self._inflate.eof:
            try:
                piece = self._inflate.decompress(chunk, _INFLATE_STEP)
            except zlib.error:
                raise BadPart10("the deflated stream is damaged") from None
            chunk = self._inflate.unconsumed_tail
            # All input may be taken while some of what it stands for still waits inside.
            more = bool(chunk) or len(piece) == _INFLATE_STEP
            yield piece

    def _release(self, rest: Buffer) -> list[Buffer]:
        scanner = self._scanner
        assert scanner is not None
        data = bytes(self._buffer[: scanner.at])
        tail = bytes(self._buffer[scanner.at :])
        self.head = Head(
            transfer_syntax=self._syntax, data=data, elements=scanner.elements, series_uid=self._series_uid()
        )
        self._buffer = bytearray()
        head = apply(self.head, self._change(self.head))
        meta = bytes(self._meta)
        if self._deflate is None:
            return [meta + head, tail] if tail else [meta + head]
        return [meta, *self._deflated([head + tail]), *self._pass_deflated(rest)]

    def _pass_deflated(self, chunk: Buffer) -> list[Buffer]:
        """Inflate and deflate again."""
        return self._deflated(self._inflated(chunk))

    def _deflated(self, pieces: Iterable[bytes]) -> list[Buffer]:
        assert self._deflate is not None
        out: list[Buffer] = [deflated for piece in pieces if (deflated := self._deflate.compress(piece))]
        self._odd ^= sum(map(len, out)) % 2 == 1
        return out


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
        whole[tag] = encode_element(tag, "UL", _U32.pack(length))
    return b"".join(whole[tag] for tag in sorted(whole))
