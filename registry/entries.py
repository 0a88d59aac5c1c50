"""What becomes of a registry's entry when the settings file or an imported table says something of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry.model import Directory, Folder, Quirks, Site, SiteStatus
from registry.rules import registry_conflicts

_ADDRESS = ("dicomweb", "aet", "host", "port")
_FILLED = ("folder", "availability", "oid", "deadline_s")
_COMPARED = ("number", "name", *_FILLED, "status", *_ADDRESS)


class RegistryConflict(Exception):
    """The entries contradict each other or those already registered. One line for each problem; nothing was changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to write, and what to tell people."""

    new_folders: tuple[Folder, ...]
    changed_folders: tuple[Folder, ...]
    new_sites: tuple[Site, ...]
    changed_sites: tuple[Site, ...]
    unchanged: int  # sites
    notes: tuple[str, ...]  # where the registry keeps something else than was said

    @property
    def empty(self) -> bool:
        return not (self.new_folders or self.changed_folders or self.new_sites or self.changed_sites)


def seeding(directory: Directory, sites: Sequence[Site], folders: Sequence[Folder], node: str | None) -> Changes:
    """The settings file creates entries and fills blanks. It never overrides: differences become notes.

    Raises `RegistryConflict`, also for what the file and the registry break together.
    """
    notes: list[str] = []

    def fill(old: Site, new: Site) -> Site:
        filled: dict[str, Any] = {
            name: getattr(new, name) for name in _FILLED if getattr(old, name) in (None, "") and getattr(new, name)
        }
        if not old.has_address:
            filled |= {name: getattr(new, name) for name in _ADDRESS}
        merged = replace(old, **filled)
        # An address that the file leaves out was given elsewhere: that is no difference.
        notes.extend(
            f"{old.emetteur}: {name} stays {str(kept if kept is not None else '')!r}; the file says {str(said)!r}"
            for name in _COMPARED
            if (said := getattr(new, name)) not in (None, "", kept := getattr(merged, name))
        )
        return merged

    return _changes(directory, sites, folders, node, fill, notes)


def importing(directory: Directory, sites: Sequence[Site], folders: Sequence[Folder], node: str | None) -> Changes:
    """A table is the word on numbers, names, folders and availability. It fills or changes addresses but clears none,
    and a suspended site stays suspended.

    Raises `RegistryConflict`.
    """
    notes: list[str] = []

    def update(old: Site, new: Site) -> Site:
        said = {name: getattr(new, name) for name in ("number", "name", "folder", "availability", "status")}
        if old.status is SiteStatus.SUSPENDED and new.status is not SiteStatus.SUSPENDED:
            said["status"] = SiteStatus.SUSPENDED
            notes.append(f"{old.emetteur} stays suspended: `imagora sites resume {old.emetteur}` ends that")
        said |= {name: value for name in (*_ADDRESS, "oid") if (value := getattr(new, name)) is not None}
        changed = replace(old, **said)
        if any(getattr(changed, name) != getattr(old, name) for name in _ADDRESS):
            return replace(changed, quirks=Quirks())  # another PACS has other habits
        return changed

    return _changes(directory, sites, folders, node, update, notes)


def _changes(
    directory: Directory,
    sites: Sequence[Site],
    folders: Sequence[Folder],
    node: str | None,
    merge: Callable[[Site, Site], Site],
    notes: list[str],
) -> Changes:
    said_twice = registry_conflicts(sites, [*directory.folders.values(), *_unknown(directory, folders)], None)
    if said_twice:
        raise RegistryConflict(said_twice)
    merged = {site.emetteur: site for site in directory.sites}
    new_sites: list[Site] = []
    for site in sites:
        if (old := directory.site(site.emetteur)) is None:
            new_sites.append(site)
        else:
            merged[old.emetteur] = merge(old, site)
    all_folders = {folder.name: folder for folder in directory.folders.values()}
    new_folders = _unknown(directory, folders)
    for folder in folders:
        registered = all_folders.get(folder.name)
        if registered is None or folder.ae_title is None:
            continue
        if registered.ae_title is None:
            all_folders[folder.name] = replace(registered, ae_title=folder.ae_title)
        elif registered.ae_title != folder.ae_title:
            notes.append(
                f"folder {folder.name!r}: ae_title stays {registered.ae_title!r}; the file says {folder.ae_title!r}"
            )
    problems = registry_conflicts([*merged.values(), *new_sites], [*all_folders.values(), *new_folders], node)
    if problems:
        raise RegistryConflict(problems)
    changed = tuple(site for old in directory.sites if (site := merged[old.emetteur]) != old)
    return Changes(
        new_folders=tuple(new_folders),
        changed_folders=tuple(f for old in directory.folders.values() if (f := all_folders[old.name]) != old),
        new_sites=tuple(new_sites),
        changed_sites=changed,
        unchanged=len(sites) - len(new_sites) - len(changed),
        notes=tuple(notes),
    )


def _unknown(directory: Directory, folders: Sequence[Folder]) -> list[Folder]:
    known = {folder.name for folder in directory.folders.values()}
    return [folder for folder in folders if folder.name not in known]
