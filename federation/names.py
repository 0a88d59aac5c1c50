"""Person names: comparing them whatever case, accents, hyphens, apostrophes and spaces, and asking members
for enough rows that such a comparison can be made here (they may be stricter)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

#: Letters that Unicode does not decompose, spelled out.
_LIGATURES = str.maketrans(
    {"œ": "oe", "æ": "ae", "ß": "ss", "ø": "o", "ð": "d", "þ": "th", "ł": "l", "đ": "d", "ı": "i"}
)
#: Consonants that are safe to name to a member that tells accents apart: no letter of Latin-1 and Latin-9 folds to
#: them but Icelandic ð and þ. `g` is left out for Turkish ğ. Not covered: Polish ł, Czech ř, Vietnamese đ.
_FIRM = frozenset("bdfhjklmpqrtvwx")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """Case, accents and ligatures removed; punctuation kept. `É` → `e`, `Œ` → `oe`."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_LIGATURES))
    return "".join(c for c in plain if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """`fold`, with everything but letters, digits and the component delimiter `^` removed.

    Trailing empty components go (PS3.5 §6.2.1.2): `DUPONT-LÉVY^Marie^^` → `dupontlevy^marie`.
    """
    return "".join(c for c in fold(text) if c.isalnum() or c == "^").rstrip("^")


def alphabetic(value: Any) -> str:
    """The name of a DICOM JSON PN value, alphabetic group first, else whichever there is."""
    if isinstance(value, dict):
        for group in _GROUPS:
            text = value.get(group)
            if isinstance(text, str) and text.strip("^ "):
                return text.strip()
        return ""
    return value.strip() if isinstance(value, str) else ""


def _groups(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        return [g for g in (value.get(name) for name in _GROUPS) if isinstance(g, str) and g.strip("^ ")]
    return value.split("=") if isinstance(value, str) else ()


def _regex(pattern: str) -> str:
    return "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[re.Pattern[str], ...]:
    """The forms in which a pattern is tried: with punctuation as typed, and without any."""
    forms = []
    kept = fold(pattern).strip()
    bare = "".join(c for c in kept if c.isalnum() or c in "^*?")
    for text in (kept, bare):
        components = text.rstrip("^").split("^")
        # Components that the pattern does not name match anything, as people type `DUPONT` for `DUPONT^MARIE`.
        forms.append(r"\^".join(_component(c) for c in components) + r"(\^.*)?")
        forms.append(_regex(text.rstrip("^")))  # `*` may span components: `*levy*` finds a given name too
    return tuple(re.compile(f, re.DOTALL) for f in forms)


def _component(text: str) -> str:
    if not text:
        return r"[^^]*"  # an empty component matches anything
    return "".join(r"[^^]*" if c == "*" else r"[^^]" if c == "?" else re.escape(c) for c in text)


def matches(pattern: str, value: Any) -> bool:
    """Does a PN value (DICOM JSON object or text) match `pattern` (`*` and `?` wildcards, PS3.4 §C.2.2.2.4)?

    The pattern's groups (`=`) are alternatives: a value matches if any of its groups matches any of them.
    """
    groups = [(fold(g).strip(), normalise(g)) for g in _groups(value)]
    for wanted in pattern.split("="):
        if not wanted.strip("^ "):
            continue
        kept, kept_whole, bare, bare_whole = _compiled(wanted)
        for full, plain in groups:
            if (
                kept.fullmatch(full)
                or kept_whole.fullmatch(full)
                or bare.fullmatch(plain)
                or bare_whole.fullmatch(plain)
            ):
                return True
    return False


def widen(pattern: str, *, ignores_case: bool | None) -> list[str]:
    """Patterns to ask a member for, whose answers together hold every name that `matches(pattern, …)`.

    A letter that may bear an accent can't be named (a member may tell `É` from `E`); a hyphen, an apostrophe or
    a space may stand between any two letters. So only firm consonants are named, `*` between them. Where the
    member may tell cases apart (`ignores_case` not True), only the first letter is named, in both cases.
    """
    first = next((g for g in pattern.split("=") if g.strip("^ ")), pattern)
    components = first.rstrip("^").split("^")
    if ignores_case:
        return ["^".join(_skeleton(c).upper() for c in components) if _latin(first) else _loose(first)]
    if not _latin(first):
        return [_loose(first)]
    head = fold(first).lstrip()[:1]
    if head in _FIRM:
        return [f"{head.upper()}*", f"{head}*"]
    return ["*"]


def narrow(pattern: str, *, ignores_case: bool | None) -> list[str]:
    """Patterns that find the likely spellings, for when the wide ones brought more than a member may give.

    `?` for a letter that may bear an accent, `*` for what may separate names. In capitals, as PACS mostly store
    names; also with capital initials and as typed where the member may tell cases apart.
    """
    first = next((g for g in pattern.split("=") if g.strip("^ ")), pattern)
    spelled = "".join(
        c if c in "^*?" or fold(c) in _FIRM or c == "g" else "?" if len(fold(c)) == 1 and c.isalnum() else "*"
        for c in first.rstrip("^")
    )
    spelled = re.sub(r"\*+", "*", spelled + "*")
    if ignores_case or not _latin(first):
        return [spelled.upper()]
    return list(dict.fromkeys([spelled.upper(), _capitalised(spelled), spelled]))


def _capitalised(text: str) -> str:
    return re.sub(r"(^|[*^])(\w)", lambda m: m.group(1) + m.group(2).upper(), text.lower())


def _latin(text: str) -> bool:
    return all(ord(c) < 0x2000 for c in text)


def _loose(text: str) -> str:
    """Other scripts have no case or accents to widen for; only what may follow."""
    return re.sub(r"\*+", "*", text + "*")


def _skeleton(component: str) -> str:
    firm = [c for c in fold(component) if c in _FIRM]
    leading = fold(component).lstrip()[:1]
    if not firm:
        return "*"
    return ("" if leading in _FIRM else "*") + "*".join(firm) + "*"


def literal_letters(pattern: str) -> int:
    """How many literal letters or digits the family name of `pattern` has."""
    family = pattern.split("=", 1)[0].split("^", 1)[0]
    return sum(1 for c in family if c.isalnum())


def any_letter(pattern: str) -> bool:
    return any(c.isalnum() for c in pattern)
