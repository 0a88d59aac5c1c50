"""Keys that sign heads of chains, and the file outside the database that keeps the heads."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from consent.chain import Head, HeadKind, signed_bytes

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
#: The key may be its owner's and readable to his group (as secrets mounted into a container are), no more.
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO


class KeyProblem(Exception):
    """A file of keys cannot be used. The text names the file and says what to do."""


class Keys:
    """The key that signs heads, if this process has one, and all keys whose signatures are trusted (Ed25519)."""

    def __init__(self, private: Ed25519PrivateKey | None, trusted: Iterable[Ed25519PublicKey] = ()) -> None:
        self._private = private
        public = [*trusted, *([private.public_key()] if private is not None else [])]
        self._trusted = {key_name(key): key for key in public}
        self.name = key_name(private.public_key()) if private is not None else ""

    def sign(self, head: Head) -> Head:
        """The head with the name of our key and its signature."""
        assert self._private is not None, "only who has the private key signs"
        named = replace(head, key=self.name)
        return replace(named, signature=self._private.sign(signed_bytes(named)))

    def knows(self, name: str) -> bool:
        return name in self._trusted

    def verify(self, head: Head) -> bool:
        """True if a trusted key signed exactly this."""
        key = self._trusted.get(head.key)
        if key is None:
            return False
        try:
            key.verify(head.signature, signed_bytes(head))
        except InvalidSignature:
            return False
        return True


def key_name(key: Ed25519PublicKey) -> str:
    """16 hex digits of SHA-256 over the public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def load_keys(path: Path) -> Keys | None:
    """Keys of a PEM file: at most one PRIVATE KEY, which signs, and any PUBLIC KEY, as of keys that signed earlier or
    sign elsewhere. None if there is no such file. Raises `KeyProblem`.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyProblem(f"cannot read the key of the traces {path}: {error.strerror}") from None
    private: list[Ed25519PrivateKey] = []
    public: list[Ed25519PublicKey] = []
    try:
        for block in _PEM.finditer(content):
            if b"PRIVATE" in block[1]:
                secret = load_pem_private_key(block[0] + b"\n", None)
                if not isinstance(secret, Ed25519PrivateKey):
                    raise ValueError
                private.append(secret)
            else:
                open_key = load_pem_public_key(block[0] + b"\n")
                if not isinstance(open_key, Ed25519PublicKey):
                    raise ValueError
                public.append(open_key)
    except (ValueError, TypeError):
        raise KeyProblem(f"{path} is no PEM file of Ed25519 keys without a password") from None
    if len(private) > 1 or not (private or public):
        raise KeyProblem(f"{path} must hold one PRIVATE KEY at most, and at least one key")
    if private and mode & _TOO_OPEN:
        raise KeyProblem(f"{path} can be read or changed by others: chmod 600 it")
    return Keys(private[0] if private else None, public)


def load_or_make_keys(path: Path) -> Keys:
    """Like `load_keys`, but a file that is not there is made, mode 0600, once for all processes that use it."""
    keys = load_keys(path)
    if keys is None:
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _place(path, pem)
        except OSError as error:
            raise KeyProblem(f"cannot make the key of the traces {path}: {error.strerror}") from None
        keys = load_keys(path)
    if keys is None or not keys.name:
        raise KeyProblem(f"{path} has no PRIVATE KEY, so heads of traces cannot be signed")
    return keys


def _place(path: Path, content: bytes) -> None:
    """Under its name the file is whole at once, and the first of several processes wins."""
    handle, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        with suppress(FileExistsError):
            os.link(name, path)
        _sync_folder(path.parent)
    finally:
        Path(name).unlink()


class HeadFile:
    """One JSON object a line, only ever appended to, on the disk when `append` returns. For any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, heads: Iterable[Head]) -> None:
        """Raises `OSError`."""
        lines = b"".join(orjson.dumps(_as_object(head)) + b"\n" for head in heads)
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Another's append may be visible half-done: its end would be taken for a line that a crash cut short.
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a line that a crash cut short stays by itself
            written = os.write(handle, lines)
            if written != len(lines):
                raise OSError(0, "the disk is full")
            os.fsync(handle)
        finally:
            os.close(handle)
        if not size:
            _sync_folder(self.path.parent)


@dataclass(frozen=True, slots=True)
class ReadHeads:
    """What a file of heads holds: of each chain the last head, and all of rows that were dropped."""

    heads: dict[str, list[Head]]
    lines: int
    unreadable: tuple[int, ...]  # numbers of lines that are no heads, as of one that a crash cut short


def read_heads(path: Path) -> ReadHeads:
    """Raises `OSError`. Signatures are not checked."""
    last: dict[str, Head] = {}
    dropped: dict[str, dict[int, Head]] = {}
    unreadable: list[int] = []
    number = 0
    for number, head in _numbered(path):
        if head is None:
            unreadable.append(number)
        elif head.kind is HeadKind.DROPPED:
            dropped.setdefault(head.writer, {})[head.sequence] = head
        elif head.writer not in last or last[head.writer].sequence <= head.sequence:
            last[head.writer] = head
    writers = {**last, **dropped}
    heads = {w: [*([last[w]] if w in last else []), *dropped.get(w, {}).values()] for w in writers}
    return ReadHeads(heads, number, tuple(unreadable))


def _numbered(path: Path) -> Iterator[tuple[int, Head | None]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, _from_object(orjson.loads(line))
            except (ValueError, KeyError, TypeError):
                yield number, None


def _as_object(head: Head) -> dict[str, object]:
    return {
        "writer": head.writer,
        "sequence": head.sequence,
        "kind": head.kind.value,
        "hash": head.hash.hex(),
        "signed_at": head.signed_at.isoformat(),
        "key": head.key,
        "signature": base64.b64encode(head.signature).decode(),
    }


def _from_object(value: dict[str, str]) -> Head:
    return Head(
        writer=str(value["writer"]),
        sequence=int(value["sequence"]),
        kind=HeadKind(value["kind"]),
        hash=bytes.fromhex(value["hash"]),
        signed_at=datetime.fromisoformat(value["signed_at"]),
        key=str(value["key"]),
        signature=base64.b64decode(value["signature"]),
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
