"""Secrets, which come from the environment and from nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagora.setting_errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCredentials:
    """How Imagora signs in at one member: a user with a password (HTTP Basic), or a bearer token."""

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def variable_stem(emetteur: str) -> str:
    """`CH-Gien.2` → `IMAGORA_MEMBER_CH_GIEN_2`, to which `_USER`, `_PASSWORD` or `_TOKEN` is added."""
    return "IMAGORA_MEMBER_" + re.sub(r"[^A-Z0-9]", "_", emetteur.upper())


def member_credentials(emetteur: str, environment: Mapping[str, str] | None = None) -> MemberCredentials | None:
    """The credentials set for a member, or None. Raises `SettingsError`, which never repeats a secret."""
    environment = os.environ if environment is None else environment
    stem = variable_stem(emetteur)
    user, password, token = (_secret(environment, f"{stem}_{kind}") for kind in ("USER", "PASSWORD", "TOKEN"))
    if token is not None and (user is not None or password is not None):
        raise SettingsError("the environment", [f"{stem}_TOKEN: set either the token or user and password, not both"])
    if (user is None) != (password is None):
        missing = f"{stem}_USER" if user is None else f"{stem}_PASSWORD"
        raise SettingsError("the environment", [f"{missing}: missing: user and password belong together"])
    if user is not None and ":" in user:
        # RFC 7617 §2: the first colon ends the user name.
        raise SettingsError("the environment", [f"{stem}_USER: a user name with ':' cannot be sent"])
    if user is None and token is None:
        return None
    return MemberCredentials(user=user, password=password, token=token)


def metrics_token(environment: Mapping[str, str] | None = None) -> str | None:
    """The bearer token that `/metrics` asks for, or None if none was set."""
    return _secret(os.environ if environment is None else environment, "IMAGORA_METRICS_TOKEN")


def _secret(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name)
    if not value:
        return None
    if not value.isprintable():
        raise SettingsError("the environment", [f"{name}: has a line break or control character in it: remove it"])
    return value
