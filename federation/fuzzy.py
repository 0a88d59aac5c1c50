"""Names that sound alike in French, or differ by a letter or two: `fuzzymatching=true` (PS3.18 §8.3.4.2). Pure.

What the standard leaves open: a word of the name matches if it is the same, sounds the same, or has one letter less,
more, another or two exchanged (two such from eight letters on), its first sound staying. Each word that is asked for
must match another word of the name, the first one a first one; what else the name has does not matter. A pattern that
begins with `*` may match from any word on, but then members are asked for the same sounds only. Rows are ranked by
`distance`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

from consent.traits import fold, named
from federation import names

#: Distances: the same; it sounds the same; and this and one for each letter that differs.
_SAME, _SOUND, _LETTERS = 0, 1, 1
#: Where family and given name are exchanged.
_EXCHANGED = 1
#: Farther than any name that matches.
FARTHEST = 1000
_VOWELS = tuple("aeiouyAEIOUWY")
_WORDS_MAX = 6
_WORD_MAX = 40

#: Spelling → sound, in this order. Capitals are sounds that no single letter stands for.
_SOUNDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(spelling), sound)
    for spelling, sound in (
        (r"(.)\1+", r"\1"),
        (r"\Ah(?![aeiouy])", "H"),  # no French word
        (r"sch|sh", "S"),
        (r"ch(?=[lr])", "k"),
        (r"ch", "S"),
        (r"ph", "f"),
        (r"h", ""),
        (r"gn", "N"),
        (r"ge(?=[ao])", "j"),
        (r"gu(?=[eiy])", "G"),
        (r"g(?=[eiy])", "j"),
        (r"G", "g"),
        (r"cqu?|qu?|ck", "k"),
        (r"c(?=[eiy])", "s"),
        (r"c", "k"),
        (r"x\Z", ""),
        (r"x", "ks"),
        (r"w", "v"),
        (r"y", "i"),
        (r"(?<=[aeiou])s(?=[aeiou])", "z"),
        (r"aul[dt]s?\Z|eaux?\Z|eau|au[dtx]\Z|au|o[st]\Z", "o"),
        (r"e(?:r|z|t)\Z", "Y"),
        (r"ie\Z", "i"),
        (r"(?<=.)e?s?\Z", ""),
        (r"[dtpsz]+\Z", ""),
        (r"(?:ai|ei|oe)n(?![aeioun])|(?:ai|ei)m(?![aeioum])|[iu]n(?![aeioun])|[iu]m(?![aeioum])", "I"),
        (r"[ae]n(?![aeioun])|[ae]m(?![aeioum])", "A"),
        (r"o[nm](?![aeiounm])", "O"),
        (r"oeu|eu", "E"),
        (r"ou", "U"),
        (r"oi", "W"),
        (r"ai|ei|ae|oe", "e"),
        (r"z", "s"),
        (r"(.)\1+", r"\1"),
    )
)
#: First letters that may stand for one sound: what a member is to be asked for. A word that begins with a vowel may
#: begin with any, or a silent h; capitals with accents are those that French names begin with.
_INITIALS = {first: letters for letters in ("aàâeéèêiîoôuyh", "ckqsxzç", "fp", "gj", "vw") for first in letters} | {
    "p": "pf"
}
#: Each is a search of its own at every member. Where they would be more, they say less.
_PATTERNS_MAX = 96
#: Consonants that stand in every spelling of a sound, but for where they are silent.
_FIRM = frozenset("bdlprt")


@lru_cache(maxsize=65536)
def sound(word: str) -> str:
    """How a folded word sounds: `dupond`, `dupont` and `dupons` are one. "" for what is no word of Latin letters."""
    if not word.isascii() or not word.isalpha():
        return ""
    text = word
    for spelling, said in _SOUNDS:
        text = spelling.sub(said, text)
    return text


@lru_cache(maxsize=65536)
def _of_words(asked: str, found: str) -> int | None:
    """How far a word of a name is from the one that is asked for; None: too far."""
    if asked == found:
        return _SAME
    said = sound(asked)
    if said and said == sound(found):
        return _SOUND
    allowed = 0 if len(asked) < 4 else 1 if len(asked) < 8 else 2
    if not allowed or not said or _class(said) != _class(sound(found)):
        return None
    edits = _edits(asked, found, allowed)
    return None if edits is None else _LETTERS + edits


def _class(said: str) -> str:
    """The first sound; all vowels are one."""
    return "a" if said[:1] in _VOWELS else said[:1]


def _edits(a: str, b: str, most: int) -> int | None:
    """Letters less, more, another, or exchanged with their neighbours: how many, if no more than `most`."""
    if abs(len(a) - len(b)) > most:
        return None
    before: list[int] = []
    line = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        last, before = before, line
        line = [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, line[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            line.append(cost)
        if min(line) > most:
            return None
    return line[-1] if line[-1] <= most else None


def _words(component: str) -> list[str]:
    """A component's words, folded: `Dupont-Lévy` → dupont, levy. Apostrophes divide nothing."""
    folded = fold(component)
    letters = "".join(c if named(c) else "" if c in "'’´`" else " " for c in folded)
    return [w[:_WORD_MAX] for w in letters.split()[:_WORDS_MAX]]


class _Asked(NamedTuple):
    family: tuple[str, ...]
    given: tuple[str, ...]
    anywhere: bool  # any word may be the first one


@lru_cache(maxsize=1024)
def _asked(pattern: str) -> _Asked | None:
    """None if there are wildcards other than around the names."""
    family, given = ([c.strip("* ") for c in pattern.split("=", maxsplit=1)[0].split("^")[:2]] + [""])[:2]
    if any(c in "*?" for c in family + given):
        return None
    asked = _Asked(tuple(_words(family)), tuple(_words(given)), pattern.lstrip(" ").startswith("*"))
    return asked if asked.family or asked.given else None


def distance(pattern: str, value: Any) -> int | None:
    """How far a PN value is from what is asked for: 0 if it matches literally, None if not at all.

    `pattern` as in `names.matches`; wildcards around a name are taken for the name itself, others match literally only.
    """
    if names.matches(pattern, value):
        return 0
    asked = _asked(pattern)
    if asked is None:
        return None
    family, given = ([*names.alphabetic(value).split("^"), ""])[:2]
    of_family, of_given = _words(family), _words(given)
    if asked.family and asked.given:
        straight = _sum(_assign(asked.family, of_family, asked), _assign(asked.given, of_given, asked))
        crossed = _sum(_assign(asked.family, of_given, asked), _assign(asked.given, of_family, asked), _EXCHANGED)
        found = [straight, crossed]
    elif asked.given:
        found = [_assign(asked.given, of_given, asked)]
    else:  # people type the one name that they know, or both without telling them apart
        found = [
            _assign(asked.family, [*of_family, *of_given], asked),
            _assign(asked.family, [*of_given, *of_family], asked),
        ]
    known = [d for d in found if d is not None]
    return max(1, min(known)) if known else None


def _sum(*parts: int | None) -> int | None:
    known = [p for p in parts if p is not None]
    return sum(known) if len(known) == len(parts) else None


def _assign(wanted: Sequence[str], found: Sequence[str], asked: _Asked) -> int | None:
    """The least sum of distances with a word of its own for each that is asked for. Also run together: `dupontlevy`."""
    together = _of_words("".join(wanted), "".join(found)) if wanted and found else None
    if asked.anywhere:
        apart = _best(tuple(wanted), tuple(sorted(found)))
    else:
        first = _of_words(wanted[0], found[0]) if found else None
        apart = _sum(first, _best(tuple(wanted[1:]), tuple(sorted(found[1:]))))
    return min((d for d in (together, apart) if d is not None), default=None)


@lru_cache(maxsize=16384)  # else every order of a dozen words that all sound alike would be tried
def _best(asked: tuple[str, ...], found: tuple[str, ...]) -> int | None:
    """`found` is sorted: in which order its words stand does not matter."""
    if not asked:
        return 0
    sums: list[int] = []
    for at, word in enumerate(found):
        if at and word == found[at - 1]:
            continue
        if (d := _of_words(asked[0], word)) is not None:
            of_rest = _best(asked[1:], found[:at] + found[at + 1 :])
            if of_rest is not None:
                sums.append(d + of_rest)
    return min(sums, default=None)


# What members are asked for --------------------------------------------------------------------------------------


def patterns(pattern: str, *, ignores_case: bool | None, narrow: bool = False) -> list[str]:
    """Patterns to ask a member for, whose answers together hold every name that is near `pattern`.

    By the first word alone: its possible first letters, then those consonants that all spellings have, less as many
    as may differ. `narrow`: for the same sounds only, for when that brought more than a member may give.
    """
    literal = (names.narrow if narrow else names.widen)(pattern, ignores_case=ignores_case)
    asked = _asked(pattern)
    if asked is None:
        return literal
    words = asked.family or asked.given
    first = max(words, key=len) if asked.anywhere else words[0]
    made = [*_made(first, asked, ignores_case is True, sounds=narrow or asked.anywhere)]
    return _least([*literal, *made])


def _made(word: str, asked: _Asked, ignores_case: bool, *, sounds: bool) -> Iterator[str]:
    allowed = 0 if sounds or len(word) < 4 else 1 if len(word) < 8 else 2
    initials = dict.fromkeys(word[0] + _INITIALS.get(word[0], ""))
    firm = _firm(word)
    while firm and comb(len(firm), max(0, len(firm) - allowed)) * 2 * len(initials) > _PATTERNS_MAX:
        firm.pop()  # its first ones still stand in every spelling
    for initial in initials:
        for letter in dict.fromkeys((initial.upper(), initial.upper() if ignores_case else initial)):
            # The names may be exchanged.
            starts = [f"*{letter}"] if asked.anywhere else [letter, f"*^{letter}"]
            for start in starts:
                if not ignores_case:
                    yield f"{start}*"
                    continue
                for kept in combinations(firm, max(0, len(firm) - allowed)):
                    yield "*".join([start, *kept, ""]).upper()


def _firm(word: str) -> list[str]:
    """Consonants behind the first letter that every spelling of this word has."""
    text = re.sub(r"(.)\1+", r"\1", word)
    text = re.sub(r"(?:[ltdpszxr]|e[dtpszxr]?)+\Z", "", text[1:])  # silent, or not, at the end
    return [c for c, after in zip(text, f"{text[1:]} ", strict=False) if c in _FIRM and after != "h"]


def _least(made: Iterable[str]) -> list[str]:
    """Without those that another one covers."""
    kept = list(dict.fromkeys(made))
    if "*" in kept:
        return ["*"]
    wide = [p for p in kept if len(p) <= 2 or p.startswith("*")]  # `D*`, `*D*`
    return [p for p in kept if not any(q != p and _covers(q, p) for q in wide)]


def _covers(wide: str, pattern: str) -> bool:
    if wide.startswith("*"):
        return pattern == wide[1:]
    return pattern.startswith(wide[:-1]) and wide.endswith("*") and "*" not in wide[:-1]
