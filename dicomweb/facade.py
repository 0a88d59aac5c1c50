"""The façade: QIDO-RS and WADO-RS over all members, one folder or one site (PS3.18 §10.4, §10.6)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from consent import Requester, Unavailable
from dicomweb import capabilities, negotiate, wado_uri
from dicomweb.links import FacadeLinks, LinkKey
from dicomweb.resources import RESOURCES, WADO_URI, Kind, Resource
from dicomweb.respond import (
    Handler,
    relay,
    report_headers,
    send_body,
    send_error,
    send_json,
    send_nothing,
    unavailable,
    warning_headers,
)
from dicomweb.rows import Wishes, send_rows
from dicomweb.store_service import Left, answer_of, body_of, status_of
from dicomweb.wire import query as wire_query
from dicomweb.wire import ranges
from dicomweb.wire.media import MediaRange, parse_accept
from dicomweb.wire.xml import native_model
from federation.errors import BadRequest, NotFound, RequestError
from federation.identity import Identity
from federation.model import UID_PATTERN, Accept, Form, Level, Scope, ScopeKind, Target
from federation.retrieve import Retriever
from federation.search import Searcher
from federation.store import Storer
from registry import Directory

_log = logging.getLogger(__name__)

#: Warnings of one answer to a store: the failures themselves are told one by one in its body.
STORE_NOTICES_MAX = 5

#: Who is answered, about which exams → entered while that is sent: raises `Withdrawn` when it must not be.
Showing = Callable[[Requester, Sequence[tuple[str, Identity]]], AbstractAsyncContextManager[None]]
Work = Callable[[Request, Send], Awaitable[None]]
_PREFIXES = ("", "/folders/{folder}", "/sites/{emetteur}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facade:
    """`requester` tells who asks; `base` gives the public URL for a request."""

    searcher: Searcher
    retriever: Retriever
    directory: Callable[[], Directory]
    requester: Callable[[Request], Requester]
    base: Callable[[Request], str]
    key: LinkKey
    storer: Storer
    showing: Showing

    def routes(self) -> list[Route]:
        answers: dict[Kind, Callable[[Level], Work]] = {
            Kind.SEARCH: self._search,
            Kind.INSTANCES: lambda _: self._instances,
            Kind.METADATA: lambda _: self._metadata,
            Kind.FRAMES: lambda _: self._frames,
            Kind.BULKDATA: lambda _: self._bulkdata,
            Kind.RENDERED: lambda _: self._rendered(Form.RENDERED),
            Kind.THUMBNAIL: lambda _: self._rendered(Form.THUMBNAIL),
            Kind.STORE: lambda _: self._stored_elsewhere,
        }
        works: dict[str, dict[str, Work]] = {"": {}, "/": {}}  # the service itself: what it can do
        for resource in RESOURCES:
            works.setdefault(resource.path, {})[resource.method] = answers[resource.kind](resource.level)
        routes = {f"/dicom-web{path}": {**w, "OPTIONS": self._capabilities(path)} for path, w in works.items()}
        routes[WADO_URI.path] = {"GET": self._wado_uri, "OPTIONS": self._describe("", [WADO_URI])}
        return [Route(f"{prefix}{path}", _Endpoint(self, w)) for prefix in _PREFIXES for path, w in routes.items()]

    # Endpoints --------------------------------------------------------------------------------------------------

    def _search(self, level: Level) -> Work:
        async def work(request: Request, send: Send) -> None:
            form = negotiate.attributes(*_accepted(request))
            path = request.path_params
            parsed = wire_query.parse(
                request.url.query,
                level,
                self.scope(request),
                study_uid=_uid(path, "study"),
                series_uid=_uid(path, "series"),
            )
            requester = self.requester(request)
            answer = await self.searcher.search(
                requester,
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
                complete = not answer.report.failed
                async with self.showing(requester, answer.exams):
                    await send_rows(send, 200, answer.rows, headers, form, Wishes.of(request), complete=complete)

        return work

    async def _metadata(self, request: Request, send: Send) -> None:
        form = negotiate.attributes(*_accepted(request))
        requester = self.requester(request)
        metadata = await self.retriever.metadata(
            requester,
            self.scope(request),
            self._target(request, Form.METADATA),
            self.links(request),
            request_id=request.state.request_id,
            anew="no-cache" in request.headers.get("cache-control", ""),
        )
        headers, complete = report_headers(metadata.report), metadata.complete and not metadata.report.failed
        status = 200 if metadata.complete else 206
        async with self.showing(requester, metadata.exams):
            await send_rows(send, status, metadata.rows, headers, form, Wishes.of(request), complete=complete)

    async def _instances(self, request: Request, send: Send) -> None:
        target = self._target(request, Form.DICOM)
        accept = negotiate.dicom(*_accepted(request), single_instance=target.instance_uid is not None)
        await self._relay(request, send, target, accept, negotiate.DICOM)

    async def _frames(self, request: Request, send: Send) -> None:
        numbers = negotiate.frame_list(request.path_params["frames"])
        target = self._target(request, Form.FRAMES, frames=numbers)
        accept = negotiate.frames(*_accepted(request), single=len(numbers) == 1)
        await self._relay(request, send, target, accept, accept.choices[0][0])

    async def _bulkdata(self, request: Request, send: Send) -> None:
        accept = negotiate.bulkdata(*_accepted(request))
        if not accept.multipart:  # a range of a body in parts, under a boundary that is fresh each time, is of no use
            headers = request.headers
            accept = replace(accept, span=ranges.wanted(headers.getlist("range"), headers.getlist("if-range")))
        plain = self._target(request, Form.BULKDATA)
        holder, link = self.key.open(request.path_params["token"], plain.study_uid)
        target = self._target(request, Form.BULKDATA, link=link, holder=holder)
        await self._relay(request, send, target, accept, negotiate.OCTETS, known=Wishes.of(request).has)

    async def _wado_uri(self, request: Request, send: Send) -> None:
        asked = wado_uri.parse(request.url.query, _accept_header(request))
        await self._relay(request, send, asked.target, asked.accept, asked.accept.choices[0][0], asked.notices)

    async def store(self, request: Request, receive: Receive, send: Send) -> None:
        """STOW-RS. The client is watched by whoever reads its body."""
        form = negotiate.stored(*_accepted(request))
        stored = await self.storer.store(
            self.requester(request),
            self.scope(request),
            _uid(request.path_params, "study"),
            body_of(request, receive, self.storer.limits),
            request_id=request.state.request_id,
        )
        headers = warning_headers(stored.notices[:STORE_NOTICES_MAX])
        answer = answer_of(stored, self.links(request))
        if form.media_type == negotiate.DICOM_XML:
            headers.append((b"content-type", negotiate.DICOM_XML.encode()))
            await send_body(send, status_of(stored), headers, b"".join(native_model(answer)))
        else:
            await send_json(send, status_of(stored), answer, headers, form.media_type)

    async def _stored_elsewhere(self, request: Request, send: Send) -> None:
        raise AssertionError("whoever stores is answered by `store`, which reads the body")

    def _capabilities(self, path: str) -> Work:
        below = [r for r in RESOURCES if path in ("", "/") or r.path == path or r.path.startswith(f"{path}/")]
        return self._describe("/dicom-web", below)

    def _describe(self, service: str, resources: Sequence[Resource]) -> Work:
        async def work(request: Request, send: Send) -> None:
            self.scope(request)  # an unknown one has no capabilities
            form = negotiate.choose(_accepted(request), capabilities.FORMS)[0]
            links = self.links(request)
            described = capabilities.description(f"{links.base}{links.prefix}{service}", resources)
            if form.media_type == capabilities.WADL:
                headers = [(b"content-type", form.media_type.encode())]
                await send_body(send, 200, headers, capabilities.xml_document(described))
            else:
                await send_json(send, 200, {described.name: described.to_json()}, [], form.media_type)

        return work

    def _rendered(self, form: Form) -> Work:
        async def work(request: Request, send: Send) -> None:
            given = dict(wire_query.pairs(request.url.query))
            parameters, _ = negotiate.render_parameters(given)
            text = request.path_params.get("frames")
            target = self._target(
                request, form, frames=negotiate.frame_list(text) if text else (), parameters=parameters
            )
            accept = negotiate.rendered(*_accepted(request))
            await self._relay(request, send, target, accept, accept.choices[0][0])

        return work

    async def _relay(
        self,
        request: Request,
        send: Send,
        target: Target,
        accept: Accept,
        part_type: str,
        notices: Sequence[str] = (),
        known: Callable[[str], bool] = lambda _: False,
    ) -> None:
        opened = self.retriever.open(
            self.requester(request),
            self.scope(request),
            target,
            accept,
            self.links(request),
            request_id=request.state.request_id,
        )
        as_sent = target.form in (Form.RENDERED, Form.THUMBNAIL)
        multipart = None if as_sent else accept.multipart
        await relay(send, opened, part_type, multipart=multipart, notices=notices, known=known)

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
        prefix, below, _ = request.url.path.partition("/dicom-web")
        if not below:
            prefix = prefix.removesuffix(WADO_URI.path)
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
    """One route's ASGI application: what answers each method."""

    def __init__(self, facade: Facade, works: Mapping[str, Work]) -> None:
        self._facade = facade
        self._works = works
        self._allowed = ", ".join(works)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        answering = self._works.get(scope["method"])
        if answering is None:
            # A HEAD would fetch from members what nobody reads; nothing is ever deleted through us.
            error = {"error": f"Only {self._allowed} is answered here."}
            await send_json(send, 405, error, [(b"allow", self._allowed.encode())], "application/json")
            return
        request = Request(scope)
        if scope["method"] == "POST":
            await self._store(request, receive, send)
            return

        async def work(inner: Send) -> None:
            await answering(request, inner)

        try:
            links = self._facade.links(request)
        except RequestError as error:
            await send_error(send, error)
            return
        await Handler(links, work)(scope, receive, send)

    async def _store(self, request: Request, receive: Receive, send: Send) -> None:
        try:
            await self._facade.store(request, receive, send)
        except RequestError as error:
            await send_error(send, error)
        except Unavailable:
            await send_error(send, unavailable())
        except Left:
            _log.info("a store was broken off by its client")


def _uid(path: dict[str, str], name: str) -> str | None:
    value = path.get(name)
    if value is not None and not UID_PATTERN.fullmatch(value):
        raise BadRequest(f"The {name} in the path is not a UID.")
    return value


def _accepted(request: Request) -> list[tuple[MediaRange, ...]]:
    """What the client takes: the `accept` parameter, then the header (PS3.18 §8.7.8.1); empty where there is none."""
    values = [value for name, value in wire_query.pairs(request.url.query) if name == "accept"]
    if len(values) > 1:
        raise BadRequest("accept is given twice; give it once, media types separated by commas.")
    return [*map(parse_accept, values), _accept_header(request)]


def _accept_header(request: Request) -> tuple[MediaRange, ...]:
    return parse_accept(",".join(request.headers.getlist("accept")))
