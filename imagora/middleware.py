"""The outermost layer of every request: its id, its log line, its metrics, and a last word on faults of ours."""

from __future__ import annotations

import logging
import secrets
import time
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagora.metrics import Metrics
from imagora.settings import is_loopback

_log = logging.getLogger("imagora.access")
_HOST = b'{"error": "This server does not go by that name; use the address in its public_url."}'
_FAULT = b'{"error": "Something went wrong here; the fault is logged under the request id of this answer."}'


class Observed:
    """ASGI layer. Logs the route's pattern, never the path: paths and queries hold patients' data."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = sent = 0
        complete = False
        started = time.monotonic()

        async def observed(message: Message) -> None:
            nonlocal status, sent, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        self._metrics.began()
        try:
            await self._app(scope, receive, observed)
        except Exception:
            _log.exception("fault", extra={"request_id": request_id, "route": _route(scope)})
            if status == 0:
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_FAULT)).encode())]
                await observed({"type": "http.response.start", "status": 500, "headers": headers})
                await observed({"type": "http.response.body", "body": _FAULT})
        finally:
            elapsed = time.monotonic() - started
            route = _route(scope)
            self._metrics.ended(scope["method"], route, status, elapsed, sent, complete=complete)
            _log.info(
                "answered" if complete else "broken off",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(elapsed * 1000, 1),
                },
            )


#: Probes and collectors ask each server by its own address. These hold no patient's data.
ASKED_BY_ADDRESS = frozenset(("/healthz", "/readyz", "/metrics"))


class KnownHosts:
    """ASGI layer. Answers only under names of ours: a foreign page that had its own name point to this machine's
    loopback address (DNS rebinding) could otherwise read what only this machine's users may."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ASKED_BY_ADDRESS:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            try:
                name = (urlsplit(f"//{host}").hostname or "").lower()
            except ValueError:
                name = host
            if host and name not in self._names and not is_loopback(name):
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_HOST)).encode())]
                await send({"type": "http.response.start", "status": 421, "headers": headers})
                await send({"type": "http.response.body", "body": _HOST})
                return
        await self._app(scope, receive, send)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", None) or "other"
