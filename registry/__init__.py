"""Who is in the federation: sites, folders, members' addresses and quirks; database pool and migrations."""

from registry.model import Directory, Folder, Quirks, Site, SiteStatus

__all__ = ["Directory", "Folder", "Quirks", "Site", "SiteStatus"]
