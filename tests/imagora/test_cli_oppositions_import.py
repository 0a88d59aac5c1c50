"""`imagora oppositions import`, and the reader of its tables."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.opposition_commands import BLO, INS, REF, ROM, Imagora
from support.values import DIRECTORY

from consent.bindings import FIELDS, OppositionKind
from imagora.commands.opposition_table import Table, read_table
from registry.database import Database
from registry.table import TableError

TODAY = date(2026, 3, 1)
HEAD = "study;accession;ipp;site;person;born;sex;ins;channel;on;reason"


def read(content: bytes | str) -> Table:
    data = content.encode() if isinstance(content, str) else content
    return read_table(data, DIRECTORY, today=TODAY, long_ids={})


def problems(content: bytes | str) -> list[str]:
    with pytest.raises(TableError) as caught:
        read(content)
    return list(caught.value.problems)


# The reader ---------------------------------------------------------------------------------------------------------


def test_a_table_of_every_kind_is_read() -> None:
    table = read(
        f"""{HEAD}
1.2.3 1.2.4;;;;;;;;letter;2026-01-31;"a; b"

;A1;;CSROM41200;;;;;form;;
;;4547@csrom41200;csrom41200;;;;;oral;31/01/2026;
;;;;Dupont-Lévy^Marie;12/05/1960;f;{INS};oral;;
"""
    )
    assert [line.number for line in table.lines] == [2, 4, 5, 6]
    said = [line.declaration for line in table.lines]
    assert [d.binding.kind for d in said] == ["study", "accession", "patient", "person"]
    assert said[0].binding.study_uids == ("1.2.3", "1.2.4")
    assert said[0].reason == "a; b"
    assert (said[1].binding.emetteur, said[1].binding.accession, said[1].declared_on) == ("csrom41200", "A1", TODAY)
    assert (said[2].binding.ipp, said[2].declared_on) == ("4547", date(2026, 1, 31))
    assert (said[3].binding.name, said[3].binding.birth_date, said[3].binding.ins) == (
        *("Dupont-Lévy^Marie", "19600512", INS),
    )


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_spreadsheets_write_tables_in_many_ways(separator: str, ending: str, encoding: str) -> None:
    lines = ["channel;person;born;sex", "letter;LEFÈVRE^Éloïse;1960-05-12;F", ""]
    table = read(ending.join(lines).replace(";", separator).encode(encoding))
    assert table.lines[0].declaration.binding.name == "LEFÈVRE^Éloïse"
    assert table.encoding == ("Windows-1252" if encoding == "cp1252" else "UTF-8")


@pytest.mark.parametrize("encoding", ["mac_roman", "cp850", "utf-16"])
def test_letters_that_would_turn_into_others_are_not_read(encoding: str) -> None:
    table = "channel;person;born;sex\nletter;Lefèvre^Éloïse;1960-05-12;F\n"
    assert "neither UTF-8 nor Windows-1252" in problems(table.encode(encoding))[0]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "no column says what is opposed"),
        ("channel\n", "no column says what is opposed"),
        ("study\n1.2\n", "column 'channel' is missing"),
        ("study;channel;name\n", "column 3 ('name') is unknown: remove it"),
        ("study;channel;study\n", "column 'study' stands twice"),
        ("study;channel\n", "line 2: there is no opposition"),
        ("study;channel\n;\n", "line 2: there is no opposition"),
        ("study;channel\n1.2;oral;x\n", "line 2: has 3 cells where the first line has 2"),
        ('study;channel\n1.2;"oral\n', "line 2: not CSV"),
        ("study;channel\n1.2;mail\n", "line 2, column channel: 'mail' is not a channel"),
        ("study;channel;reason\n1.2;oral;a\0b\n", "line 2, column reason: has a line break or control character"),
        ("ipp;site;channel\n1;nowhere;oral\n", "line 2, column site: no site has the EMETTEUR 'nowhere'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(table: str, words: str) -> None:
    assert words in problems(table)[0]


def test_every_problem_of_every_line_is_named() -> None:
    found = problems("study;ipp;site;channel\n1.2.x;;;oral\n1.2.3;;;oral\n;4547;;oral\n\n;45\\47;csrom41200;\n")
    assert [problem.partition(":")[0] for problem in found] == [
        "line 2, column study",
        "line 4, column site",
        "line 6, column ipp",
        "line 6, column channel",
    ]


def test_a_line_is_named_by_where_it_begins() -> None:
    found = problems('study;reason;channel\n1.2;"a\nb";oral\n1.x;;oral\n')
    assert [problem.partition(",")[0] for problem in found] == ["line 2", "line 4"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_problems_with_their_lines(content: bytes) -> None:
    found: Sequence[str] = ()
    try:
        table = read(content)
    except TableError as error:
        found = error.problems
    else:
        assert table.lines
    assert all(problem.startswith("line ") for problem in found)


cells = st.one_of(
    st.sampled_from(["", "", "1.2.3", "A1", "csrom41200", "Dupont^Marie", "19600512", "F", INS, "oral", "2026-01-01"]),
    st.text(max_size=12),
)


@given(
    columns=st.lists(st.sampled_from(FIELDS), min_size=1, unique=True),
    rows=st.lists(st.lists(cells, min_size=11, max_size=11), max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "latin-1"]),
    separator=st.sampled_from(",;"),
    cut=st.integers(0, 500),
)
def test_likely_tables_are_read_or_their_problems_named(
    columns: list[str], rows: list[list[str]], encoding: str, separator: str, cut: int
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    writer.writerows([columns, *(row[: len(columns)] for row in rows)])
    found: Sequence[str] = ()
    lines = 0
    try:
        table = read(out.getvalue().encode(encoding, "replace")[: cut + 20])
        lines = len(table.lines)
    except TableError as error:
        found = error.problems
    assert bool(lines) is not bool(found)
    assert all(problem.startswith("line ") for problem in found)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20))
def test_lines_stay_in_their_order(numbers: list[int]) -> None:
    table = read("ipp,site,channel\n" + "".join(f"{n},csrom41200,oral\n" for n in numbers))
    assert [line.declaration.binding.ipp for line in table.lines] == [str(n) for n in numbers]
    assert [line.number for line in table.lines] == list(range(2, len(numbers) + 2))
    assert all(line.declaration.binding.kind is OppositionKind.PATIENT for line in table.lines)


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def imagora(postgres: Callable[[], str], tmp_path: Path) -> Imagora:
    made = Imagora(postgres(), tmp_path)
    made.configure()
    made.register()
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "refusals.csv"


def test_a_table_is_recorded_once_and_traced_once(imagora: Imagora, file: Path) -> None:
    file.write_text("ipp;site;channel;on\n4547;csrom41200;letter;\n4548;csrom41200;form;2026-01-31\n")
    done = imagora.oppositions("import", str(file), "--by", ROM)
    assert done.exit_code == 0, done.output
    first, second = (o["id"] for o in imagora.listed())
    assert done.stdout == f"2 oppositions recorded (ids {first} to {second}), 0 stood already.\n"
    assert [(o["ipp"], o["channel"], o["resolved_at"]) for o in imagora.listed()] == [
        ("4547", "letter", None),
        ("4548", "form", None),
    ]
    assert [(t["requester_id"], t["origin"], t["detail"]) for t in imagora.traces()] == [
        (
            ROM,
            "csrom41200",
            {"action": "oppositions-imported", "oppositions": 2, "first": first, "last": second},
        )
    ]
    again = imagora.oppositions("import", str(file), "--by", ROM)
    assert again.stdout == "0 oppositions recorded, 2 stood already.\n"
    assert again.stderr.splitlines() == [
        f"line 2: opposition {first} binds the same and stands already",
        f"line 3: opposition {second} binds the same and stands already",
    ]
    assert len(imagora.traces()) == 1
    file.write_text(file.read_text() + "4549;csrom41200;oral;\n4549;csrom41200;oral;\n")
    more = imagora.oppositions("import", str(file), "--by", ROM)
    assert more.stdout == f"1 opposition recorded (id {second + 1}), 3 stood already.\n"
    assert f"line 5: opposition {second + 1} binds the same" in more.stderr


def test_one_bad_line_keeps_all_out(imagora: Imagora, file: Path) -> None:
    file.write_text(
        "study,ipp,site,person,born,sex,ins,channel\n"
        "1.2.3,,,,,,,oral\n"
        ",4547,csblo41000,,,,,oral\n"
        ",,,DUPONT MARIE,19600512,F,,oral\n"
        f",,,,,,{INS},oral\n"
    )
    result = imagora.oppositions("import", str(file), "--by", ROM)
    assert (result.exit_code, result.stdout) == (1, "")
    two, three, four = result.stderr.splitlines()
    assert two.startswith("Error: line 3: ")
    assert "is recorded by the MIRC correspondent of csblo41000 or by the referent" in two
    assert three.startswith("line 4, column person: 'DUPONT MARIE' does not tell family and given name apart")
    assert four.startswith("line 5: ")
    assert "is recorded by the referent" in four
    assert imagora.listed("list", "--all") == imagora.traces() == []


def test_the_referent_imports_for_all(imagora: Imagora, file: Path) -> None:
    file.write_bytes(
        f"{HEAD}\n;;1;csrom41200;;;;;oral;;\n;;1;csblo41000;;;;;oral;;\n;;;;LEFÈVRE^Zoé;19600512;F;;oral;;\n".encode(
            "cp1252"
        )
    )
    result = imagora.oppositions("import", str(file), "--by", REF)
    assert result.exit_code == 0, result.output
    assert "was read as Windows-1252: check the names with accents" in result.stderr
    assert [o["name"] for o in imagora.listed()] == [None, None, "LEFÈVRE^Zoé"]
    assert [t["origin"] for t in imagora.traces()] == [""]
    assert imagora.oppositions("import", str(file), "--by", BLO).exit_code == 1


def test_ten_thousand_lines_are_recorded_together(imagora: Imagora, file: Path) -> None:
    file.write_text("ipp,site,channel\n" + "".join(f"P{n},csrom41200,letter\n" for n in range(10_000)))
    result = imagora.oppositions("import", str(file), "--by", ROM)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("10000 oppositions recorded (ids ")

    async def moments() -> tuple[int, int]:
        async with Database(imagora.database) as database:
            row = await database.fetchrow("SELECT count(*) AS n, count(DISTINCT recorded_at) AS m FROM opposition")
            assert row is not None
            return row["n"], row["m"]

    assert asyncio.run(moments()) == (10_000, 1)
    again = imagora.oppositions("import", str(file), "--by", ROM)
    assert again.stdout == "0 oppositions recorded, 10000 stood already.\n"
    assert again.stderr.splitlines()[-1] == "… and 9980 more lines that stand already"


def test_a_file_that_cannot_be_read_is_told(imagora: Imagora, tmp_path: Path) -> None:
    assert imagora.oppositions("import", str(tmp_path / "none.csv"), "--by", ROM).exit_code == 2
    assert imagora.oppositions("import", str(tmp_path), "--by", ROM).exit_code == 2


def test_an_import_that_cannot_be_traced_is_none(imagora: Imagora, file: Path) -> None:
    standing = imagora.add("--study", "1.2.3")
    (imagora.state / "trace-key.pem").chmod(0o644)
    file.write_text("study;channel\n1.2.4;oral\n")
    result = imagora.oppositions("import", str(file), "--by", ROM)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "So nothing was changed" in result.stderr
    assert [o["id"] for o in imagora.listed()] == [standing]
