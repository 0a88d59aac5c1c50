"""The façade: QIDO-RS and WADO-RS over all members, one folder or one site (PS3.18 §10.4, §10.6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from consent import Requester
from dicomweb import negotiate
from dicomweb.links import FacadeLinks, LinkKey
from dicomweb.respond import Handler, relay, report_headers, send_error, send_json, send_nothing
from dicomweb.wire import query as wire_query
from dicomweb.wire.media import MediaRange, parse_accept
from federation.errors import BadRequest, NotFound, RequestError
from federation.model import Accept, Form, Level, Scope, ScopeKind, Target
from federation.retrieve import Retriever
from federation.search import Searcher
from registry import Directory

Work = Callable[[Request, Send], Awaitable[None]]
_PREFIXES = ("", "/folders/{folder}", "/sites/{emetteur}")
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facade:
    """`requester` tells who asks; `base` gives the public URL for a request."""

    searcher: Searcher
    retriever: Retriever
    directory: Callable[[], Directory]
    requester: Callable[[Request], Requester]
    base: Callable[[Request], str]
    key: LinkKey

    def routes(self) -> list[Route]:
        endpoints: list[tuple[str, Work]] = [
            ("/studies", self._search(Level.STUDY)),
            ("/series", self._search(Level.SERIES)),
            ("/instances", self._search(Level.INSTANCE)),
            (f"{_STUDY}/series", self._search(Level.SERIES)),
            (f"{_STUDY}/instances", self._search(Level.INSTANCE)),
            (f"{_SERIES}/instances", self._search(Level.INSTANCE)),
        ]
        for path in (_STUDY, _SERIES, _INSTANCE):
            endpoints += [
                (path, self._instances),
                (f"{path}/metadata", self._metadata),
                (f"{path}/rendered", self._rendered(Form.RENDERED)),
                (f"{path}/thumbnail", self._rendered(Form.THUMBNAIL)),
            ]
        frames = f"{_INSTANCE}/frames/{{frames}}"
        endpoints += [
            (frames, self._frames),
            (f"{frames}/rendered", self._rendered(Form.RENDERED)),
            (f"{frames}/thumbnail", self._rendered(Form.THUMBNAIL)),
            (f"{_INSTANCE}/bulkdata/{{token}}", self._bulkdata),
        ]
        return [
            Route(f"{prefix}/dicom-web{path}", _Endpoint(self, work))
            for prefix in _PREFIXES
            for path, work in endpoints
        ]

    # Endpoints --------------------------------------------------------------------------------------------------

    def _search(self, level: Level) -> Work:
        async def work(request: Request, send: Send) -> None:
            media_type = negotiate.json_type(_accepted(request))
            path = request.path_params
            parsed = wire_query.parse(
                request.url.query,
                level,
                self.scope(request),
                study_uid=_uid(path, "study"),
                series_uid=_uid(path, "series"),
            )
            answer = await self.searcher.search(
                self.requester(request),
                parsed.query,
                self.links(request),
                request_id=request.state.request_id,
                asked_as=f"{request.url.path.partition('/dicom-web')[2]}?{request.url.query}",
                own_site=parsed.own_site,
            )
            extra = list(parsed.notices)
            if answer.remaining:
                number = f"at least {answer.remaining}" if answer.at_least else str(answer.remaining)
                extra.append(f"There are {number} additional results that can be requested")
            headers = report_headers(answer.report, extra)
            if not answer.rows and not answer.report.failed and answer.asked:
                await send_nothing(send, headers)  # PS3.18 §10.6.3.2
            else:
                await send_json(send, 200, answer.rows, headers, media_type)

        return work

    async def _metadata(self, request: Request, send: Send) -> None:
        media_type = negotiate.json_type(_accepted(request))
        metadata = await self.retriever.metadata(
            self.requester(request),
            self.scope(request),
            self._target(request, Form.METADATA),
            self.links(request),
            request_id=request.state.request_id,
        )
        status = 200 if metadata.complete else 206
        await send_json(send, status, metadata.rows, report_headers(metadata.report), media_type)

    async def _instances(self, request: Request, send: Send) -> None:
        target = self._target(request, Form.DICOM)
        accept = negotiate.dicom(_accepted(request), single_instance=target.instance_uid is not None)
        await self._relay(request, send, target, accept, negotiate.DICOM)

    async def _frames(self, request: Request, send: Send) -> None:
        numbers = negotiate.frame_list(request.path_params["frames"])
        target = self._target(request, Form.FRAMES, frames=numbers)
        accept = negotiate.frames(_accepted(request), single=len(numbers) == 1)
        await self._relay(request, send, target, accept, accept.choices[0][0])

    async def _bulkdata(self, request: Request, send: Send) -> None:
        accept = negotiate.bulkdata(_accepted(request))
        plain = self._target(request, Form.BULKDATA)
        holder, link = self.key.open(request.path_params["token"], plain.study_uid)
        target = self._target(request, Form.BULKDATA, link=link, holder=holder)
        await self._relay(request, send, target, accept, negotiate.OCTETS)

    def _rendered(self, form: Form) -> Work:
        async def work(request: Request, send: Send) -> None:
            given = dict(wire_query.pairs(request.url.query))
            parameters, _ = negotiate.render_parameters(given)
            text = request.path_params.get("frames")
            target = self._target(
                request, form, frames=negotiate.frame_list(text) if text else (), parameters=parameters
            )
            accept = negotiate.rendered(_accepted(request))
            await self._relay(request, send, target, accept, accept.choices[0][0])

        return work

    async def _relay(self, request: Request, send: Send, target: Target, accept: Accept, part_type: str) -> None:
        opened = self.retriever.open(
            self.requester(request),
            self.scope(request),
            target,
            accept,
            self.links(request),
            request_id=request.state.request_id,
        )
        as_sent = target.form in (Form.RENDERED, Form.THUMBNAIL)
        await relay(send, opened, part_type, multipart=None if as_sent else accept.multipart)

    # Reading a request ------------------------------------------------------------------------------------------

    def scope(self, request: Request) -> Scope:
        """Raises `NotFound` for an unknown folder or site."""
        path = request.path_params
        if "emetteur" in path:
            site = self.directory().site(path["emetteur"])
            if site is None:
                raise NotFound("There is no such site; EMETTEURs are listed by `imagora sites list`.")
            return Scope(ScopeKind.SITE, site.emetteur)
        if "folder" in path:
            if path["folder"] not in self.directory().folders:
                raise NotFound("There is no such folder.")
            return Scope(ScopeKind.FOLDER, path["folder"])
        return Scope()

    def links(self, request: Request) -> FacadeLinks:
        prefix = request.url.path.partition("/dicom-web")[0]
        return FacadeLinks(base=self.base(request), prefix=prefix, key=self.key)

    def _target(
        self,
        request: Request,
        form: Form,
        *,
        frames: tuple[int, ...] = (),
        link: str | None = None,
        holder: str | None = None,
        parameters: dict[str, str] | None = None,
    ) -> Target:
        path = request.path_params
        study_uid = _uid(path, "study")
        assert study_uid is not None
        return Target(
            study_uid=study_uid,
            series_uid=_uid(path, "series"),
            instance_uid=_uid(path, "instance"),
            form=form,
            frames=frames,
            link=link,
            holder=holder,
            parameters=parameters or {},
        )


class _Endpoint:
    """One route's ASGI application."""

    def __init__(self, facade: Facade, work: Work) -> None:
        self._facade = facade
        self._work = work

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            # A HEAD would fetch from members what nobody reads; nothing is ever deleted through us.
            await send_json(
                send, 405, {"error": "Only GET is answered here."}, [(b"allow", b"GET")], "application/json"
            )
            return
        request = Request(scope)

        async def work(inner: Send) -> None:
            await self._work(request, inner)

        try:
            links = self._facade.links(request)
        except RequestError as error:
            await send_error(send, error)
            return
        await Handler(links, work)(scope, receive, send)


def _uid(path: dict[str, str], name: str) -> str | None:
    value = path.get(name)
    if value is not None and not wire_query.UID_PATTERN.fullmatch(value):
        raise BadRequest(f"The {name} in the path is not a UID.")
    return value


def _accepted(request: Request) -> tuple[MediaRange, ...]:
    """The `accept` parameter if there is one (PS3.18 §8.3.3.1), else the header; () for neither."""
    for name, value in wire_query.pairs(request.url.query):
        if name == "accept":
            return parse_accept(value)
    header = ",".join(request.headers.getlist("accept"))
    return parse_accept(header) if header.strip() else ()
