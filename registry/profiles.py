"""What a member's PACS was found to be able to do: the profile that a check leaves with its site.

A profile holds facts about a PACS, nothing of any patient. Searches and retrieves take it for a hint: it chooses what
is tried first, and never what is left untried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from registry.database import Database, Row
from registry.model import Quirks


class Feature(StrEnum):
    """What a check tries, in the order in which people read it. Names are kept in databases and shown in /metrics."""

    # QIDO-RS, PS3.18 §10.6
    LIMIT = "limit"
    OFFSET = "offset"
    STEADY_ORDER = "steady-order"
    NAMES_IN_ANY_CASE = "names-in-any-case"
    NAMES_WITHOUT_ACCENTS = "names-without-accents"
    WILDCARD_STAR = "wildcard-star"
    WILDCARD_QUESTION = "wildcard-question"
    PERCENT_DECODING = "percent-decoding"
    UID_LIST_COMMA = "uid-list-comma"
    UID_LIST_BACKSLASH = "uid-list-backslash"
    INCLUDEFIELD = "includefield"
    SERIES_SEARCH = "series-search"  # across studies
    INSTANCE_SEARCH = "instance-search"
    NO_MATCH_204 = "no-match-204"  # False: 200 with an empty array
    DICOM_JSON = "dicom-json"  # Accept: application/dicom+json; False: only application/json is taken
    UTF_8 = "utf-8"
    # WADO-RS, PS3.18 §10.4
    METADATA = "metadata"
    EXPLICIT = "explicit-vr"  # transfer-syntax=1.2.840.10008.1.2.1
    AS_STORED = "as-stored"  # transfer-syntax=*
    SINGLE_PART = "single-part"  # Accept: application/dicom
    FRAMES = "frames"
    BULK_DATA = "bulk-data"
    RENDERED = "rendered"
    THUMBNAIL = "thumbnail"
    # HTTP
    HEAD = "head"
    OPTIONS = "options"


#: What searches and retrieves make use of.
_QUIRK_OF = {
    "names_ignore_case": Feature.NAMES_IN_ANY_CASE,
    "honours_limit": Feature.LIMIT,
    "honours_offset": Feature.OFFSET,
    "decodes_values": Feature.PERCENT_DECODING,
    "takes_uid_lists": Feature.UID_LIST_COMMA,
    "takes_uid_lists_backslash": Feature.UID_LIST_BACKSLASH,
    "honours_includefield": Feature.INCLUDEFIELD,
    "searches_series": Feature.SERIES_SEARCH,
    "searches_instances": Feature.INSTANCE_SEARCH,
    "takes_dicom_json": Feature.DICOM_JSON,
    "gives_explicit": Feature.EXPLICIT,
    "gives_stored": Feature.AS_STORED,
    "gives_rendered": Feature.RENDERED,
    "gives_thumbnail": Feature.THUMBNAIL,
}

Features = Mapping[Feature, bool]


def quirks_of(features: Features) -> Quirks:
    """What is not known is None."""
    return Quirks(**{quirk: features.get(feature) for quirk, feature in _QUIRK_OF.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one check found. `features` lacks what could not be told."""

    emetteur: str
    usable: bool
    features: Features = field(default_factory=dict)
    latency_s: float | None = None  # median of its answers to searches
    bytes_per_s: float | None = None  # of one small instance, so that latency weighs
    checked_at: datetime | None = None  # set by the database
    name: str = ""  # the site's


#: → emetteur, name, usable, features, latency_s, bytes_per_s, checked_at; in registry order. Of sites whose PACS is
#: still at the address that was checked.
_PROFILES = """
SELECT p.emetteur, s.name, p.usable, p.features, p.latency_s, p.bytes_per_s, p.checked_at
FROM site_profile p JOIN site s ON s.emetteur = p.emetteur AND s.dicomweb = p.dicomweb
WHERE p.checked_at IS NOT NULL
ORDER BY s.position
"""

#: emetteur, dicomweb (as it was checked), usable, features, latency_s, bytes_per_s → a row unless the site is gone or
#: has another address by now. The epoch must be locked.
_KEEP = """
INSERT INTO site_profile AS p (emetteur, dicomweb, usable, features, latency_s, bytes_per_s, checked_at, tried_at)
SELECT emetteur, dicomweb, $3, $4, $5, $6, now(), now() FROM site WHERE emetteur = $1 AND dicomweb = $2
ON CONFLICT (emetteur) DO UPDATE
SET dicomweb = excluded.dicomweb, usable = excluded.usable, features = excluded.features,
    latency_s = excluded.latency_s, bytes_per_s = excluded.bytes_per_s, checked_at = now(), tried_at = now()
RETURNING p.emetteur
"""

_LOCK_EPOCH = "SELECT value FROM epoch FOR UPDATE"

#: emetteur, quirks
_SAVE_QUIRKS = "UPDATE site SET quirks = $2 WHERE emetteur = $1"

#: emetteur, dicomweb. It is tried now, whatever will come of it.
_TRIED = """
INSERT INTO site_profile AS p (emetteur, dicomweb, usable, features, tried_at)
SELECT emetteur, dicomweb, false, '{}', now() FROM site WHERE emetteur = $1 AND dicomweb = $2
ON CONFLICT (emetteur) DO UPDATE SET tried_at = now()
"""

#: emetteur[], dicomweb[], seconds, seconds → emetteur: of these sites those not checked for the first number of seconds
#: at this address (or never), unless the last try is younger than the second; the longest waiting first.
_DUE = """
SELECT w.emetteur
FROM unnest($1::text[], $2::text[]) AS w (emetteur, dicomweb)
LEFT JOIN site_profile p ON p.emetteur = w.emetteur AND p.dicomweb = w.dicomweb
WHERE (p.checked_at IS NULL OR p.checked_at < now() - make_interval(secs => $3))
  AND (p.tried_at IS NULL OR p.tried_at < now() - make_interval(secs => $4))
ORDER BY p.tried_at NULLS FIRST, w.emetteur
"""


class ProfileStore:
    """Profiles in the database. Raises `DatabaseUnavailable` and `DatabaseError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Profile]:
        """Of every site that was checked at its present address, in registry order."""
        return [_profile(row) for row in await self._database.fetch(_PROFILES)]

    async def keep(self, profile: Profile, dicomweb: str) -> bool:
        """Keep what was found at this address, and let searches make use of it. False: the site has another by now."""
        kept = {str(feature): value for feature, value in profile.features.items()}
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_EPOCH)
            values = (profile.usable, kept, profile.latency_s, profile.bytes_per_s)
            if await connection.fetchrow(_KEEP, profile.emetteur, dicomweb, *values) is None:
                return False
            await connection.execute(_SAVE_QUIRKS, profile.emetteur, quirks_of(profile.features).known())
            return True

    async def due(self, sites: Mapping[str, str], every_s: float, again_s: float) -> list[str]:
        """EMETTEURs of those `sites` (EMETTEUR → DICOMweb address) whose profile is older than `every_s`, but for those
        that were tried within `again_s`."""
        rows = await self._database.fetch(_DUE, list(sites), list(sites.values()), every_s, again_s)
        return [row["emetteur"] for row in rows]

    async def tried(self, emetteur: str, dicomweb: str) -> None:
        await self._database.execute(_TRIED, emetteur, dicomweb)


def _profile(row: Row) -> Profile:
    known = {str(feature): feature for feature in Feature}  # a newer program may know more of them
    features = {known[name]: value for name, value in row["features"].items() if name in known}
    return Profile(
        emetteur=row["emetteur"],
        name=row["name"],
        usable=row["usable"],
        features=features,
        latency_s=row["latency_s"],
        bytes_per_s=row["bytes_per_s"],
        checked_at=row["checked_at"],
    )
