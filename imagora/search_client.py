"""QIDO-RS from outside, over dicomweb-client: pages, and the headers that dicomweb-client drops."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient

from imagora.settings import is_loopback

Row = dict[str, Any]

#: Each page makes the server ask all members anew, so pages are large.
PAGE = 500
CONNECT_S = 5.0
#: What rows hold besides the attributes that every answer has.
FIELDS = (
    "StudyDescription",
    "ModalitiesInStudy",
    "PatientSex",
    "PatientBirthDate",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_MORE = re.compile(r"there are (at least )?(\d+) additional results", re.IGNORECASE)
#: RFC 7234 §5.5: code, agent, text (servers quote it or not).
_WARNING = re.compile(r"\d{3} \S+ (.*)", re.DOTALL)
_TEXT_MAX = 1000


class SearchFailed(Exception):
    """There is no answer; one line for people. `status` is the HTTP status, if there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Heard:
    """What the headers of one search's answers said."""

    warnings: list[str] = field(default_factory=list)  # sentences, in order, none twice
    sources: dict[str, str] = field(default_factory=dict)  # EMETTEUR → its worst status
    remaining: int = 0  # rows behind the last page, or at least so many
    at_least: bool = False

    @property
    def incomplete(self) -> bool:
        """True if a source is missing or was cut, or if nobody was asked."""
        if self.sources:
            return any(status != "ok" for status in self.sources.values())
        return bool(self.warnings)

    @property
    def asked(self) -> bool:
        """False if the server says why it asked none of its sources."""
        return bool(self.sources) or not self.warnings

    def hear(self, warnings: Sequence[str], sources: Sequence[str]) -> None:
        """Take the `Warning` and `Imagora-Sources` headers of one answer."""
        self.remaining, self.at_least = 0, False
        for header in warnings:
            for text in _sentences(header):
                if more := _MORE.search(text):
                    self.remaining, self.at_least = int(more[2]), bool(more[1])
                elif text not in self.warnings:
                    self.warnings.append(text)
        for item in ",".join(sources).split(","):
            emetteur, _, rest = item.strip().partition(";")
            status = rest.partition(";")[0]
            if emetteur and self.sources.get(emetteur, "ok") == "ok":
                self.sources[emetteur] = status


class SearchClient:
    """Searches for studies below `root`, which is the server's URL without `/dicom-web`. Raises `SearchFailed`."""

    def __init__(self, root: str, *, timeout_s: float, token: str | None = None) -> None:
        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # it would repeat a part of the warnings
        self._root = root
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # dicomweb-client leaves the port out of its Host header: without the header, requests writes the right one.
        self._session.auth = _drop_host
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.hooks["response"].append(self._listen)
        # A proxy of the house can't reach this machine's own addresses.
        self._session.trust_env = not is_loopback(urlsplit(root).hostname or "")
        self.heard = Heard()

    def close(self) -> None:
        self._session.close()

    def pages(self, prefix: str, filters: Mapping[str, str], limit: int | None) -> Iterator[list[Row]]:
        """Pages of at most `limit` rows in all, no row twice; what they lack is in `heard`.

        `prefix` is the scope's: `/sites/csrom41200`, `/folders/…` or "".
        """
        client = DICOMwebClient(
            f"{self._root}{prefix}/dicom-web", session=self._session, timeout=(CONNECT_S, self._timeout_s)
        )
        client.set_http_retry_params(retry=False)
        self.heard = Heard()
        seen: set[tuple[str, ...]] = set()
        offset = 0
        while limit is None or len(seen) < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - len(seen))
            rows = self._page(client, filters, wanted, offset)
            offset += len(rows)
            fresh = []
            for row in rows:
                key = tuple(str(row.get(tag, {}).get("Value")) for tag in ("0020000D", "00100020", "00081190"))
                if key not in seen:
                    seen.add(key)
                    fresh.append(row)
            if not fresh:
                return  # the end, or a server that does not honour `offset`
            yield fresh
            # A server that is not Imagora may not say whether more rows follow a full page.
            if not self.heard.remaining and (self.heard.sources or len(rows) < wanted):
                return

    def _page(self, client: DICOMwebClient, filters: Mapping[str, str], limit: int, offset: int) -> list[Row]:
        try:
            rows: object = client.search_for_studies(
                search_filters=dict(filters), fields=FIELDS, limit=limit, offset=offset or None
            )
        except requests.HTTPError as error:
            raise self._refusal(error.response) from None
        except requests.Timeout:
            raise SearchFailed(f"{self._root} did not answer within {self._timeout_s:g} s") from None
        except requests.exceptions.SSLError:
            raise SearchFailed(f"{self._root}: no secure connection, its certificate is not trusted") from None
        except requests.exceptions.JSONDecodeError:
            raise SearchFailed(f"{self._root} did not answer in DICOM JSON: is it a DICOMweb server?") from None
        except requests.ConnectionError:
            raise SearchFailed(f"{self._root} cannot be reached: is `imagora serve` running there?") from None
        except requests.RequestException as error:
            raise SearchFailed(f"{self._root}: the request failed ({type(error).__name__})") from None
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise SearchFailed(f"{self._root} did not answer in DICOM JSON: is it a DICOMweb server?")
        return rows[:limit]

    def _listen(self, response: requests.Response, *_: object, **__: object) -> None:
        """Called by requests with each answer, before dicomweb-client sees it."""
        headers = response.raw.headers  # those of urllib3, which keeps repeated ones apart
        self.heard.hear(headers.getlist("Warning"), headers.getlist("Imagora-Sources"))

    def _refusal(self, response: requests.Response) -> SearchFailed:
        said = _said(response)
        if response.status_code == 503 and (seconds := response.headers.get("Retry-After", "")).isdecimal():
            said += f" Try again in {seconds} s."
        where = f"{self._root} answered {response.status_code}"
        return SearchFailed(f"{where}: {said}" if said else where, response.status_code)


def _drop_host(request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers.pop("Host", None)
    return request


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(element, dict) for element in row.values())


def _sentences(header: str) -> Iterator[str]:
    """`299 imagora: text` → text. One header may hold several values: then they are quoted."""
    quoted = re.findall(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"', header)
    if quoted:
        yield from (re.sub(r"\\(.)", r"\1", text)[:_TEXT_MAX] for text in quoted)
        return
    match = _WARNING.fullmatch(header.strip())
    yield (match[1] if match else header)[:_TEXT_MAX]


def _said(response: requests.Response) -> str:
    """What an error's body says, in the form that Imagora writes. Anything else may hold whatever it likes."""
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return ""
    said = str(body["error"])[:_TEXT_MAX]
    urls = body.get("urls")
    if isinstance(urls, list) and urls:
        said += " Ask one of: " + ", ".join(str(url)[:_TEXT_MAX] for url in urls[:20])
    return said
