"""STOW-RS towards a member (PS3.18 §10.5): one request, its body made as parts come, and the member's word on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from yarl import URL

from dicomweb.wire.media import related
from dicomweb.wire.multipart import MultipartWriter, fresh_boundary
from federation.errors import MemberCannot, MemberError, MemberGarbage, MemberTimeout
from federation.model import Attributes, Buffer, MemberStored, PartEvent

#: Largest answer that is read, in bytes: some hundred for each of very many instances.
ANSWER_CAP = 32 << 20
_REFERENCED, _FAILED = "00081199", "00081198"
_SOP_INSTANCE, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
#: PS3.7 §C.4.2: processing failure.
_PROCESSING = 0x0110


class _Upload:
    """The body of one request. Who makes it waits until the member has taken what there is."""

    def __init__(self, parts: AsyncIterator[Sequence[PartEvent]]) -> None:
        self._parts = parts
        self._waiting: asyncio.Queue[list[Buffer] | None] = asyncio.Queue(1)
        self.boundary = fresh_boundary()
        self._writer = MultipartWriter(self.boundary)

    async def body(self) -> AsyncGenerator[Buffer, None]:
        """What aiohttp sends. Ends with the closing boundary, or not at all."""
        while (pieces := await self._waiting.get()) is not None:
            for piece in pieces:
                yield piece
        yield self._writer.close()

    async def fill(self, request: asyncio.Task[Any], idle_s: float) -> bool:
        """Read the parts and hand them on, no faster than they are taken. False: the request has ended before.

        Raises what the parts raise, and `TimeoutError` if the member takes nothing for so long.
        """
        async for batch in self._parts:
            if not await self._hand(self._writer.write(batch), request, idle_s):
                return False
        return await self._hand(None, request, idle_s)

    async def _hand(self, pieces: list[Buffer] | None, request: asyncio.Task[Any], idle_s: float) -> bool:
        if request.done():
            return False
        put = asyncio.ensure_future(self._waiting.put(pieces))
        try:
            done, _ = await asyncio.wait({put, request}, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
        if not done:
            raise TimeoutError
        return put in done


async def store(
    session: aiohttp.ClientSession,
    base: str,
    name: str,
    parts: AsyncIterator[Sequence[PartEvent]],
    study_uid: str | None,
    *,
    idle_s: float,
    answer_s: float,
    translated: Callable[[], contextlib.AbstractContextManager[None]],
    refusal: Callable[[str, int], MemberError],
    read: Callable[[aiohttp.ClientResponse, int], Awaitable[bytes]],
    data_sets: Callable[[bytes, str], list[Attributes]],
) -> MemberStored:
    """`federation.model.Member.store`. `idle_s`: so long the member may take nothing; `answer_s`: so long it may think
    about its answer once it has all."""
    upload = _Upload(parts)

    async def post() -> tuple[int, bytes]:
        async with session.post(
            URL(f"{base}/studies" + (f"/{study_uid}" if study_uid is not None else ""), encoded=True),
            data=upload.body(),
            headers={
                "Content-Type": related("application/dicom", upload.boundary),
                "Accept": "application/dicom+json",
            },
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),  # it is silent as long as it reads
        ) as response:
            return response.status, await read(response, ANSWER_CAP)

    request = asyncio.ensure_future(post())
    try:
        with translated():
            try:
                sent = await upload.fill(request, idle_s)
            except TimeoutError:
                raise MemberTimeout(f"{name}: takes nothing of what it is to store") from None
            try:
                async with asyncio.timeout(answer_s):
                    status, raw = await request
            except TimeoutError:
                raise MemberTimeout(f"{name}: does not say what it stored") from None
    finally:
        if not request.done():
            request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    if status in (200, 202, 409):
        if not sent:
            raise MemberGarbage(f"{name}: answered before all was sent")
        return told(data_sets(raw, ""))
    if status == 413:
        raise MemberCannot(f"{name}: too large for it")
    raise refusal(name, status)


def told(answer: Sequence[Attributes]) -> MemberStored:
    """A Store Instances Response (PS3.18 §10.5.3, §I.2.2). Raises `MemberGarbage`."""
    if not answer:
        raise MemberGarbage("does not say what it stored")
    stored: dict[str, int] = {}
    failed: dict[str, int] = {}
    for data_set in answer:
        for item in _items(data_set, _REFERENCED):
            if sop := _first(item, _SOP_INSTANCE):
                stored[str(sop)] = _number(item, _WARNING_REASON, 0)
        for item in _items(data_set, _FAILED):
            if sop := _first(item, _SOP_INSTANCE):
                failed[str(sop)] = _number(item, _FAILURE_REASON, _PROCESSING) or _PROCESSING
    # Told both ways, it is not known to be there.
    return MemberStored(stored={s: w for s, w in stored.items() if s not in failed}, failed=failed)


def _items(data_set: Attributes, tag: str) -> list[Attributes]:
    values = data_set.get(tag, {}).get("Value") or ()
    return [v for v in values if isinstance(v, dict)]


def _first(item: Attributes, tag: str) -> Any:
    values = item.get(tag, {}).get("Value")
    return values[0] if values else None


def _number(item: Attributes, tag: str, default: int) -> int:
    value = _first(item, tag)
    try:
        return int(value) if value is not None else default
    except (TypeError, ValueError):
        return default
