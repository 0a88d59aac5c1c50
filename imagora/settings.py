"""The settings file: one TOML file, overridden by the environment, checked as a whole before anything starts.

Every table and key is described in `conf/imagora.example.toml`; a test holds the two together.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from imagora.credentials import MemberCredentials, member_credentials, metrics_token
from imagora.setting_errors import SettingsError, describe
from imagora.setting_sections import (
    AuthSettings,
    DatabaseSettings,
    FederationSettings,
    FolderSettings,
    NodeSettings,
    PixelSettings,
    PortalSettings,
    SearchSettings,
    ServerSettings,
    SiteSettings,
    StoreSettings,
    TraceSettings,
    is_loopback,
)
from registry import rules
from registry.model import Folder, Site

__all__ = [
    "AuthSettings",
    "DatabaseSettings",
    "FederationSettings",
    "FolderSettings",
    "MemberCredentials",
    "NodeSettings",
    "PortalSettings",
    "SearchSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "SiteSettings",
    "TraceSettings",
    "is_loopback",
    "load_settings",
    "member_credentials",
    "metrics_token",
    "unused_keys",
]


class Settings(BaseSettings):
    """All settings. `load_settings` makes them; they never change afterwards."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix="IMAGORA_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    server: ServerSettings = Field(default_factory=lambda: ServerSettings.model_validate({}))
    federation: FederationSettings = FederationSettings()
    database: DatabaseSettings = DatabaseSettings()
    auth: AuthSettings = AuthSettings()
    node: NodeSettings = NodeSettings()
    portal: PortalSettings = PortalSettings()
    search: SearchSettings = SearchSettings()
    store: StoreSettings = StoreSettings()
    pixels: PixelSettings = PixelSettings()
    traces: TraceSettings = TraceSettings()
    folders: tuple[FolderSettings, ...] = ()
    sites: tuple[SiteSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the environment goes before the file; nothing else is read

    @property
    def heads_path(self) -> Path:
        """File that keeps the signed heads of traces outside the database."""
        return self._beside_state(self.traces.heads_file, "trace-heads.jsonl")

    @property
    def trace_key_path(self) -> Path:
        """File of the key that signs heads of traces."""
        return self._beside_state(self.traces.key_file, "trace-key.pem")

    def _beside_state(self, name: str, default: str) -> Path:
        return Path(name).expanduser().absolute() if name else self.server.state_dir / default

    def registry_folders(self) -> tuple[Folder, ...]:
        return tuple(f.folder() for f in self.folders)

    def registry_sites(self) -> tuple[Site, ...]:
        """The file's sites, in registry order."""
        return tuple(s.as_site() for s in self.sites)


def load_settings(path: Path | None = None) -> Settings:
    """Read `path`, else the file named by IMAGORA_CONFIG, else only defaults and the environment.

    Raises `SettingsError`, which names every key that is wrong.
    """
    if path is None and (named := os.environ.get("IMAGORA_CONFIG")):
        path = Path(named)
    values = _read(path) if path is not None else {}
    source = str(path) if path is not None else "the environment"
    if _has_password(values):
        raise SettingsError(
            source,
            [
                "database.url: a password stands in the file: secrets come from the environment only. "
                "Move the URL to IMAGORA_DATABASE__URL, or the password to PGPASSWORD or PGPASSFILE"
            ],
        )
    try:
        settings = Settings(**values)
    except ValidationError as error:
        told = describe(error, Settings, values, os.environ)
        exposed = _exposed(_said(values, "server", "host"), "", _said(values, "auth", "mode") or "local")
        raise SettingsError(source, [*exposed, *told]) from None
    except SourceError as error:
        # "error parsing value for field "sites" from source …": the field is all that is safe to repeat.
        field = str(error).partition('"')[2].partition('"')[0]
        raise SettingsError(
            source, [f"{field}: IMAGORA_{field.upper()} in the environment is not JSON: correct or unset it"]
        ) from None
    if exposed := _exposed(settings.server.host, settings.server.public_url, settings.auth.mode):
        raise SettingsError(source, exposed)
    problems = rules.registry_conflicts(settings.registry_sites(), settings.registry_folders(), settings.node.ae_title)
    if problems:
        raise SettingsError(source, [f"sites, folders: {problem}" for problem in problems])
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(
            str(path), [f"cannot read the file: {reason}. Give --config FILE or set IMAGORA_CONFIG"]
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), [f"not a TOML file: {error}"]) from None


def _said(values: Mapping[str, Any], table: str, key: str) -> str:
    """A setting as it is given, the environment first; "" if it is not, or is no text."""
    if given := os.environ.get(f"IMAGORA_{table}__{key}".upper()):
        return given
    section = values.get(table)
    value = section.get(key) if isinstance(section, Mapping) else None
    return value if isinstance(value, str) else ""


_WHY_LOOPBACK = {
    "local": "knows one local requester: anyone who reached it could read every member's exams",
    "demo": "lets anyone sign in as anybody: anyone who reached it could read every member's exams",
}


def _exposed(host: str, public_url: str, mode: str) -> list[str]:
    """Nobody but this machine's users may reach a server that does not know for certain who asks."""
    if mode == "oidc":
        return []
    why = _WHY_LOOPBACK.get(mode, _WHY_LOOPBACK["local"])
    problems = []
    if host and not is_loopback(host):
        problems.append(
            f'server.host: {host!r} can be reached from other machines, and auth.mode = "{mode}" {why}. '
            'Use 127.0.0.1, ::1 or localhost, or auth.mode = "oidc"'
        )
    if public_url and not is_loopback(urlsplit(public_url).hostname or ""):
        problems.append(
            f'server.public_url: auth.mode = "{mode}" {why}. Use an address of this machine (loopback), or '
            'auth.mode = "oidc"'
        )
    return problems


def _has_password(values: Mapping[str, Any]) -> bool:
    database = values.get("database")
    url = database.get("url") if isinstance(database, Mapping) else None
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.password is not None or "password" in parse_qs(parts.query)


def unused_keys(settings: Settings) -> list[str]:
    """Keys that were given but have no effect in this version, for one warning at start."""
    used = _USED_AUTH[settings.auth.mode]
    keys = [
        f"auth.{key}" for key in AuthSettings.model_fields if key in settings.auth.model_fields_set and key not in used
    ]
    if "port" in settings.node.model_fields_set:
        keys.append("node.port")
    return keys


#: Which keys of [auth] each mode reads. The charter's version is also what `imagora practitioners` goes by.
_USED_AUTH = {
    "local": ("mode", "charter_version"),
    "demo": ("mode", "audience", "id_claim", "charter_version", "session_h"),
    "oidc": ("mode", "issuer", "audience", "jwks", "id_claim", "charter_version"),
}
