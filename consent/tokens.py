"""Bearer tokens: signed, for us, not expired, and not an ID token. Pure; the only file that imports python-jose.

python-jose by itself takes tokens without `aud` or `exp`, and tries every key of a set whatever the `kid`. So it is
asked one thing only: did this key, by the algorithm that belongs to it, sign these bytes? All else is checked here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from jose import jwk, jws
from jose.backends.base import Key
from jose.exceptions import JOSEError

#: The key's type decides the algorithm, never the token (RFC 8725 §3.1).
_ALGORITHM_OF = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
#: Public members of a key (RFC 7518 §6.2.1, §6.3.1): whatever else stands in a key is not used.
_PUBLIC = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
RSA_BITS_MIN = 2048
#: Clocks of ours and the issuer's may differ by so much.
CLOCK_SKEW_S = 30
TOKEN_MAX = 16 * 1024
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")  # RFC 7515 §7.1
_HEADER_TYPES = frozenset((None, "jwt", "at+jwt", "application/at+jwt"))
_ACCESS_TYPES = frozenset(("at+jwt", "application/at+jwt"))  # RFC 9068 §2.1


class InvalidToken(Exception):
    """The token is not taken. The text says why and holds nothing of the token."""


class UnknownKey(InvalidToken):
    """No key of the issuer's has this `kid`: its keys may have changed."""


class BadKeys(Exception):
    """The issuer's key set cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must say. `id_claim` names the claim that holds the professional's identifier."""

    issuer: str
    audience: str
    id_claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What is taken from a token: who, until when (seconds since 1970), and the token's own id."""

    identifier: str
    expires_at: float
    jti: str = ""


class KeySet:
    """An issuer's public keys, by `kid` and the algorithm that belongs to each."""

    def __init__(self, keys: Mapping[tuple[str, str], Key]) -> None:
        self._keys = dict(keys)
        self._kids = {kid for kid, _ in self._keys}

    @classmethod
    def read(cls, document: bytes) -> KeySet:
        """Read a JWK Set (RFC 7517 §5). Keys that we cannot use are left out: other kinds, other uses, without a
        `kid`, too short. Raises `BadKeys` if none is left."""
        try:
            entries = orjson.loads(document)["keys"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BadKeys("the issuer's keys are not a JWK Set") from None
        keys: dict[tuple[str, str], Key] = {}
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and (usable := _usable(entry)) is not None:
                kid, algorithm, key = usable
                if (kid, algorithm) in keys:
                    raise BadKeys("two of the issuer's keys have one kid")
                keys[kid, algorithm] = key
        if not keys:
            raise BadKeys("the issuer has no key with a kid for RS256 or ES256")
        return cls(keys)

    def key(self, kid: str, algorithm: str) -> Key:
        """Raises `UnknownKey`, or `InvalidToken` if the key is for another algorithm."""
        if (found := self._keys.get((kid, algorithm))) is not None:
            return found
        if kid in self._kids:
            raise InvalidToken("the key is for another algorithm")
        raise UnknownKey("no key of the issuer has this kid")


def _usable(entry: dict[str, Any]) -> tuple[str, str, Key] | None:
    kind, kid = entry.get("kty"), entry.get("kid")
    curve = entry.get("crv") if kind == "EC" else None
    if not isinstance(kind, str) or not isinstance(kid, str) or not kid or not isinstance(curve, str | None):
        return None
    algorithm = _ALGORITHM_OF.get((kind, curve))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    if "verify" not in entry.get("key_ops", ("verify",)):
        return None
    try:
        key = jwk.construct({name: entry[name] for name in _PUBLIC[kind]}, algorithm)
        if kind == "RSA" and _bits(entry["n"]) < RSA_BITS_MIN:
            return None
    except (JOSEError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return kid, algorithm, key


def _bits(number: str) -> int:
    """Bits of a base64url number, give or take those of its last characters."""
    return len(number.rstrip("=").lstrip("A")) * 6


def verify(token: str, keys: KeySet, rules: TokenRules, now: float) -> Claims:
    """Check a token at `now` (seconds since 1970). Raises `InvalidToken`, `UnknownKey` when new keys might help."""
    match = _COMPACT.fullmatch(token) if len(token) <= TOKEN_MAX else None
    if match is None:
        raise InvalidToken("it is not a signed JWT in compact form")
    header = _header(match[1])
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHM_OF.values():
        raise InvalidToken("its algorithm is neither RS256 nor ES256")
    if not isinstance(kid, str):
        raise InvalidToken("it names no key (kid)")
    if "crit" in header:  # RFC 7515 §4.1.11: what we do not understand, and there is nothing that we do
        raise InvalidToken("it asks for an extension that is not supported")
    try:
        payload = jws.verify(token, keys.key(kid, algorithm), [algorithm])
    except JOSEError:
        raise InvalidToken("its signature is wrong") from None
    try:
        claims = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise InvalidToken("its claims are not JSON") from None
    if not isinstance(claims, dict):
        raise InvalidToken("its claims are not an object")
    _check_kind(header, claims)
    return _checked(claims, rules, now)


def _header(segment: str) -> dict[str, Any]:
    try:
        # orjson, unlike json, bounds how deep it goes: python-jose reads the same text after us.
        header = orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError):
        raise InvalidToken("its header cannot be read") from None
    if not isinstance(header, dict):
        raise InvalidToken("its header is not an object")
    return header


def _check_kind(header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    """Access tokens only. An ID token tells a client who signed in; it gives no right to call anybody, and lies in
    more hands.

    A token is an access token by its header's type `at+jwt` (RFC 9068 §2.1), or by what issuers wrote before there was
    one: a claim `typ` that is `Bearer` (Keycloak, and so Pro Santé Connect), `token_use` that is `access` (Cognito), a
    `scope` or `scp`. What only ID tokens hold (OpenID Connect Core §2, §3.1.3.6, §3.3.2.11) makes it one.
    """
    kind = header.get("typ")
    kind = kind.lower() if isinstance(kind, str) else kind
    if kind is not None and (not isinstance(kind, str) or kind not in _HEADER_TYPES):
        raise InvalidToken("it is not an access token")
    said = [claims[name] == value for name, value in (("typ", "Bearer"), ("token_use", "access")) if name in claims]
    declared = kind in _ACCESS_TYPES or any(said)
    if not all(said) or "at_hash" in claims or "c_hash" in claims or ("nonce" in claims and not declared):
        raise InvalidToken("it is an ID token, or another that is no access token")
    if not declared and "scope" not in claims and "scp" not in claims:
        raise InvalidToken("nothing in it says that it is an access token")


def _checked(claims: Mapping[str, Any], rules: TokenRules, now: float) -> Claims:
    if claims.get("iss") != rules.issuer:
        raise InvalidToken("it comes from another issuer")
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise InvalidToken("it is meant for another audience")
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise InvalidToken("it does not say when it expires")
    if expires_at + CLOCK_SKEW_S <= now:
        raise InvalidToken("it has expired")
    for name in ("nbf", "iat"):
        moment = _moment(claims, name)
        if moment is not None and moment - CLOCK_SKEW_S > now:
            raise InvalidToken("it is not valid yet")
    identifier = claims.get(rules.id_claim)
    if not isinstance(identifier, str) or not identifier:
        raise InvalidToken("it does not say who asks")
    jti = claims.get("jti")
    return Claims(
        identifier=identifier, expires_at=expires_at + CLOCK_SKEW_S, jti=jti[:256] if isinstance(jti, str) else ""
    )


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2), or None where there is none."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken("a time in it is not a number")
    return float(value)


class Issuer:
    """Signs access tokens with a private key of ours (PEM, P-256). For the demonstration's built-in issuer."""

    def __init__(self, private_key: str, kid: str) -> None:
        self._key = jwk.construct(private_key, "ES256")
        self._kid = kid

    def key_set(self) -> bytes:
        """The public key as a JWK Set."""
        public = {name: value for name, value in self._key.public_key().to_dict().items() if name in _PUBLIC["EC"]}
        text = {name: value.decode() if isinstance(value, bytes) else value for name, value in public.items()}
        return orjson.dumps({"keys": [{**text, "kid": self._kid, "alg": "ES256", "use": "sig"}]})

    def issue(self, rules: TokenRules, identifier: str, *, now: float, lifetime_s: float, jti: str) -> str:
        claims = {
            "iss": rules.issuer,
            "aud": rules.audience,
            "sub": identifier,
            rules.id_claim: identifier,
            "iat": int(now),
            "exp": int(now + lifetime_s),
            "jti": jti,
        }
        return jws.sign(claims, self._key, headers={"kid": self._kid, "typ": "at+jwt"}, algorithm="ES256")
