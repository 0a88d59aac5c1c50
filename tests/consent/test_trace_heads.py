"""Keys that sign heads, and the file that keeps them."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from consent.chain import Head, HeadKind
from consent.heads import HeadFile, KeyProblem, Keys, load_keys, load_or_make_keys, read_heads

HEAD = Head(
    writer="w", sequence=7, hash=bytes(range(32)), kind=HeadKind.HEAD, signed_at=datetime(2026, 1, 31, tzinfo=UTC)
)


def public_pem(path: Path) -> bytes:
    private = load_pem_private_key(path.read_bytes(), None)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "trace-key.pem"
    keys = load_or_make_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make_keys(path).name == keys.name
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "trace-key.pem"
    with ThreadPoolExecutor(8) as pool:
        assert len({keys.name for keys in pool.map(load_or_make_keys, [path] * 16)}) == 1


def test_a_signature_covers_all_of_a_head(keys: Keys) -> None:
    signed = keys.sign(HEAD)
    assert keys.verify(signed)
    for change in (
        {"writer": "v"},
        {"sequence": 8},
        {"hash": bytes(32)},
        {"kind": HeadKind.DROPPED},
        {"signed_at": datetime(2026, 2, 1, tzinfo=UTC)},
        {"signature": bytes(64)},
        {"key": "0" * 16},
    ):
        assert not keys.verify(replace(signed, **change)), change


def test_another_key_is_not_trusted_unless_its_public_part_is_there(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    signed = load_or_make_keys(old).sign(HEAD)
    assert not load_or_make_keys(new).verify(signed)
    new.write_bytes(new.read_bytes() + public_pem(old))
    assert load_or_make_keys(new).verify(signed)


def test_who_only_checks_needs_the_public_part_only(tmp_path: Path) -> None:
    path, public = tmp_path / "key.pem", tmp_path / "public.pem"
    signed = load_or_make_keys(path).sign(HEAD)
    public.write_bytes(public_pem(path))
    public.chmod(0o644)
    keys = load_keys(public)
    assert keys is not None
    assert keys.verify(signed)
    with pytest.raises(KeyProblem, match="cannot be signed"):
        load_or_make_keys(public)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    load_or_make_keys(path)
    path.chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        load_keys(path)
    path.chmod(0o440)  # as secrets mounted into a container
    assert load_keys(path) is not None


def test_what_is_no_key_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    two = b"".join(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for _ in range(2)
    )
    for content in (b"", b"nonsense", rsa, two, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyProblem, match=r"key\.pem"):
            load_keys(path)
    assert load_keys(tmp_path / "missing.pem") is None


def test_heads_come_back_from_the_file(keys: Keys, head_file: HeadFile) -> None:
    heads = [keys.sign(replace(HEAD, sequence=number)) for number in (3, 9)]
    dropped = keys.sign(replace(HEAD, sequence=2, kind=HeadKind.DROPPED))
    other = keys.sign(replace(HEAD, writer="v"))
    head_file.append(heads[:1])
    head_file.append([heads[1], dropped, other])
    read = read_heads(head_file.path)
    assert read.heads == {"w": [heads[1], dropped], "v": [other]}
    assert (read.lines, read.unreadable) == (4, ())
    assert stat.S_IMODE(head_file.path.stat().st_mode) == 0o600


def test_a_line_cut_short_by_a_crash_costs_no_other(keys: Keys, head_file: HeadFile) -> None:
    head_file.append([keys.sign(HEAD)])
    with head_file.path.open("ab") as file:
        file.write(b'{"writer": "w", "sequ')
    later = keys.sign(replace(HEAD, sequence=8))
    head_file.append([later])
    read = read_heads(head_file.path)
    assert read.heads == {"w": [later]}
    assert read.unreadable == (2,)


def test_many_processes_append_whole_lines(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from consent.heads import HeadFile; from consent.chain import Head, HeadKind\n"
        "f = HeadFile(Path(sys.argv[1]))\n"
        "for n in range(1, 51): f.append([Head(writer=sys.argv[2], sequence=n, hash=bytes(32), kind=HeadKind.HEAD,"
        " signed_at=datetime.now(UTC))])\n"
    )
    path = tmp_path / "heads.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), f"w{n}"]) for n in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    read = read_heads(path)
    assert (read.lines, read.unreadable, len(read.heads)) == (150, (), 3)
