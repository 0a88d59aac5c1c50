from __future__ import annotations

from collections.abc import Callable

import pytest

from registry import rules
from registry.model import Folder, Site


def site(emetteur: str, number: int, *, aet: str | None = None, folder: str | None = None) -> Site:
    return Site(emetteur=emetteur, number=number, name=emetteur, aet=aet, folder=folder)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (rules.check_emetteur, ["csrom41200", "CH_GIEN", "a.b-c"], ["", "a b", "a@b", "é", "x" * 17, "a\n"]),
        (rules.check_ae_title, ["MIRC_HIST", "A B", "X!"], ["", " A", "A ", "A\\B", "é", "x" * 17, "A\n"]),
        (rules.check_oid, ["1.2.250.1.999.423", "2.0"], ["", "1", "1.02", "3.1", "1.2.", "1." * 32 + "10"]),
        (rules.check_host, ["pacs.example", "127.0.0.1", "::1", "localhost"], ["", "a b", "a/b", "http://x", "-"]),
        (rules.check_name, ["Vendôme (CH)", "x" * 64], ["", " ", "x" * 65, "a\\b", "a\nb"]),
    ],
)
def test_what_a_value_may_look_like(check: Callable[[str], object], good: list[str], bad: list[str]) -> None:
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match="not a"):
            check(value)


def test_a_url_loses_its_trailing_slashes() -> None:
    assert rules.check_http_url("HTTP://pacs:8042/dicom-web//") == "HTTP://pacs:8042/dicom-web"


@pytest.mark.parametrize(
    "url",
    [
        "pacs.example/dicom-web",
        "ftp://pacs.example",
        "http://",
        "http:///x",
        "http://user@pacs.example",
        "http://user:secret@pacs.example",
        "http://pacs.example/?a=b",
        "http://pacs.example/?",
        "http://pacs.example/#x",
        "http://pacs.example:0",
        "http://pacs.example:99999",
        "http://pacs.example:x",
        "http://[::1",
        "http://pacs .example",
        "http://pacs.example/\x7f",
    ],
)
def test_a_url_that_is_not_a_plain_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        rules.check_http_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sites", "folders", "problem"),
    [
        ([site("csa", 1), site("CSA", 2)], [], "EMETTEUR CSA stands twice"),
        ([site("csa", 1), site("csb", 1)], [], "SITE 1 belongs to both csa and csb"),
        ([site("csa", 1, folder="X")], [Folder(name="Y")], "csa: there is no folder 'X'"),
        ([], [Folder(name="A b"), Folder(name="à B")], "would both be /folders/a-b"),
        ([], [Folder(name="!")], "has no letter or digit"),
        ([site("imagora", 1)], [], "AE title 'imagora' stands for the node's AE title and the EMETTEUR of site 1"),
        ([site("csa", 1, aet="CSB"), site("csb", 2)], [], "the AE title of csa and the EMETTEUR of site 2"),
        ([site("csa", 1, aet="X"), site("csb", 2, aet="x")], [], "the AE title of csa and the AE title of csb"),
        ([site("csa", 1)], [Folder(name="F", ae_title="CSA")], "the AE title of folder 'F' and the EMETTEUR"),
        ([], [Folder(name="F", ae_title="X"), Folder(name="G", ae_title="x")], "folder 'F' and the AE title of folder"),
    ],
)
def test_each_name_stands_for_one_thing(sites: list[Site], folders: list[Folder], problem: str) -> None:
    problems = rules.registry_conflicts(sites, folders, "IMAGORA")
    assert any(problem in text for text in problems), problems


def test_a_site_may_use_its_emetteur_as_its_title() -> None:
    assert rules.registry_conflicts([site("csa", 1, aet="CSA")], [], "IMAGORA") == []
