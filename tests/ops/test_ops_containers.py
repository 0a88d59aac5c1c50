"""The files for containers say what Imagora accepts, and keep to what an operator may rely on."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops_nginx import Nginx, nginx_program

from imagora.settings import Settings, load_settings, member_credentials
from imagora.workers import CLOSE_S

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
#: Variables that are not of the settings file.
SECRETS = re.compile(r"IMAGORA_(METRICS_TOKEN|CONFIG|MEMBER_[A-Z0-9_]+_(USER|PASSWORD|TOKEN))")
#: What conf/compose.yaml asks the operator for.
GIVEN = {
    "IMAGORA_PUBLIC_URL": "https://imagora.example",
    "IMAGORA_ISSUER": "https://issuer.example",
    "IMAGORA_JWKS": "https://issuer.example/jwks",
    "IMAGORA_DB_PASSWORD": "a",
    "IMAGORA_OWNER_PASSWORD": "b",
    "IMAGORA_METRICS_TOKEN": "c",
    "POSTGRES_PASSWORD": "d",
}


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one object; the last would silently count."""


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if key.value != "<<"]
    assert len(keys) == len(set(keys)), f"twice in {node.start_mark}: {keys}"
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@cache
def documents(name: str) -> list[dict[str, Any]]:
    return [d for d in yaml.load_all((CONF / name).read_text(encoding="utf-8"), Loader) if d is not None]


def kubernetes() -> Iterator[dict[str, Any]]:
    for path in sorted((CONF / "kubernetes").glob("*.yaml")):
        yield from documents(f"kubernetes/{path.name}")


def of(kind: str, name: str = "imagora") -> dict[str, Any]:
    return next(d for d in kubernetes() if d["kind"] == kind and d["metadata"]["name"] == name)


def pod(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]["template"]["spec"]
    return spec


def compose() -> dict[str, Any]:
    text = (CONF / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?[^}]+\}", text))
    assert asked == GIVEN.keys()
    (document,) = documents("compose.yaml")
    return substituted(document)


def substituted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: substituted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [substituted(inner) for inner in value]
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda m: GIVEN[m[1]], value) if isinstance(value, str) else value


def image_environment() -> dict[str, str]:
    text = (CONF / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in shlex.split(line))


def config_map() -> dict[str, str]:
    return {**of("ConfigMap", "imagora-settings")["data"], **of("Secret", "imagora-secrets")["stringData"]}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


ENVIRONMENTS = {
    "kubernetes": config_map,
    "compose, one": lambda: services()["one"]["environment"],
    "compose, two": lambda: services()["two"]["environment"],
    "compose, migrate": lambda: services()["migrate"]["environment"],
}


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_settings_are_those_that_imagora_accepts(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**image_environment(), **ENVIRONMENTS[where]()}
    ours = {name: value for name, value in given.items() if name.startswith("IMAGORA_")}
    for name, value in ours.items():
        if not SECRETS.fullmatch(name):
            table, _, key = name.removeprefix("IMAGORA_").lower().partition("__")
            section = Settings.model_fields[table].annotation
            assert section is not None
            assert key in section.model_fields, name  # a variable that is not known is silently ignored
        monkeypatch.setenv(name, value)
    settings = load_settings(CONF / "container.toml")
    assert settings.auth.mode == "oidc"  # the others trust whoever reaches them, and nginx lets everybody through
    assert settings.server.public_url == "https://imagora.example"
    assert settings.server.trusted_proxies
    assert not settings.database.embedded
    assert settings.portal.ohif_path == Path("/opt/ohif")


def test_container_settings_need_only_what_is_asked_for() -> None:
    """The file alone is whole: what the environment gives replaces something."""
    given = tomllib.loads((CONF / "container.toml").read_text(encoding="utf-8"))
    assert load_settings(CONF / "container.toml").server.workers == given["server"]["workers"]


def test_member_that_signs_in_is_known_by_the_secret() -> None:
    known = member_credentials("csrom41200", of("Secret", "imagora-secrets")["stringData"])
    assert known is not None
    assert known.user == "imagora"


def test_servers_get_as_long_to_stop_as_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in config_map().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(CONF / "container.toml")
    needed = settings.server.drain_s + CLOSE_S
    spec = pod(of("Deployment"))
    waits = [float(c["lifecycle"]["preStop"]["exec"]["command"][1]) for c in spec["containers"]]
    assert spec["terminationGracePeriodSeconds"] >= max(waits) + needed
    for name in ("one", "two", "nginx"):
        assert float(services()[name]["stop_grace_period"].removesuffix("s")) >= needed


def test_images_are_of_a_version_and_of_no_named_registry() -> None:
    images = [s["image"] for s in services().values()]
    for document in kubernetes():
        if document["kind"] in ("Deployment", "Job"):
            images += [c["image"] for c in (*pod(document).get("initContainers", ()), *pod(document)["containers"])]
    dockerfile = (CONF / "Dockerfile").read_text(encoding="utf-8")
    images += re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert len(images) >= 10
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d[\w.-]*", image), image
    for path in CONF.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"index-url|registry\.|pypi\.|npmjs|docker\.io|ghcr|quay", text), path


def test_image_is_built_of_what_is_locked_and_there() -> None:
    dockerfile = (CONF / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install [^\\\n]+", dockerfile)
    assert all("--require-hashes" in i or "--no-index" in i for i in installs)
    assert "npm ci" in dockerfile
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    ignored = (CONF / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert set(copied) == allowed
    for source in copied:
        assert (ROOT / source).exists(), source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert set(packages["targets"]["wheel"]["packages"]) <= set(copied)


def test_build_lock_is_a_part_of_the_other() -> None:
    def locked(path: Path) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        name = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line[:1].isalnum():
                name = line.split()[0]
            if "--hash=" in line:
                found.setdefault(name, set()).add(line.strip(" \\"))
        return found

    build, whole = locked(CONF / "build.lock"), locked(ROOT / "requirements-dev.lock")
    assert len(build) == 6
    assert build.items() <= whole.items()


def test_containers_of_compose_are_confined() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
    for name in ("one", "two", "migrate", "roles", "nginx"):
        assert services()[name]["cap_drop"] == ["ALL"]
    assert services()["postgres"]["networks"] == ["inside"]
    assert compose()["networks"]["inside"]["internal"] is True
    for name in ("postgres", "one", "two", "nginx"):
        assert services()[name]["healthcheck"]["test"][0] == "CMD"
    # Nothing but nginx is to be reached; its page for the collector from this machine only.
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"nginx": ["80:80", "443:443", "127.0.0.1:9145:9145"]}
    for name in ("one", "two"):
        address = services()[name]["networks"]["inside"]["ipv4_address"]
        assert f"server {address}:8080 " in compose()["configs"]["servers"]["content"]
        assert (
            f"/{name}/metrics {{\n    proxy_pass http://{address}:8080/" in compose()["configs"]["collector"]["content"]
        )
    # Each server keeps its own traces' heads.
    assert {tuple(services()[name]["volumes"]) for name in ("one", "two")} == {
        ("one:/var/lib/imagora",),
        ("two:/var/lib/imagora",),
    }


def test_files_that_compose_mounts_are_there() -> None:
    sources = {v.split(":")[0] for s in services().values() for v in s.get("volumes", ()) if v.startswith("./")}
    made = {"./secrets/name.conf", "./secrets/tls"}  # by the operator
    assert {source for source in sources - made if not (CONF / source).exists()} == set()
    assert "conf/secrets/" in (CONF / "compose.yaml").read_text(encoding="utf-8")


def test_pods_are_confined() -> None:
    for document in kubernetes():
        if document["kind"] not in ("Deployment", "Job"):
            continue
        spec = pod(document)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_parts_of_the_deployment_fit_together() -> None:
    deployment = of("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] == 2
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        of("Service")["spec"]["selector"],
        of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert of("PodDisruptionBudget")["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    spec = pod(deployment)
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    ports = {port["name"]: port["containerPort"] for c in spec["containers"] for port in c.get("ports", ())}
    assert {p["targetPort"] for p in of("Service")["spec"]["ports"]} <= ports.keys()
    nginx = next(c for c in spec["containers"] if c["name"] == "nginx")
    assert nginx["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "collector"}
    open_ports = {p["port"] for rule in of("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]}
    assert open_ports == set(ports.values())
    # Its own files: what they make and what they ask for.
    named = {d["metadata"]["name"] for d in kubernetes()} | {"imagora-nginx", "imagora-tls", "imagora-trace-key"}
    text = (CONF / "kubernetes" / "imagora.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:configMap|configMapRef|secretRef): \{name: ([\w-]+)\}", text)) <= named


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_nginx_takes_what_containers_include(where: str, tmp_path: Path) -> None:
    nginx = Nginx(tmp_path / "front", [8080])
    if where == "compose":
        includes = {name: config["content"] for name, config in compose()["configs"].items()}
        includes = {f"{name}.conf": text for name, text in includes.items()}
    else:
        includes = of("ConfigMap", "imagora-nginx-includes")["data"]
    for name, text in includes.items():
        local = text.replace("listen 9145", f"listen {nginx.inside}")  # which may be taken
        (tmp_path / "front" / "imagora" / name).write_text(local, encoding="utf-8")
    command = [str(nginx_program()), "-t", "-q", "-e", "stderr", "-c", str(nginx.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
