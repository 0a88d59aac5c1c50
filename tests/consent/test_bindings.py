"""What is written down of an opposition: checks of every field, and who may do what. Pure."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import BLOIS, DIRECTORY, ROMORANTIN

from consent import Requester, Role
from consent.bindings import (
    FIELDS,
    BadDeclaration,
    Binding,
    Channel,
    Declaration,
    OppositionKind,
    check_birth_date,
    check_ins,
    check_number,
    check_person,
    check_reason,
    check_studies,
    located,
    read_declaration,
    why_not_decide,
    why_not_lift,
    why_not_record,
)

TODAY = date(2026, 3, 1)
PATIENT = Binding(kind=OppositionKind.PATIENT, emetteur="csrom41200", ipp="4547")
PERSON = Binding(kind=OppositionKind.PERSON, name="DUPONT^MARIE", birth_date="19600512", sex="F")
STUDY = Binding(kind=OppositionKind.STUDY, study_uids=("1.2.3",))
CORRESPONDENT = Requester(id="10001234567", home=ROMORANTIN, role=Role.CORRESPONDENT)
ELSEWHERE = Requester(id="10001234568", home=BLOIS, role=Role.CORRESPONDENT)
REFERENT = Requester(id="10001234569", home=BLOIS, role=Role.REFERENT)
PRACTITIONER = Requester(id="10001234560", home=ROMORANTIN)


def with_key(number: str) -> str:
    """A number of 13 with its key, computed by hand as the INS' specification has it."""
    value = int(number.replace("2A", "19").replace("2B", "18") if number[5:7] in ("2A", "2B") else number)
    return f"{number}{97 - value % 97:02}"


def problems(**fields: str) -> dict[str, str]:
    with pytest.raises(BadDeclaration) as caught:
        read_declaration(fields, TODAY)
    return dict(caught.value.problems)


# The INS ------------------------------------------------------------------------------------------------------------

numbers = st.builds(
    lambda head, department, tail: head + department + tail,
    st.from_regex(r"[1-8][0-9]{4}", fullmatch=True),
    st.one_of(st.sampled_from(["2A", "2B"]), st.from_regex(r"[0-9]{2}", fullmatch=True)),
    st.from_regex(r"[0-9]{6}", fullmatch=True),
)


def test_published_examples_of_numbers_and_keys_are_taken() -> None:
    assert check_ins("255081416802538") == "255081416802538"
    assert check_ins("2 55 08 14 168 025 38") == "255081416802538"
    assert check_ins("1 84 12 2a 451 089 " + with_key("184122A451089")[-2:]) == with_key("184122A451089")


@given(numbers)
def test_every_number_with_its_key_is_taken(number: str) -> None:
    assert check_ins(with_key(number)) == with_key(number)
    assert check_ins(f" {with_key(number).lower()} ") == with_key(number)


@given(numbers, st.integers(0, 14), st.sampled_from("0123456789"))
def test_one_mistyped_digit_is_found(number: str, place: int, digit: str) -> None:
    good = with_key(number)
    bad = good[:place] + digit + good[place + 1 :]
    if bad == good:
        assert check_ins(bad) == good
    elif good[5:7] in ("2A", "2B") and place in (5, 6):
        return  # another department: it may be right by chance
    else:
        with pytest.raises(ValueError, match="is not an INS"):
            check_ins(bad)


@given(numbers, st.integers(1, 96))
def test_no_other_key_is_taken(number: str, off: int) -> None:
    key = (int(with_key(number)[13:]) - 1 + off) % 97 + 1
    with pytest.raises(ValueError, match="its key does not fit"):
        check_ins(f"{number}{key:02}")


@given(st.text(max_size=20))
def test_any_text_is_an_ins_or_is_told_not_to_be(text: str) -> None:
    told = ""
    try:
        ins = check_ins(text)
    except ValueError as error:
        told = str(error)
    assert "is not an INS" in told or ins == with_key(ins[:13])


@pytest.mark.parametrize(
    "text", ["", "25508141680253", "2550814168025389", "25508A416802538", "２55081416802538", "A" * 15]
)
def test_what_has_not_its_form_is_no_ins(text: str) -> None:
    with pytest.raises(ValueError, match="13 digits"):
        check_ins(text)


# Other fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DUPONT MARIE", "write FAMILY^GIVEN"),
        ("DUPONT^", "no given name"),
        ("^MARIE", "no family name"),
        ("DUPONT^^MARIE", "no given name"),
        ("1234^MARIE", "no family name"),
        ("DUPONT^-'", "no given name"),
        ("DUPONT^MA\nRIE", "is not a name"),
        ("DUPONT^MARIE\\X", "is not a name"),
        ("DUPONT^MARIE=X", "is not a name"),
        ("D" * 60 + "^MARIE", "at most 64"),
    ],
)
def test_what_is_no_name_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("^", r"\^")):
        check_person(text)


@pytest.mark.parametrize("text", ["DUPONT-LÉVY^Anne Sophie", "O'NEIL^Zoé^^MME", "李^明", "DUPONT^M"])
def test_names_are_kept_as_they_are_spelled(text: str) -> None:
    assert check_person(text) == text


@pytest.mark.parametrize(
    ("text", "born"),
    [("19600512", "19600512"), ("1960-05-12", "19600512"), ("12/05/1960", "19600512"), ("29/2/2024", "20240229")],
)
def test_birth_dates_are_read_as_people_write_them(text: str, born: str) -> None:
    assert check_birth_date(text, TODAY) == born


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("19600231", "no day of the calendar"),
        ("20250229", "no day of the calendar"),
        ("20260302", "in the future"),
        ("12/05/60", "is not a date"),
        ("1960", "is not a date"),
        ("1960051２", "is not a date"),
        ("09600512", "too long ago"),
    ],
)
def test_what_is_no_birth_date_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_birth_date(text, TODAY)


@pytest.mark.parametrize("text", ["45\\47", "45\n47", "45\0", "4\u200b547", "*", "45?7", "4" * 65])
def test_numbers_are_one_patients_and_visible(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such number|to the letter"):
        check_number(text)


def test_uids_are_sorted_and_named_once() -> None:
    assert check_studies("1.2.9 1.2.3\t1.2.9") == ("1.2.3", "1.2.9")
    for bad in ("1.2.", "a", "1..2", "1." * 40 + "1"):
        with pytest.raises(ValueError, match="is not a UID"):
            check_studies(f"1.2.3 {bad}")


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\x1bb", "a\ud800", "a\u2028b"])
def test_reasons_have_no_control_characters(text: str) -> None:
    with pytest.raises(ValueError, match="on one line"):
        check_reason(text)


def test_reasons_may_have_the_spaces_of_french() -> None:
    assert check_reason("Refus\u00a0: oral, à l’accueil") == "Refus\u00a0: oral, à l’accueil"


# Whole declarations -------------------------------------------------------------------------------------------------


def test_a_declaration_is_read() -> None:
    said = read_declaration(
        {
            "person": " Dupont^Marie ",
            "born": "1960-05-12",
            "sex": "f",
            "ins": with_key("2600514168025"),
            "channel": "Oral",
        },
        TODAY,
    )
    assert said == Declaration(
        binding=Binding(
            kind=OppositionKind.PERSON,
            name="Dupont^Marie",
            birth_date="19600512",
            sex="F",
            ins=with_key("2600514168025"),
        ),
        declared_on=TODAY,
        channel=Channel.ORAL,
    )
    said = read_declaration({"ipp": "4547", "site": "X", "channel": "letter", "on": "2026-02-03", "reason": "r"}, TODAY)
    assert (said.binding.emetteur, said.declared_on, said.reason) == ("X", date(2026, 2, 3), "r")


def test_what_does_not_belong_together_is_told() -> None:
    assert "one of study" in problems(channel="oral")["study"]
    assert "beside study" in problems(channel="oral", study="1.2", ipp="1", site="x")["ipp"]
    assert "beside accession" in problems(channel="oral", accession="1", site="x", ins=with_key("2600514168025"))["ins"]
    assert "at which site this IPP is" in problems(channel="oral", ipp="1")["site"]
    assert "leave it out" in problems(channel="oral", study="1.2", site="x")["site"]
    assert set(problems(channel="oral", person="A^B")) == {"born", "sex"}
    assert "name the person" in problems(channel="oral", ins=with_key("2600514168025"), born="19600512")["born"]
    assert "letter, form, oral" in problems(study="1.2")["channel"]
    assert "not a channel" in problems(study="1.2", channel="mail")["channel"]
    assert "in the future" in problems(study="1.2", channel="oral", on="2026-03-02")["on"]


def test_all_problems_are_told_at_once() -> None:
    assert set(problems(person="X", born="1", sex="Z", ins="1", channel="x", on="x", reason="\0x")) == {
        *("person", "born", "sex", "ins", "channel", "on", "reason")
    }


likely = ("1.2.3", "4547", "csrom41200", "DUPONT^MARIE", "19600512", "F", "255081416802538", "oral", "2026-01-01")


@given(st.dictionaries(st.sampled_from(FIELDS), st.one_of(st.sampled_from(likely), st.text(max_size=30))))
def test_any_texts_are_a_declaration_or_problems_of_known_fields(fields: dict[str, str]) -> None:
    problems: tuple[tuple[str, str], ...] = ()
    try:
        said = read_declaration(fields, TODAY)
    except BadDeclaration as error:
        problems = error.problems
        assert problems
    else:
        assert any(said.binding.key[1:])
    assert {field for field, _ in problems} <= set(FIELDS)
    assert all(text for _, text in problems)


def test_bindings_are_alike_as_strict_traits_are() -> None:
    def person(name: str, ins: str | None = None) -> tuple[str, ...]:
        return Binding(kind=OppositionKind.PERSON, name=name, birth_date="19600512", sex="F", ins=ins).key

    assert person("DUPONT-LÉVY^MARIE") == person("dupont levy^Marie^^MME")
    assert person("DUPONT^MARIE") != person("DUPONT^MARIA")
    assert person("DUPONT^MARIE") != person("DUPONT^MARIE", "255081416802538")
    accession = Binding(kind=OppositionKind.ACCESSION, emetteur="csrom41200", accession="4547")
    assert PATIENT.key != accession.key


# Sites and their patients -------------------------------------------------------------------------------------------


def at(site: str, ipp: str) -> Binding:
    long_ids = {"~0123456789abcdef0123456789abcdef@csrom41200": ("L" * 60, "csrom41200")}
    return located(Binding(kind=OppositionKind.PATIENT, emetteur=site, ipp=ipp), DIRECTORY, long_ids)


def test_an_ipp_is_taken_as_it_is_shown() -> None:
    assert at("CSROM41200", "4547") == PATIENT
    assert at("csrom41200", "4547@CSROM41200") == PATIENT
    assert at("csrom41200", "4547@elsewhere").ipp == "4547@elsewhere"  # no site: a part of the number
    assert at("csrom41200", "~0123456789abcdef0123456789abcdef@csrom41200").ipp == "L" * 60


@pytest.mark.parametrize(
    ("site", "ipp", "field", "words"),
    [
        ("nowhere", "1", "site", "no site has the EMETTEUR 'nowhere'"),
        ("csrom41200", "4547@csblo41000", "ipp", "one of csblo41000, not of csrom41200"),
        ("csblo41000", "~0123456789abcdef0123456789abcdef@csrom41200", "ipp", "one of csrom41200"),
        ("csrom41200", "~1123456789abcdef0123456789abcdef@csrom41200", "ipp", "give that IPP"),
        ("csrom41200", "~none.0123456789abcdef@csrom41200", "ipp", "the study's UID"),
    ],
)
def test_an_ipp_of_nobody_at_the_site_is_told(site: str, ipp: str, field: str, words: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        at(site, ipp)
    assert caught.value.problems[0][0] == field
    assert words in caught.value.problems[0][1]


# Who may ------------------------------------------------------------------------------------------------------------


def test_a_correspondent_records_for_his_own_site_and_the_referent_everything() -> None:
    for binding in (PATIENT, PERSON, STUDY):
        assert why_not_record(REFERENT, binding) is None
        assert "no correspondent" in str(why_not_record(PRACTITIONER, binding))
    assert why_not_record(CORRESPONDENT, PATIENT) is None
    assert why_not_record(CORRESPONDENT, STUDY) is None
    assert "MIRC correspondent of csrom41200 or by the referent" in str(why_not_record(ELSEWHERE, PATIENT))
    assert "is recorded by the referent" in str(why_not_record(CORRESPONDENT, PERSON))
    nobody = Requester(id="1", role=Role.CORRESPONDENT)
    assert why_not_record(nobody, STUDY) is not None


def test_who_lifts_is_who_might_have_recorded_it() -> None:
    for binding in (PATIENT, PERSON, STUDY):
        assert why_not_lift(REFERENT, binding, "csrom41200") is None
        assert "are lifted by" in str(why_not_lift(PRACTITIONER, binding, "csrom41200"))
    assert why_not_lift(CORRESPONDENT, PATIENT, "csblo41000") is None
    assert "is lifted by the MIRC correspondent of csrom41200" in str(why_not_lift(ELSEWHERE, PATIENT, "csblo41000"))
    assert "is lifted by the referent" in str(why_not_lift(CORRESPONDENT, PERSON, "csrom41200"))
    assert why_not_lift(CORRESPONDENT, STUDY, "csrom41200") is None
    assert "recorded at csrom41200" in str(why_not_lift(ELSEWHERE, STUDY, "csrom41200"))


def test_a_near_match_is_decided_where_the_patient_is() -> None:
    assert why_not_decide(REFERENT, "csrom41200") is None
    assert why_not_decide(CORRESPONDENT, "csrom41200") is None
    for who in (ELSEWHERE, PRACTITIONER):
        assert "correspondent of csrom41200 decides" in str(why_not_decide(who, "csrom41200"))
