"""Person names: what matches, and that members are asked for all that does, however strict they are."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from federation.names import alphabetic, any_letter, fold, literal_letters, matches, narrow, normalise, widen

YAMADA = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}


@pytest.mark.parametrize("stored", ["DUPONT-LÉVY^MARIE", "Dupont Lévy^Marie", "dupont levy^marie", "DUPONTLEVY^MARIE"])
@pytest.mark.parametrize(
    "pattern",
    [
        "DUPONT-LÉVY",
        "Dupont Lévy",
        "dupont levy",
        "DUPONTLEVY*",
        "dupont-levy^marie",
        "DUPONT*LEVY",
        "DUPONT?LEVY^MARIE",
        "DUPONT^M*",
        "DUPONT*^M*",
        "*levy*",
        "*LÉVY^MAR*",
        "dupont-lévy^",
        "dupont-lévy^^^",
        "DUPONTLEVY^*",
        "Dupont–Lévy",
        "^MARIE",
        " dupont levy ",
    ],
)
def test_double_names(pattern: str, stored: str) -> None:
    expected = True
    if pattern == "DUPONT^M*":
        expected = False  # another family name
    if pattern == "DUPONT?LEVY^MARIE":
        expected = stored != "DUPONTLEVY^MARIE"  # `?` is one character, which has to be there
    assert matches(pattern, {"Alphabetic": stored}) is expected


@pytest.mark.parametrize("stored", ["O'NEIL^SEAN", "O’Neil^Seán", "ONEIL^SEAN", "O NEIL", "O´NEIL", "OʼNEIL", "o`neil"])
@pytest.mark.parametrize("pattern", ["O'Neil", "ONEIL", "o’neil", "o neil", "OʼNeil*", "O'NEIL^*"])
def test_apostrophes(pattern: str, stored: str) -> None:
    assert matches(pattern, stored)


@pytest.mark.parametrize(
    ("pattern", "stored", "yes"),
    [
        ("OEUVRARD", "ŒUVRARD^Zoé", True),
        ("œuvrard^zoe", "OEUVRARD^ZOÉ", True),
        ("LÆTITIA", "LAETITIA", True),
        ("STRASSER", "STRAẞER", True),
        ("strasser", "Straßer", True),
        ("SORENSEN", "Sørensen", True),
        ("NUNEZ", "Núñez", True),
        ("Lévy", "Le\u0301vy", True),  # decomposed
        ("KIVANC", "KIVANÇ", True),
        ("ISIK", "Işık", True),
        ("DUPOND", "DUPONT", False),
        ("DUPON", "DUPONT", False),
        ("DUPON?", "DUPONT", True),
        ("DUPONT?", "DUPONT", False),
        ("UPONT", "DUPONT", False),
        ("DUPONT", "DUPONT^MARIE^^DR", True),
        ("DUPONT^^", "DUPONT^MARIE", True),
        ("DUPONT^MARIE", "DUPONT", False),
        ("DUPONT^*", "DUPONT", True),  # a name may end before its empty components
        ("DUPONT^*^*", "DUPONT^MARIE", True),
        ("DUPONT^M*", "DUPONT^MARIE", True),
        ("DUPONT^M*", "DUPONT^PAUL", False),
        ("DUPONT^M*", "DUPONT", False),
        ("*", "DUPONT", True),
        ("^*", "DUPONT", True),
        ("*^MARIE", "DUPONT^MARIE", True),
        ("MARIE", "DUPONT^MARIE", False),
        ("-", "DUPONT", False),
        ("'", "O'NEIL", False),
        ("DUPONT.", "DUPONT", True),  # punctuation of the pattern means nothing either
        ("D.PONT", "DUPONT", False),
        ("[DX]UPONT", "DUPONT", False),
        ("(DUPONT", "DUPONT", True),
        ("DUPONT\n", "DUPONT", True),
        ("", "DUPONT", False),
        ("=", "DUPONT", False),
    ],
)
def test_spellings(pattern: str, stored: str, yes: bool) -> None:
    assert matches(pattern, {"Alphabetic": stored}) is yes
    assert matches(pattern, stored) is yes


@pytest.mark.parametrize(
    ("pattern", "yes"),
    [
        ("yamada", True),
        ("YAMADA^T*", True),
        ("山田", True),
        ("山田^太郎", True),
        ("山*", True),
        ("山?^太郎", True),
        ("やまだ", True),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Suzuki=山田", True),
        ("=山田^太郎", True),
        ("田", False),
        ("山川", False),
        ("Suzuki=鈴木", False),
    ],
)
def test_any_group_of_a_name_matches(pattern: str, yes: bool) -> None:
    assert matches(pattern, YAMADA) is yes
    assert matches(pattern, "=".join(YAMADA.values())) is yes


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"Alphabetic": None}, {"Alphabetic": 3}, {"Alphabetic": "^^ "}, "", "="]
)
def test_no_name_matches_nothing(value: Any) -> None:
    assert not matches("DUPONT", value)
    assert alphabetic(value) in ("", "=")


def test_the_name_that_is_shown() -> None:
    assert alphabetic(YAMADA) == "Yamada^Tarou"
    assert alphabetic({"Alphabetic": "^", "Ideographic": "山田"}) == "山田"
    assert alphabetic(" DUPONT ") == "DUPONT"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("DUPONT-LÉVY^Marie^^", "dupontlevy^marie"),
        ("D'Œuvre^Ça", "doeuvre^ca"),
        ("Müller™", "mullertm"),
        ("^MARIE", "^marie"),
        ("  ", ""),
        ("Jean 2", "jean2"),
    ],
)
def test_normalising(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(text.upper()) == normalise(text.lower()) or not text.upper().isascii()


@given(st.text(st.sampled_from("DUPéœ^-' *?=山.[(\\"), max_size=12), st.text(max_size=12))
def test_any_pattern_and_value_can_be_compared(pattern: str, value: str) -> None:
    matches(pattern, value)
    matches(pattern, {"Alphabetic": value, "Phonetic": pattern})
    for known in (True, False, None):
        assert all(widen(pattern, ignores_case=known))
        assert all(narrow(pattern, ignores_case=known))
    literal_letters(pattern)
    any_letter(pattern)


def test_letters_are_counted() -> None:
    assert literal_letters("D*^MARIE") == 1
    assert literal_letters("DU*") == 2
    assert literal_letters("*^MARIE") == 0
    assert literal_letters("É'*?=DUPONT") == 1
    assert any_letter("*^M*")
    assert not any_letter("*^?*")


# Asking members -------------------------------------------------------------------------------------------------------


def strictly(pattern: str, stored: str, *, case: bool) -> bool:
    """A member that tells accents, punctuation and perhaps cases apart."""
    regex = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(regex, stored, re.DOTALL if case else re.DOTALL | re.IGNORECASE) is not None


def asked_for(pattern: str, stored: str) -> None:
    for known in (None, False):
        assert any(strictly(p, stored, case=True) for p in widen(pattern, ignores_case=known)), (pattern, stored)
    assert any(strictly(p, stored, case=False) for p in widen(pattern, ignores_case=True)), (pattern, stored)


LATIN_1 = [c for c in map(chr, range(0xC0, 0x100)) if c.isalpha() and c not in "ÐðÞþ"]
LATIN_9 = [*"ŒœŠšŽžŸ"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *LATIN_1, *LATIN_9]
_letter = st.one_of(st.sampled_from("DUPONTLEVYdupontlevyéèÉŒœ"), st.sampled_from(LETTERS))
_inner = st.one_of(_letter, _letter, st.sampled_from("-' .’1"))
_component = st.builds(lambda first, rest: first + "".join(rest), _letter, st.lists(_inner, max_size=6))
_given_name = st.one_of(_component, st.sampled_from(["", "-", " Marie", "'t"]))
_stored = st.builds(lambda family, more: "^".join([family, *more]), _component, st.lists(_given_name, max_size=3))


@st.composite
def _pattern_of(draw: st.DrawFn, stored: str) -> str:
    """What somebody may type who looks for `stored`."""
    out = []
    for c in stored:
        how = draw(st.integers(0, 9))
        if c == "^" or how < 3:
            out.append(c)
        elif how == 3:
            out.append(c.swapcase())
        elif how == 4:
            out.append("".join(p for p in unicodedata.normalize("NFD", c) if not unicodedata.combining(p)))
        elif how == 5:
            out.append("?")
        elif how == 6:
            out.append("*")
        elif how == 7:
            out.append(fold(c))
        elif how == 8:
            out.append(draw(st.sampled_from(["-", " ", "'", "’", ""])) + c)
        elif c.isalpha():
            out.append(c)
    text = "".join(out)
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))] + "*"
    return text + draw(st.sampled_from(["", "", "*", "^", "^*", "^-", "=", "=DUPONT"]))


@given(st.data(), _stored)
@settings(max_examples=500)
def test_members_are_asked_for_all_that_matches(data: st.DataObject, stored: str) -> None:
    pattern = data.draw(_pattern_of(stored))
    if matches(pattern, stored):
        asked_for(pattern, stored)


@given(
    st.text(st.sampled_from("DPLdpléÉ^^*?- "), max_size=6),
    st.text(st.sampled_from("DPLdpléÉ^- "), min_size=1, max_size=6),
)
@settings(max_examples=500)
@example("DUPONT^*", "DUPONT")
@example("DUPONT^-", "DUPONT")
@example("O’Neil", "O'NEIL^SEAN")
@example("oneil", "O'NEIL")
@example("DUPONT^MARIE", "DUPONT^ MARIE")
@example("DUPONT^T*", "DUPONT^'T")
@example("Strasser", "STRAßER")
@example("œuvrard", "OEUVRARD")
@example("lévy", "LEVY")
@example("*levy*", "DUPONT-LÉVY")
@example("Suzuki=DUPONT", "DUPONT")
def test_members_are_asked_for_all_that_matches_of_few_letters(pattern: str, stored: str) -> None:
    if stored[:1].isalpha() and matches(pattern, stored):
        asked_for(pattern, stored)


@pytest.mark.parametrize("pattern", ["山田", "山田^太郎", "山*", "Suzuki=山田", "Yamada=山田^太郎"])
def test_members_are_asked_for_ideographs_behind_the_alphabetic_group(pattern: str) -> None:
    assert matches(pattern, YAMADA)
    for stored in ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田^太郎", "=山田^太郎"):
        asked_for(pattern, stored)


def test_firm_letters_are_named() -> None:
    """Members are not asked for all that they have where the pattern says more."""
    assert widen("DUPONT-LÉVY^M*", ignores_case=True) == ["D*P*T*L*V*^*M*"]
    assert widen("Dupont", ignores_case=None) == ["D*", "d*"]
    assert widen("山田^太郎", ignores_case=None) == ["*山*田*太*郎*"]
    assert widen("É", ignores_case=True) == ["*"]


@pytest.mark.parametrize("stored", ["DUPONT-LÉVY^MARIE", "DUPONT LEVY^MARIE", "Dupont-Lévy^Marie"])
@pytest.mark.parametrize("pattern", ["DUPONT-LÉVY", "dupont levy^m*", "Dupont*", "*levy*", "DUPONT’LÉVY"])
def test_likely_spellings_are_asked_for(pattern: str, stored: str) -> None:
    assert any(strictly(p, stored, case=True) for p in narrow(pattern, ignores_case=None))
    assert any(strictly(p, stored, case=False) for p in narrow(pattern, ignores_case=True))


def test_what_is_typed_is_among_the_likely_spellings() -> None:
    assert any(strictly(p, "dupont-levy^marie", case=True) for p in narrow("dupont-lévy", ignores_case=None))


def test_long_patterns_take_no_more_than_a_moment() -> None:
    started = time.process_time()
    for pattern in ("*a" * 60, "?*" * 300, "a^" * 500, "*^" * 100, "a*" * 100 + "b"):
        matches(pattern, "a" * 64)
        matches(pattern, "a^" * 32)
        widen(pattern, ignores_case=True)
        narrow(pattern, ignores_case=None)
    assert time.process_time() - started < 2.0
