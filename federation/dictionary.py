"""What DICOM's data dictionary (PS3.6) says of a tag. Pure."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR


@lru_cache(maxsize=4096)
def vr_of(tag: str) -> str:
    """The VR of a tag (`00100010`), `UN` of what is in no dictionary or is no tag."""
    try:
        return dictionary_VR(int(tag, 16))
    except (KeyError, ValueError):
        return "UN"
