"""Which sites a request addresses, and whether it says enough to be sent to them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from consent import Requester
from federation import names
from federation.errors import NotFound
from federation.matching import BIRTH_DATE, PATIENT_ID, PATIENT_NAME
from federation.model import Query, Scope, ScopeKind
from registry import Directory, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Settings of section `[search]`."""

    member_cap: int = 1000  # rows taken from one member for one query
    require_patient_criterion: bool = True
    include_own_site: bool = False
    page_rows: int = 20_000  # kept in all for the next pages of searches just made


def sites_in(scope: Scope, directory: Directory) -> tuple[Site, ...]:
    """The sites of a scope that take part, in registry order. An unknown folder or site raises `NotFound`."""
    match scope.kind:
        case ScopeKind.ALL:
            sites = directory.sites
        case ScopeKind.FOLDER:
            if scope.name not in directory.folders:
                raise NotFound(f"There is no folder {scope.name!r}.")
            sites = directory.in_folder(scope.name)
        case ScopeKind.SITE:
            site = directory.site(scope.name)
            if site is None:
                raise NotFound(f"There is no site {scope.name!r}.")
            sites = (site,)
    return tuple(s for s in sites if s.asked)


def own_site_left_out(query: Query, requester: Requester, *, include: bool) -> Site | None:
    """The requester's own site, where this search leaves its exams out."""
    if include or not query.scope.wide or query.names_uid:
        return None
    return requester.home


def has_patient_criterion(query: Query) -> bool:
    """A UID, an accession number, an exact PatientID, two letters of the family name, or birth date and a letter."""
    filters = query.filters
    if query.names_uid or _literal(filters.get("00080050", "")):
        return True
    patient_id = filters.get(PATIENT_ID, "")
    if patient_id and "*" not in patient_id and "?" not in patient_id:
        return True
    name = filters.get(PATIENT_NAME, "")
    if names.literal_letters(name) >= 2:
        return True
    return BIRTH_DATE in filters and names.any_letter(name)


def _literal(value: str) -> bool:
    return any(c not in "*?" for c in value)


CRITERION_NOTICE = (
    "This search names no patient and was not sent: give a UID, an accession number, a PatientID, two letters of the "
    "family name, or a birth date with a letter of the name"
)
