"""DICOM JSON → Native DICOM Model, the XML form of a data set (PS3.19 §A.1), written piece by piece. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydicom.datadict import keyword_for_tag

from federation.dictionary import vr_of
from federation.model import Attributes

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
#: Pieces are about this long, in bytes or a little more: what a loop can write without others noticing.
PIECE = 64 * 1024
#: What XML 1.0 §2.2 can't hold even as a reference. DICOM text may bear form feeds and escapes.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[^\t\n\x20-\x25\x27-\x3b\x3d\x3f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
#: Attributes are normalised by their readers: what is white space there must be a reference.
_IN_ATTRIBUTE = str.maketrans({"\t": "&#9;", "\n": "&#10;", '"': "&quot;"})
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_HEAD = f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
_TAIL = "</NativeDicomModel>"


def native_model(attributes: Attributes) -> Iterator[bytes]:
    """One document, in pieces of about `PIECE` bytes. Characters that XML can't hold become U+FFFD.

    Private attributes bear their creator, and no block number (gggg00ee), as the model wants it: the elements that
    reserve blocks are left out. Group lengths are left out (§A.1.1). Sequences may be nested as deep as one likes.
    """
    waiting: list[str] = [_HEAD]
    size = 0
    open_sets = [_entries(attributes)]
    while open_sets:
        for entry in open_sets[-1]:
            if not isinstance(entry, str):
                open_sets.append(_entries(entry))
                break
            waiting.append(entry)
            size += len(entry)
            if size >= PIECE:
                yield "".join(waiting).encode()
                waiting.clear()
                size = 0
        else:
            open_sets.pop()
    waiting.append(_TAIL)
    yield "".join(waiting).encode()


def text(value: str) -> str:
    """Character data."""
    if _SPECIAL.search(value) is None:
        return value
    return _NOT_XML.sub("\ufffd", value).translate(_ESCAPES)


def attribute(value: str) -> str:
    """The value of an XML attribute, to stand in double quotes."""
    return text(value).translate(_IN_ATTRIBUTE)


def _entries(attributes: Mapping[str, Any]) -> Iterator[str | Attributes]:
    """The elements of one data set in order; a nested data set stands for its own."""
    for tag, content in sorted(attributes.items()):
        if tag.endswith("0000") or _reserves_block(tag):
            continue
        vr = content.get("vr") or vr_of(tag)[:2]  # of `US or SS`, one
        yield _start(tag, vr, content, attributes)
        uri, inline, values = content.get("BulkDataURI"), content.get("InlineBinary"), content.get("Value") or ()
        if uri is not None:
            yield f'<BulkData uri="{attribute(str(uri))}"/>'
        elif inline is not None:
            yield f"<InlineBinary>{text(str(inline))}</InlineBinary>"
        elif vr == "SQ":
            for number, item in enumerate(values, 1):
                yield f'<Item number="{number}">'
                if isinstance(item, dict):
                    yield item
                yield "</Item>"
        else:
            element = _person_name if vr == "PN" else _value
            yield from (element(number, value) for number, value in enumerate(values, 1))
        yield "</DicomAttribute>"


def _start(tag: str, vr: str, content: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    creator = _creator(tag, content, attributes) if _odd(tag) else None
    if creator is not None:
        return f'<DicomAttribute tag="{tag[:4]}00{tag[6:]}" vr="{attribute(vr)}" privateCreator="{attribute(creator)}">'
    keyword = _keyword(tag)
    named = f' keyword="{keyword}"' if keyword else ""
    return f'<DicomAttribute tag="{attribute(tag)}" vr="{attribute(vr)}"{named}>'


def _creator(tag: str, content: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Who reserved the block of a private attribute; None if the data don't tell, and the tag stays as it is."""
    named = content.get("privateCreator")
    if isinstance(named, str):
        return named
    values: Iterable[Any] = attributes.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or ()
    return next((v for v in values if isinstance(v, str)), None)


def _odd(tag: str) -> bool:
    return tag[3] in "13579BDF"


def _reserves_block(tag: str) -> bool:
    """(gggg,0010-00FF) of a private group, PS3.5 §7.8.1."""
    return _odd(tag) and tag[4:6] == "00" and tag[6] != "0"


@lru_cache(maxsize=8192)
def _keyword(tag: str) -> str:
    return keyword_for_tag(int(tag, 16))


def _value(number: int, value: Any) -> str:
    if value is None or value == "":
        return f'<Value number="{number}"/>'
    return f'<Value number="{number}">{text(value) if isinstance(value, str) else text(str(value))}</Value>'


def _person_name(number: int, value: Any) -> str:
    """PS3.5 §6.2.1: components of each group; a sixth and further ones, which can't be, stay with the fifth."""
    groups = value if isinstance(value, dict) else dict(zip(_GROUPS, str(value or "").split("="), strict=False))
    inner = []
    for group in _GROUPS:
        whole = groups.get(group)
        if not whole:
            continue
        components = zip(_COMPONENTS, str(whole).split("^", 4), strict=False)
        inner.append(f"<{group}>{''.join(f'<{n}>{text(c)}</{n}>' for n, c in components if c)}</{group}>")
    return f'<PersonName number="{number}">{"".join(inner)}</PersonName>'
