"""Who is in the federation: values only, no I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType

from registry.people import Practitioner


class SiteStatus(StrEnum):
    """Whether a site takes part in searches."""

    MEMBER = "member"
    SUSPENDED = "suspended"
    UNREFERENCED = "unreferenced"  # listed, never asked


#: An EMETTEUR works as an AE title: 1–16 characters of the default repertoire (PS3.5 §6.2, AE), without
#: backslash; we also keep out what has a meaning in a PatientID (`@`), a URL or a list of ours.
EMETTEUR_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What a check learnt of a member: hints, which choose what is tried first. None = not known."""

    names_ignore_case: bool | None = None
    honours_limit: bool | None = None
    honours_offset: bool | None = None
    decodes_values: bool | None = None  # percent-encoded ones, in queries
    takes_uid_lists: bool | None = None  # separated by commas
    takes_uid_lists_backslash: bool | None = None
    honours_includefield: bool | None = None
    searches_series: bool | None = None  # across studies
    searches_instances: bool | None = None
    takes_dicom_json: bool | None = None  # in Accept
    gives_explicit: bool | None = None  # instances in explicit VR little endian
    gives_stored: bool | None = None  # … in the transfer syntax that they are stored in
    gives_rendered: bool | None = None
    gives_thumbnail: bool | None = None

    def known(self) -> dict[str, bool]:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One establishment and its PACS."""

    emetteur: str
    number: int  # SITE
    name: str
    folder: str | None = None  # name of the folder
    availability: str = ""
    status: SiteStatus = SiteStatus.MEMBER
    dicomweb: str | None = None  # base URL without a trailing slash
    aet: str | None = None
    host: str | None = None
    port: int | None = None
    oid: str | None = None  # assigning authority of its IPPs
    deadline_s: float | None = None  # None = the federation's
    quirks: Quirks = field(default_factory=Quirks)

    @property
    def has_address(self) -> bool:
        return self.dicomweb is not None or (self.aet is not None and self.host is not None)

    @property
    def asked(self) -> bool:
        """True if searches and retrieves may go to this site."""
        return self.status is SiteStatus.MEMBER and self.has_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A group of sites that a PACS shows as one directory under its "Data Center"."""

    name: str
    ae_title: str | None = None

    @property
    def slug(self) -> str:
        return slugify(self.name)


def slugify(name: str) -> str:
    """`MIRC Centres Imagerie` → `mirc-centres-imagerie`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


class Directory:
    """An immutable picture of the registry at one epoch. Look-ups ignore the case of an EMETTEUR.

    `sites` stand in registry order: the order in which they were registered, which never changes. `practitioners` are
    found by RPPS.
    """

    __slots__ = ("_by_emetteur", "_by_number", "_position", "epoch", "folders", "practitioners", "sites")

    def __init__(
        self,
        sites: Iterable[Site],
        folders: Iterable[Folder] = (),
        *,
        epoch: int = 0,
        practitioners: Iterable[Practitioner] = (),
    ) -> None:
        self.sites: tuple[Site, ...] = tuple(sites)
        self.folders: Mapping[str, Folder] = MappingProxyType({f.slug: f for f in folders})
        self.practitioners: Mapping[str, Practitioner] = MappingProxyType({p.rpps: p for p in practitioners})
        self.epoch = epoch
        self._by_emetteur = {s.emetteur.casefold(): s for s in self.sites}
        self._by_number = {s.number: s for s in self.sites}
        self._position = {s.emetteur: i for i, s in enumerate(self.sites)}

    def site(self, emetteur: str) -> Site | None:
        return self._by_emetteur.get(emetteur.casefold())

    def site_numbered(self, number: int) -> Site | None:
        return self._by_number.get(number)

    def position(self, site: Site) -> int:
        """Rank of a site in registry order; unknown sites come last."""
        return self._position.get(site.emetteur, len(self.sites))

    def in_folder(self, slug: str) -> tuple[Site, ...]:
        folder = self.folders.get(slug)
        return tuple(s for s in self.sites if folder is not None and s.folder == folder.name)
