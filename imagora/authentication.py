"""Who asks, found out before any route: each request passes here, and only what is named as open passes unasked."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from consent import Event, EventKind, EventOutcome, Requester, Unavailable, utc_now
from consent.admission import NotAdmitted, Refusal, admit
from consent.bearer import BearerCheck
from consent.sessions import Session, Sessions, is_form_token
from consent.tokens import InvalidToken
from portal.forms import FORM_FIELD, FORM_HEADER, BadForm, form_fields, is_same_origin
from portal.ohif import is_static
from portal.sign_in import SIGN_IN, session_word
from registry import Directory
from registry.database import DatabaseError
from registry.people import rpps_of
from registry.watch import RegistryCache

_log = logging.getLogger(__name__)

#: Who asks without sign-in (`auth.mode = "local"`): whoever uses this machine. The server listens on loopback only.
LOCAL = Requester(id="local", name="local")

#: Open to all. The first two hold nothing; /metrics asks for a token of its own.
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/metrics"))
#: A token's id in traces is cut here.
_JTI_MAX = 128
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_REALM = 'Bearer realm="imagora"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What requests are checked against. `trace` returns once an event is durable. `sessions`: where people sign in at
    the portal, else None."""

    bearer: BearerCheck
    registry: RegistryCache
    charter_version: str
    trace: Callable[[Event], Awaitable[None]]
    sessions: Sessions | None = None


class Refused(Exception):
    """The request goes no further. The text is for people; it holds nothing of the request."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.more = more


_ADMITTED_MAX = 10_000


class Authenticated:
    """ASGI layer. Puts the requester into `request.state.requester`, or refuses.

    `credentials` gives None as long as the server is not up. Bearer tokens count wherever they come; a session's cookie
    counts for reading and for the portal's own forms, never for storing.
    """

    def __init__(self, app: ASGIApp, credentials: Callable[[], Credentials | None], *, sign_in: bool) -> None:
        self._app = app
        self._credentials = credentials
        self._sign_in = sign_in
        # Who was let in, by identifier and credential, under the picture of the registry that let him in.
        self._admitted: dict[tuple[str, str], tuple[Directory, Requester]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"nothing here speaks {scope['type']}")
        try:
            requester, receive = await self._requester(scope, receive)
        except Refused as refused:
            await _refuse(send, refused)
            return
        scope.setdefault("state", {})["requester"] = requester
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http":
            return False
        path = scope["path"]
        return (
            path in OPEN_PATHS
            or (self._sign_in and path == SIGN_IN)
            or (scope["method"] in ("GET", "HEAD") and is_static(path))
        )

    async def _requester(self, scope: Scope, receive: Receive) -> tuple[Requester, Receive]:
        credentials = self._credentials()
        if credentials is None:
            raise _unavailable()
        headers = Headers(scope=scope)
        try:
            if "authorization" in headers:
                claims = await credentials.bearer(_bearer(headers))
                identifier, credential = claims.identifier, claims.jti[:_JTI_MAX]
            else:
                session, receive = await self._by_session(credentials, scope, headers, receive)
                identifier, credential = session.rpps, session.credential
            if not await credentials.registry.fresh():
                raise _unavailable()
            directory = credentials.registry.directory
            known = self._admitted.get((identifier, credential))
            if known is not None and known[0] is directory:
                return known[1], receive
            try:
                requester = admit(identifier, directory, credentials.charter_version)
            except NotAdmitted as error:
                await credentials.trace(_not_admitted(identifier, credential, error.refusal))
                raise Refused(403, str(error), reason=error.refusal.value) from None
            requester = replace(requester, credential=credential)
            if len(self._admitted) >= _ADMITTED_MAX:
                self._admitted.clear()
            self._admitted[(identifier, credential)] = (directory, requester)
            return requester, receive
        except InvalidToken as error:
            challenge = f'{_REALM}, error="invalid_token", error_description="{error}"'  # RFC 6750 §3
            raise Refused(401, f"The token is not taken: {error}.", {"www-authenticate": challenge}) from None
        except BadForm as error:
            raise Refused(error.status, str(error)) from None
        except (DatabaseError, Unavailable) as error:
            _log.error("nobody can be let in: %s", error)
            raise _unavailable() from None

    async def _by_session(
        self, credentials: Credentials, scope: Scope, headers: Headers, receive: Receive
    ) -> tuple[Session, Receive]:
        """The session, and the body to be read. Raises `Refused`, `DatabaseUnavailable`."""
        safe = scope["method"] in _SAFE_METHODS
        stores = not safe and "/dicom-web" in scope["path"]
        word = session_word(headers) if not stores else None
        if credentials.sessions is None or word is None:
            raise self._unknown(scope, headers)
        # A database that has not confirmed the registry lately would let the look-up for the session wait in vain.
        if not await credentials.registry.fresh():
            raise _unavailable()
        if (session := await credentials.sessions.find(word)) is None:
            raise self._unknown(scope, headers)
        if not safe:
            # SameSite=Lax keeps other sites' forms away; these two keep away what it lets through.
            if not is_same_origin(headers):
                raise Refused(403, "This request does not come from a page of this server.")
            given = headers.get(FORM_HEADER)
            if given is None:
                fields, receive = await form_fields(headers, receive)
                given = fields.get(FORM_FIELD, "")
            if not is_form_token(word, given):
                raise Refused(403, "The form's token is missing or no longer good: load the page again.")
        return session, receive

    def _unknown(self, scope: Scope, headers: Headers) -> Refused:
        page = scope["method"] == "GET" and "/dicom-web" not in scope["path"]
        if self._sign_in and page and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            target = quote(scope["path"]) + (f"?{query}" if query else "")
            return Refused(303, "Sign in first.", {"location": f"{SIGN_IN}?next={quote(target, safe='/')}"})
        advice = f" or sign in at {SIGN_IN}" if self._sign_in else ""
        return Refused(401, f"Who asks? Send a bearer token{advice}.", {"www-authenticate": _REALM})


class Local:
    """ASGI layer of `auth.mode = "local"`: one requester for all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["requester"] = LOCAL
        await self._app(scope, receive, send)


def requester_of(request: Request) -> Requester:
    """Who makes this request. An error if it did not pass the check."""
    requester = request.state.requester
    assert isinstance(requester, Requester)
    return requester


def _not_admitted(identifier: str, credential: str, refusal: Refusal) -> Event:
    """Somebody who is who he says may not ask. His name and site are the registry's to tell, so they are left out."""
    return Event(
        kind=EventKind.REFUSED,
        requester=Requester(id=rpps_of(identifier) or identifier[:_JTI_MAX], credential=credential),
        at=utc_now(),
        outcome=EventOutcome.FAILURE,
        detail={"reason": f"not admitted: {refusal.value}"},
    )


def _bearer(headers: Headers) -> str:
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ")
    if len(given) != 1 or scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("the Authorization header does not hold one bearer token")
    return token.strip()


def _unavailable() -> Refused:
    return Refused(503, "Who may ask can't be found out now, so nothing is shown.", {"retry-after": "5"})


async def _refuse(send: Send, refused: Refused) -> None:
    body = orjson.dumps({"error": str(refused), **refused.more})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "vary": "Authorization, Cookie",
        **refused.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
