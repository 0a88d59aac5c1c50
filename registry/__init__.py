"""Who is in the federation: sites, folders, practitioners, addresses and quirks; database pool and migrations."""

from registry.model import Directory, Folder, Quirks, Site, SiteStatus
from registry.people import Practitioner, Role

__all__ = ["Directory", "Folder", "Practitioner", "Quirks", "Role", "Site", "SiteStatus"]
