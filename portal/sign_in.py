"""Sign-in of the demonstration: a page that lists its practitioners, and a session for the one that is chosen."""

from __future__ import annotations

import html
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from consent import Event, EventKind, EventOutcome, Requester, Role, Unavailable, utc_now
from consent.admission import NotAdmitted, Refusal, admit, requester_of, standing
from consent.sessions import Sessions, form_token, is_form_token
from portal.forms import FORM_FIELD, BadForm, cookie, form_fields, is_same_origin, local_path
from portal.pages import form_page, page, prefers_french
from registry import Directory, Practitioner
from registry.database import DatabaseError
from registry.people import rpps_of

SIGN_IN = "/portal/sign-in"
SIGN_OUT = "/portal/sign-out"
SESSION_COOKIE = "imagora_session"
#: Ties the sign-in form to the browser that loaded it, before there is a session.
FORM_COOKIE = "imagora_sign_in"

_ROLES = {
    Role.PRACTITIONER: ("praticien", "practitioner"),
    Role.CORRESPONDENT: ("correspondant MIRC", "MIRC correspondent"),
    Role.REFERENT: ("référent régional", "regional referent"),
}
_NOTES = {
    Refusal.SUSPENDED: ("accès suspendu", "access suspended"),
    Refusal.CHARTER: ("charte non signée", "charter not signed"),
}
_ADVICE = {
    Refusal.UNKNOWN: (
        "Vous n'êtes pas enregistré. Adressez-vous au correspondant MIRC de votre établissement.",
        "You are not registered. Ask the MIRC correspondent of your site.",
    ),
    Refusal.SUSPENDED: (
        "Votre accès est suspendu. Adressez-vous au correspondant MIRC de votre établissement.",
        "Your access is suspended. Ask the MIRC correspondent of your site.",
    ),
    Refusal.CHARTER: (
        "Vous n'avez pas signé la version en vigueur de la charte. Signez-la auprès du correspondant MIRC de votre "
        "établissement, qui enregistre la signature : <code>imagora practitioners sign --rpps …</code>",
        "You have not signed the current version of the charter. Sign it with the MIRC correspondent of your site, "
        "who records the signature: <code>imagora practitioners sign --rpps …</code>",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the pages need of the running server. `trace` returns once the event is durable."""

    directory: Directory
    sessions: Sessions
    trace: Callable[[Event], Awaitable[None]]


class SignIn:
    """Pages and forms. `host` gives None while the server is not up; `secure`: the cookie travels over https only."""

    def __init__(self, host: Callable[[], Host | None], *, charter_version: str, secure: bool) -> None:
        self._host = host
        self._charter_version = charter_version
        self._secure = secure

    def routes(self) -> list[BaseRoute]:
        return [
            Route(SIGN_IN, self.sign_in_page, methods=["GET"]),
            Route(SIGN_IN, self.sign_in, methods=["POST"]),
            Route(SIGN_OUT, self.sign_out_page, methods=["GET"]),
            Route(SIGN_OUT, self.sign_out, methods=["POST"]),
        ]

    async def sign_in_page(self, request: Request) -> Response:
        if (host := self._host()) is None:
            return _unavailable(request)
        french = prefers_french(request)
        word = cookie(request.headers, FORM_COOKIE) or secrets.token_urlsafe(32)
        text = _sign_in_page(
            host.directory,
            self._charter_version,
            csrf=form_token(word),
            target=local_path(request.query_params.get("next", "/")),
            french=french,
        )
        response = form_page(text)
        response.set_cookie(
            FORM_COOKIE, word, path=SIGN_IN, secure=self._secure, httponly=True, samesite="strict", max_age=3600
        )
        return response

    async def sign_in(self, request: Request) -> Response:
        if (host := self._host()) is None:
            return _unavailable(request)
        try:
            fields, _ = await form_fields(request.headers, request.receive)
        except BadForm as error:
            return _said(request, error.status, "Formulaire illisible.", "The form cannot be read.")
        word = cookie(request.headers, FORM_COOKIE)
        if not is_same_origin(request.headers) or word is None or not is_form_token(word, fields.get(FORM_FIELD, "")):
            return _said(
                request,
                403,
                "Le formulaire n'est plus valable : rechargez la page.",
                "The form is no longer good: load the page again.",
            )
        rpps = rpps_of(fields.get("rpps", "")) or ""
        try:
            return await self._begin(request, host, rpps, local_path(fields.get("next", "/")))
        except NotAdmitted as error:
            await self._trace(request, host, EventKind.SIGNED_IN, rpps, refusal=error.refusal)
            return _said(request, 403, *_ADVICE[error.refusal])
        except (DatabaseError, Unavailable):
            return _unavailable(request)

    async def _begin(self, request: Request, host: Host, rpps: str, target: str) -> Response:
        admit(rpps, host.directory, self._charter_version)
        await self._end(request, host)
        word = await host.sessions.begin(
            rpps, traced=lambda credential: self._trace(request, host, EventKind.SIGNED_IN, rpps, credential)
        )
        response = RedirectResponse(target, 303, {"cache-control": "no-store"})
        response.set_cookie(
            SESSION_COOKIE,
            word,
            max_age=int(host.sessions.lifetime_s),
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
        return response

    async def sign_out_page(self, request: Request) -> Response:
        word = session_word(request.headers)
        if word is None:
            return RedirectResponse(SIGN_IN, 303)
        requester: Requester = request.state.requester
        french = prefers_french(request)
        title, button = ("Se déconnecter", "Se déconnecter") if french else ("Sign out", "Sign out")
        who = "Vous êtes" if french else "You are"
        body = (
            f"<p>{who} <strong>{html.escape(_shown_name(requester.name))}</strong>.</p>"
            f'<form method="post" action="{SIGN_OUT}">'
            f'<input type="hidden" name="{FORM_FIELD}" value="{form_token(word)}">'
            f"<button>{button}</button></form>"
        )
        return form_page(page(title, body, french=french, demo=True))

    async def sign_out(self, request: Request) -> Response:
        """The check before all routes has seen the form's token."""
        if (host := self._host()) is None:
            return _unavailable(request)
        try:
            await self._end(request, host)
        except (DatabaseError, Unavailable):
            return _unavailable(request)
        response = RedirectResponse(SIGN_IN, 303, {"cache-control": "no-store"})
        response.delete_cookie(SESSION_COOKIE, secure=self._secure, httponly=True, samesite="lax")
        return response

    async def _end(self, request: Request, host: Host) -> None:
        """End the session of the request's cookie, if there is one."""
        word = session_word(request.headers)
        if word is not None and (session := await host.sessions.end(word)) is not None:
            await self._trace(request, host, EventKind.SIGNED_OUT, session.rpps, session.credential)

    async def _trace(
        self,
        request: Request,
        host: Host,
        kind: EventKind,
        rpps: str,
        credential: str = "",
        *,
        refusal: Refusal | None = None,
    ) -> None:
        practitioner = host.directory.practitioners.get(rpps)
        requester = requester_of(practitioner, host.directory) if practitioner is not None else Requester(id=rpps)
        await host.trace(
            Event(
                kind=kind,
                requester=replace(requester, credential=credential),
                at=utc_now(),
                outcome=EventOutcome.SUCCESS if refusal is None else EventOutcome.FAILURE,
                request_id=request.state.request_id,
                detail={"refusal": refusal.value} if refusal is not None else {},
            )
        )


def session_word(headers: Headers) -> str | None:
    """What the session's cookie holds."""
    return cookie(headers, SESSION_COOKIE)


def _sign_in_page(directory: Directory, charter_version: str, *, csrf: str, target: str, french: bool) -> str:
    title = "Se connecter" if french else "Sign in"
    if directory.practitioners:
        asked = "Qui êtes-vous ?" if french else "Who are you?"
        items = "".join(_item(p, directory, charter_version, french=french) for p in directory.practitioners.values())
        list_ = f'<p>{asked}</p><ul class="people">{items}</ul>'
    else:
        nobody = "Aucun praticien n'est enregistré" if french else "No practitioner is registered"
        list_ = f"<p>{nobody} : <code>imagora practitioners add</code>, <code>imagora practitioners sign</code>.</p>"
    body = (
        f'<form method="post" action="{SIGN_IN}">'
        f'<input type="hidden" name="{FORM_FIELD}" value="{csrf}">'
        f'<input type="hidden" name="next" value="{html.escape(target)}">{list_}</form>'
    )
    return page(title, body, french=french, demo=True)


def _item(practitioner: Practitioner, directory: Directory, charter_version: str, *, french: bool) -> str:
    language = 0 if french else 1
    site = directory.site(practitioner.site)
    place = site.name if site is not None else practitioner.site
    words = [_ROLES[practitioner.role][language], place]
    if (refusal := standing(practitioner, charter_version)) is not None:
        words.append(_NOTES[refusal][language])
    return (
        f'<li><button name="rpps" value="{practitioner.rpps}">{html.escape(_shown_name(practitioner.name))}</button> '
        f"<small>{html.escape(', '.join(words))}</small></li>"
    )


def _shown_name(name: str) -> str:
    """`MARTIN^CLAIRE` → `MARTIN CLAIRE`."""
    return " ".join(part for part in name.split("^") if part)


def _said(request: Request, status: int, french_text: str, english_text: str) -> Response:
    """A page that says one thing and leads back to the list; the texts are HTML."""
    french = prefers_french(request)
    title, back = ("Connexion impossible", "Retour") if french else ("Not signed in", "Back")
    body = f'<p role="alert">{french_text if french else english_text}</p><p><a href="{SIGN_IN}">{back}</a></p>'
    return form_page(page(title, body, french=french, demo=True), status)


def _unavailable(request: Request) -> Response:
    response = _said(
        request,
        503,
        "La connexion n'est pas possible pour l'instant. Réessayez dans un moment.",
        "Signing in is not possible now. Try again in a moment.",
    )
    response.headers["retry-after"] = "5"
    return response
