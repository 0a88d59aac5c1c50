"""Names that sound alike or differ by a letter: what matches, how near, and that members are asked for all of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from imagora_demo import exams
from support import values as _profile  # noqa: F401  # loads the profile

from federation import fuzzy
from federation.fuzzy import distance, patterns, sound
from federation.names import fold, matches
from federation.wildcards import regex

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "alike",
    [
        "dupont dupond dupons",
        "martin martain",
        "philippe filipe",
        "quentin kentin",
        "gauthier gautier gotier",
        "thomas tomas toma",
        "durand durant durans",
        "rousseau rousso rouseau roussot",
        "catherine katerine",
        "renault renaud reno renaux",
        "bourgeois bourjois",
        "beauregard boregar",
        "michaud michot micho",
        "schmitt schmidt",
        "yves ives",
        "heckert eckert",
        "chevalier chevallier",
        "guy gui",
        "william willyam villiam",
        "leclerc leklerk",
    ],
)
def test_spellings_of_one_sound(alike: str) -> None:
    assert len({sound(word) for word in alike.split()}) == 1, {w: sound(w) for w in alike.split()}


@pytest.mark.parametrize(
    "other", ["dupont durand", "martin marty", "petit petrie", "simon samson", "leroy larue", "robert roberti"]
)
def test_other_names_sound_otherwise(other: str) -> None:
    one, two = other.split()
    assert sound(one) != sound(two)


@pytest.mark.parametrize(
    ("pattern", "stored", "far"),
    [
        ("DUPOND^MARIE", "DUPONT^MARIE", 1),
        ("DUPOND^MARIE", "Dupont-Lévy^Marie Anne", 1),
        ("dupond", "DUPONT^MARIE", 1),
        ("*dupond*", "LE DUPONT^MARIE", 1),
        ("DUPONT^MARIE", "DUPONT^MARIE", 0),
        ("DUPONT", "DUPONT^MARIE", 0),
        ("MARTIN^JEAN", "JEAN^MARTIN", 1),
        ("marie dupond", "DUPONT^MARIE", 1),
        ("LEFEVRE^ANNE", "LEFEBVRE^ANNE", 2),
        ("LEFEVRE^ANNA", "LEFEBVRE^ANNE", 4),
        ("HERNADNEZ", "HERNANDEZ^LUIS", 2),
        ("DUPONT^MARIE", "DUPONT^JEAN", None),
        ("DUPOND^MARIE", "DUMONT^PAUL", None),
        ("LEVY", "DUPONT-LÉVY^MARIE", None),
        ("LI", "LY^AN", 1),
        ("LI", "LO^AN", None),
        ("DUP?ND", "DUPONT^MARIE", None),
        ("MARTIN", "PARTIN^PAUL", None),
        ("DUPOND", "", None),
        ("DUPOND", {"Ideographic": "山田^太郎"}, None),
    ],
)
def test_distances(pattern: str, stored: object, far: int | None) -> None:
    assert distance(pattern, stored) == far


@pytest.mark.parametrize("pattern", ["DLPRTB" * 6, "BLDRTP" * 6 + "^" + "BLDRTP" * 6, "*" + "PLDRTB" * 6])
@pytest.mark.parametrize("ignores_case", [True, False])
def test_no_name_makes_a_flood_of_searches(pattern: str, ignores_case: bool) -> None:
    """Each pattern is a search at every member."""
    asked = patterns(pattern, ignores_case=ignores_case)
    assert len(asked) <= 100
    name = pattern.strip("*").upper()
    near = () if pattern[0] == "*" else (name[:7] + "X" + name[8:], name[:20] + name[21:])  # then of one sound only
    for stored in (name, *near):
        assert distance(pattern, stored) is not None
        assert _asked(asked, stored, ignores_case=ignores_case)


def test_words_that_all_sound_alike_are_assigned_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in every order: of a dozen there are half a million."""
    steps = 0
    plain = fuzzy._of_words

    def counted(asked: str, found: str) -> int | None:
        nonlocal steps
        steps += 1
        return plain(asked, found)

    monkeypatch.setattr(fuzzy, "_of_words", counted)
    fuzzy._best.cache_clear()
    words = [f"LI{'I' * n}" for n in range(1, 7)]
    assert (
        distance(f"*{' '.join(words)}", f"{' '.join(w + 'Y' for w in words)}^{' '.join(w + 'S' for w in words)}") == 6
    )
    assert 0 < steps < 50_000


def _asked(asked: list[str], name: str, *, ignores_case: bool) -> bool:
    """Would a member that is asked for these patterns give this name? Accents are told apart."""
    if ignores_case:
        return any(re.fullmatch(regex(p), name, re.DOTALL | re.IGNORECASE) for p in asked)
    return any(re.fullmatch(regex(p), name, re.DOTALL) for p in asked)


names = st.sampled_from(sorted({fold(n).replace(" ", "-") for n in (*exams.FAMILY_NAMES, *exams.GIVEN_NAMES)}))


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str]:
    """A name, and it with a letter or two edited."""
    name = draw(names)
    other = name
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(other) - 1))
        letter = draw(st.sampled_from(LETTERS))
        other = draw(
            st.sampled_from(
                [other[:at] + other[at + 1 :], other[:at] + letter + other[at:], other[:at] + letter + other[at + 1 :]]
            )
        )
    return name, other


@given(edited(), names, st.booleans(), st.booleans())
def test_members_are_asked_for_all_that_is_near(
    pair: tuple[str, str], given_name: str, ignores_case: bool, exchanged: bool
) -> None:
    asked, stored = pair
    value = f"{given_name}^{stored}" if exchanged else f"{stored}^{given_name}"
    pattern = f"{asked}^{given_name}"
    assume(distance(pattern, value) is not None)
    spelled = value if not ignores_case else value.upper()
    assert _asked(patterns(pattern, ignores_case=ignores_case), spelled, ignores_case=ignores_case), (pattern, value)


RESPELLED = [("t", "d"), ("d", "t"), ("f", "ph"), ("ph", "f"), ("k", "c"), ("c", "k"), ("qu", "k"), ("c", "qu")]
RESPELLED += [("au", "o"), ("o", "au"), ("eau", "o"), ("ai", "ei"), ("e", "ai"), ("in", "ain"), ("an", "en")]
RESPELLED += [("y", "i"), ("i", "y"), ("s", "z"), ("z", "s"), ("h", ""), ("t", "th"), ("l", "ll"), ("n", "nn")]
RESPELLED += [("r", "rr"), ("s", "ss"), ("v", "w"), ("c", "ss"), ("e", "es"), ("a", "ha"), ("e", "he"), ("t", "")]


@given(names, st.lists(st.sampled_from(RESPELLED), min_size=1, max_size=3), st.booleans())
def test_what_sounds_alike_is_asked_for_anywhere(
    asked: str, changes: list[tuple[str, str]], ignores_case: bool
) -> None:
    stored = asked
    for old, new in changes:
        stored = stored.replace(old, new, 1)
    event(f"respelled: {stored != asked and sound(stored) == sound(asked)}")
    if not sound(asked) or sound(stored) != sound(asked):
        return
    value = f"LE {stored}^X"
    if ignores_case:
        value = value.upper()
    assert distance(f"*{asked}*", value) is not None
    assert _asked(patterns(f"*{asked}*", ignores_case=ignores_case), value, ignores_case=ignores_case)


@given(st.text(max_size=40), st.text(max_size=40))
def test_literal_matches_are_the_nearest(pattern: str, value: str) -> None:
    far = distance(pattern, value)
    assert (far == 0) == matches(pattern, value)
    assert far is None or far >= 0


@given(st.text(max_size=70))
def test_any_pattern_can_be_asked(pattern: str) -> None:
    made = patterns(pattern, ignores_case=None)
    assert 1 <= len(made) <= 80
    assert all(made) or not pattern.strip("*^ ")
