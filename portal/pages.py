"""What our own pages have in common: their frame, and the demonstration's notice."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from portal.assets import MEDIA_TYPES
from portal.isolation import FORM_PAGE_POLICY

DEMO_NOTICE = {
    True: "Démonstration : patients et professionnels fictifs, connexion sans mot de passe. "
    "N'y mettez aucun examen réel.",
    False: "Demonstration: fictitious patients and professionals, sign-in without a password. "
    "Keep real exams out of it.",
}


def page(title: str, body: str, *, french: bool, demo: bool) -> str:
    """A whole HTML page; `title` and `body` are HTML already."""
    notice = f'<p class="demo" role="note">{DEMO_NOTICE[french]}</p>' if demo else ""
    return (
        f'<!doctype html>\n<html lang="{"fr" if french else "en"}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        '<link rel="stylesheet" href="/portal/static/imagora-pages.css"></head>'
        f"<body>{notice}<main><h1>{title}</h1>{body}</main></body></html>\n"
    )


def form_page(text: str, status: int = 200) -> Response:
    """A page that holds a form of ours, and is kept nowhere."""
    return Response(
        text,
        status_code=status,
        headers={
            "content-type": MEDIA_TYPES[".html"],
            "cache-control": "no-store",
            "content-security-policy": FORM_PAGE_POLICY,
            "vary": "Accept-Language, Cookie",
        },
    )


def prefers_french(request: Request) -> bool:
    """True if French stands before English in Accept-Language; weights follow the order in every browser."""
    for item in request.headers.get("accept-language", "").split(","):
        language = item.strip().lower()[:2]
        if language in ("fr", "en"):
            return language == "fr"
    return False
