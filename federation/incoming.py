"""What a Part-10 stream that comes in says of itself, read from its beginning as it passes. No I/O.

PS3.10 §7 (file format), PS3.5 §A.1–A.5. At most `HEAD_MAX` bytes are held, until what must be known is known; all that
follows passes by reference. Nothing is changed: what is stored is what was sent.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from federation.elements import META_END, BadPart10, Element, Scanner
from federation.model import Buffer
from federation.part10 import BIG_ENDIAN, DEFLATED, HEAD_MAX, IMPLICIT

_PREAMBLE = 132
_TRANSFER_SYNTAX = 0x0002_0010
_SOP_CLASS, _SOP_INSTANCE = 0x0008_0016, 0x0008_0018
_PATIENT_ID, _STUDY, _SERIES = 0x0010_0020, 0x0020_000D, 0x0020_000E
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)*")  # PS3.5 §9.1
_INFLATE_STEP = 1 << 16


class WrongSyntax(BadPart10):
    """Its transfer syntax is none that is taken: Explicit VR Big Endian is retired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One instance by its own word. UIDs are checked; `patient_id` is as it came, decoded as Latin-1."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    transfer_syntax: str


class IncomingReader:
    """Feed it a Part-10 stream in any chunking: `feed` gives back what may pass on, nothing before `instance` is known.

    Raises `BadPart10`. What was read of a bad one before it was seen to be bad is in `guess`: UIDs for the answer.
    """

    def __init__(self) -> None:
        self.instance: Incoming | None = None
        self.guess: dict[str, str] = {}
        self._held = bytearray()
        self._meta = Scanner(self._held, at=_PREAMBLE, stop_at=META_END)
        self._data: Scanner | None = None
        self._syntax = ""
        self._plain = bytearray()  # the inflated beginning of a deflated data set
        self._inflate: zlib._Decompress | None = None
        self._taken = 0  # of `_held`, by the inflater

    def feed(self, chunk: Buffer) -> list[Buffer]:
        if self.instance is not None:
            return [chunk]
        self._held += chunk
        self.instance = told = self._read(last=False)
        if told is None:
            if len(self._held) > HEAD_MAX:
                raise BadPart10("its study and series do not stand in its first megabyte")
            return []
        return self._let_go()

    def finish(self) -> list[Buffer]:
        """The stream ended → what is left to pass on."""
        if self.instance is not None:
            return []
        self.instance = self._read(last=True)
        return self._let_go()

    def _let_go(self) -> list[Buffer]:
        held = bytes(self._held)
        self._held = self._plain = bytearray()
        return [held]

    def _read(self, *, last: bool) -> Incoming | None:
        scanner = self._data = self._data or self._read_meta()
        if scanner is None:
            if last:
                raise BadPart10("it ends in its file meta")
            return None
        if self._inflate is not None:
            self._inflate_some(self._inflate)
        try:
            scanner.scan()
        finally:
            self._note(scanner)
        complete = scanner.done and scanner.at <= len(scanner.data)
        if not complete and len(self._plain) > HEAD_MAX:
            raise BadPart10("its study and series do not stand in its first megabyte")
        return self._told(scanner, complete=complete) if complete or last else None

    def _read_meta(self) -> Scanner | None:
        """→ the scanner of the data set, once file meta is read."""
        if len(self._held) < _PREAMBLE:
            return None
        if self._held[128:132] != b"DICM":
            raise BadPart10("no DICM prefix")
        self._meta.scan()
        if not self._meta.done:
            return None
        self._syntax = _text(self._held, self._meta.elements.get(_TRANSFER_SYNTAX))
        if not _UID.fullmatch(self._syntax):
            raise BadPart10("file meta names no TransferSyntaxUID")
        if self._syntax == BIG_ENDIAN:
            raise WrongSyntax("Explicit VR Big Endian is not taken")
        at = self._meta.at
        buffer = self._held
        if self._syntax in DEFLATED:
            self._inflate, self._taken = zlib.decompressobj(-15), at
            at, buffer = 0, self._plain
        return Scanner(buffer, at=at, stop_at=_SERIES + 1, implicit=self._syntax == IMPLICIT)

    def _inflate_some(self, inflate: zlib._Decompress) -> None:
        """As much as has come, up to what may be held."""
        data = bytes(self._held[self._taken :])
        self._taken = len(self._held)
        try:
            while data and len(self._plain) <= HEAD_MAX:  # what is beyond is refused, or not needed any more
                self._plain += inflate.decompress(data, _INFLATE_STEP)
                data = inflate.unconsumed_tail
        except zlib.error:
            raise BadPart10("its deflated data are damaged") from None

    def _note(self, scanner: Scanner) -> None:
        for name, tag in (("sop_class_uid", _SOP_CLASS), ("sop_instance_uid", _SOP_INSTANCE), ("study_uid", _STUDY)):
            uid = _text(scanner.data, scanner.elements.get(tag))
            if _UID.fullmatch(uid):
                self.guess[name] = uid

    def _told(self, scanner: Scanner, *, complete: bool) -> Incoming:
        values = {
            tag: _text(scanner.data, scanner.elements.get(tag))
            for tag in (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, _PATIENT_ID)
        }
        for tag, name in (
            (_SOP_CLASS, "SOPClassUID"),
            (_SOP_INSTANCE, "SOPInstanceUID"),
            (_STUDY, "StudyInstanceUID"),
            (_SERIES, "SeriesInstanceUID"),
        ):
            if not _UID.fullmatch(values[tag]):
                ending = "" if complete else ", and it ends early"
                raise BadPart10(f"it has no good {name}{ending}")
        return Incoming(
            sop_class_uid=values[_SOP_CLASS],
            sop_instance_uid=values[_SOP_INSTANCE],
            study_uid=values[_STUDY],
            series_uid=values[_SERIES],
            patient_id=values[_PATIENT_ID],
            transfer_syntax=self._syntax,
        )


def _text(data: bytearray, element: Element | None) -> str:
    """A value's text; "" if it is absent, or has not come as a whole."""
    if element is None or element.end > len(data):
        return ""
    return bytes(data[element.value : element.end]).decode("latin-1").strip(" \0")
