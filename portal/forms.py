"""Forms of our pages: where a request comes from, and what it says."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Message, Receive

_FORM_MAX = 64 * 1024
#: Name of the field, and of the header, that shows that a page of ours was the origin.
FORM_FIELD = "csrf"
FORM_HEADER = "x-csrf-token"


class BadForm(Exception):
    """What was sent is not a form that we take; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def is_same_origin(headers: Headers) -> bool:
    """True if the browser says that a page of this server makes the request (Fetch Metadata §2.3).

    `Origin` would not do: our pages send no referrer, and then a form's Origin is `null`.
    """
    return headers.get("sec-fetch-site") == "same-origin"


def cookie(headers: Headers, name: str) -> str | None:
    """The cookie's value. None if there is none, or two: somebody else may have set one of them."""
    found = [
        value
        for header in headers.getlist("cookie")
        for part in header.split(";")
        for key, value in cookie_parser(part).items()
        if key == name
    ]
    return found[0] if len(found) == 1 and found[0] else None


async def form_fields(headers: Headers, receive: Receive) -> tuple[dict[str, str], Receive]:
    """The fields of an urlencoded form, and a `receive` that gives its body once more. No fields in anything else,
    whose body is left alone. Raises `BadForm`."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}, receive
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BadForm(400, "The form did not arrive whole.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _FORM_MAX:
            raise BadForm(413, "This form is too large.")
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=100)
    except ValueError:
        raise BadForm(400, "The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items() if len(values) == 1}, again


def local_path(target: str) -> str:
    """`target` if it is a path on this server, else "/": a sign-in must not lead anywhere else."""
    if not target.isascii() or not target.isprintable() or "\\" in target:
        return "/"
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return "/"
    return target
