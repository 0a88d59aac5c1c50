"""An issuer of tokens for tests, and practitioners for its tokens to speak of."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jose import jwk, jws

from consent.tokens import TokenRules
from registry import Role
from registry.database import Database
from registry.practitioners import PractitionerStore

RULES = TokenRules(issuer="https://issuer.example/", audience="imagora", id_claim="SubjectNameID")

#: Within this time of its commit, a change of people, of consent or of the registry holds at every server.
SOON_S = 1.0

GOOD, UNSIGNED, SUSPENDED, UNKNOWN = "10001234567", "10001234568", "10001234569", "10009999999"


class SigningKey:
    """A private key; `entry` is its public part as a JWK Set has it."""

    def __init__(self, kid: str, algorithm: str = "RS256", *, bits: int = 2048, pem: bytes | None = None) -> None:
        self.kid, self.algorithm = kid, algorithm
        private: Any
        if pem is not None:
            private = load_pem_private_key(pem, None)
        elif algorithm == "RS256":
            private = rsa.generate_private_key(65537, bits)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._key = jwk.construct(text, algorithm)
        public = self._key.public_key().to_dict()
        members = {name: value.decode() if isinstance(value, bytes) else value for name, value in public.items()}
        self.entry: dict[str, Any] = {**members, "kid": kid, "alg": algorithm, "use": "sig"}

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        return jws.sign(
            dict(claims), self._key, headers={"kid": self.kid, "typ": "at+jwt", **header}, algorithm=self.algorithm
        )


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.entry for key in keys]}).encode()


def claims(rules: TokenRules = RULES, rpps: str = GOOD, **changes: Any) -> dict[str, Any]:
    """Good claims; `changes` set some, None takes one away."""
    now = int(time.time())
    good = {"iss": rules.issuer, "aud": rules.audience, "exp": now + 600, "iat": now, rules.id_claim: f"8{rpps}"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def unsigned(claims: Mapping[str, Any], kid: str, algorithm: str = "none", signature: bytes = b"") -> str:
    header = {"alg": algorithm, "kid": kid, "typ": "at+jwt"}
    return ".".join((_segment(json.dumps(header).encode()), _segment(json.dumps(claims).encode()), _segment(signature)))


def signed_with_public_key(claims: Mapping[str, Any], key: SigningKey) -> str:
    """HS256 whose secret is the public key: taken by those who let a token choose the algorithm."""
    signing_input = unsigned(claims, key.kid, "HS256").rpartition(".")[0]
    return f"{signing_input}.{_segment(hmac.digest(key.public_pem, signing_input.encode(), sha256))}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bad_tokens(key: SigningKey, other: SigningKey, rules: TokenRules = RULES) -> dict[str, str]:
    """Tokens that nobody may take, by what is wrong. `key` is the issuer's, and `other` too."""
    stranger = SigningKey("stranger")
    past = int(time.time()) - 3600
    good = claims(rules)
    return {
        "expired": key.sign(claims(rules, exp=past, iat=past - 60)),
        "no exp": key.sign(claims(rules, exp=None)),
        "no aud": key.sign(claims(rules, aud=None)),
        "wrong issuer": key.sign(claims(rules, iss="https://other.example/")),
        "wrong audience": key.sign(claims(rules, aud=["other"])),
        "alg none": unsigned(good, key.kid),
        "HS256 signed with the public key": signed_with_public_key(good, key),
        "unknown kid": stranger.sign(good),
        "good signature under another key's kid": key.sign(good, kid=other.kid),
        "ID token": key.sign(claims(rules, nonce="n", at_hash="h"), typ="JWT"),
    }


def register(database_url: str, site: str) -> None:
    """The four: one who may ask, one whose charter is unsigned, one suspended; the fourth is nobody. Every server that
    runs knows of them when this returns."""

    async def write() -> None:
        async with Database(database_url) as database:
            store = PractitionerStore(database)
            for rpps, name in ((GOOD, "MARTIN^CLAIRE"), (UNSIGNED, "PETIT^LUC"), (SUSPENDED, "ROUX^EVE")):
                await store.add(rpps=rpps, name=name, site=site, role=Role.PRACTITIONER)
                if rpps != UNSIGNED:
                    await store.sign(rpps, "1")
            await store.set_active(SUSPENDED, active=False)

    asyncio.run(write())
    time.sleep(SOON_S)
