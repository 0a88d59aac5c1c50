"""Composition: the parts of a server put together. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from consent import Access, Event, Policy
from consent.bearer import BearerCheck
from consent.book import Book
from consent.emergencies import EmergencyEnds, EmergencyStore
from consent.findings import Findings
from consent.heads import HeadFile, load_or_make_keys
from consent.journal import Journal
from consent.keeper import Keeper
from consent.policy import Rules
from consent.reading import BookReader
from consent.sessions import Sessions
from consent.tokens import TokenRules
from dicomweb.client import ClientOptions, DicomWebMember
from dicomweb.client import Credentials as MemberLogin
from dicomweb.facade import Facade, Showing
from dicomweb.links import LinkKey
from federation.copies import Copies
from federation.gate import Gate
from federation.locate import Locator
from federation.long_ids import LongPatientIDs
from federation.making import Maker
from federation.members import MemberClient, Members
from federation.pixels.pool import PixelPool, PoolSettings
from federation.retrieve import Retriever
from federation.scoping import SearchOptions
from federation.search import Searcher
from federation.store import StoreLimits, Storer
from federation.unspoken import UnspokenMember
from imagora.authentication import Authenticated, Credentials, Local, requester_of
from imagora.checking import Checker
from imagora.checkup import Looking
from imagora.demo_issuer import demo_issuer, demo_rules
from imagora.emergency import emergency_route, shown_ids
from imagora.findings_writer import FindingsWriter
from imagora.health import HealthRecorder
from imagora.jwks import keys_from
from imagora.learnt import Learnt, OneMemory
from imagora.metrics import Metrics, profile_text
from imagora.middleware import KnownHosts, Observed
from imagora.naming import naming_of
from imagora.resolver import Resolver
from imagora.settings import Settings, is_loopback, member_credentials, metrics_token
from portal.isolation import IsolationHeaders
from portal.ohif import viewer_routes
from portal.sign_in import Host, SignIn
from registry import Directory, Site
from registry.database import Database, DatabaseError
from registry.profiles import ProfileStore
from registry.store import RegistryStore
from registry.watch import RegistryCache

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Server:
    """The parts that live as long as a process serves."""

    database: Database
    registry: RegistryCache
    trace: Callable[[Event], Awaitable[None]]  # returns once it is durable
    members: Members
    locator: Locator
    searcher: Searcher
    retriever: Retriever
    storer: Storer
    showing: Showing
    learnt: Learnt
    long_ids: LongPatientIDs
    store: RegistryStore
    credentials: Credentials | None  # None: one local requester


@contextlib.asynccontextmanager
async def running(
    settings: Settings, url: str, metrics: Metrics, policy: Policy | None
) -> AsyncIterator[tuple[Server, LinkKey]]:
    """Open everything in order; close in reverse, letting traces of ended transfers be written."""
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(url))
        store = RegistryStore(database, node=settings.node.ae_title)
        book = Book()
        rules = Rules(book)
        registry = await stack.enter_async_context(RegistryCache(store, (BookReader(book),)))
        journal = Journal(database)
        trace = metrics.traced(journal.write)
        keys = await asyncio.to_thread(load_or_make_keys, settings.trace_key_path)
        heads = HeadFile(settings.heads_path)
        retention = settings.traces.retention_months
        # Entered before the journal, so that it signs the journal's last rows after they are written.
        await stack.enter_async_context(Keeper(database, journal, keys, heads, retention_months=retention))
        await stack.enter_async_context(journal)
        shown = shown_ids(lambda: registry.directory, qualified=settings.search.patient_id == "qualified")
        await stack.enter_async_context(EmergencyEnds(database, trace, shown))
        long_ids, copies = LongPatientIDs(), Copies()
        learnt = await stack.enter_async_context(Learnt(store, copies, long_ids, lambda: registry.directory))
        naming = replace(naming_of(settings, long_ids.get), note=long_ids.note)
        tls = ssl.create_default_context()
        options = ClientOptions(
            json_cap=settings.search.json_cap_mb << 20,
            metadata_cap=settings.search.metadata_cap_mb << 20,
            connections=settings.search.member_connections,
        )

        def connect(site: Site) -> MemberClient:
            if site.dicomweb is None:
                return UnspokenMember(site)
            known = member_credentials(site.emetteur)
            credentials = (
                MemberLogin(user=known.user, password=known.password, token=known.token) if known is not None else None
            )
            return DicomWebMember(site, credentials=credentials, options=options, tls=tls)

        members = Members(
            lambda: registry.directory,
            connect,
            deadline_s=settings.search.deadline_s,
            breaker_failures=settings.search.breaker_failures,
            breaker_open_s=settings.search.breaker_open_s,
            observer=metrics,
        )
        stack.push_async_callback(members.aclose)
        await stack.enter_async_context(HealthRecorder(members.health, store))
        locator = Locator(members, naming, copies)
        registry.on_change(_on_new_sites(registry.directory, locator.forget))
        findings = Findings()
        await stack.enter_async_context(FindingsWriter(database, findings))
        resolver = await stack.enter_async_context(Resolver(database, members, naming))
        registry.on_change(lambda _: resolver.wake())
        access = Access(policy or rules, trace, registry, findings, emergencies=rules.emergencies)
        gate = Gate(access, naming)
        registry.on_change(lambda _: gate.review())
        looking = Looking(gate, naming, lambda: registry.directory)
        every_s = settings.search.check_every_h * 3600
        await stack.enter_async_context(Checker(database, members, looking.at, every_s=every_s))
        # Nothing of an exam that is opposed stays in memory.
        registry.on_change(lambda _: locator.metadata.clear())
        searcher = Searcher(
            members,
            locator,
            copies,
            gate,
            naming,
            SearchOptions(
                member_cap=settings.search.member_cap,
                require_patient_criterion=settings.search.require_patient_criterion,
                include_own_site=settings.search.own_site == "include",
            ),
        )
        registry.on_change(lambda _: searcher.forget_pages())
        pool = PixelPool(
            PoolSettings(
                processes=settings.pixels.processes,
                queue=settings.pixels.queue,
                deadline_s=settings.pixels.deadline_s,
                memory_bytes=settings.pixels.memory_mb << 20,
            )
        )
        stack.push_async_callback(pool.aclose)
        maker = Maker(members, locator, naming, pool)
        retriever = Retriever(members, locator, copies, gate, naming, maker)
        limits = StoreLimits(
            request=settings.store.request_mb << 20,
            instance=settings.store.instance_mb << 20,
            instances=settings.store.instances,
        )
        storer = Storer(members, locator, gate, limits, naming.long_ids)
        stack.push_async_callback(gate.aclose)
        server = Server(
            database=database,
            registry=registry,
            trace=trace,
            members=members,
            locator=locator,
            searcher=searcher,
            retriever=retriever,
            storer=storer,
            showing=gate.showing,
            learnt=learnt,
            long_ids=long_ids,
            store=store,
            credentials=credentials_for(settings, database, registry, trace),
        )
        yield server, LinkKey(await store.secret("link_key"))


def _on_new_sites(known: Directory, forget: Callable[[], None]) -> Callable[[Directory], None]:
    """What was learnt of where studies are outlives changes that are none of sites or folders."""

    def changed(directory: Directory) -> None:
        nonlocal known
        if (directory.sites, directory.folders) != (known.sites, known.folders):
            forget()
        known = directory

    return changed


def credentials_for(
    settings: Settings, database: Database, registry: RegistryCache, trace: Callable[[Event], Awaitable[None]]
) -> Credentials | None:
    """What requests are checked against; None in local mode."""
    auth = settings.auth
    if auth.mode == "local":
        return None
    if auth.mode == "oidc":
        rules = TokenRules(issuer=auth.issuer, audience=auth.audience, id_claim=auth.id_claim)
        bearer = BearerCheck(keys_from(auth.jwks), rules)
        return Credentials(bearer=bearer, registry=registry, charter_version=auth.charter_version, trace=trace)
    keys = demo_issuer(settings.server.state_dir).key_set()

    async def own_keys() -> bytes:
        return keys

    return Credentials(
        bearer=BearerCheck(own_keys, demo_rules(settings)),
        registry=registry,
        charter_version=auth.charter_version,
        trace=trace,
        sessions=Sessions(database, lifetime_s=auth.session_h * 3600),
    )


def create_app(settings: Settings, url: str, *, policy: Policy | None = None) -> ASGIApp:
    """The server as an ASGI application. `url` is the database's; `policy` decides in place of the rules of
    consent, for tests and comparisons."""
    servers: list[Server] = []
    metrics = Metrics(lambda: servers[0].members.health() if servers else {})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings, url, metrics, policy) as (server, key), metrics.recording():
            servers[:] = [server]
            facade = Facade(
                searcher=server.searcher,
                retriever=server.retriever,
                directory=lambda: server.registry.directory,
                requester=requester_of,
                base=lambda request: public_base(request, settings.server.public_url),
                key=key,
                storer=server.storer,
                showing=server.showing,
            )
            shown = shown_ids(lambda: server.registry.directory, qualified=settings.search.patient_id == "qualified")
            emergencies = EmergencyStore(server.database)
            app.router.routes[:0] = [
                *facade.routes(),
                emergency_route(server.trace, emergencies, server.registry, shown, server.long_ids.get),
            ]
            yield
            servers.clear()

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        ready = bool(servers) and await servers[0].database.ready()
        return PlainTextResponse("ready\n" if ready else "the database is not ready\n", 200 if ready else 503)

    async def metrics_page(request: Request) -> Response:
        token = metrics_token()
        if token is None:
            return JSONResponse({"error": "Set IMAGORA_METRICS_TOKEN to let a collector in."}, 403)
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, token.encode()):
            return JSONResponse(
                {"error": "This page wants the metrics token as a bearer."},
                401,
                {"www-authenticate": 'Bearer realm="metrics"'},
            )
        text = metrics.text()
        if servers:
            with contextlib.suppress(DatabaseError):  # which /readyz tells of
                text += profile_text(await ProfileStore(servers[0].database).all(), datetime.now(UTC))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    demo = settings.auth.mode == "demo"

    def host() -> Host | None:
        server = servers[0] if servers else None
        if server is None or server.credentials is None or server.credentials.sessions is None:
            return None
        return Host(directory=server.registry.directory, sessions=server.credentials.sessions, trace=server.trace)

    sign_in = SignIn(
        host,
        charter_version=settings.auth.charter_version,
        secure=urlsplit(settings.server.public_url).scheme == "https",
    )
    if settings.auth.mode == "local":
        authentication = Middleware(Local)
    else:
        authentication = Middleware(
            Authenticated, credentials=lambda: servers[0].credentials if servers else None, sign_in=demo
        )
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
            *(sign_in.routes() if demo else ()),
            *viewer_routes(
                settings.portal.ohif_path,
                lambda: servers[0].registry.directory if servers else Directory(()),
                federation=settings.federation.name,
                demo=demo,
            ),
        ],
        middleware=[
            Middleware(IsolationHeaders),
            Middleware(Observed, metrics=metrics),
            Middleware(KnownHosts, names=frozenset({urlsplit(settings.server.public_url).hostname or ""})),
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.server.allowed_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["accept", "authorization", "content-type", "range", "if-range"],
                expose_headers=[
                    *("Warning", "Imagora-Sources", "X-Request-Id", "Content-Location"),
                    *("Accept-Ranges", "Content-Range", "ETag"),
                ],
                allow_credentials=True,
            ),
            authentication,
            Middleware(OneMemory, learnt=lambda: servers[0].learnt if servers else None),
        ],
        lifespan=lifespan,
    )


def public_base(request: Request, public_url: str) -> str:
    """The façade's own address in an answer. On loopback, under the name that the client used for it (a browser
    tells `localhost` from `127.0.0.1`); else always the configured one, whatever a client claims. The port is
    always the configured one: dicomweb-client leaves it out of its Host header."""
    return _base_under(request.headers.get("host", ""), public_url)


@lru_cache(maxsize=256)
def _base_under(host: str, public_url: str) -> str:
    parts = urlsplit(public_url)
    if not is_loopback(parts.hostname or ""):
        return public_url
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return public_url
    if name == parts.hostname or not is_loopback(name):
        return public_url
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port is not None else "")
