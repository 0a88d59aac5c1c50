"""The built-in issuer of `auth.mode = "demo"`: one private key under the state folder, readable by its owner only."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from consent.tokens import Issuer, TokenRules
from imagora.setting_errors import SettingsError
from imagora.settings import Settings

FILE = "demo-issuer.pem"
#: Tokens of one demonstration are no good at another: each has its own key.
ISSUER = "urn:imagora:demo"
TOKEN_LIFE_S = 3600.0


def demo_rules(settings: Settings) -> TokenRules:
    return TokenRules(issuer=ISSUER, audience=settings.auth.audience, id_claim=settings.auth.id_claim)


def demo_issuer(state_dir: Path) -> Issuer:
    """The issuer with its key, which is made at first use. Raises `SettingsError` if others could read the key."""
    path = state_dir / FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(str(path), ["others can read this key: delete the file, a new one is made"])
        pem = path.read_text(encoding="ascii")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(str(path), [f"the demonstration's key cannot be kept: {reason}"]) from None
    return Issuer(pem, hashlib.sha256(pem.encode()).hexdigest()[:16])


def demo_token(settings: Settings, rpps: str) -> str:
    """A bearer token of the built-in issuer, good for an hour, its id in the form of Pro Santé Connect (8 + RPPS)."""
    return demo_issuer(settings.server.state_dir).issue(
        demo_rules(settings), f"8{rpps}", now=time.time(), lifetime_s=TOKEN_LIFE_S, jti=secrets.token_urlsafe(12)
    )


def _make(path: Path) -> None:
    """Appears whole, and once: of several processes that start at a time, one makes the key of all."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
