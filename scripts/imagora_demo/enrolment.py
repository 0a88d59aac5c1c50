"""Who may ask in the demonstration, and what its patients refuse: recorded with the commands that people use.

Everybody is fictitious, and so are the numbers. Each start records what is missing; what stands already stays.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import click

from imagora.cli import cli
from imagora_demo import cast
from imagora_demo.members import DemoError


@dataclass(frozen=True, slots=True, kw_only=True)
class Professional:
    """Somebody who may sign in. `role` as `imagora practitioners add` takes it."""

    rpps: str
    name: str
    site: cast.DemoSite
    role: str = "practitioner"
    signed: bool = True  # the charter


CLAIRE = Professional(rpps="10001234567", name="MARTIN^CLAIRE", site=cast.BLOIS)
PAUL = Professional(rpps="10002345678", name="BERGER^PAUL", site=cast.TOURS)
LUC = Professional(rpps="10003456789", name="PETIT^LUC", site=cast.ROMORANTIN, role="correspondent")
ANNE = Professional(rpps="10004567890", name="MOREL^ANNE", site=cast.ORLEANS, role="correspondent")
EVE = Professional(rpps="10005678901", name="ROUX^EVE", site=cast.TOURS, role="referent")
JULIE = Professional(rpps="10006789012", name="LAMBERT^JULIE", site=cast.IMAGERIE_37, signed=False)
PROFESSIONALS = (CLAIRE, PAUL, LUC, ANNE, EVE, JULIE)


def _commands() -> list[tuple[str, ...]]:
    commands: list[tuple[str, ...]] = []
    for person in PROFESSIONALS:
        rpps = ("--rpps", person.rpps)
        about = ("--name", person.name, "--site", person.site.emetteur, "--role", person.role)
        commands.append(("practitioners", "add", *rpps, *about))
        commands.append(("practitioners", "resume", *rpps))
        if person.signed:
            commands.append(("practitioners", "sign", *rpps))
    opposed = cast.exam_of(cast.OPPOSED_EXAM).study_uid
    martin = ("--person", cast.MARTIN.name, "--born", cast.MARTIN.born, "--sex", cast.MARTIN.sex)
    withheld = cast.exam_of(cast.WITHHELD_EXAM)
    which = ("--study", withheld.study_uid, "--site", withheld.site.emetteur)
    return [
        *commands,
        ("oppositions", "add", "--study", opposed, "--by", ANNE.rpps, "--channel", "form"),
        ("oppositions", "add", *martin, "--by", EVE.rpps, "--channel", "letter"),
        ("exams", "withhold", *which, "--by", EVE.rpps, "--reason", "patiente non informée"),
    ]


def enrol(settings: Path) -> None:
    """Record it all in the database of this settings file. Raises `DemoError`."""
    for command in _commands():
        imagora(settings, *command)


def imagora(settings: Path, *arguments: str) -> str:
    """What the program `imagora` prints, run in this process, which spares its start. Raises `DemoError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            cli.main([*arguments, "--config", str(settings)], prog_name="imagora", standalone_mode=False)
    except click.ClickException as error:
        raise DemoError(f"imagora {' '.join(arguments[:2])}: {error.format_message()}") from None
    return said.getvalue()


def token(settings: Path, rpps: str) -> str:
    """A bearer token of the demonstration's own issuer, good for an hour."""
    return imagora(settings, "token", "--as", rpps).strip()
