"""Where Orthanc and its DICOMweb plugin are on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin")
INSTALL_HINT = "install Orthanc and its DICOMweb plugin (Debian: apt-get install orthanc orthanc-dicomweb)"


class OrthancError(RuntimeError):
    """Orthanc could not be found, started or used; the text says why and ends with the log's last lines."""


def find_program() -> Path:
    """Path of Orthanc; `IMAGORA_ORTHANC` names another. Raises `OrthancError` that says what to install."""
    if named := os.environ.get("IMAGORA_ORTHANC"):
        return Path(named)
    found = shutil.which("Orthanc", path=os.pathsep.join((os.environ.get("PATH", ""), *PROGRAM_FOLDERS)))
    if found is None:
        raise OrthancError(f"Orthanc is not installed; {INSTALL_HINT}")
    return Path(found)


def find_dicomweb_plugin() -> Path:
    """Path of the DICOMweb plugin; `IMAGORA_ORTHANC_DICOMWEB` names another. Raises `OrthancError`."""
    if named := os.environ.get("IMAGORA_ORTHANC_DICOMWEB"):
        return Path(named)
    for folder in PLUGIN_FOLDERS:
        found = sorted(Path(folder).glob("libOrthancDicomWeb.so*"))
        if found:
            return found[-1].resolve()
    raise OrthancError(f"Orthanc's DICOMweb plugin is not in {', '.join(PLUGIN_FOLDERS)}; {INSTALL_HINT}")


def available() -> bool:
    """True if Orthanc and its DICOMweb plugin can be found."""
    try:
        find_program()
        find_dicomweb_plugin()
    except OrthancError:
        return False
    return True
