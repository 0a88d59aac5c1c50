"""Rewriting the head of a Part-10 stream as it passes: file meta and data set up to group 0010. No I/O.

PS3.10 §7 (file format), PS3.5 §7 (data elements), §A.4 (encapsulated), §A.5 (deflated). Only the head is held,
at most `HEAD_MAX` bytes of it; all that follows passes by reference.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator

from federation.elements import (
    META_END,
    BadPart10,
    Changes,
    Head,
    Scanner,
    UntaggableSyntax,
    apply,
)
from federation.model import Buffer
from federation.tail import TailWatch

HEAD_MAX = 1 << 20
_PREAMBLE = 132
#: Where an instance belongs is told behind its head: looked for so far, not rewritten.
_STUDY_INSTANCE_UID = 0x0020_000D
_SERIES_INSTANCE_UID = 0x0020_000E
AHEAD_MAX = 1 << 16
#: Who wrote, sent or received the file, by AE title and by address (PS3.10 §7.1).
_TITLES = (0x0002_0016, 0x0002_0017, 0x0002_0018)
_ADDRESSES = (0x0002_0026, 0x0002_0027, 0x0002_0028)
_UID = re.compile(rb"[0-9.]{1,64}")
_INFLATE_STEP = 1 << 18
_HEAD_STEP = 1 << 13

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: PS3.5 §A.5 and the JPIP and HTJ2K forms of it.
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})


class HeadRewriter:
    """Feed it a Part-10 stream in any chunking; what comes out is the stream with `change(head)` applied.

    Nothing comes out before the head is complete: `head` is None until then. Errors are `BadPart10`.
    """

    def __init__(self, change: Callable[[Head], Changes], *, own_titles: frozenset[str] = frozenset()) -> None:
        """`own_titles`: AE titles, casefolded, that the member uses for itself."""
        self._change = change
        self._own_titles = own_titles
        self._meta = bytearray()
        self._buffer = bytearray()
        self._scanner: Scanner | None = None
        self._ahead: Scanner | None = None
        self._meta_scanner = Scanner(self._meta, at=_PREAMBLE, stop_at=META_END)
        self._inflate: zlib._Decompress | None = None
        self._deflate: zlib._Compress | None = None
        self._tail = TailWatch()
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
            if self._inflate is None:
                self._tail.watch(chunk)
                out.append(chunk)
            else:
                out += self._pass_deflated(chunk)
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

    def _read_meta(self) -> Scanner | None:
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
        syntax = bytes(self._meta[element.value : element.end]).strip(b" \0") if element is not None else b""
        if not _UID.fullmatch(syntax):  # it is told on, in a header too
            raise BadPart10("file meta names no TransferSyntaxUID")
        self._syntax = syntax.decode()
        if self._syntax in (IMPLICIT, BIG_ENDIAN):
            raise UntaggableSyntax("implicit VR or big endian can't be tagged in the stream")
        if self._syntax in DEFLATED:
            self._inflate = zlib.decompressobj(-15)
            self._deflate = zlib.compressobj(wbits=-15)
        return Scanner(self._buffer)

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
            self._ahead = Scanner(self._buffer, at, stop_at=_SERIES_INSTANCE_UID + 1, end=at + AHEAD_MAX)
        try:
            self._ahead.scan()
        except BadPart10:
            self._ahead.done = True  # it is too far, or what is wrong there is not ours to judge
        return self._ahead.done or last

    def _uid_ahead(self, tag: int) -> str:
        found = self._ahead.elements.get(tag) if self._ahead is not None else None
        if found is None or found.vr != b"UI":
            return ""
        return bytes(self._buffer[found.value : found.end]).decode("ascii", "replace").strip(" \0")

    def _inflate_head(self, chunk: Buffer, scanner: Scanner) -> Buffer:
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
            transfer_syntax=self._syntax,
            data=data,
            elements=scanner.elements,
            study_uid=self._uid_ahead(_STUDY_INSTANCE_UID),
            series_uid=self._uid_ahead(_SERIES_INSTANCE_UID),
        )
        self._buffer = bytearray()
        head = apply(self.head, self._change(self.head))
        meta = self._own_meta()
        self._tail.watch(tail)
        if self._deflate is None:
            return [meta + head, tail] if tail else [meta + head]
        return [meta, *self._deflated([head + tail]), *self._pass_deflated(rest)]

    def _own_meta(self) -> bytes:
        """File meta without the names by which the member calls itself. A modality's title stays."""
        data, elements = bytes(self._meta), self._meta_scanner.elements
        meta = Head(transfer_syntax="", data=data, elements=elements)
        dropped = [tag for tag in _ADDRESSES if tag in elements]
        dropped += [tag for tag in _TITLES if tag in elements and meta.text(tag).casefold() in self._own_titles]
        if not dropped:
            return data
        return data[:_PREAMBLE] + apply(meta, dict.fromkeys(dropped))

    def _pass_deflated(self, chunk: Buffer) -> list[Buffer]:
        """Inflate and deflate again."""
        return self._deflated(self._watched(self._inflated(chunk)))

    def _watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._tail.watch(piece)
            yield piece

    def _deflated(self, pieces: Iterable[bytes]) -> list[Buffer]:
        assert self._deflate is not None
        out: list[Buffer] = [deflated for piece in pieces if (deflated := self._deflate.compress(piece))]
        self._odd ^= sum(map(len, out)) % 2 == 1
        return out
