"""What stands behind the head of an instance, watched as it passes: it must not name its patient once more. No I/O.

Elements stand in ascending order (PS3.5 §7.1). Where they don't, readers differ on which of two values counts, and one
that takes the last would show an instance under an id that was not given to it here.
"""

from __future__ import annotations

import re
import struct

from federation.elements import HEAD_END, ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, UNDEFINED, BadPart10
from federation.model import Buffer

_SHORT = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")
_HEADER = 12
#: VRs with a 16-bit length, PS3.5 table 7.1-2.
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_HEAD_GROUPS = HEAD_END >> 16
#: What a reader that goes on anywhere behind what can't be read could take for PatientName or PatientID, explicit or
#: implicit, or for another file: two parts of a body whose boundary was damaged between them.
_NAMES = re.compile(rb"\x10\0[\x10\x20]\0(?:[A-Z]{2}|[\0-\x40]\0\0\0)|DICM\x02\0[\0-\x20]\0", re.DOTALL)
_NAMES_MOST = 8


class TailWatch:
    """`watch` each piece behind the head, in any chunking. Raises `BadPart10` for an element that belongs to the head.

    Values are stepped over, so that pixels cost nothing. Behind what can't be read, or is read in several ways, all
    bytes are searched instead: whatever reader goes on there must not find a patient.
    """

    __slots__ = ("_open", "_partial", "_searched", "_skip")

    def __init__(self) -> None:
        self._skip = 0  # what is still to come of a value; -1 = searched from here on
        self._partial = b""  # a header that is cut
        self._searched = b""  # the end of what was searched
        self._open: list[tuple[bool, bool]] = []  # (is an item, implicit VR inside), of undefined length

    def watch(self, chunk: Buffer) -> None:
        at = self._skip
        if at < 0:
            self._search(chunk)
            return
        size = len(chunk)
        if at >= size:
            self._skip -= size
            return
        if self._partial:
            # A header is joined by itself, not with what may be much behind it.
            begun = len(self._partial)
            joined = self._partial + bytes(chunk[: _HEADER - begun])
            after = self._step(joined, 0)
            if after < 0:
                self._skip, self._searched = -1, self._partial
                self._search(chunk)
                return
            self._partial = b""
            if after == 0:
                self._partial = joined
                return
            at = after - begun
        unpack, last = _SHORT.unpack_from, size - 8
        while at < size:
            if at <= last and not self._open:  # `_step`, written out for what is there most
                group, _, vr, length = unpack(chunk, at)
                if vr in _SHORT_VRS and _HEAD_GROUPS <= group < 0xFFFE:
                    at += 8 + length
                    continue
            after = self._step(chunk, at)
            if after == at:
                self._partial = bytes(chunk[at:])
                at = size
                break
            if after < 0:
                self._skip = -1
                self._search(chunk[at:])
                return
            at = after
        self._skip = at - size

    def _search(self, chunk: Buffer) -> None:
        begun = self._searched + bytes(chunk[:_NAMES_MOST])
        if _NAMES.search(begun) or _NAMES.search(chunk):
            raise BadPart10("what stands behind the head can't be read, and may name a patient")
        self._searched = (begun if len(chunk) <= _NAMES_MOST else bytes(chunk[-_NAMES_MOST:]))[1 - _NAMES_MOST :]

    def _step(self, data: Buffer, at: int) -> int:
        """→ where the next header is expected; `at` if this one is not all there, -1 if readers differ on it."""
        if len(data) - at < 8:
            return at
        group, number, vr, length = _SHORT.unpack_from(data, at)
        if group == 0xFFFE:
            return self._delimiter(group << 16 | number, _LENGTH.unpack_from(data, at + 4)[0], at + 8)
        nested = self._open[-1] if self._open else None
        if nested is None:
            if not group:
                return -1  # some files are filled up with zeros
            if group < _HEAD_GROUPS:
                raise BadPart10("elements are not in ascending order")
        elif not nested[0]:
            return -1
        if nested is not None and nested[1]:
            vr, length, at = b"UN", _LENGTH.unpack_from(data, at + 4)[0], at + 8
        elif vr in _SHORT_VRS:
            at += 8
        elif vr not in LONG_VRS:
            return -1  # one of implicit VR to some; to others its length has 16 bits, to others 32
        else:
            if len(data) - at < _HEADER:
                return at
            length, at = _LENGTH.unpack_from(data, at + 8)[0], at + _HEADER
        if length != UNDEFINED:
            return at + int(length)
        # PS3.5 §6.2.2: what stands in an undefined length UN is implicit VR little endian
        self._open.append((False, vr == b"UN"))
        return at

    def _delimiter(self, tag: int, length: int, at: int) -> int:
        if not self._open:
            return -1
        in_item, implicit = self._open[-1]
        if tag == ITEM and not in_item:
            if length != UNDEFINED:
                return at + length
            self._open.append((True, implicit))
        elif (tag == ITEM_END and in_item) or (tag == SEQUENCE_END and not in_item):
            self._open.pop()
        else:
            return -1
        return at
