"""`POST /emergency`: a requester declares a vital emergency of one patient, and sees for two hours what is withheld.

No member is asked, so the answer is the same whether there is such a patient or not.
"""

from __future__ import annotations

import logging
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from consent import Event, EventKind, EventOutcome, Unavailable, utc_now
from consent.emergencies import (
    EMERGENCY_S,
    RUNNING_MAX,
    Emergency,
    EmergencyStore,
    Shown,
    TooManyRunning,
    Write,
)
from federation.identity import Id, qualify
from imagora.authentication import requester_of
from registry import Directory
from registry.database import DatabaseError
from registry.watch import RegistryCache

_log = logging.getLogger(__name__)

PATH = "/emergency"
BODY_MAX = 4096  # bytes
REASON_MAX = 500  # characters
#: A reason is typed for the correspondent who reads it later; a bar any higher would be paid for with time.
REASON_LETTERS = 5
_PATIENT_ID_MAX = 256
_WRITE = 'write {"patient_id": "IPP@EMETTEUR", "reason": "…"}'
#: Control characters, and the ends of lines that are none.
_UNTYPED = ("Cc", "Cs", "Zl", "Zp")


class _Refused(Exception):
    """The request is not taken; the text says what to send instead and repeats nothing of it."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a body says. `emetteur` in the registry's case."""

    ipp: str
    emetteur: str
    reason: str


def emergency_route(
    write: Write,
    store: EmergencyStore,
    registry: RegistryCache,
    shown: Shown,
    long_ids: Callable[[str], Id | None],
) -> Route:
    """The route of `POST /emergency`; it refuses every other method.

    `write` returns once a trace is durable and raises `Unavailable`; `shown` gives the PatientID as exams show it;
    `long_ids` says what a hashed one stands for, as far as this process knows.
    """
    return Route(PATH, _Endpoint(write, store, registry, shown, long_ids))


def shown_ids(directory: Callable[[], Directory], *, qualified: bool) -> Shown:
    """How exams name a patient of a site, and so traces: `4547@csrom41200`, or the bare IPP."""

    def shown(ipp: str, emetteur: str) -> str:
        site = directory().site(emetteur)
        return qualify(ipp, site) if qualified and site is not None else ipp

    return shown


class _Endpoint:
    """A class, so that Starlette hands it every method: else the viewer at the root would answer the others."""

    def __init__(
        self,
        write: Write,
        store: EmergencyStore,
        registry: RegistryCache,
        shown: Shown,
        long_ids: Callable[[str], Id | None],
    ) -> None:
        self._write = write
        self._store = store
        self._registry = registry
        self._shown = shown
        self._long_ids = long_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            emergency = await self._declared(request)
        except _Refused as refused:
            answer = JSONResponse({"error": str(refused)}, refused.status, refused.headers)
        except (DatabaseError, Unavailable) as error:
            _log.error("no emergency access can be given: %s", error)
            answer = JSONResponse(
                {"error": "The emergency cannot be recorded now, so nothing more is shown. Try again in a moment."},
                503,
                {"retry-after": "5"},
            )
        except ClientDisconnect:
            return
        else:
            answer = JSONResponse({"id": emergency.id, "expires_at": _moment(emergency.expires_at)}, 201)
        answer.headers["cache-control"] = "no-store"
        await answer(scope, receive, send)

    async def _declared(self, request: Request) -> Emergency:
        """Record what the request declares: it holds then. Raises `_Refused`, `Unavailable`, `DatabaseError`."""
        if request.method != "POST":
            raise _Refused(405, f"To declare an emergency, POST: {_WRITE}.", allow="POST")
        said = declaration(await _body(request), self._registry.directory)
        ipp, emetteur = await self._meant(said)
        at = utc_now()
        emergency = Emergency(
            id=secrets.token_hex(8),
            requester=requester_of(request),
            ipp=ipp,
            emetteur=emetteur,
            reason=said.reason,
            expires_at=at.replace(microsecond=0) + timedelta(seconds=EMERGENCY_S),
        )
        event = Event(
            kind=EventKind.EMERGENCY_STARTED,
            requester=emergency.requester,
            at=at,
            request_id=request.state.request_id,
            patient_id=self._shown(ipp, emetteur),
            origin=emetteur,
            detail={
                "emergency": emergency.id,
                "reason": emergency.reason,
                "expires_at": _moment(emergency.expires_at),
            },
        )
        try:
            await self._store.add(emergency, traced=lambda: self._write(event))
        except TooManyRunning as error:
            detail: dict[str, str | int | float] = {"reason": str(error), "declared": emergency.reason}
            await self._write(replace(event, kind=EventKind.REFUSED, outcome=EventOutcome.FAILURE, detail=detail))
            raise _Refused(
                429,
                f"You have {RUNNING_MAX} emergency accesses running, the most that one person may have at once. The "
                f"first of them ends at {_moment(error.first_end)}: declare this one then, or ask a colleague to.",
                retry_after=str(max(1, ceil((error.first_end - at).total_seconds()))),
            ) from None
        # The next request of this process sees it; those of others within a second.
        await self._registry.refresh()
        return emergency

    async def _meant(self, said: Declaration) -> Id:
        """The patient, where a hashed PatientID is given for one that is too long."""
        if not said.ipp.startswith("~"):
            return said.ipp, said.emetteur
        whole = f"{said.ipp}@{said.emetteur}"
        # Another process may have been the one that showed it.
        return self._long_ids(whole) or await self._store.long_id(whole) or (said.ipp, said.emetteur)


async def _body(request: Request) -> bytes:
    """Raises `_Refused`."""
    # A page of another origin can send other types without asking first (Fetch §2.2.2, CORS-safelisted).
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refused(415, f"Send application/json: {_WRITE}.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX:
            raise _Refused(413, f"This is more than {BODY_MAX} bytes: {_WRITE}.", connection="close")
    return body


def declaration(body: bytes, directory: Directory) -> Declaration:
    """Read and check a body. Raises `_Refused`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise _Refused(400, f"The body is not a JSON object: {_WRITE}.")
    ipp, emetteur = _patient(value.get("patient_id"), directory)
    return Declaration(ipp=ipp, emetteur=emetteur, reason=_reason(value.get("reason")))


def _patient(value: object, directory: Directory) -> tuple[str, str]:
    if isinstance(value, str) and len(value) <= _PATIENT_ID_MAX and _is_typed(value) and "\\" not in value:
        ipp, _, emetteur = value.strip().rpartition("@")
        site = directory.site(emetteur)
        if site is not None and ipp.strip():
            return ipp.strip(), site.emetteur
    raise _Refused(
        400,
        "patient_id: write IPP@EMETTEUR, as in 4547@csrom41200; what stands behind the last @ must be the EMETTEUR of "
        "a registered site.",
    )


def _reason(value: object) -> str:
    reason = value.strip() if isinstance(value, str) else ""
    if sum(c.isalpha() for c in reason) < REASON_LETTERS or len(reason) > REASON_MAX or not _is_typed(reason):
        raise _Refused(
            400,
            f"reason: say in a few words why this is a vital emergency: at least {REASON_LETTERS} letters, at most "
            f"{REASON_MAX} characters, on one line.",
        )
    return reason


def _is_typed(text: str) -> bool:
    return not any(unicodedata.category(c) in _UNTYPED for c in text)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
