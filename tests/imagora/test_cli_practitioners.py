"""`imagora practitioners` and `imagora token` as people run them, on a real embedded PostgreSQL."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consent.tokens import KeySet, verify
from imagora.cli import cli
from imagora.demo_issuer import demo_issuer, demo_rules
from imagora.settings import load_settings
from registry.embedded import Lease

SITE = '[[sites]]\nemetteur = "csrom41200"\nsite = 423\nname = "Romorantin (CH)"\n'
MARTIN = ("--rpps", "10001234567", "--name", "MARTIN^CLAIRE", "--site", "csrom41200")
Imagora = Callable[..., Result]


@pytest.fixture
def imagora(tmp_path: Path) -> Iterator[Imagora]:
    """Runs a command on a settings file; a first argument `settings=` writes it anew."""
    state = tmp_path / "state"
    config = tmp_path / "imagora.toml"
    lease = Lease(state)
    lease.acquire()

    def run(*arguments: str, auth: str = "") -> Result:
        config.write_text(f'[server]\nstate_dir = "{state}"\n[auth]\n{auth}\n{SITE}')
        cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("IMAGORA_")}
        return CliRunner().invoke(cli, [*arguments, "--config", str(config)], env=cleared)

    try:
        yield run
    finally:
        lease.release()


def listed(result: Result) -> dict[str, dict[str, object]]:
    assert result.exit_code == 0, result.output
    return {person["rpps"]: person for person in json.loads(result.stdout)}


def test_practitioners_are_added_signed_listed_suspended_and_resumed(imagora: Imagora) -> None:
    added = imagora("practitioners", "add", *MARTIN, "--role", "correspondent")
    assert added.exit_code == 0, added.output
    assert added.stdout.splitlines() == [
        "10001234567 is registered: MARTIN^CLAIRE, correspondent at csrom41200.",
        "Next, once version 1 of the charter is signed: imagora practitioners sign --rpps 10001234567",
    ]
    assert imagora("practitioners", "sign", "--rpps", "810001234567").stdout.startswith("10001234567 has signed")
    assert " already (" in imagora("practitioners", "sign", "--rpps", "10001234567").stdout
    person = listed(imagora("practitioners", "list", "--format", "json"))["10001234567"]
    assert (person["site"], person["role"], person["charter_version"]) == ("csrom41200", "correspondent", "1")
    assert person["may_ask"] is True
    lines = imagora("practitioners", "list").stdout.splitlines()
    assert lines[0].split() == ["RPPS", "NAME", "SITE", "ROLE", "CHARTER", "STATUS"]
    assert lines[-1] == "1 practitioner; 1 may ask (charter version 1)."
    assert imagora("practitioners", "suspend", "--rpps", "10001234567").stdout == "10001234567 is suspended.\n"
    assert "suspended already" in imagora("practitioners", "suspend", "--rpps", "10001234567").stdout
    again = imagora("practitioners", "add", *MARTIN, "--role", "referent")
    assert "stays suspended" in again.stderr
    assert not listed(imagora("practitioners", "list", "--format", "json"))["10001234567"]["may_ask"]
    assert imagora("practitioners", "resume", "--rpps", "10001234567").stdout == "10001234567 is active again.\n"
    # A new version of the charter asks for a new signature.
    new = 'charter_version = "2"'
    person = listed(imagora("practitioners", "list", "--format", "json", auth=new))["10001234567"]
    assert (person["may_ask"], person["charter_version"]) == (False, "1")
    assert "2 to be signed" in imagora("practitioners", "list", auth=new).stdout
    imagora("practitioners", "sign", "--rpps", "10001234567", auth=new)
    assert listed(imagora("practitioners", "list", "--format", "json", auth=new))["10001234567"]["may_ask"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("sign", "--rpps", "10001234567"), 1, "no practitioner has the RPPS 10001234567"),
        (("suspend", "--rpps", "10001234567"), 1, "no practitioner has the RPPS"),
        (("sign", "--rpps", "1234"), 2, "is not an RPPS"),
        (("add", *MARTIN[:-1], "nowhere"), 1, "no site has the EMETTEUR 'nowhere'"),
        (("add", *MARTIN, "--role", "king"), 2, "'king' is not one of"),
        (("add", *MARTIN[:2], "--name", " ", *MARTIN[4:]), 2, "is not a name"),
    ],
)
def test_what_cannot_be_done_is_told(imagora: Imagora, arguments: tuple[str, ...], status: int, words: str) -> None:
    result = imagora("practitioners", *arguments)
    assert (result.exit_code, words in result.stderr) == (status, True), result.stderr


def test_the_demonstration_gives_tokens_and_nothing_else_does(imagora: Imagora, tmp_path: Path) -> None:
    refused = imagora("token", "--as", "10001234567")
    assert (refused.exit_code, 'auth.mode is "local"' in refused.stderr) == (1, True)
    given = imagora("token", "--as", "10001234567", auth='mode = "demo"')
    assert given.exit_code == 0, given.output
    settings = load_settings(tmp_path / "imagora.toml")
    keys = KeySet.read(demo_issuer(settings.server.state_dir).key_set())
    taken = verify(given.stdout.strip(), keys, demo_rules(settings), time.time())
    assert taken.identifier == "810001234567"
    assert imagora("token", "--as", "me", auth='mode = "demo"').exit_code == 2
    (tmp_path / "state" / "demo-issuer.pem").chmod(0o644)
    loose = imagora("token", "--as", "10001234567", auth='mode = "demo"')
    assert (loose.exit_code, "others can read this key" in loose.stderr) == (2, True)
