from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from imagora.credentials import MemberCredentials, member_credentials, metrics_token
from imagora.settings import Settings, SettingsError, load_settings, unused_keys
from registry.model import SiteStatus

EXAMPLE = Path(__file__).parents[2] / "conf" / "imagora.example.toml"

FOLDER = '[[folders]]\nname = "F"\n'
OIDC = '[auth]\nmode = "oidc"\nissuer = "https://issuer.example/"\njwks = "keys.json"\n'
SITE = '[[sites]]\nemetteur = "csa"\nsite = 1\nname = "A"\n'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("IMAGORA_"):
            monkeypatch.delenv(name)


Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> Settings:
        path = tmp_path / "imagora.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path)

    return load_text


def problems(load: Load, text: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert "\n" not in "".join(caught.value.problems)
    assert "pydantic" not in str(caught.value)
    return caught.value.problems


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Each section of the settings and its model; for a list, that of its entries."""
    found = {}
    for name, field in model.model_fields.items():
        inner = next((a for a in get_args(field.annotation) if isinstance(a, type)), field.annotation)
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        found[name] = inner
    return found


def test_the_example_loads_with_the_defaults_it_claims() -> None:
    example = load_settings(EXAMPLE)
    for name in sections(Settings):
        if name not in ("folders", "sites"):
            assert getattr(example, name).model_dump() == getattr(load_settings(), name).model_dump(), name
    assert unused_keys(example) == []
    assert example.registry_sites()[0].dicomweb == "http://127.0.0.1:8042/dicom-web"
    assert example.registry_folders()[0].ae_title == "MIRC_HIST"


def test_every_setting_stands_in_the_example_and_no_other() -> None:
    text = re.sub(r"^# (?=\w+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    written = tomllib.loads(text)
    known = sections(Settings)
    assert set(written) == set(known)
    for name, model in known.items():
        entries = written[name] if isinstance(written[name], list) else [written[name]]
        keys = {key for entry in entries for key in entry}
        assert keys == set(model.model_fields), name


def test_commented_defaults_are_the_defaults() -> None:
    text = EXAMPLE.read_text(encoding="utf-8").partition("[auth]")[2].partition("[[folders]]")[0]
    written = tomllib.loads("[auth]" + re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    defaults = load_settings()
    for section, values in written.items():
        for key, value in values.items():
            assert getattr(getattr(defaults, section), key) == value, key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nport = 0", "server.port: must be at least 1"),
        ("[server]\nport = 65536", "server.port: must be at most 65535"),
        ('[server]\nport = "x"', "server.port: write a whole number"),
        ("[server]\nprot = 1", "server.prot: unknown key: did you mean port?"),
        ("[server]\nzzz = 1", "server.zzz: unknown key: remove it. Known here: host, port"),
        ("[sevrer]\nport = 1", "sevrer: unknown key: did you mean server?"),
        ("server = 1", "server: write a table"),
        ("[server]\nworkers = 0", "server.workers: must be at least 1"),
        ("[server]\ndrain_s = -1", "server.drain_s: must be at least 0"),
        ("[server]\ndrain_s = inf", "server.drain_s:"),
        ('[server]\nhost = "0.0.0.0"', "server.host: '0.0.0.0' can be reached from other machines, and auth.mode"),
        ('[server]\nhost = "::"', "server.host: '::' can be reached"),
        ('[server]\nhost = "pacs.example"', "server.host: 'pacs.example' can be reached"),
        ('[server]\npublic_url = "http://mirc.example"', "server.public_url: use https://"),
        ('[server]\npublic_url = "https://mirc.example/x"', "server.public_url: give scheme, host and port only"),
        ('[server]\npublic_url = "https://u:p@mirc.example"', "server.public_url: credentials"),
        ('[server]\nallowed_origins = ["*"]', 'server.allowed_origins: "*" would let any web page'),
        ('[server]\nallowed_origins = ["https://a.example/x"]', "server.allowed_origins: 'https://a.example/x' is not"),
        ('[server]\nallowed_origins = "https://a.example"', "server.allowed_origins: write a list"),
        ('[server]\ntrusted_proxies = ["proxy"]', "server.trusted_proxies: 'proxy' is not an IP address"),
        ('[server]\nlog_level = "loud"', "server.log_level: write 'debug', 'info', 'warning' or 'error'"),
        ('[federation]\nissuer = "A\\\\B"', "federation.issuer: use 1 to 64 characters"),
        ('[federation]\noid = "x"', "federation.oid: 'x' is not an OID"),
        ('[database]\nurl = "mysql://x"', 'database.url: write "embedded" or a URL'),
        ('[database]\nurl = "postgresql://u:s3cret@h/d"', "database.url: a password stands in the file"),
        ('[database]\nurl = "postgresql://h/d?password=s3cret"', "database.url: a password stands in the file"),
        ('[auth]\nmode = "none"', "auth.mode: write 'local', 'oidc' or 'demo'"),
        ('[auth]\nmode = "oidc"', 'auth: mode = "oidc" needs issuer and jwks too'),
        ('[auth]\njwks = "http://issuer.example/jwks"', "auth.jwks: use https://"),
        ("[auth]\nsession_h = 25", "auth.session_h: must be at most 24"),
        ('[node]\nae_title = "A\\\\B"', "node.ae_title: 'A\\\\B' is not an AE title"),
        ("[search]\ndeadline_s = 0", "search.deadline_s: must be more than 0"),
        ("[search]\ndeadline_s = nan", "search.deadline_s:"),
        ("[search]\nmember_cap = 0", "search.member_cap: must be at least 1"),
        ("[search]\nmember_cap = 1.5", "search.member_cap: write a whole number"),
        ('[search]\nrequire_patient_criterion = "perhaps"', "search.require_patient_criterion: write true or false"),
        ('[search]\npatient_id = "bare"', "search.patient_id: write 'qualified' or 'local'"),
        ('[[sites]]\nemetteur = "a b"\nsite = 1\nname = "A"', "sites[0].emetteur (a b): 'a b' is not an EMETTEUR"),
        ('[[sites]]\nemetteur = "csa"\nname = "A"', "sites[0].site (csa): missing: add this key"),
        (SITE + 'status = "active"', "sites[0].status (csa): write 'member', 'suspended' or 'unreferenced'"),
        (SITE + 'folder = "F"', "sites, folders: csa: there is no folder 'F'"),
        (SITE + 'dicomweb = "ftp://x"', "sites[0].dicomweb (csa): the URL must start with http"),
        (SITE + 'dicomweb = "http://u:s3cret@x"', "sites[0].dicomweb (csa): credentials do not belong in the URL"),
        (SITE + 'dicomweb = "http://x/?a"', "sites[0].dicomweb (csa): the URL must not have a query"),
        (SITE + 'aet = "X"', "sites[0] (csa): aet, host and port belong together: give host and port too"),
        (SITE + "deadline_s = 0", "sites[0].deadline_s (csa): must be more than 0"),
        (SITE + "colour = 1", "sites[0].colour (csa): unknown key"),
        (SITE + SITE.replace("csa", "CSA"), "sites, folders: EMETTEUR CSA stands twice"),
        (SITE + SITE.replace("csa", "csb"), "sites, folders: SITE 1 belongs to both csa and csb"),
        (SITE.replace("csa", "imagora"), "sites, folders: AE title 'imagora' stands for the node's AE title"),
        (FOLDER + FOLDER, "sites, folders: folders 'F' and 'F' would both be /folders/f"),
        (FOLDER + 'ae_title = "IMAGORA"', "sites, folders: AE title 'imagora' stands for"),
        (FOLDER + 'ae_title = "CSA"\n' + SITE, "sites, folders: AE title 'csa' stands for the AE title of folder"),
        ("[server", "not a TOML file"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(load: Load, text: str, problem: str) -> None:
    told = problems(load, text)
    assert any(line.startswith(problem) for line in told), told
    assert len(told) == 1
    assert "s3cret" not in told[0]


def test_all_problems_are_told_at_once(load: Load) -> None:
    told = problems(load, '[server]\nport = 0\nhost = "0.0.0.0"\n[search]\nmember_cap = 0\n' + SITE + "port = 0")
    assert [line.partition(":")[0] for line in told] == [
        "server.host",
        "server.port",
        "search.member_cap",
        "sites[0].port (csa)",
    ]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot read the file: No such file"):
        load_settings(tmp_path / "none.toml")


def test_a_site_becomes_the_registrys(load: Load) -> None:
    text = FOLDER + SITE + 'folder = "F"\nstatus = "suspended"\navailability = "j+1"\noid = "1.2"\ndeadline_s = 3\n'
    text += 'dicomweb = "https://pacs.example/dicom-web/"\naet = "CSA"\nhost = "::1"\nport = 104\n'
    (site,) = load(text).registry_sites()
    assert (site.emetteur, site.number, site.name, site.folder) == ("csa", 1, "A", "F")
    assert (site.dicomweb, site.aet, site.host, site.port) == ("https://pacs.example/dicom-web", "CSA", "::1", 104)
    assert (site.status, site.availability, site.oid, site.deadline_s) == (SiteStatus.SUSPENDED, "j+1", "1.2", 3.0)


def test_the_environment_goes_before_the_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGORA_SERVER__PORT", "9999")
    monkeypatch.setenv("IMAGORA_SERVER__ALLOWED_ORIGINS", '["https://a.example"]')
    monkeypatch.setenv("IMAGORA_DATABASE__URL", "postgresql://u:s3cret@h/d")
    settings = load('[server]\nport = 8888\nworkers = 3\n[database]\nurl = "embedded"')
    assert (settings.server.port, settings.server.workers) == (9999, 3)
    assert settings.server.allowed_origins == ("https://a.example",)
    assert settings.database.url == "postgresql://u:s3cret@h/d"
    assert "s3cret" not in repr(settings)


def test_a_wrong_variable_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGORA_SERVER__PORT", "s3cret")
    with pytest.raises(SettingsError, match=r"server\.port: .* \(set by IMAGORA_SERVER__PORT\)") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("IMAGORA_SERVER__PORT")
    monkeypatch.setenv("IMAGORA_SITES", "[s3cret")
    with pytest.raises(SettingsError, match="sites: IMAGORA_SITES in the environment is not JSON") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_the_file_is_named_by_the_environment_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, given = tmp_path / "named.toml", tmp_path / "given.toml"
    named.write_text("[server]\nport = 1111")
    given.write_text("[server]\nport = 2222")
    monkeypatch.setenv("IMAGORA_CONFIG", str(named))
    assert load_settings().server.port == 1111
    assert load_settings(given).server.port == 2222


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:8080"),
        ("port = 9000", "http://127.0.0.1:9000"),
        ('host = "::1"', "http://[::1]:8080"),
        ('public_url = ""', "http://127.0.0.1:8080"),
        ('public_url = "https://mirc.example/"', "https://mirc.example"),
    ],
)
def test_the_public_url_is_where_it_listens_unless_given(load: Load, text: str, url: str) -> None:
    assert load(OIDC + "[server]\n" + text).server.public_url == url


def test_settings_never_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.server.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.server = settings.server  # type: ignore[misc]


def test_keys_without_effect_are_named(load: Load) -> None:
    settings = load('[auth]\nmode = "demo"\njwks = "x"\naudience = "y"\n[node]\nae_title = "REGION"\nport = 104')
    assert unused_keys(settings) == ["auth.jwks", "node.port"]
    assert unused_keys(load(OIDC + "session_h = 1.0")) == ["auth.session_h"]
    assert unused_keys(load('[auth]\nmode = "local"\n[node]\nae_title = "REGION"')) == []
    assert unused_keys(load('[auth]\nid_claim = "sub"\ncharter_version = "2"')) == ["auth.id_claim"]


def test_other_machines_may_reach_the_server_only_where_it_knows_who_asks(load: Load) -> None:
    settings = load(OIDC + '[server]\nhost = "0.0.0.0"\npublic_url = "https://mirc.example"')
    assert settings.server.host == "0.0.0.0"
    (told,) = problems(load, '[server]\nhost = "0.0.0.0"')
    assert "knows one local requester" in told
    (told,) = problems(load, '[auth]\nmode = "demo"\n[server]\nhost = "0.0.0.0"')
    assert told.startswith("server.host: '0.0.0.0' can be reached")
    assert "sign in as anybody" in told
    for mode in ("demo", "local"):
        (told,) = problems(load, f'[auth]\nmode = "{mode}"\n[server]\npublic_url = "https://mirc.example"')
        assert told.startswith("server.public_url:")


def test_an_issuer_is_kept_letter_by_letter(load: Load) -> None:
    assert load(OIDC).auth.issuer == "https://issuer.example/"


def test_a_members_credentials_come_from_the_environment() -> None:
    environment = {
        "IMAGORA_MEMBER_CH_GIEN_2_USER": "u",
        "IMAGORA_MEMBER_CH_GIEN_2_PASSWORD": "p",
        "IMAGORA_MEMBER_CSA_TOKEN": "t",
        "IMAGORA_MEMBER_CSB_TOKEN": "",
    }
    assert member_credentials("ch-Gien.2", environment) == MemberCredentials(user="u", password="p")
    assert member_credentials("csa", environment) == MemberCredentials(token="t")
    assert member_credentials("csb", environment) is None
    assert member_credentials("csc", environment) is None
    assert "'" not in repr(member_credentials("csa", environment))


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"USER": "u"}, "IMAGORA_MEMBER_CSA_PASSWORD: missing"),
        ({"PASSWORD": "s3cret"}, "IMAGORA_MEMBER_CSA_USER: missing"),
        ({"USER": "u", "PASSWORD": "s3cret", "TOKEN": "s3cret"}, "not both"),
        ({"USER": "s3cret:u", "PASSWORD": "p"}, "a user name with ':'"),
        ({"TOKEN": "s3cret\r\nX: y"}, "line break"),
    ],
)
def test_credentials_that_cannot_be_sent_are_told_without_them(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        member_credentials("csa", {f"IMAGORA_MEMBER_CSA_{name}": value for name, value in environment.items()})
    assert "s3cret" not in str(caught.value)


def test_the_token_for_metrics_comes_from_the_environment() -> None:
    assert metrics_token({}) is None
    assert metrics_token({"IMAGORA_METRICS_TOKEN": "m"}) == "m"
