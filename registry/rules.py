"""What a name or an address in the registry must look like: values only, no I/O.

The settings file, the CSV import and the command line apply the same rules. Each `check_*` returns the value as
it is to be stored, or raises `ValueError` with one sentence that says what is wrong and what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from registry.model import EMETTEUR_PATTERN, Folder, Site

# PS3.5 §6.2, AE: at most 16 characters of the default repertoire without control characters and backslash;
# leading and trailing spaces are not significant, so they are refused rather than silently dropped.
_AE_TITLE = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")
# PS3.5 §9.1
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
NUMBER_MAX = 2**31 - 1
NAME_MAX = 64
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def check_emetteur(value: str) -> str:
    if not EMETTEUR_PATTERN.fullmatch(value):
        raise ValueError(
            f"{value!r} is not an EMETTEUR: use 1 to 16 letters, digits, '_', '.' or '-', as in csrom41200"
        )
    return value


def check_ae_title(value: str) -> str:
    if not _AE_TITLE.fullmatch(value):
        raise ValueError(
            f"{value!r} is not an AE title: use 1 to 16 ASCII characters without backslash or outer spaces"
        )
    return value


def check_oid(value: str) -> str:
    if len(value) > 64 or not _OID.fullmatch(value):
        raise ValueError(f"{value!r} is not an OID: use digits and dots, at most 64, as in 1.2.250.1.999.423")
    return value


def check_host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST_NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a host name or IP address") from None
    return value


def check_http_url(value: str) -> str:
    """Return the URL without trailing slashes. Only http and https; no credentials, query or fragment.

    The text of the error never repeats the URL: it may hold a password.
    """
    if any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("the URL has a space or control character in it: remove it, or write it as %20")
    try:
        parts = urlsplit(value)
        port_is_bad = parts.port == 0
    except ValueError:
        raise ValueError("not a URL: its host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("the URL must start with http:// or https://")
    if not parts.hostname or port_is_bad:
        raise ValueError("the URL must name a host, as in https://pacs.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "credentials do not belong in the URL: give them in the environment, "
            "as IMAGORA_MEMBER_<EMETTEUR>_USER and IMAGORA_MEMBER_<EMETTEUR>_PASSWORD"
        )
    if "?" in value or "#" in value:
        raise ValueError("the URL must not have a query (?) or a fragment (#)")
    return value.rstrip("/")


def check_number(value: str) -> int:
    """A SITE."""
    if not value.isascii() or not value.isdigit() or int(value) > NUMBER_MAX:
        raise ValueError(f"{value!r} is not the number of an establishment: use digits, as in 423")
    return int(value)


def check_port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise ValueError(f"{value!r} is not a port: use a number from 1 to 65535")
    return int(value)


def check_name(value: str) -> str:
    """The name of a site or folder. InstitutionName and CodeMeaning show it (PS3.5 §6.2, LO)."""
    if not value.strip() or len(value) > NAME_MAX or "\\" in value or not value.isprintable():
        raise ValueError(f"{value[:NAME_MAX]!r} is not a name: use 1 to {NAME_MAX} characters, without backslash")
    return value


def address_problem(*, aet: object, host: object, port: object) -> str | None:
    """What is wrong with the DIMSE address of a member: it is complete, or not there at all. None if nothing."""
    parts = {"aet": aet, "host": host, "port": port}
    missing = [name for name, value in parts.items() if value is None]
    if 0 < len(missing) < len(parts):
        return f"aet, host and port belong together: give {' and '.join(missing)} too, or none of the three"
    return None


def title_conflicts(sites: Iterable[Site], folders: Iterable[Folder], node: str | None = None) -> list[str]:
    """One line for every AE title that would name two things. The case of letters makes no difference.

    The node, the folders and each site's EMETTEUR and AE title share one namespace, because an association or a
    RetrieveAETitle must point at one of them. A site may use its own EMETTEUR as its AE title.
    """
    claims: dict[str, list[tuple[str, object]]] = {}
    if node is not None:
        claims.setdefault(node.casefold(), []).append(("the node's AE title", None))
    for folder in folders:
        if folder.ae_title is not None:
            claims.setdefault(folder.ae_title.casefold(), []).append(
                (f"the AE title of folder {folder.name!r}", folder.name)
            )
    for site in sites:
        claims.setdefault(site.emetteur.casefold(), []).append((f"the EMETTEUR of site {site.number}", site.number))
        if site.aet is not None:
            claims.setdefault(site.aet.casefold(), []).append((f"the AE title of {site.emetteur}", site.number))
    problems: list[str] = []
    for title, claimants in claims.items():
        if len({owner for _, owner in claimants}) > 1:
            what = " and ".join(text for text, _ in claimants)
            problems.append(f"AE title {title!r} stands for {what}: each title may name one thing; change one of them")
    return problems


def registry_conflicts(sites: Sequence[Site], folders: Sequence[Folder], node: str | None = None) -> list[str]:
    """One line for every rule that the entries break together."""
    problems: list[str] = []
    seen_names: dict[str, Site] = {}
    seen_numbers: dict[int, Site] = {}
    for site in sites:
        if (twin := seen_names.setdefault(site.emetteur.casefold(), site)) is not site:
            problems.append(
                f"EMETTEUR {site.emetteur} stands twice (as {twin.emetteur}, SITE {twin.number}, and as SITE "
                f"{site.number}); the case of letters makes no difference: remove or rename one"
            )
        elif (twin := seen_numbers.setdefault(site.number, site)) is not site:
            problems.append(f"SITE {site.number} belongs to both {twin.emetteur} and {site.emetteur}: correct one")
    folder_names = {f.name for f in folders}
    seen_slugs: dict[str, Folder] = {}
    for folder in folders:
        if not folder.slug:
            problems.append(f"folder {folder.name!r} has no letter or digit that could stand in a URL: rename it")
        elif (other := seen_slugs.setdefault(folder.slug, folder)) is not folder:
            problems.append(
                f"folders {other.name!r} and {folder.name!r} would both be /folders/{folder.slug}: rename one"
            )
    problems.extend(
        f"{site.emetteur}: there is no folder {site.folder!r}: add it to the folders or correct the name"
        for site in sites
        if site.folder is not None and site.folder not in folder_names
    )
    if not problems:
        problems.extend(title_conflicts(sites, folders, node))
    return problems
