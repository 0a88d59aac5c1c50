"""What docs/operations.md and the comments of conf/ name is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from imagora.cli import cli
from imagora.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "operations.md"
TEXTS = [DOCUMENT, *sorted(p for p in (ROOT / "conf").rglob("*") if p.is_file() and p.suffix != ".json")]
#: Made by the operator, or by a command of the text.
MADE = re.compile(r"conf/secrets/")


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_files_and_settings_that_are_named_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.-])((?:conf|docs|tests|scripts)/[\w.@/-]*\w)", text):
        assert MADE.match(name) or (ROOT / name).exists(), name
    settings = re.compile(r"\b(server|database|search|store|traces|auth|portal)\.([a-z_]+)\b(?![./(])")
    for table, key in settings.findall(text.replace("-m portal.assets", "")):
        section = Settings.model_fields[table].annotation
        assert section is not None
        assert key in section.model_fields, f"{table}.{key}"


def test_commands_that_are_named_are_there() -> None:
    found = re.findall(r"\bimagora ((?:[a-z]+ ?){1,2})", DOCUMENT.read_text(encoding="utf-8"))
    known = 0
    for words in (line.split() for line in found):
        command: click.Command | None = cli
        for word in words:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
            if command is None and word == words[0]:
                break
            assert command is not None, words
            known += 1
    assert known >= 8


def test_messages_to_watch_for_are_those_of_the_log() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    source = (ROOT / "consent" / "keeper.py").read_text(encoding="utf-8")
    for message in (
        "signed heads of traces cannot be written",
        "abandoned chains cannot be signed",
        "months of traces cannot be made or dropped",
    ):
        assert f"`{message}`" in text
        assert message in source
