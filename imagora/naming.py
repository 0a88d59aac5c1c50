"""How patients are named towards clients, by the settings."""

from __future__ import annotations

from federation.identity import LongIds, Naming, no_long_ids
from imagora.settings import Settings


def naming_of(settings: Settings, long_ids: LongIds = no_long_ids) -> Naming:
    return Naming(
        qualified=settings.search.patient_id == "qualified",
        issuer=settings.federation.issuer,
        oid=settings.federation.oid,
        long_ids=long_ids,
    )
