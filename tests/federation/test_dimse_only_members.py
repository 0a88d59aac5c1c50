"""A member whose protocol is not spoken yet is named as missing, never silently left out."""

from __future__ import annotations

import requests
from support.serving import Serving


def test_dimse_only_member_is_named(serve, tmp_path) -> None:
    site = {"emetteur": "csdimse", "site": 999, "name": "DIMSE", "aet": "CSDIMSE", "host": "127.0.0.1", "port": 4242}
    server: Serving = serve({}, extra_sites=[site])
    answer = requests.get(f"{server.dicomweb()}/studies", timeout=10)
    assert answer.status_code == 503
    assert "csdimse (error)" in answer.headers["Warning"]
