"""People found by strict traits, against comparing everybody with everybody."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from consent.book import Persons
from consent.traits import Traits, difference, strict

# Few letters and dates, so that most of these people nearly are one another.
names = st.builds("{}^{}".format, st.text("ab", max_size=5), st.text("ab", max_size=4)) | st.text("ab", max_size=8)
dates = st.sampled_from(["19600412", "19601204", "19600421", "19600413", "04121960"])
people = st.builds(strict, names, dates, st.sampled_from("MFO"))
found_people = st.builds(strict, names, dates | st.sampled_from(["", "1960"]), st.sampled_from(["M", "F", ""]))


@given(recorded=st.lists(people, max_size=12), lifted=st.sets(st.integers(0, 11)), found=found_people)
@example([strict("dupont^marie", "19600412", "F")], set(), strict("bupont^marie", "19600412", "F"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("udpont^marie", "19600412", "F"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("dupontt^marie", "19600412", "F"))
@example([strict("ly^marie", "19600412", "F")], set(), strict("yl^marie", "19600412", "F"))
@example([strict("^marie", "19600412", "F")], set(), strict("x^marie", "19600412", "F"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("marie^dupont", "19600412", "F"))
@example([strict("dupont^jeanpierre", "19600412", "M")], set(), strict("dupont^jean", "19600412", "M"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("dupontmarie", "19600412", "F"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("dupontxmarie", "19600412", "F"))
@example([strict("dupont^marie", "19600412", "F")], set(), strict("dupon^tmarie", "19600412", "F"))
@example([strict("dupontxmarie", "19600412", "F")], set(), strict("dupont^marie", "19600412", "F"))
@example([strict(f"{'a' * 70}^marie", "19600412", "F")], set(), strict(f"{'a' * 69}^marie", "19600412", "F"))
@settings(max_examples=1500, deadline=None)
def test_whoever_is_nearly_the_same_is_found(recorded: list[Traits], lifted: set[int], found: Traits) -> None:
    persons = Persons()
    for number, traits in enumerate(recorded):
        persons.add(number, traits)
    for number in lifted & set(range(len(recorded))):
        persons.discard(number, recorded[number])
    standing = {number: traits for number, traits in enumerate(recorded) if number not in lifted}
    assert len(persons) == len(standing)
    told = {number: text for number, traits in standing.items() if (text := difference(traits, found)) is not None}
    assert dict(persons.like(found)) == told


def one_edits(name: str, letters: str) -> set[str]:
    """All names that are one letter more, fewer, another, or exchanged with its neighbour."""
    splits = [(name[:i], name[i:]) for i in range(len(name) + 1)]
    made = {a + b[1:] for a, b in splits if b}
    made |= {a + x + b for a, b in splits for x in letters}
    made |= {a + x + b[1:] for a, b in splits if b for x in letters}
    made |= {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    return made


@given(people=st.lists(people, min_size=1, max_size=6), data=st.data())
@example([strict("dupont^anne", "19600412", "F")], None)
@example([strict("dupontxanne", "19600412", "F")], None)
@example([strict("^ab", "19600412", "F"), strict("a^b", "19600412", "F")], None)
@settings(max_examples=300, deadline=None)
def test_whoever_is_one_edit_away_is_found(people: list[Traits], data: st.DataObject | None) -> None:
    """The delimiter is a letter like others: left out, put in, written for a letter, exchanged with one."""
    persons = Persons()
    for number, traits in enumerate(people):
        persons.add(number, traits)
    recorded = people[0] if data is None else data.draw(st.sampled_from(people))
    for name in sorted(one_edits(recorded.name, "abx^")):
        found = strict(name, recorded.birth_date, recorded.sex)
        told = {n: text for n, traits in enumerate(people) if (text := difference(traits, found)) is not None}
        assert dict(persons.like(found)) == told, found
    for number, traits in enumerate(people):
        persons.discard(number, traits)
    assert not any(vars(persons).values())
