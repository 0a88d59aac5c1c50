"""Asks a site at once which studies an opposition names, so that the correspondent sees what it binds."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from consent.bindings import Binding, OppositionKind
from dicomweb.client import ClientOptions, Credentials, DicomWebMember
from federation.binding import Bound, studies_of_accession, studies_of_patient
from federation.identity import Id
from federation.members import Members
from imagora.naming import naming_of
from imagora.settings import Settings, member_credentials
from registry import Directory, Site

#: How long somebody at a shell waits for the site.
PATIENCE_S = 5.0


def may_ask(binding: Binding, directory: Directory) -> Site | None:
    """The site that can say which studies are meant; None if there is none, or it is not connected."""
    site = directory.site(binding.emetteur) if binding.emetteur is not None else None
    return site if site is not None and site.asked and site.dicomweb is not None else None


async def studies_now(
    settings: Settings, directory: Directory, long_ids: Mapping[str, Id], site: Site, binding: Binding
) -> Bound:
    """What the site says within five seconds. Raises `SettingsError` if its credentials cannot be used."""
    known = member_credentials(site.emetteur)
    credentials = (
        Credentials(user=known.user, password=known.password, token=known.token) if known is not None else None
    )
    options = ClientOptions(idle_s=PATIENCE_S, connections=1)
    tls = ssl.create_default_context()
    members = Members(
        lambda: directory,
        lambda site: DicomWebMember(site, credentials=credentials, options=options, tls=tls),
        deadline_s=PATIENCE_S,
    )
    naming = naming_of(settings, long_ids.get)
    try:
        if binding.kind is OppositionKind.ACCESSION:
            return await studies_of_accession(members, naming, site, binding.accession or "", within_s=PATIENCE_S)
        return await studies_of_patient(members, naming, site, binding.ipp or "", within_s=PATIENCE_S)
    finally:
        await members.aclose()
