"""Serve the viewer for tests: in a thread, on a free port, with a real Orthanc behind `/dicom-web`."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from portal.ohif import viewer_routes
from registry import Directory, Folder, Site

DIST = Path(os.environ.get("IMAGORA_OHIF_DIST", Path(__file__).parents[2] / "node_modules" / "@ohif" / "app" / "dist"))

HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))


def directory() -> Directory:
    address = "http://127.0.0.1:1/dicom-web"
    return Directory(
        [
            Site(emetteur="csrom41200", number=423, name="Romorantin (CH)", folder="MIRC historique", dicomweb=address),
            Site(emetteur="cschb41000", number=1, name="Blois (CH)", folder="MIRC historique", dicomweb=address),
            Site(emetteur="notasked1", number=9, name="Sans adresse", folder="MIRC Centres Imagerie"),
        ],
        [Folder(name="MIRC historique"), Folder(name="MIRC Centres Imagerie")],
    )


@dataclass
class Exchange:
    """One request that the browser made of the façade's paths."""

    method: str
    path: str
    query: str
    accept: str
    status: int


@dataclass
class Backend:
    """A same-origin way to an Orthanc that adds headers and can answer errors instead."""

    target: str  # Orthanc's DICOMweb URL
    search_headers: dict[str, str] = field(default_factory=dict)
    retrieve_error: tuple[int, bytes] | None = None
    any_name_matches: bool = False  # a search by name finds whatever Orthanc holds
    exchanges: list[Exchange] = field(default_factory=list)

    def routes(self) -> list[Route]:
        methods = ["GET", "POST", "OPTIONS"]
        return [
            Route("/dicom-web/{path:path}", self.forward, methods=methods),
            Route("/folders/{scope}/dicom-web/{path:path}", self.forward, methods=methods),
            Route("/sites/{scope}/dicom-web/{path:path}", self.forward, methods=methods),
        ]

    async def forward(self, request: Request) -> Response:
        path = request.path_params["path"]
        searching = path == "studies" or path.endswith(("/series", "/instances"))
        if self.retrieve_error is not None and not searching:
            status, body = self.retrieve_error
            self._note(request, status)
            return Response(body, status_code=status, media_type="application/json")
        if path.endswith("/thumbnail"):  # the façade makes what this Orthanc lacks
            self._note(request, 200)
            return Response(_thumbnail(), media_type="image/jpeg")
        stack = contextlib.AsyncExitStack()
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        query = request.url.query
        if self.any_name_matches:
            query = "&".join(p for p in query.split("&") if not p.startswith("PatientName="))
        answer = await stack.enter_async_context(
            session.request(
                request.method,
                f"{self.target}/{path}{'?' + query if query else ''}",
                # Orthanc makes its URLs from Host, and its root is the same as ours.
                headers={"accept": request.headers.get("accept", "*/*"), "host": request.headers["host"]},
                allow_redirects=False,
            )
        )
        self._note(request, answer.status)
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        if searching:
            headers |= self.search_headers

        async def body() -> AsyncIterator[bytes]:
            async with stack:
                async for chunk in answer.content.iter_chunked(1 << 16):
                    yield chunk

        return StreamingResponse(body(), status_code=answer.status, headers=headers)

    def _note(self, request: Request, status: int) -> None:
        accept = request.headers.get("accept", "")
        self.exchanges.append(Exchange(request.method, request.url.path, request.url.query, accept, status))


def _thumbnail() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (64, 64), 128).save(stream, "JPEG")
    return stream.getvalue()


def application(dist: Path | None, backend: Backend | None = None) -> Starlette:
    picture = directory()
    routes = backend.routes() if backend else []
    return Starlette(routes=[*routes, *viewer_routes(dist, lambda: picture, federation="MIRC")])


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Run an application with uvicorn; yields its base URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 10
            while not server.started:
                if time.monotonic() > until:
                    raise TimeoutError("the test server did not start")
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


def ask(base: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request with the path sent exactly as written; `_` in header names stands for `-`."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        body = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)
    finally:
        connection.close()
