"""The tables of the settings file: their keys, defaults and what each may hold."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from registry import rules
from registry.model import Folder, Site, SiteStatus

EMBEDDED = "embedded"

AETitle = Annotated[str, AfterValidator(rules.check_ae_title)]
Emetteur = Annotated[str, AfterValidator(rules.check_emetteur)]
HttpUrl = Annotated[str, AfterValidator(rules.check_http_url)]
Host = Annotated[str, AfterValidator(rules.check_host)]
Oid = Annotated[str, AfterValidator(rules.check_oid)]
Name = Annotated[str, AfterValidator(rules.check_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


@lru_cache(maxsize=256)  # each request asks it of the same few names
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
    member_connections: int = Field(default=64, ge=1, le=4096)
    breaker_failures: int = Field(default=3, ge=1, le=1000)
    breaker_open_s: Seconds = 15.0
    check_every_h: float = Field(default=24.0, ge=0, le=8760, allow_inf_nan=False)


class StoreSettings(Section):
    request_mb: int = Field(default=16384, ge=1, le=1 << 20)
    instance_mb: int = Field(default=4096, ge=1, le=1 << 20)
    instances: int = Field(default=20_000, ge=1, le=1_000_000)


class PixelSettings(Section):
    processes: int = Field(default=2, ge=1, le=256)
    queue: int = Field(default=64, ge=1, le=10_000)
    deadline_s: Seconds = 30.0
    memory_mb: int = Field(default=2048, ge=512, le=1 << 20)


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
