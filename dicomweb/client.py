"""A member that speaks DICOMweb, over aiohttp: pooled, with deadlines, caps and no trust in what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from dicomweb import storing
from dicomweb.connections import Connections
from dicomweb.delivery import HttpDelivery
from dicomweb.member_json import data_sets, read
from dicomweb.member_paths import accept_header, refusal, resource_path, retrieve_path, valid_link
from dicomweb.searching import Searching
from dicomweb.seen import Seen
from dicomweb.streams import FULL, Streams
from dicomweb.wire.media import parse_content_type
from dicomweb.wire.ranges import written
from federation.errors import (
    MemberCannot,
    MemberError,
    MemberFault,
    MemberGarbage,
    MemberNotFound,
    MemberTimeout,
    MemberUnreachable,
)
from federation.model import (
    Accept,
    Attributes,
    Deadline,
    Form,
    MemberRows,
    MemberStored,
    PartEvent,
    Query,
    Span,
    Target,
)
from registry import Site

JSON_TYPES = ("application/dicom+json", "application/json")
#: What a member was seen to do.
_RANGES = "ranges"
_MORE = re.compile(r"there are\s+(at least\s+)?\d+\s+additional results", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Caps in bytes, times in seconds."""

    json_cap: int = 64 << 20
    metadata_cap: int = 256 << 20
    idle_s: float = 30.0  # a body under way that gives nothing, or takes nothing, for so long is broken
    store_answer_s: float = 120.0  # it may take so long to file what it was sent
    connections: int = 64
    streams: Streams = field(default_factory=Streams)


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
        self._connections = Connections(
            {"Accept-Encoding": "identity", "User-Agent": "Imagora", **(credentials or Credentials()).header()},
            tls=tls,
            limit=self._options.connections,
            idle_s=self._options.idle_s,
        )
        self._seen = Seen()
        self._searching = Searching(self._rows, lambda: self.site.quirks)

    async def aclose(self) -> None:
        await self._connections.aclose()

    # Search -----------------------------------------------------------------------------------------------------

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        """At most `limit` rows, and whether there are more."""
        return await self._searching.search(query, limit, deadline)

    async def _rows(self, path: str, deadline: Deadline) -> tuple[list[Attributes], bool]:
        return await self._json(path, deadline, self._options.json_cap)

    async def metadata(self, target: Target, *, deadline: Deadline) -> MemberRows:
        rows, more = await self._json(f"{resource_path(target)}/metadata", deadline, self._options.metadata_cap)
        return MemberRows(rows=rows, more=more)

    async def _json(self, path: str, deadline: Deadline, cap: int) -> tuple[list[Attributes], bool]:
        """→ (data sets, whether the member says that it has more of them).

        Under the name that it takes for DICOM JSON (PS3.18 §8.7.3.2): some know one of the two only.
        """
        usual, other = JSON_TYPES
        prefers_other = not self._seen.lately(usual) and (
            self._seen.lately(other) or self.site.quirks.takes_dicom_json is False
        )
        first, second = (other, usual) if prefers_other else (usual, other)
        try:
            return await self._json_as(first, path, deadline, cap)
        except (MemberCannot, MemberGarbage) as error:
            if self._seen.lately(first) or (isinstance(error, MemberGarbage) and not prefers_other):
                raise
            try:
                return await self._json_as(second, path, deadline, cap)
            except MemberError:
                raise error from None

    async def _json_as(self, media_type: str, path: str, deadline: Deadline, cap: int) -> tuple[list[Attributes], bool]:
        async with self._request(path, media_type, deadline) as response:
            if response.status == 204:
                return [], False
            with self._translated():
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        raw = await read(response, cap)
                except TimeoutError:
                    raise MemberTimeout(f"{self.site.emetteur}: the answer's body took too long") from None
            more = response.status == 206 or any(_MORE.search(w) for w in response.headers.getall("Warning", ()))
            charset = parse_content_type(response.headers.get("Content-Type", "")).parameters.get("charset", "")
            found = data_sets(raw, charset)
        self._seen.note(media_type)
        return found, more

    # Retrieve ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def retrieve(self, target: Target, accept: Accept, *, deadline: Deadline) -> AsyncIterator[HttpDelivery]:
        path, form = retrieve_path(target), accept_header(target, accept)
        async with contextlib.AsyncExitStack() as stack:
            buffer = stack.enter_context(self._options.streams.one_more())
            delivery: HttpDelivery | None = None
            if accept.span is not None and self._seen.lately(_RANGES):
                delivery = await self._ranged(stack, path, form, accept.span, deadline, buffer)
            if delivery is None:
                response = await stack.enter_async_context(self._request(path, form, deadline, buffer))
                if response.status not in (200, 206) or response.content_length == 0:
                    raise MemberNotFound(f"{self.site.emetteur}: an empty answer")
                delivery = HttpDelivery(response, self._translated, self.site.emetteur, path, batch=buffer)
                if target.form is Form.BULKDATA and delivery.ranges:
                    self._seen.note(_RANGES)
            yield delivery

    async def _ranged(
        self, stack: contextlib.AsyncExitStack, path: str, form: str, span: Span, deadline: Deadline, buffer: int
    ) -> HttpDelivery | None:
        """A range, of a member that gave single bodies lately and said that it gives ranges of them.

        None: it gives something else, such as a range of a body in parts, or the length of that one (416). So it is to
        be asked for the whole.
        """
        async with contextlib.AsyncExitStack() as own:
            with contextlib.suppress(MemberCannot, MemberFault):
                asked = self._request(path, form, deadline, buffer, Range=written(span))
                response = await own.enter_async_context(asked)
                delivery = HttpDelivery(response, self._translated, self.site.emetteur, path, span, batch=buffer)
                if response.status in (200, 206) and not delivery.partial and response.content_length != 0:
                    stack.push_async_exit(own.pop_all())
                    return delivery
        self._seen.forget(_RANGES)
        return None

    # Store ------------------------------------------------------------------------------------------------------

    async def store(self, parts: AsyncIterator[Sequence[PartEvent]], study_uid: str | None) -> MemberStored:
        return await storing.store(
            self._connections.once(),
            self._base,
            self.site.emetteur,
            parts,
            study_uid,
            idle_s=self._options.idle_s,
            answer_s=self._options.store_answer_s,
            translated=self._translated,
            refusal=refusal,
            read=read,
            data_sets=data_sets,
        )

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
    async def _request(
        self, path: str, accept: str, deadline: Deadline, buffer: int = FULL, **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One GET, its head within the deadline, its status translated. Leaving closes what was not read."""
        response: aiohttp.ClientResponse | None = None
        try:
            with self._translated():
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        response = await self._connections.get(
                            URL(self._base + path, encoded=True),
                            headers={"Accept": accept, **headers},
                            allow_redirects=False,
                            read_bufsize=buffer,
                        )
                except TimeoutError:
                    raise MemberTimeout(f"{self.site.emetteur}: no answer within its deadline") from None
            if response.status not in (200, 204, 206):
                raise refusal(self.site.emetteur, response.status)
            yield response
        finally:
            if response is not None:
                if not response.content.at_eof():
                    response.close()  # drop the connection: nothing more of it is wanted
                response.release()
                self._connections.given_back()

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
