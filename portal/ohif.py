"""The viewer: OHIF's prebuilt files at the root, with our configuration and banner.

OHIF is not changed on disk: its page gets two scripts of ours while it is served, and `app-config.js` is made
for each request from the registry.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Receive, Scope, Send

from portal.assets import MEDIA_TYPES, REVALIDATE, AssetTree, content_tag, not_modified
from portal.isolation import (
    PLAIN_PAGE_POLICY,
    IsolationHeaders,
    inline_scripts,
    viewer_policy,
)
from portal.ohif_config import app_config, folder_source, folders_with_members, site_source
from portal.pages import page, prefers_french
from registry import Directory

STATIC = Path(__file__).parent / "static"

#: First segments of paths that are never OHIF's: what nobody answered there is a 404, not the viewer's page.
RESERVED = frozenset(
    ("dicom-web", "folders", "sites", "patients", "portal", "wado", "emergency", "healthz", "readyz", "metrics")
)

#: Files of OHIF's build that are for other hosts' use.
WITHHELD = frozenset(("_headers", "_redirects", "serve.json", "google.js", "silent-refresh.html"))

#: Put before every script of OHIF: they wrap `fetch` and `XMLHttpRequest` before OHIF takes them.
PAGE_SCRIPTS = ("imagora-banner.js", "imagora-identifiers.js")
DEMO_SCRIPT = "imagora-demo.js"

_FIRST_SCRIPT = re.compile(r"<script\b|</head>", re.IGNORECASE)

MISSING = """\
<!doctype html>
<html lang="fr">
<head><meta charset="utf-8"><title>Imagora</title>
<link rel="stylesheet" href="/portal/static/imagora-pages.css"></head>
<body><main>
<section lang="fr"><h1>Le visualiseur n'est pas installé</h1>
<p>Lancez <code>scripts/setup</code> sur le serveur, puis rechargez cette page.
L'accès DICOMweb fonctionne : <code>/dicom-web/studies</code>.</p></section>
<section lang="en"><h1>The viewer is not installed</h1>
<p>Run <code>scripts/setup</code> on the server, then reload this page.
DICOMweb access works: <code>/dicom-web/studies</code>.</p></section>
</main></body></html>
"""


class Viewer:
    """ASGI application for everything at the root that no other route takes.

    dist: folder of OHIF's build (`@ohif/app`'s `dist`). None or missing → pages answer 503 and say what to do;
    it may appear or be replaced while the server runs. directory: gives the registry's present picture.
    demo: the page says that it is a demonstration's.
    """

    def __init__(
        self, dist: Path | None, directory: Callable[[], Directory], *, federation: str, demo: bool = False
    ) -> None:
        self._dist = dist
        self._directory = directory
        self._federation = federation
        self._scripts = (*PAGE_SCRIPTS, DEMO_SCRIPT) if demo else PAGE_SCRIPTS
        self._build: _Build | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the viewer does not speak {scope['type']}")
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = PurePosixPath(request.scope["path"].lstrip("/"))
        name = str(path)
        if path.parts and path.parts[0] in RESERVED:
            return _plain(404)
        if request.method not in ("GET", "HEAD"):
            return _plain(405, {"allow": "GET, HEAD"})
        if name == "app-config.js":
            text = app_config(self._directory(), federation=self._federation)
            return _made(request, text.encode(), MEDIA_TYPES[".js"], viewer_policy())
        build = await self._current_build()
        if name in WITHHELD:
            return _plain(404)
        if name != "index.html":
            if build is not None and name in build.tree.assets:
                headers = {"content-security-policy": build.policy}
                return await build.tree.respond(request, build.tree.assets[name], headers)
            if not _is_page(path):
                return _plain(404)
        if build is None:
            return _missing()
        return _made(request, build.page, MEDIA_TYPES[".html"], build.policy)

    async def _current_build(self) -> _Build | None:
        """The build on disk, read again when its page was replaced."""
        if self._dist is None:
            return None
        index = self._dist / "index.html"
        try:
            # One stat of one file: cheaper than the hop to a thread.
            status = index.stat()
        except OSError:
            self._build = None
            return None
        stamp = (status.st_ino, status.st_ctime_ns, status.st_size)
        if self._build is None or self._build.stamp != stamp:
            self._build = await asyncio.to_thread(_Build, self._dist, stamp, self._scripts)
        return self._build


class _Build:
    """One release of OHIF as found on disk: its files and its page with our scripts in it."""

    __slots__ = ("page", "policy", "stamp", "tree")

    def __init__(self, dist: Path, stamp: tuple[int, int, int], scripts: tuple[str, ...]) -> None:
        self.stamp = stamp
        self.tree = AssetTree(dist)
        page = (dist / "index.html").read_text(encoding="utf-8")
        self.policy = viewer_policy(inline_scripts(page))
        first = _FIRST_SCRIPT.search(page)
        at = first.start() if first else 0
        added = "".join(f'<script src="/portal/static/{name}"></script>' for name in scripts)
        self.page = f"{page[:at]}{added}{page[at:]}".encode()


def viewer_routes(
    dist: Path | None, directory: Callable[[], Directory], *, federation: str = "Imagora", demo: bool = False
) -> list[BaseRoute]:
    """Routes of the viewer, to stand last: `/portal/static/…`, `/portal/sources`, and all of `/`.

    federation: name shown for the data source over all members. demo: pages say that they are a demonstration's.
    """
    static = AssetTree(STATIC)

    async def static_file(request: Request) -> Response:
        asset = static.assets.get(request.path_params["name"])
        if asset is None:
            return _plain(404)
        return await static.respond(request, asset, {"content-security-policy": PLAIN_PAGE_POLICY})

    async def sources(request: Request) -> Response:
        text = _sources_page(directory(), federation, french=prefers_french(request), demo=demo)
        answer = _made(request, text.encode(), MEDIA_TYPES[".html"], PLAIN_PAGE_POLICY)
        answer.headers["vary"] = "Accept-Language"
        return answer

    inner = Router(
        [
            Route("/portal/static/{name:path}", static_file, methods=["GET"]),
            Route("/portal/sources", sources, methods=["GET"]),
            Mount("/", Viewer(dist, directory, federation=federation, demo=demo)),
        ]
    )
    return [Mount("/", IsolationHeaders(inner))]


def is_static(path: str) -> bool:
    """True if what the server answers to a GET of this path is the same for everybody: a file of ours or of OHIF's
    build, or a 404. Its page, and its settings, which are made from the registry, are not."""
    if path.startswith("/portal/static/"):
        return True
    if path.lstrip("/").partition("/")[0] in RESERVED:
        return False  # told quickly: nearly all requests are
    plain = PurePosixPath(path.lstrip("/"))
    if not plain.parts or plain.parts[0] in RESERVED or str(plain) in ("app-config.js", "index.html"):
        return False
    return not _is_page(plain)


def _is_page(path: PurePosixPath) -> bool:
    """True for a path that OHIF's own router takes: anything that does not look like a file.

    A data source named after an EMETTEUR may hold a dot, so only known endings count.
    """
    return path.suffix.lower() not in MEDIA_TYPES and not any(p.startswith(".") for p in path.parts)


def _made(request: Request, content: bytes, media_type: str, policy: str) -> Response:
    tag = content_tag(content)
    headers = {"etag": tag, "cache-control": REVALIDATE, "content-security-policy": policy}
    if not_modified(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "content-type": media_type})


def _missing() -> Response:
    return Response(
        MISSING,
        status_code=503,
        headers={
            "content-type": MEDIA_TYPES[".html"],
            "cache-control": "no-store",
            "content-security-policy": PLAIN_PAGE_POLICY,
        },
    )


_REASONS = {404: "Not found", 405: "Method not allowed"}


def _plain(status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(
        {"error": _REASONS[status]},
        status_code=status,
        headers={"content-security-policy": PLAIN_PAGE_POLICY, "cache-control": "no-store", **(headers or {})},
    )


def _sources_page(directory: Directory, federation: str, *, french: bool, demo: bool) -> str:
    """A page that lists the scopes, each a link to OHIF's study list over it."""
    title, everything = ("Choisir une source", "Toutes les sources") if french else ("Choose a source", "All sources")
    items = [f'<li><a href="/">{everything} ({html.escape(federation)})</a></li>']
    items += [
        f'<li><a href="/?datasources={html.escape(folder_source(folder))}">{html.escape(folder.name)}</a></li>'
        for folder in folders_with_members(directory)
    ]
    items += [
        f'<li><a href="/?datasources={html.escape(site_source(site))}">{html.escape(site.name)}</a>'
        f" <code>{html.escape(site.emetteur)}</code></li>"
        for site in directory.sites
        if site.asked
    ]
    return page(title, f"<ul>{''.join(items)}</ul>", french=french, demo=demo)
