"""Strict traits: who is the same person, who nearly is, who is another."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.people import GOOD, register

from consent import Exam
from consent.book import Book
from consent.ins import canonical, key_of
from consent.reading import BookReader
from consent.traits import Traits, difference, normalise, one_edit, strict
from registry import Site
from registry.database import Database
from registry.store import RegistryStore

MARIE = Traits("dupontlevy^marie", "19600412", "F")


def traits(name: str, birth_date: str = "19600412", sex: str = "F") -> Traits:
    return strict(normalise(name), birth_date, sex)


@pytest.mark.parametrize(
    "name",
    ["DUPONT-LÉVY^MARIE", "Dupont Levy^Marie", "dupont lévy ^marie", "DUPONT-LEVY^MARIE^ANNE^DR", "DUPONTLEVY^MARIE^^"],
)
def test_the_same_whatever_case_accents_hyphens_and_further_components(name: str) -> None:
    assert difference(MARIE, traits(name)) == ""


@given(st.text(max_size=12))
@example("ǿ")  # what is left of it without its accent is a letter to be spelled out
@example("A\U0001d6ba")  # a capital sigma that only compatibility says to be one
@example("㎆")
@example("ᾳ")
def test_what_is_normal_is_normal_and_the_same_in_any_composition(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(text)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (traits("DUPOND-LEVY^MARIE"), "one letter"),
        (traits("DUPONT-LEVY^MAREI"), "one letter"),
        (traits("DUPONT-LEVY^MARI"), "one letter"),
        (traits("DUPONTT-LEVY^MARIE"), "one letter"),
        (traits("DUPONT-LEVY^MARIE-ANNE"), "given name"),
        (traits("DUPONT-LEVY"), "given name"),
        (traits("MARIE^DUPONT-LEVY"), "exchanged"),
        (traits("DUPONT-LEVY MARIE"), "told apart"),
        (traits("DUPONT-LEVY^MARIE", "19600421"), "two digits"),
        (traits("DUPONT-LEVY^MARIE", "16900412"), "two digits"),
        (traits("DUPONT-LEVY^MARIE", "19601204"), "day and month"),
        (traits("DUPONT-LEVY^MARIE", sex="M"), "the sex differs"),
        (traits("DUPONT-LEVY^MARIE", sex=""), "the sex is not known"),
        (traits("DUPOND-LEVY^MARIE", sex=""), "one letter"),
    ],
)
def test_a_little_difference_is_named(found: Traits, word: str) -> None:
    told = difference(MARIE, found)
    assert told
    assert word in told


@pytest.mark.parametrize(
    "found",
    [
        traits("DUPONT-LEVY^MARIE", ""),
        traits("DUPONT-LEVY^MARIE", "1960"),
        traits("DUPONT-LEVY^MARIE", "19600413"),
        traits("DUPONT-LEVY^MARIE", "19610412"),
        traits("DUPOND-LEVY^MARIE", "19600421"),
        traits("DUPOND-LEVY^MARIE", sex="M"),
        traits("DUPOND-LEVI^MARIE"),
        traits("DURAND^MARIE"),
        traits("DUPONT-LEVY^CLAIRE"),
        traits(""),
    ],
)
def test_others_are_others(found: Traits) -> None:
    assert difference(MARIE, found) is None


def slow_edits(a: str) -> set[str]:
    letters = "abc^"
    return (
        {a[:i] + a[i + 1 :] for i in range(len(a))}
        | {a[:i] + c + a[i:] for i in range(len(a) + 1) for c in letters}
        | {a[:i] + c + a[i + 1 :] for i in range(len(a)) for c in letters}
        | {a[:i] + a[i + 1] + a[i] + a[i + 2 :] for i in range(len(a) - 1)}
    )


@given(st.text("abc^", max_size=6), st.text("abc^", max_size=6))
def test_one_edit_is_what_all_edits_by_hand_are(a: str, b: str) -> None:
    assert one_edit(a, b) == (a != b and b in slow_edits(a))
    assert one_edit(a, b) == one_edit(b, a)


def test_the_key_of_an_ins() -> None:
    assert key_of("1510246102043") == "25"
    assert canonical("1 51 02 46 102 043 25") == "151024610204325"
    assert canonical("1510246102043") == "151024610204325"
    assert canonical("151024610204326") is None
    for text in ("", "4547", "15102461020432X", "1510246102043251"):
        assert canonical(text) is None
    corsican = "2A"
    number = f"18503{corsican}004123"
    assert len(number) == 13
    assert canonical(number) == number + f"{97 - int('1850319004123') % 97:02d}"


@pytest.mark.parametrize("written", ["19500102", "1950.01.02", "1950-01-02"])
def test_a_birth_date_is_read_in_the_forms_that_pacs_have(written: str) -> None:
    assert strict("dupont^marie", written, "F").birth_date == "19500102"


@given(st.text("ab^|.-0123456789\0é"), st.text("0123456789.-|\0", max_size=12), st.text("MFO|\0", max_size=3))
def test_whatever_a_pacs_says_can_be_written_down_and_read_again(name: str, birth_date: str, sex: str) -> None:
    traits = strict(normalise(name), birth_date, sex)
    assert Traits.read(str(traits)) == traits
    assert "\0" not in str(traits)
    assert traits.sex in ("M", "F", "")
    assert len(traits.birth_date) in (0, 8)


async def test_what_stands_in_the_database_and_cannot_be_read_binds(postgres: Callable[[], str]) -> None:
    url = await asyncio.to_thread(postgres)
    await asyncio.to_thread(register, url, await site_in(url))
    async with Database(url) as database:
        await database.execute(
            "INSERT INTO opposition (kind, emetteur, ipp, declared_on, channel, recorded_by) "
            "VALUES ('patient', 'csrom41200', '4547', current_date, 'oral', $1)",
            GOOD,
        )
        await database.execute(
            "INSERT INTO opposition_study (opposition, study_uid, given, traits) "
            "SELECT id, '1.2.3', false, 'dupont^marie|19600412|F|M' FROM opposition"
        )
        book = Book()
        async with database.transaction("repeatable_read") as connection:
            await BookReader(book).read(connection, -1, 10**9)
    site = Site(emetteur="other", number=1, name="Other")
    exam = Exam(
        study_uid="1.2.3", origin=site, patient_id="", ids=frozenset(), holders=(site,), traits=(traits("MARTIN^PAUL"),)
    )
    assert book.opposed(exam)[0] is not None


async def site_in(url: str) -> str:
    async with Database(url) as database:
        await RegistryStore(database).seed([Site(emetteur="csrom41200", number=423, name="Romorantin (CH)")])
    return "csrom41200"
