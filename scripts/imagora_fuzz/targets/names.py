"""Names, dates and texts compared: in time, alike each time, and members asked for all that matches.

An input is lines: flags, what is asked for, what a member has, and another value.
"""

from __future__ import annotations

import re
import unicodedata

from consent.traits import Traits, clearly_another, fold, normalise, strict
from federation import fuzzy, names
from federation.matching import matches_exact_or_wild, matches_text, matches_value
from federation.moments import matches_range
from federation.wildcards import regex
from imagora_fuzz.oracles import expect, fields, text

LONGEST = 220
SEEDS = [
    b"\x00\nDUPONT^MARIE\nDupont-L\xc3\xa9vy^Marie Anne\n",
    b"\x01\nL\xc3\x89VY*\nLEVY^Rachel\n19600512",
    b"\x02\n*dupond*\nLE DUPONT^MARIE\n1960-05-12",
    b"\x03\n\xe5\xb1\xb1\xe7\x94\xb0*\nYamada^Tarou=\xe5\xb1\xb1\xe7\x94\xb0^\xe5\xa4\xaa\xe9\x83\x8e\n\xc5\x93uvre",
    b"\x04\nO'BRIEN^J?HN\nO BRIEN^JOHN^^DR\n103000.5",
    b"\x05\nHERNADNEZ\nHERNANDEZ^LUIS\n\xc7\xbf\xe1\xba\x9e",
    b"\x06\n20200101-20201231\n20200615\n-1030",
]
WORDS = [
    *(b"^", b"=", b"*", b"?", b"-", b"'", b" ", b"\xc3\xa9", b"\xc5\x93", b"\xe2\x80\x99", b"eaux", b"sch", b"gn"),
    *(b"qu", b"ph", b"DUPONT", b"LEVY", b"MARIE", b"\xc4\xb0", b"\xef\xac\x81", b"\xcc\x81", b"*a*a*a*a", b"1960"),
    *(b"\\",),
]


def check(data: bytes) -> None:
    flags, *said = fields(data, 4)
    number = flags[0] if flags else 0
    pattern, value, other = (text(line) for line in said)
    for one in (pattern, value, other):
        expect(fold(fold(one)) == fold(one), "what is folded is folded")
        expect(normalise(normalise(one)) == normalise(one), "what is normal is normal")
        expect(
            normalise(unicodedata.normalize("NFD", one)) == normalise(one),
            "a letter is the same in any composition",
        )
        fuzzy.sound(fold(one))
    _names(pattern, value, ignores_case=number % 2 == 0)
    _texts(pattern, value)
    _strict(value, other, pattern[:1])


def _names(pattern: str, value: str, *, ignores_case: bool) -> None:
    matched = names.matches(pattern, value)
    groups = [g for g in value.split("=") if g.strip("^ ")]
    if groups and not set(value) & set("*?"):
        expect(names.matches(groups[0], value) or not normalise(groups[0]).strip("^"), "a name matches itself")
    far = fuzzy.distance(pattern, value)
    expect((far == 0) == matched, "what matches is not far, and nothing else")
    expect(far is None or 0 <= far < fuzzy.FARTHEST, "a distance is a small number")
    names.literal_letters(pattern)
    for narrow in (False, True):
        asked = fuzzy.patterns(pattern, ignores_case=ignores_case, narrow=narrow)
        expect(len(asked) <= 100 * (1 + pattern.count("=")), "members are not asked for countless patterns")
    names.narrow(pattern, ignores_case=ignores_case)
    if matched:
        widened = names.widen(pattern, ignores_case=ignores_case)
        if _plain(pattern) and _plain(value):
            expect(_finds(widened, value, ignores_case), "members are asked for all that matches")


def _plain(name: str) -> bool:
    """Names that no exception is made for: Latin letters, one group, nothing in front of the first letter."""
    return re.fullmatch(r"[A-Za-z*?][A-Za-z*? '^-]*", name) is not None


def _finds(asked: list[str], stored: str, ignores_case: bool) -> bool:
    flags = re.DOTALL | (re.IGNORECASE if ignores_case else 0)
    spelled = stored.upper() if ignores_case else stored
    return any(re.fullmatch(regex(p), spelled, flags) is not None for p in asked)


def _texts(pattern: str, value: str) -> None:
    matches_range(pattern, value)
    literal = re.sub(r"[*?]", "", value)
    expect(matches_text(literal, literal), "a text matches itself")
    expect(matches_exact_or_wild(literal, literal), "an identifier matches itself")
    expect(matches_exact_or_wild("*", value), "anything matches a star")
    expect(matches_exact_or_wild(pattern, pattern), "a pattern matches itself")
    for tag in ("00100010", "00080020", "00080030", "0020000D", "00080061", "00100020", "00201206", "00091001"):
        matches_value(tag, pattern, [value, None, 7, 1.5, True, {"Alphabetic": value}, [value]])
    # Compared with a slow reading of the standard (PS3.4 §C.2.2.2.4).
    if len(pattern) < 24 and len(value) < 24:
        expect(matches_exact_or_wild(pattern, value) == _slowly(pattern, value), "wildcards mean what they mean")


def _slowly(pattern: str, value: str) -> bool:
    reached = {0}
    for c in pattern:
        if c == "*":
            reached = {j for i in reached for j in range(i, len(value) + 1)}
        else:
            reached = {i + 1 for i in reached if i < len(value) and c in ("?", value[i])}
    return len(value) in reached


def _strict(value: str, other: str, sex: str) -> None:
    one = strict(normalise(value), other, sex.upper())
    expect(Traits.read(str(one)) == one, "traits are read as they are written")
    expect(not clearly_another(one, one), "nobody is another than himself")
    expect(one.birth_date == "" or re.fullmatch("[0-9]{8}", one.birth_date), "a birth date is a date, or not known")
