"""Bearer tokens: what is taken, and everything that is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import people
from support.people import GOOD, RULES, SigningKey, bad_tokens, claims, key_set

from consent.bearer import BearerCheck, KeysUnreachable
from consent.model import Unavailable
from consent.tokens import BadKeys, InvalidToken, Issuer, KeySet, UnknownKey, verify
from imagora.demo_issuer import demo_issuer
from registry.people import rpps_of

RSA, OTHER, EC = SigningKey("one"), SigningKey("two"), SigningKey("three", "ES256")
KEYS = KeySet.read(key_set(RSA, OTHER, EC))
BAD = bad_tokens(RSA, OTHER)
GOOD_TOKEN = RSA.sign(claims())


@pytest.mark.parametrize("key", [RSA, OTHER, EC])
def test_a_good_token_says_who_asks(key: SigningKey) -> None:
    token = key.sign(claims(jti="t1", aud=["other", "imagora"]))
    taken = verify(token, KEYS, RULES, time.time())
    assert (taken.identifier, taken.jti) == (f"8{GOOD}", "t1")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_not_taken(kind: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        verify(BAD[kind], KEYS, RULES, time.time())
    assert isinstance(caught.value, UnknownKey) == (kind == "unknown kid")
    assert not any(part in str(caught.value) for part in BAD[kind].split(".") if part)


#: The year 2100: alike in every process that collects these tests.
FAR = 4_102_444_800


@pytest.mark.parametrize(
    "changes",
    [
        {"SubjectNameID": None},
        {"SubjectNameID": ""},
        {"SubjectNameID": 10001234567},
        {"exp": "tomorrow"},
        {"exp": True},
        {"nbf": FAR},
        {"iat": FAR},
        {"aud": {"imagora": 1}},
        {"iss": ["https://issuer.example/"]},
        {"iss": "https://issuer.example"},
    ],
    ids=str,
)
def test_claims_are_checked_one_by_one(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        verify(RSA.sign(claims(**changes)), KEYS, RULES, time.time())


@pytest.mark.parametrize(
    ("header", "more", "taken"),
    [
        ("at+jwt", {}, True),
        ("application/at+jwt", {}, True),
        ("JWT", {"scope": "openid"}, True),
        ("JWT", {"scp": ["read"]}, True),
        ("JWT", {"typ": "Bearer", "nonce": "n"}, True),  # Keycloak before version 24
        ("JWT", {"token_use": "access"}, True),
        ("JWT", {}, False),
        ("JWT", {"nonce": "n", "scope": "openid"}, False),
        ("JWT", {"at_hash": "h", "typ": "Bearer"}, False),
        ("JWT", {"typ": "ID", "scope": "openid"}, False),
        ("JWT", {"typ": "Refresh"}, False),
        ("JWT", {"token_use": "id"}, False),
        ("at+jwt", {"typ": "ID"}, False),
        ("logout+jwt", {"scope": "openid"}, False),
        ("dpop+jwt", {"scope": "openid"}, False),
    ],
)
def test_access_tokens_are_told_from_others(header: str, more: dict[str, Any], taken: bool) -> None:
    token = RSA.sign(claims(**more), typ=header)
    if taken:
        verify(token, KEYS, RULES, time.time())
    else:
        with pytest.raises(InvalidToken, match="access token"):
            verify(token, KEYS, RULES, time.time())


def test_the_key_decides_the_algorithm() -> None:
    with pytest.raises(InvalidToken, match="another algorithm"):
        verify(EC.sign(claims(), kid=RSA.kid), KEYS, RULES, time.time())
    with pytest.raises(InvalidToken, match="neither RS256 nor ES256"):
        verify(people.unsigned(claims(), RSA.kid, "RS512", b"x"), KEYS, RULES, time.time())
    with pytest.raises(InvalidToken, match="extension"):
        verify(RSA.sign(claims(), crit=["exp"]), KEYS, RULES, time.time())


def test_keys_that_cannot_be_used_are_left_out() -> None:
    weak = SigningKey("weak", bits=1024)
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"}
    entries = [
        weak.entry,
        secret,
        {**RSA.entry, "kid": "encryption", "use": "enc"},
        {**RSA.entry, "kid": "pss", "alg": "PS256"},
        {**RSA.entry, "kid": None},
        {"kty": "EC", "crv": "P-256", "kid": "broken"},
        7,
    ]
    with pytest.raises(BadKeys, match="no key"):
        KeySet.read(json.dumps({"keys": entries}).encode())
    keys = KeySet.read(json.dumps({"keys": [*entries, RSA.entry]}).encode())
    verify(RSA.sign(claims()), keys, RULES, time.time())
    for kid in ("weak", "secret", "encryption", "pss"):
        with pytest.raises(UnknownKey):
            keys.key(kid, "RS256")


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}'])
def test_what_is_no_key_set_is_told(document: bytes) -> None:
    with pytest.raises(BadKeys):
        KeySet.read(document)


def test_two_keys_of_one_kid_are_not_guessed_between() -> None:
    with pytest.raises(BadKeys, match="one kid"):
        KeySet.read(json.dumps({"keys": [RSA.entry, {**OTHER.entry, "kid": "one"}]}).encode())


@given(st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda b: people.unsigned({}, b.hex(), "RS256", b))))
def test_any_text_is_refused_in_order(text: str) -> None:
    for token in (text, f"{text}.{text}.{text}", "W" * 20_000, f"{people._segment(b'[' * 9000)}.e30.AA"):
        with pytest.raises(InvalidToken):
            verify(token, KEYS, RULES, 0.0)


@given(st.data())
def test_no_changed_token_is_taken(data: st.DataObject) -> None:
    token = GOOD_TOKEN
    place = data.draw(st.integers(0, len(token.rpartition(".")[0]) - 1))
    letter = data.draw(st.sampled_from("ABCDabcd0123-_").filter(lambda c: c != token[place]))
    with pytest.raises(InvalidToken):
        verify(f"{token[:place]}{letter}{token[place + 1 :]}", KEYS, RULES, time.time())


def test_the_built_in_issuer_is_understood(tmp_path: Any) -> None:
    issuer: Issuer = demo_issuer(tmp_path / "state")
    token = issuer.issue(RULES, GOOD, now=time.time(), lifetime_s=60, jti="j")
    again = demo_issuer(tmp_path / "state")
    assert again.key_set() == issuer.key_set()
    assert b'"d"' not in issuer.key_set()
    assert verify(token, KeySet.read(again.key_set()), RULES, time.time()).identifier == GOOD
    assert (tmp_path / "state" / "demo-issuer.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("identifier", "rpps"),
    [
        ("10001234567", "10001234567"),
        ("810001234567", "10001234567"),
        ("899700218896", "99700218896"),
        ("010001234567", None),  # 0: another directory
        ("8100012345678", None),
        ("1000123456", None),
        ("１0001234567", None),
        (" 10001234567", None),
        ("10001234567\n", None),
        ("", None),
    ],
)
def test_one_normaliser_of_identifiers(identifier: str, rpps: str | None) -> None:
    assert rpps_of(identifier) == rpps


class Place:
    """Where keys are fetched: counts, changes, and fails."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys, self.fetches, self.down = keys, 0, False

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.down:
            raise KeysUnreachable("down")
        return key_set(*self.keys)


async def test_an_unknown_kid_has_the_keys_fetched_again_but_not_at_once() -> None:
    place = Place(RSA)
    check = BearerCheck(place.fetch, RULES, floor_s=0.2)
    await check(RSA.sign(claims()))
    place.keys = (RSA, OTHER)
    with pytest.raises(UnknownKey):
        await check(OTHER.sign(claims()))  # too soon after the first fetch
    assert place.fetches == 1
    await asyncio.sleep(0.25)
    await asyncio.gather(*(check(OTHER.sign(claims())) for _ in range(5)))
    assert place.fetches == 2
    for _ in range(20):
        with pytest.raises(UnknownKey):
            await check(BAD["unknown kid"])
    assert place.fetches == 2


async def test_keys_outlive_an_issuer_that_is_down_and_without_any_nobody_is_judged() -> None:
    place = Place(RSA)
    place.down = True
    with pytest.raises(Unavailable):
        await BearerCheck(place.fetch, RULES)(RSA.sign(claims()))
    place.down = False
    check = BearerCheck(place.fetch, RULES, floor_s=0, age_s=0)
    await check(RSA.sign(claims()))
    place.down = True
    await check(RSA.sign(claims()))


async def test_a_key_that_the_issuer_gave_up_is_given_up() -> None:
    place = Place(RSA, OTHER)
    check = BearerCheck(place.fetch, RULES, floor_s=0, age_s=0)
    token = OTHER.sign(claims())
    await check(token)
    place.keys = (RSA,)
    with pytest.raises(UnknownKey):
        await check(token)


async def test_a_remembered_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    check = BearerCheck(Place(RSA).fetch, RULES)
    token = RSA.sign(claims())
    await check(token)
    now: Callable[[], float] = time.time
    monkeypatch.setattr("consent.bearer.time.time", lambda: now() + 3600)
    with pytest.raises(InvalidToken, match="expired"):
        await check(token)
