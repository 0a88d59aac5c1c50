"""A member's client for examinations: one page as the member gives it, read no further than need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from dicomweb.client import JSON_TYPES, DicomWebMember
from dicomweb.member_json import data_sets
from dicomweb.streams import FULL
from dicomweb.wire import query as wire_query
from dicomweb.wire.media import parse_content_type
from federation.errors import MemberError, MemberGarbage, MemberTimeout
from federation.model import Attributes, Deadline

#: A row takes a few kilobytes; a page that is larger than this is none.
_PAGE_MAX = 8 << 20
#: Requests of one examination, at most. A member that is well is asked some forty.
QUESTIONS_MAX = 80
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_OPENING = b"{["


class RowSplitter:
    """Finds the objects of a JSON array as its bytes arrive. `complete` once the array was closed.

    Some servers leave the array out for a single object. What is no array of objects raises `MemberGarbage`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._start = 0
        self._open = b""  # the brackets around `_at`
        self._in_text = False
        self.complete = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """→ the objects that are now whole."""
        self._buffer += chunk
        found: list[bytes] = []
        while not self.complete and self._step(found):
            pass
        return found

    def finish(self) -> None:
        """The bytes ended."""
        rest = self._buffer[self._at :] if self.complete else self._buffer
        if rest.strip():
            raise MemberGarbage("not JSON")

    def _step(self, found: list[bytes]) -> bool:
        if self._in_text:
            return self._skip_text()
        match = _OUTSIDE.search(self._buffer, self._at)
        if match is None:
            if not self._open and self._buffer[self._at :].strip():
                raise MemberGarbage("not an array of data sets")
            return False
        sign, place = match[0], match.start()
        if not self._open:
            if sign not in (b"[", b"{") or self._buffer[:place].strip():
                raise MemberGarbage("not an array of data sets")
            del self._buffer[:place]
            place = 0
        self._at = place + 1
        if sign == b'"':
            self._in_text = True
        elif sign in _OPENING:
            if sign == b"{" and self._open in (b"", b"["):
                self._start = place
            self._open += sign
        else:
            self._close(sign, found)
        return True

    def _close(self, sign: bytes, found: list[bytes]) -> None:
        if self._open[-1:] != (b"{" if sign == b"}" else b"["):
            raise MemberGarbage("not JSON")
        self._open = self._open[:-1]
        if sign == b"}" and self._open in (b"", b"["):
            found.append(bytes(self._buffer[self._start : self._at]))
            if self._open:
                # What was found is not needed any more: only an array's bracket stays.
                del self._buffer[: self._at]
                self._buffer[:0] = b"["
                self._at = 1
        elif not self._open and self._buffer[1 : self._at - 1].strip(b" ,\t\r\n"):
            raise MemberGarbage("not an array of data sets")
        self.complete = not self._open

    def _skip_text(self) -> bool:
        match = _INSIDE.search(self._buffer, self._at)
        if match is None:
            self._at = len(self._buffer)
            return False
        if match[0] == b"\\":
            if match.end() == len(self._buffer):
                self._at = match.start()
                return False
            self._at = match.end() + 1
            return True
        self._at = match.end()
        self._in_text = False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer to a search. `whole` = it ended by itself, else reading stopped at the row after the last wanted."""

    rows: list[Attributes]
    whole: bool
    elapsed_s: float  # until the answer's head was there
    status: int = 200


class TooManyQuestions(MemberError):
    """The examination has asked as much as one may; it is at fault, not the member."""

    counts_against_member = False


class ProbedMember(DicomWebMember):
    """`DicomWebMember`, with questions that show the member's habits. Every error that leaves is a `MemberError`.

    No more than `QUESTIONS_MAX` requests are made, one after the other.
    """

    json_type = JSON_TYPES[0]  # what searches accept
    questions = 0
    #: Whether what is no ASCII came in UTF-8; None = only ASCII came.
    utf_8: bool | None = None

    async def page(
        self,
        path: str,
        filters: Mapping[str, str],
        *,
        include: Sequence[str] = (),
        limit: int,
        offset: int = 0,
        most: int,
        deadline: Deadline,
        encoded: str = "",
    ) -> Page:
        """Ask `path` (`/studies`, …) once and read at most `most` rows, whatever the member sends.

        `encoded` stands in the query as it is.
        """
        text = wire_query.for_member(filters, include, include_all=False, limit=limit, offset=offset)
        text = f"{encoded}&{text}" if encoded else text
        asked = time.monotonic()
        async with self._request(f"{path}?{text}", self.json_type, deadline) as response:
            elapsed_s = time.monotonic() - asked
            if response.status == 204:
                return Page(rows=[], whole=True, elapsed_s=elapsed_s, status=204)
            charset = parse_content_type(response.headers.get("Content-Type", "")).parameters.get("charset", "")
            with self._translated():
                try:
                    async with asyncio.timeout(deadline.remaining_s):
                        raw, whole = await _read_rows(response, most)
                except TimeoutError:
                    raise MemberTimeout(f"{self.site.emetteur}: the answer's body took too long") from None
        body = b"[" + b",".join(raw) + b"]"
        self._note_encoding(body)
        return Page(rows=data_sets(body, charset), whole=whole, elapsed_s=elapsed_s, status=response.status)

    def _note_encoding(self, body: bytes) -> None:
        if body.isascii() and rb"\u" not in body:
            return
        try:
            good = "\ufffd" not in body.decode("utf-8")
        except UnicodeDecodeError:
            good = False
        self.utf_8 = good and self.utf_8 is not False

    async def answers(self, method: str, path: str, accept: str, deadline: Deadline) -> tuple[int, str]:
        """→ (status, media type) of an answer whose body is not read."""
        self._count()
        with self._translated():
            try:
                async with asyncio.timeout(deadline.remaining_s):
                    response = await self._connections.kept().request(
                        method, URL(self._base + path, encoded=True), headers={"Accept": accept}, allow_redirects=False
                    )
            except TimeoutError:
                raise MemberTimeout(f"{self.site.emetteur}: no answer within its deadline") from None
        response.close()
        return response.status, parse_content_type(response.headers.get("Content-Type", "")).media_type

    @contextlib.asynccontextmanager
    async def _request(
        self, path: str, accept: str, deadline: Deadline, buffer: int = FULL, **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        self._count()
        async with super()._request(path, accept, deadline, buffer, **headers) as response:
            yield response

    def _count(self) -> None:
        self.questions += 1
        if self.questions > QUESTIONS_MAX:
            raise TooManyQuestions(f"{self.site.emetteur}: after {QUESTIONS_MAX} questions")


async def _read_rows(response: aiohttp.ClientResponse, most: int) -> tuple[list[bytes], bool]:
    splitter = RowSplitter()
    rows: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        rows += splitter.feed(chunk)
        if len(rows) >= most and not splitter.complete:
            return rows[:most], False
        if size > _PAGE_MAX:
            raise MemberGarbage(f"a page of more than {_PAGE_MAX >> 20} MB")
    splitter.finish()
    return rows[:most], len(rows) <= most


def reason(error: MemberError) -> str:
    """Why a request failed, in words for who can mend it. No addresses, no data."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            certificate_error = cause.certificate_error
            return f"its certificate is not trusted ({getattr(certificate_error, 'verify_message', 'not valid')})"
        if isinstance(cause, aiohttp.ClientConnectorSSLError):
            return "no secure connection could be agreed on (TLS)"
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return "its host name is not known here"
        if isinstance(cause, aiohttp.ClientConnectorError):
            number = cause.os_error.errno  # its own text may name the address
            return f"no connection ({os.strerror(number) if number else type(cause.os_error).__name__})"
        cause = cause.__context__
    return str(error)
