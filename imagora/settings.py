"""The settings file: one TOML file, overridden by the environment, checked as a whole before anything starts.

Every table and key is described in `conf/imagora.example.toml`; a test holds the two together.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from imagora.credentials import MemberCredentials, member_credentials, metrics_token
from imagora.setting_errors import SettingsError, describe
from registry import rules
from registry.model import Folder, Site, SiteStatus

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

EMBEDDED = "embedded"

AETitle = Annotated[str, AfterValidator(rules.check_ae_title)]
Emetteur = Annotated[str, AfterValidator(rules.check_emetteur)]
HttpUrl = Annotated[str, AfterValidator(rules.check_http_url)]
Host = Annotated[str, AfterValidator(rules.check_host)]
Oid = Annotated[str, AfterValidator(rules.check_oid)]
Name = Annotated[str, AfterValidator(rules.check_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`, told from its spelling: no name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class ServerSettings(Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: HttpUrl = "http://127.0.0.1:8080"
    workers: int = Field(default=1, ge=1, le=256)
    state_dir: Path = Path("state")
    trusted_proxies: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    drain_s: float = Field(default=30.0, ge=0, le=3600, allow_inf_nan=False)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="before")
    @classmethod
    def public_url_follows_the_listener(cls, data: Any) -> Any:
        """Without a public_url of its own, the server is reached where it listens."""
        if isinstance(data, dict) and not data.get("public_url"):
            # What is wrong with the host or the port is said of those, not of the URL made of them.
            host, port = str(data.get("host", "127.0.0.1")), str(data.get("port", 8080))
            host = host if is_loopback(host) else "127.0.0.1"
            port = port if port.isdecimal() and 0 < int(port) <= 65535 else "8080"
            return {**data, "public_url": f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"}
        return data

    @field_validator("public_url")
    @classmethod
    def public_url_is_an_origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.path:
            raise ValueError("give scheme, host and port only: the viewer works only at the root of its server")
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("use https:// as soon as the address is not this machine's own (loopback)")
        return value

    @field_validator("state_dir")
    @classmethod
    def state_dir_is_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("trusted_proxies")
    @classmethod
    def proxies_are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy!r} is not an IP address or network, as in 10.0.0.5 or 10.0.0.0/24") from None
        return value

    @field_validator("allowed_origins")
    @classmethod
    def origins_are_named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if "*" in origin:
                raise ValueError('"*" would let any web page read exams with its user\'s session: name each origin')
            try:
                plain = rules.check_http_url(origin)
            except ValueError as error:
                raise ValueError(f"{origin!r}: {error}") from None
            if plain != origin or urlsplit(origin).path:
                raise ValueError(f"{origin!r} is not an origin: write scheme://host[:port] and nothing behind it")
        return value


class FederationSettings(Section):
    name: str = Field(default="MIRC", min_length=1, max_length=64)
    issuer: str = "IMAGORA"
    oid: Oid | Literal[""] = ""

    @field_validator("issuer")
    @classmethod
    def issuer_is_a_long_string(cls, value: str) -> str:
        # PS3.5 §6.2, LO: IssuerOfPatientID (0010,0021) takes it as it is.
        if not value.strip() or len(value) > 64 or "\\" in value or not value.isprintable():
            raise ValueError("use 1 to 64 characters without backslash or control characters")
        return value


class DatabaseSettings(Section):
    url: str = Field(default=EMBEDDED, repr=False)

    @field_validator("url")
    @classmethod
    def url_is_postgresql(cls, value: str) -> str:
        if value != EMBEDDED and urlsplit(value).scheme not in ("postgresql", "postgres"):
            raise ValueError('write "embedded" or a URL that starts with postgresql://')
        return value

    @property
    def embedded(self) -> bool:
        return self.url == EMBEDDED


class AuthSettings(Section):
    mode: Literal["local", "oidc", "demo"] = "local"
    issuer: str = ""
    audience: str = Field(default="imagora", min_length=1)
    jwks: str = ""
    id_claim: str = Field(default="SubjectNameID", min_length=1)
    charter_version: str = Field(default="1", min_length=1, max_length=64)
    session_h: float = Field(default=8.0, gt=0, le=24, allow_inf_nan=False)

    @field_validator("issuer", "jwks")
    @classmethod
    def address_is_safe(cls, value: str) -> str:
        """As written: a token's `iss` is compared letter by letter, trailing slash and all."""
        if value.startswith(("http://", "https://")):
            rules.check_http_url(value)
            if not value.startswith("https://") and not is_loopback(urlsplit(value).hostname or ""):
                raise ValueError("use https:// as soon as the address is not this machine's own (loopback)")
        return value

    @model_validator(mode="after")
    def oidc_is_whole(self) -> Self:
        missing = [name for name in ("issuer", "jwks") if not getattr(self, name)]
        if self.mode == "oidc" and missing:
            raise ValueError(f'mode = "oidc" needs {" and ".join(missing)} too')
        return self


class NodeSettings(Section):
    ae_title: AETitle = "IMAGORA"
    port: Port = 11112


class PortalSettings(Section):
    ohif_dir: str = ""

    @property
    def ohif_path(self) -> Path:
        """Folder of OHIF's built files, whether it is there yet or not."""
        if self.ohif_dir:
            return Path(self.ohif_dir).expanduser().absolute()
        return Path(__file__).resolve().parent.parent / "node_modules" / "@ohif" / "app" / "dist"


class SearchSettings(Section):
    deadline_s: Seconds = 10.0
    member_cap: int = Field(default=1000, ge=1, le=1_000_000)
    require_patient_criterion: bool = True
    patient_id: Literal["qualified", "local"] = "qualified"
    own_site: Literal["exclude", "include"] = "exclude"
    json_cap_mb: int = Field(default=64, ge=1, le=4096)
    metadata_cap_mb: int = Field(default=256, ge=1, le=16384)
    breaker_failures: int = Field(default=3, ge=1, le=1000)
    breaker_open_s: Seconds = 15.0


class TraceSettings(Section):
    #: The database itself refuses to drop what ended less than six months ago.
    retention_months: int = Field(default=120, ge=6, le=1200)
    heads_file: str = ""
    key_file: str = ""


class FolderSettings(Section):
    name: Name
    ae_title: AETitle | None = None

    def folder(self) -> Folder:
        return Folder(name=self.name, ae_title=self.ae_title)


class SiteSettings(Section):
    emetteur: Emetteur
    site: int = Field(ge=0, le=rules.NUMBER_MAX)
    name: Name
    folder: str | None = None
    availability: Name | Literal[""] = ""
    status: SiteStatus = SiteStatus.MEMBER
    dicomweb: HttpUrl | None = None
    aet: AETitle | None = None
    host: Host | None = None
    port: Port | None = None
    oid: Oid | None = None
    deadline_s: Seconds | None = None

    @field_validator("folder", "dicomweb", "aet", "host", "oid", mode="before")
    @classmethod
    def empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def address_is_whole(self) -> Self:
        if problem := rules.address_problem(aet=self.aet, host=self.host, port=self.port):
            raise ValueError(problem)
        return self

    def as_site(self) -> Site:
        return Site(
            emetteur=self.emetteur,
            number=self.site,
            name=self.name,
            folder=self.folder,
            availability=self.availability,
            status=self.status,
            dicomweb=self.dicomweb,
            aet=self.aet,
            host=self.host,
            port=self.port,
            oid=self.oid,
            deadline_s=self.deadline_s,
        )


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
    "oidc": "does not know yet which exams patients refuse to share: it would show them too",
}


def _exposed(host: str, public_url: str, mode: str) -> list[str]:
    """Nobody but this machine's users may reach the server, until it knows who asks and what patients refuse."""
    why = _WHY_LOOPBACK.get(mode, _WHY_LOOPBACK["local"])
    problems = []
    if host and not is_loopback(host):
        problems.append(
            f'server.host: {host!r} can be reached from other machines, and auth.mode = "{mode}" {why}. '
            "Use 127.0.0.1, ::1 or localhost"
        )
    if public_url and mode == "demo" and not is_loopback(urlsplit(public_url).hostname or ""):
        problems.append(f'server.public_url: auth.mode = "demo" {why}. Use an address of this machine (loopback)')
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
