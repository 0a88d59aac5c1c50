"""What is asked of members, as paths and headers; and what their statuses say (PS3.18 §8.2, §10.4.1, §10.6.1)."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from federation.errors import (
    MemberCannot,
    MemberError,
    MemberFault,
    MemberGarbage,
    MemberNotFound,
    MemberRefused,
    MemberUnreachable,
)
from federation.model import Accept, Form, Level, Query, Target

_LINK = re.compile(r"/studies/[0-9.]{1,64}/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{1,2000}")


def search_path(query: Query) -> str:
    path = ""
    if query.study_uid is not None:
        path += f"/studies/{query.study_uid}"
        if query.series_uid is not None:
            path += f"/series/{query.series_uid}"
    return path + {Level.STUDY: "/studies", Level.SERIES: "/series", Level.INSTANCE: "/instances"}[query.level]


def resource_path(target: Target) -> str:
    path = f"/studies/{target.study_uid}"
    if target.series_uid is not None:
        path += f"/series/{target.series_uid}"
    if target.instance_uid is not None:
        path += f"/instances/{target.instance_uid}"
    return path


def retrieve_path(target: Target) -> str:
    if target.form is Form.BULKDATA:
        assert target.link is not None
        assert valid_link(target.link, target.study_uid)
        return target.link
    path = resource_path(target)
    if target.frames:
        path += f"/frames/{','.join(map(str, target.frames))}"
    if target.form in (Form.RENDERED, Form.THUMBNAIL):
        path += f"/{target.form}"
        if target.parameters:
            path += "?" + urlencode(target.parameters, safe=",")  # some members don't decode
    return path


def valid_link(link: str, study_uid: str) -> bool:
    return (
        _LINK.fullmatch(link) is not None
        and link.startswith(f"/studies/{study_uid}/")
        and ".." not in link.partition("?")[0].split("/")
        and "%2e" not in link.lower()
    )


def accept_header(target: Target, accept: Accept) -> str:
    """The client's best choice in the one form that members agree on."""
    media_type, syntax = accept.choices[0]
    if target.form in (Form.RENDERED, Form.THUMBNAIL):
        return media_type
    suffix = f"; transfer-syntax={syntax}" if syntax else ""
    return f'multipart/related; type="{media_type}"{suffix}'


def refusal(emetteur: str, status: int) -> MemberError:
    text = f"{emetteur}: HTTP {status}"
    if status in (401, 403):
        return MemberRefused(text)
    if status in (404, 410):
        return MemberNotFound(text)
    if status in (400, 406, 415, 501):
        return MemberCannot(text)
    if 300 <= status < 400:
        return MemberGarbage(f"{text}: redirects are not followed")
    if status in (429, 503):
        return MemberUnreachable(f"{text}: busy")
    return MemberFault(text)
