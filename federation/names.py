"""Person names: comparing them whatever case, accents, hyphens, apostrophes and spaces, and asking members
for enough rows that such a comparison can be made here (they may be stricter)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from consent.traits import fold, named, normalise
from federation.wildcards import regex

__all__ = ["alphabetic", "any_letter", "fold", "literal_letters", "matches", "narrow", "normalise", "widen"]

#: Consonants that are safe to name to a member that tells accents apart: no letter of Latin-1 and Latin-9 folds to
#: them but Icelandic ð and þ. `g` is left out for Turkish ğ. Not covered: Polish ł, Czech ř, Vietnamese đ.
_FIRM = frozenset("bdfhjklmpqrtvwx")
#: Components that name nothing: PS3.5 §6.2.1.2 lets a name end before them.
_EMPTY_END = re.compile(r"(?:\^\**)+\Z")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


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


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[re.Pattern[str], ...]:
    """The forms in which a pattern is tried: with punctuation as typed, and without any."""
    forms = []
    kept = fold(pattern).strip()
    bare = "".join(c for c in kept if named(c) or c in "^*?")
    for text in (_EMPTY_END.sub("", t) for t in (kept, bare if bare.strip("^") else kept)):
        components = text.split("^")
        # Components that the pattern does not name match anything, as people type `DUPONT` for `DUPONT^MARIE`.
        forms.append(r"\^".join(_component(c) for c in components) + r"(\^.*)?")
        forms.append(regex(text))  # `*` may span components: `*levy*` finds a given name too
    return tuple(re.compile(f, re.DOTALL) for f in forms)


def _component(text: str) -> str:
    if not text:
        return r"[^^]*"  # an empty component matches anything
    return regex(text, "[^^]")


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
    a space may stand between any two letters. So only firm consonants and ideographs are named, `*` between them.
    Where the member may tell cases apart (`ignores_case` not True), only the first letter is named, in both cases.

    Not held: a name that is stored with a hyphen or an apostrophe in front of its first letter (`'T HART`) is found
    by a pattern that has one there too. Anchoring the first letter spares a member the walk through all its names.
    """
    groups = [g for g in pattern.split("=") if g.strip("^ ")] or [pattern]
    return list(dict.fromkeys(p for g in groups for p in _widened(g, ignores_case is True)))


def _widened(group: str, ignores_case: bool) -> list[str]:
    if any(_ideograph(c) for c in group):
        # It stands behind the alphabetic group in what a member has.
        return ["*" + _skeleton(group, _ideograph)]
    head = fold(group).lstrip()[:1]
    if ignores_case:
        first, *more = [_skeleton(fold(c), _FIRM.__contains__).upper() for c in group.split("^")]
        anchored = first if head in _FIRM else f"*{first}"
        return [re.sub(r"\*+", "*", re.sub(r"(\^\*)+\Z", "", "^*".join([anchored, *more])))]
    return [f"{head.upper()}*", f"{head}*"] if head in _FIRM else ["*"]


def _skeleton(text: str, firm: Callable[[str], bool]) -> str:
    """`dupont` → `d*p*t*`; nothing that is firm → ``."""
    return "".join(f"{c}*" for c in text if firm(c))


def _ideograph(c: str) -> bool:
    return "\u3400" <= c <= "\u9fff"


def narrow(pattern: str, *, ignores_case: bool | None) -> list[str]:
    """Patterns that find the likely spellings, for when the wide ones brought more than a member may give.

    Without accents, as PACS mostly store names; as typed; and with `?` for a letter that may bear an accent (some
    members count bytes, so that `?` alone would miss `É`). `*` for what may separate names. In capitals; also with
    capital initials where the member may tell cases apart.
    """
    first = next((g for g in pattern.split("=") if g.strip("^ ")), pattern)
    if any(_ideograph(c) for c in first):
        return _widened(first, False)
    typed = first.strip().rstrip("^")
    plain = _loose(c if c.isalnum() or c in "^*?" else "*" for c in fold(typed))
    masked = _loose(
        c if c in "^*?" or fold(c) in _FIRM or c == "g" else "?" if len(fold(c)) == 1 and c.isalnum() else "*"
        for c in typed
    )
    patterns = [plain.upper(), _loose(typed), masked.upper()]
    if not ignores_case:
        patterns += [_capitalised(plain), _capitalised(masked), masked]
    return list(dict.fromkeys(patterns))


def _loose(letters: Iterable[str]) -> str:
    """What may follow is left open."""
    return re.sub(r"\*+", "*", "".join(letters) + "*")


def _capitalised(text: str) -> str:
    return re.sub(r"(^|[*^])(\w)", lambda m: m.group(1) + m.group(2).upper(), text.lower())


def literal_letters(pattern: str) -> int:
    """How many literal letters or digits the family name of `pattern` has."""
    family = pattern.split("=", 1)[0].split("^", 1)[0]
    return sum(1 for c in family if c.isalnum())


def any_letter(pattern: str) -> bool:
    return any(c.isalnum() for c in pattern)
