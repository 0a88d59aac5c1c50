"""A client for an examination, with the member's credentials and a connection of its own."""

from __future__ import annotations

import ssl

from dicomweb.client import ClientOptions, Credentials
from dicomweb.probe import ProbedMember
from imagora.credentials import member_credentials
from registry import Site


def connect(site: Site, deadline_s: float, tls: ssl.SSLContext) -> tuple[ProbedMember, float]:
    """→ (the client, its deadline in seconds: the site's own, else `deadline_s`)."""
    deadline_s = site.deadline_s or deadline_s
    known = member_credentials(site.emetteur)
    credentials = (
        Credentials(user=known.user, password=known.password, token=known.token) if known is not None else None
    )
    options = ClientOptions(idle_s=deadline_s, connections=1)
    return ProbedMember(site, credentials=credentials, options=options, tls=tls), deadline_s
