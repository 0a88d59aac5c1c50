"""The façade's own URLs, and bulk data references as tokens that need no table."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from federation.errors import NotFound
from registry import Site


class LinkKey:
    """Seals a member's reference: it says nothing of the member, can't be forged, nor used for another study.

    Deterministic (RFC 5297), so that one reference has one URL and caches work. `secret` is 64 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._siv = AESSIV(secret)

    def seal(self, emetteur: str, study_uid: str, link: str) -> str:
        text = f"{emetteur}\n{link}".encode()
        sealed = self._siv.encrypt(text, [study_uid.encode()])
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, token: str, study_uid: str) -> tuple[str, str]:
        """→ (EMETTEUR, the member's reference). Raises `NotFound`."""
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != token:
                raise NotFound("There is no such bulk data.")  # one reference has one URL: no second spelling of it
            text = self._siv.decrypt(sealed, [study_uid.encode()]).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise NotFound("There is no such bulk data.") from None
        emetteur, _, link = text.partition("\n")
        return emetteur, link


@dataclass(frozen=True, slots=True, kw_only=True)
class FacadeLinks:
    """`base` = public URL without a trailing slash; `prefix` = the scope that a request came through."""

    base: str
    prefix: str
    key: LinkKey

    def retrieve_url(self, site: Site, study_uid: str, series_uid: str = "", instance_uid: str = "") -> str:
        """Site-scoped, so that it is unambiguous and leads back to this holder."""
        url = f"{self.base}/sites/{site.emetteur}/dicom-web/studies/{study_uid}"
        if series_uid:
            url += f"/series/{series_uid}"
        if instance_uid:
            url += f"/instances/{instance_uid}"
        return url

    def bulkdata_url(self, site: Site, study_uid: str, series_uid: str, instance_uid: str, link: str) -> str:
        token = self.key.seal(site.emetteur, study_uid, link)
        return (
            f"{self.base}{self.prefix}/dicom-web/studies/{study_uid}/series/{series_uid}"
            f"/instances/{instance_uid}/bulkdata/{token}"
        )
