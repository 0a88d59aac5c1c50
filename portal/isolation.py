"""Response headers that keep the viewer's page to itself, and the page from others."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: On every response of the server, errors included. The first three make a page `crossOriginIsolated`, without
#: which there is no SharedArrayBuffer (HTML §7.1.3, §7.1.4); a worker's own script needs them too.
ISOLATION_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

#: For pages of ours that hold no script.
PLAIN_PAGE_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#: For those with a form that is sent to this server.
FORM_PAGE_POLICY = PLAIN_PAGE_POLICY.replace("form-action 'none'", "form-action 'self'")

_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)


class IsolationHeaders:
    """ASGI layer that adds `ISOLATION_HEADERS` to each response that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_isolated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in ISOLATION_HEADERS if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_isolated)


def viewer_policy(inline_scripts: Iterable[str] = ()) -> str:
    """The Content-Security-Policy under which OHIF works; `inline_scripts` are allowed by their hash.

    Everything comes from this origin. OHIF compiles WebAssembly and, in its codecs' bindings and array kernels,
    functions from text (`new Function`), so both forms of evaluation stay allowed. It starts workers and shows
    PDF and video from `blob:`, and styles elements inline.
    """
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in inline_scripts)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' blob: 'unsafe-eval' 'wasm-unsafe-eval' {hashes}".rstrip(),
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' blob: data:",
            "font-src 'self' data:",
            "connect-src 'self' blob: data:",
            "media-src 'self' blob:",
            "object-src 'self' blob:",
            "frame-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        )
    )


def inline_scripts(page: str) -> list[str]:
    """The text of each script that stands in an HTML page itself."""
    return _INLINE_SCRIPT.findall(page)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
