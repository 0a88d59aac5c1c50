"""The board and the alert rules ask for metrics, labels and values that a server that has served something has."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from ops_postgres import Postgres
from support.workers import METRICS_TOKEN, WorkersProcess, until

from federation.health import BreakerState
from registry import migrate

CONF = Path(__file__).parents[2] / "conf"
#: What Prometheus adds to whatever it reads.
EVERYWHERE = {"job", "instance"}
_METRIC = re.compile(r"\b(imagora_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|without|on)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def served(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, set[str]]]]:
    """Metric → label → values, of two workers that have answered, were left by a client, and miss a member."""
    postgresql.create("metrics")
    asyncio.run(migrate.migrate(postgresql.url("imagora_owner", "metrics")))
    with socket.socket() as silent, OrthancServer(name="home") as orthanc:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # a member that takes a connection and says nothing
        orthanc.upload(exams.light_study(seed="metrics", patient_id="1"))
        members = {
            "csrom41200": orthanc.dicomweb_url,
            "csorl45000": "http://127.0.0.1:9/dicom-web",
            "cstrs37000": f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web",
        }
        with WorkersProcess(
            tmp_path_factory.mktemp("metrics"),
            members,
            database=postgresql.url("imagora_owner", "metrics"),
            search={"deadline_s": 2.0},
        ) as server:
            for path in (
                "/readyz",
                "/sites/csrom41200/dicom-web/studies?PatientID=1",
                "/dicom-web/studies?PatientID=1",
            ):
                assert requests.get(server.url + path, timeout=20).status_code == 200
            with socket.create_connection(("127.0.0.1", server.port), 5) as client:
                client.sendall(b"GET /dicom-web/studies?PatientID=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    client.recv(1)
            until(lambda: server.metric("imagora_aborted_total") == 1, 20)
            yield samples(server)


def samples(server: WorkersProcess) -> dict[str, dict[str, set[str]]]:
    answer = requests.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}, timeout=20)
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for line in answer.text.splitlines():
        sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line)
        if sample is not None:
            labels = found.setdefault(sample[1], {})
            for name, value in re.findall(r'(\w+)="([^"]*)"', sample[2] or ""):
                labels.setdefault(name, set()).add(value)
    return found


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CONF / "grafana" / "imagora.json").read_text(encoding="utf-8"))
    return read


def board_expressions() -> list[str]:
    shown = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", ())]
    asked = [v["definition"] for v in board()["templating"]["list"] if v["type"] == "query"]
    # label_values(metric, label) is Grafana's own way to say: values of this label.
    return [*shown, *(re.sub(r"label_values\((.+), (\w+)\)", r"sum by (\2) (\1)", definition) for definition in asked)]


def rules() -> list[dict[str, Any]]:
    read = yaml.safe_load((CONF / "prometheus" / "imagora-rules.yml").read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


EXPRESSIONS = [*board_expressions(), *(rule["expr"] for rule in rules())]


def problems(expression: str, served: dict[str, dict[str, set[str]]]) -> list[str]:
    found: list[str] = []
    known: set[str] = set(EVERYWHERE)
    for metric, selector in _METRIC.findall(expression):
        if metric not in served:
            found.append(f"there is no {metric}")
            continue
        labels = served[metric]
        known |= labels.keys()
        for label, how, value in _MATCHER.findall(selector):
            if label not in labels.keys() | EVERYWHERE:
                found.append(f"{metric} has no label {label}")
            elif label == "state" and value not in set(BreakerState):
                found.append(f"{value} is no state")
            elif label in ("route", "operation") and how in ("=", "!=") and value not in labels[label]:
                found.append(f"{metric} has no {label} {value}")
    for group in _GROUPED.findall(expression):
        found += [f"no label {name}" for name in re.findall(r"\w+", group) if name not in known]
    return found


@pytest.mark.slow
def test_what_is_asked_for_is_there(served: dict[str, dict[str, set[str]]]) -> None:
    assert len(EXPRESSIONS) > 25
    assert {expression: problems(expression, served) for expression in EXPRESSIONS} == {e: [] for e in EXPRESSIONS}
    # The other way round: nothing that is measured is shown nowhere.
    shown = {metric for expression in EXPRESSIONS for metric, _ in _METRIC.findall(expression)}
    whole = {
        re.sub(r"_(count|sum|created)$", "_bucket", metric) for metric in served if not metric.endswith("_created")
    }
    assert whole - shown == set()


@pytest.mark.slow
def test_what_is_wrong_would_be_seen(served: dict[str, dict[str, set[str]]]) -> None:
    for wrong in (
        "rate(imagora_request_total[5m])",
        'imagora_requests_total{site="a"}',
        "sum by (emetteur) (imagora_requests_total)",
        'imagora_member_breaker{state="shut"}',
        'imagora_requests_total{route="/ready"}',
    ):
        assert problems(wrong, served), wrong


def test_annotations_use_labels_that_the_alert_keeps() -> None:
    for rule in rules():
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = {name for group in _GROUPED.findall(rule["expr"]) for name in re.findall(r"\w+", group)}
        assert used <= grouped or rule["expr"].startswith("up"), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_panels_of_the_board_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    identifiers = [panel["id"] for panel in board()["panels"]]
    assert len(identifiers) == len(set(identifiers))
