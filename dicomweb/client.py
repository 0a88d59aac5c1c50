"""A member that speaks DICOMweb, over aiohttp: pooled, with deadlines, caps and no trust in what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
import orjson
from yarl import URL

from dicomweb.wire import query as wire_query
from dicomweb.wire.media import parse_content_type
from dicomweb.wire.multipart import BadMultipart, MultipartReader
from federation.errors import (
    MemberCannot,
    MemberError,
    MemberFault,
    MemberGarbage,
    MemberNotFound,
    MemberRefused,
    MemberTimeout,
    MemberUnreachable,
)
from federation.model import (
    PART_END,
    Accept,
    Attributes,
    Buffer,
    Deadline,
    Form,
    Level,
    MemberRows,
    PartBegin,
    PartEvent,
    Query,
    Target,
)
from registry import Site

_READ_BUFFER = 1 << 18
_TAG = re.compile(r"[0-9A-F]{8}")
_MORE = re.compile(r"there are\s+(at least\s+)?\d+\s+additional results", re.IGNORECASE)
_LINK = re.compile(r"/studies/[0-9.]{1,64}/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{1,2000}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Caps in bytes, times in seconds."""

    json_cap: int = 64 << 20
    metadata_cap: int = 256 << 20
    idle_s: float = 30.0  # a body under way that gives nothing for so long is broken
    connections: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """At most one of the two forms: `user` and `password` (Basic) or `token` (Bearer)."""

    user: str | None = None
    password: str | None = None
    token: str | None = None

    def header(self) -> dict[str, str]:
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.user is not None:
            return {"Authorization": aiohttp.encode_basic_auth(self.user, self.password or "")}
        return {}


class DicomWebMember:
    """`federation.model.Member` over DICOMweb. Every error that leaves is a `MemberError`."""

    def __init__(
        self,
        site: Site,
        *,
        credentials: Credentials | None = None,
        options: ClientOptions | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if site.dicomweb is None:
            raise ValueError(f"{site.emetteur} has no DICOMweb address")
        self.site = site
        self._base = site.dicomweb.rstrip("/")
        self._options = options or ClientOptions()
        self._headers = {
            "Accept-Encoding": "identity",
            "User-Agent": "Imagora",
            **(credentials or Credentials()).header(),
        }
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._decodes = False  # whether it was seen to understand percent-encoded values

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._options.connections, ssl=self._tls if self._tls is not None else True, ttl_dns_cache=60
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                trust_env=False,
                read_bufsize=_READ_BUFFER,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=self._options.idle_s),
            )
        return self._session

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # Search -----------------------------------------------------------------------------------------------------

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        """At most `limit` rows, and whether there are more."""
        answer = await self._pages(query, query.filters, limit, deadline)
        if self._decodes or wire_query.is_plain(query.filters):
            return answer
        if answer.rows:
            self._decodes = _shows_decoding(answer.rows, query.filters)
            return answer
        # Nothing found: or it looked for the encoded text itself.
        searches = wire_query.without_escapes(query.filters)
        answers = await asyncio.gather(*(self._pages(query, f, limit, deadline) for f in searches))
        rows = [row for a in answers for row in a.rows]
        return MemberRows(rows=rows[:limit], more=len(rows) > limit or any(a.more for a in answers))

    async def _pages(self, query: Query, filters: Mapping[str, str], limit: int, deadline: Deadline) -> MemberRows:
        """Asks on where the member says that it holds rows back, until it gives nothing new."""
        path = _search_path(query)
        uid_tag = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}[query.level]
        rows: list[Attributes] = []
        seen: set[str] = set()
        while True:
            text = wire_query.for_member(
                filters,
                sorted(query.include),
                include_all=query.include_all,
                limit=limit - len(rows),
                offset=len(rows),
            )
            try:
                body, says_more = await self._json(f"{path}?{text}", deadline, self._options.json_cap)
            except MemberNotFound as error:
                if query.study_uid is not None:
                    return MemberRows(rows=[])
                # No match is 204 or []; this address has no search at all, and silence would hide that.
                raise MemberGarbage(str(error)) from None
            fresh = []
            for row in body:
                key = orjson.dumps([row.get(uid_tag), row.get("0020000D"), row.get("00100020")]).decode()
                if key not in seen:
                    seen.add(key)
                    fresh.append(row)
            rows += fresh
            if len(rows) >= limit or not says_more or not fresh:
                return MemberRows(rows=rows[:limit], more=says_more or len(rows) > limit)

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        rows, more = await self._json(f"{_resource_path(target)}/metadata", deadline, self._options.metadata_cap)
        return MemberRows(rows=rows, more=more)

    async def _json(self, path: str, deadline: Deadline, cap: int) -> tuple[list[Attributes], bool]:
        """→ (data sets, whether the member says that it has more of them)."""
        async with self._request(path, "application/dicom+json", deadline) as response:
            if response.status == 204:
                return [], False
            with self._translated():
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        raw = await _read(response, cap)
                except TimeoutError:
                    raise MemberTimeout(f"{self.site.emetteur}: the answer's body took too long") from None
            more = response.status == 206 or any(_MORE.search(w) for w in response.headers.getall("Warning", ()))
            charset = parse_content_type(response.headers.get("Content-Type", "")).parameters.get("charset", "")
            return data_sets(raw, charset), more

    # Retrieve ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def retrieve(self, target: Target, accept: Accept, *, deadline: Deadline) -> AsyncIterator[_Delivery]:
        async with self._request(_retrieve_path(target), _accept_header(target, accept), deadline) as response:
            if response.status not in (200, 206) or response.content_length == 0:
                raise MemberNotFound(f"{self.site.emetteur}: an empty answer")
            yield _Delivery(response, self._translated)

    def link_of(self, uri: str, study_uid: str) -> str | None:
        """The part of a BulkDataURI below our base URL. A reference to anything else is not followed."""
        try:
            absolute = urlsplit(urljoin(f"{self._base}/", uri))
        except ValueError:
            return None
        if absolute.scheme not in ("http", "https"):
            return None
        # A member behind a proxy may not know its own address: what counts is the resource below it.
        at = absolute.path.find(f"/studies/{study_uid}/")
        if at < 0:
            return None
        link = absolute.path[at:] + (f"?{absolute.query}" if absolute.query else "")
        return link if valid_link(link, study_uid) else None

    # One request ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _request(self, path: str, accept: str, deadline: Deadline) -> AsyncIterator[aiohttp.ClientResponse]:
        """One GET, its head within the deadline, its status translated. Leaving closes what was not read."""
        response: aiohttp.ClientResponse | None = None
        try:
            with self._translated():
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        response = await self._pool().get(
                            URL(self._base + path, encoded=True), headers={"Accept": accept}, allow_redirects=False
                        )
                except TimeoutError:
                    raise MemberTimeout(f"{self.site.emetteur}: no answer within its deadline") from None
            if response.status not in (200, 204, 206):
                raise _refusal(self.site.emetteur, response.status)
            yield response
        finally:
            if response is not None:
                if not response.content.at_eof():
                    response.close()  # drop the connection: nothing more of it is wanted
                response.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """aiohttp's exceptions end here."""
        name = self.site.emetteur
        try:
            yield
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise MemberTimeout(f"{name}: silent for too long") from None
        except aiohttp.ClientConnectorError as error:
            raise MemberUnreachable(f"{name}: can't be reached ({type(error).__name__})") from None
        except aiohttp.ClientPayloadError:
            raise MemberUnreachable(f"{name}: broke off") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise MemberUnreachable(f"{name}: {type(error).__name__}") from None


class _Delivery:
    """An open body. `events` must be read to its end or the context left, which closes the connection."""

    def __init__(
        self, response: aiohttp.ClientResponse, translated: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        content_type = parse_content_type(response.headers.get("Content-Type", ""))
        self.multipart = content_type.media_type == "multipart/related"
        self._content_type = response.headers.get("Content-Type", "application/octet-stream")
        named = content_type.parameters.get("type", "").lower() if self.multipart else content_type.media_type
        self.media_type = named.partition(";")[0].strip()  # Orthanc puts the transfer syntax into the type
        self.partial = response.status == 206
        self._boundary = content_type.parameters.get("boundary", "").encode("latin-1", "replace")
        self._response = response
        self._translated = translated

    async def events(self) -> AsyncIterator[Sequence[PartEvent]]:
        if not self.multipart:
            if self._response.content_length is None and "Transfer-Encoding" not in self._response.headers:
                # RFC 9112 §6.3: it ends where the connection does, so one that is cut looks whole.
                raise MemberCannot("a single body without a length: whether it is whole can't be told")
            yield [PartBegin(content_type=self._content_type)]
            async for chunks in self._chunks():
                yield chunks
            yield [PART_END]
            return
        try:
            reader = MultipartReader(self._boundary)
            async for chunks in self._chunks():
                events = [event for chunk in chunks for event in reader.feed(chunk)]
                if events:
                    yield events
                if reader.complete:
                    return
        except BadMultipart as error:
            raise MemberGarbage(str(error)) from None
        # Some servers send neither a length nor chunks: only the closing boundary proves completeness.
        raise MemberUnreachable("the body ended without its closing boundary")

    async def _chunks(self) -> AsyncIterator[list[Buffer]]:
        """All that has come, in the pieces that the network made: copying them into one takes longer than relaying."""
        content = self._response.content
        # HTTP chunks may be tiny. They are better copied than handled one by one.
        framed = "Transfer-Encoding" in self._response.headers
        taken = 0
        while True:
            chunks: list[Buffer] = []
            with self._translated():
                while not chunks or taken < content.total_bytes:
                    chunk = await content.readany() if framed else (await content.readchunk())[0]
                    if not chunk:
                        break
                    chunks.append(chunk)
                    taken += len(chunk)
            if not chunks:
                return
            yield chunks


async def _read(response: aiohttp.ClientResponse, cap: int) -> bytes:
    if response.content_length is not None and response.content_length > cap:
        raise MemberGarbage(f"an answer of more than {cap >> 20} MB")
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > cap:
            raise MemberGarbage(f"an answer of more than {cap >> 20} MB")
        chunks.append(chunk)
    return b"".join(chunks)


def data_sets(raw: bytes, charset: str = "") -> list[Attributes]:
    """A body of DICOM JSON → data sets (PS3.18 Annex F). Raises `MemberGarbage`."""
    if not raw.strip():
        return []
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _loads_in(raw, charset)
    if isinstance(value, dict):
        value = [value]  # some servers leave the array out for a single data set
    if not isinstance(value, list):
        raise MemberGarbage("not an array of data sets")
    for item in value:
        _check(item)
    return value


def _loads_in(raw: bytes, charset: str) -> Any:
    """JSON shall be UTF-8; one that is not may still be in the character set that it names, or in Latin-1."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        named = charset if charset.lower() not in ("utf-8", "utf8") else ""  # many name it unasked, and lie
        try:
            return orjson.loads(raw.decode(named or "cp1252", "strict"))
        except (LookupError, ValueError):
            raise MemberGarbage("not JSON") from None
    raise MemberGarbage("not JSON")


def _check(item: Any) -> None:
    """Tags → objects with list values, UIDs without padding: what the engine relies on. Null values are dropped."""
    if not isinstance(item, dict):
        raise MemberGarbage("not a data set")
    for tag, content in list(item.items()):
        if not isinstance(content, dict):
            raise MemberGarbage("not a data set")
        if not _TAG.fullmatch(tag):
            if not _TAG.fullmatch(tag.upper()):
                raise MemberGarbage("not a data set")
            item[tag.upper()] = item.pop(tag)  # shall be upper case, PS3.18 §F.2.2; not all are
        values = content.get("Value")
        if values is None:
            content.pop("Value", None)
        elif not isinstance(values, list):
            raise MemberGarbage("a value that is no array")
        elif content.get("vr") == "SQ":
            for nested in values:
                if nested is not None:
                    _check(nested)
        elif content.get("vr") == "UI":
            content["Value"] = [v.strip(" \0") if isinstance(v, str) else v for v in values]


def _refusal(emetteur: str, status: int) -> MemberError:
    text = f"{emetteur}: HTTP {status}"
    if status in (401, 403):
        return MemberRefused(text)
    if status in (404, 410):
        return MemberNotFound(text)
    if status in (400, 406, 415, 501):
        return MemberCannot(text)
    if 300 <= status < 400:
        return MemberGarbage(f"{text}: redirects are not followed")
    if status in (429, 503):
        return MemberUnreachable(f"{text}: busy")
    return MemberFault(text)


def _shows_decoding(rows: Sequence[Attributes], filters: Mapping[str, str]) -> bool:
    """True if a row was found by a value that had to be percent-encoded, and not by chance."""
    encoded = [tag for tag, value in filters.items() if not wire_query.is_plain({tag: value})]
    return any(
        not wire_query.is_plain({tag: str(value if not isinstance(value, dict) else "".join(map(str, value.values())))})
        for row in rows
        for tag in encoded
        for value in row.get(tag, {}).get("Value", ())
    )


def _search_path(query: Query) -> str:
    path = ""
    if query.study_uid is not None:
        path += f"/studies/{query.study_uid}"
        if query.series_uid is not None:
            path += f"/series/{query.series_uid}"
    return path + {Level.STUDY: "/studies", Level.SERIES: "/series", Level.INSTANCE: "/instances"}[query.level]


def _resource_path(target: Target) -> str:
    path = f"/studies/{target.study_uid}"
    if target.series_uid is not None:
        path += f"/series/{target.series_uid}"
    if target.instance_uid is not None:
        path += f"/instances/{target.instance_uid}"
    return path


def _retrieve_path(target: Target) -> str:
    if target.form is Form.BULKDATA:
        assert target.link is not None
        assert valid_link(target.link, target.study_uid)
        return target.link
    path = _resource_path(target)
    if target.frames:
        path += f"/frames/{','.join(map(str, target.frames))}"
    if target.form in (Form.RENDERED, Form.THUMBNAIL):
        path += f"/{target.form}"
        if target.parameters:
            path += "?" + urlencode(target.parameters, safe=",")  # some members don't decode
    return path


def valid_link(link: str, study_uid: str) -> bool:
    return (
        _LINK.fullmatch(link) is not None
        and link.startswith(f"/studies/{study_uid}/")
        and ".." not in link.partition("?")[0].split("/")
        and "%2e" not in link.lower()
    )


def _accept_header(target: Target, accept: Accept) -> str:
    """The client's best choice in the one form that members agree on."""
    media_type, syntax = accept.choices[0]
    if target.form in (Form.RENDERED, Form.THUMBNAIL):
        return media_type
    suffix = f"; transfer-syntax={syntax}" if syntax else ""
    return f'multipart/related; type="{media_type}"{suffix}'
