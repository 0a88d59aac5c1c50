"""What the questions that the demonstration asks of itself have in common: a client, and how answers are read."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

from imagora_demo import enrolment
from imagora_demo.enrolment import Professional

TIMEOUT_S = 60.0
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Message
    body: bytes

    def rows(self) -> list[Row]:
        """The objects of a DICOM JSON body; none for 204."""
        expect(self.status in (200, 204), f"status {self.status}: {self.body[:200]!r}")
        found: list[Row] = json.loads(self.body) if self.body else []
        return found

    def warnings(self) -> str:
        return " ".join(self.headers.get_all("Warning", []))

    def error(self) -> str:
        """What a refusal says to people."""
        return str(json.loads(self.body)["error"])


def expect(condition: bool, otherwise: str) -> None:
    """Raise `AssertionError` with this text unless the condition holds."""
    if not condition:
        raise AssertionError(otherwise)


def values(row: Row, tag: str) -> list[Any]:
    return list(row.get(tag, {}).get("Value", []))


def patient_ids(rows: list[Row]) -> set[str]:
    return {str(value) for row in rows for value in values(row, "00100020")}


def study_uids(rows: list[Row]) -> set[str]:
    return {str(value) for row in rows for value in values(row, "0020000D")}


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the server at `url`, as whoever the bearer token names. `settings` is the server's file."""

    url: str
    settings: Path
    token: str = ""

    def signed_in(self, person: Professional) -> Client:
        """The same client as somebody else."""
        return replace(self, token=enrolment.token(self.settings, person.rpps))

    def signed_out(self) -> Client:
        return replace(self, token="")

    def get(self, path: str, accept: str = "application/dicom+json", **query: str) -> Answer:
        target = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        return self._ask(urllib.request.Request(target, headers={"Accept": accept}))

    def post(self, path: str, body: dict[str, str]) -> Answer:
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers))

    def dicomweb(self, scope: str = "") -> DICOMwebClient:
        """dicomweb-client over the same server; `scope` as in `/sites/csrom41200`."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token}"
        return DICOMwebClient(f"{self.url}{scope}/dicom-web", session=session)

    def imagora(self, *arguments: str) -> Any:
        """What a command of `imagora` prints as JSON."""
        return json.loads(enrolment.imagora(self.settings, *arguments, "--format", "json"))

    def _ask(self, request: urllib.request.Request) -> Answer:
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())
