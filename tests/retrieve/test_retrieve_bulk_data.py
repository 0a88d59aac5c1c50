"""Bulk data by tokens of ours: sealed to a study and a member, never leading anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import Held, Holder, content_type, describing, giving, multipart
from support.peer import Connection, Peer, Request
from support.serving import Serving

OCTETS = "application/octet-stream"
STUDY = exams.study(seed="bulk", n_instances=2, rows=16, columns=16)
OTHER = exams.study(seed="bulk-other", patient_id="2", name="MARTIN^Jean", birth_date="19710203", sex="M")
UID, OTHER_UID = exams.uid("bulk", "study"), exams.uid("bulk-other", "study")
PAYLOAD = bytes(range(256)) * 8


async def bulk(_: Request, connection: Connection, __: list[Held]) -> None:
    await connection.answer(200, multipart([PAYLOAD], "b", part_type=OCTETS), content_type("b", OCTETS))


@pytest.fixture(scope="module")
def foreign() -> Iterator[Peer]:
    """Another server: whoever asks it was led there."""

    async def behave(_: Request, connection: Connection) -> None:
        await connection.answer(200, b"gotcha", OCTETS)

    with Peer(behave, host="127.0.0.9") as other:
        yield other


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    with Holder([*STUDY, *OTHER], other=bulk) as member:
        yield member


@pytest.fixture(scope="module")
def server(holder: Holder, serve_module) -> Serving:
    serving: Serving = serve_module({"csrom41200": holder.url, "cpsax18000": None})
    return serving


def metadata(server: Serving, scope: str = "", uid: str = UID) -> list[dict[str, Any]]:
    anew = {"Cache-Control": "no-cache"}
    answer = requests.get(f"{server.dicomweb(scope)}/studies/{uid}/metadata", headers=anew, timeout=10)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()
    return found


def referring(holder: Holder, uri: str) -> None:
    """Let the member's metadata name `uri` for pixels, and for a private element inside a sequence."""

    def change(attributes: dict[str, Any]) -> None:
        attributes["7FE00010"] = {"vr": "OW", "BulkDataURI": uri}
        attributes["00400555"] = {"vr": "SQ", "Value": [{"00091010": {"vr": "UN", "BulkDataURI": uri}}]}

    holder.describe = describing(change)


def own_uri(holder: Holder, below: str = "/bulk/7fe00010") -> str:
    study, series, sop = holder.held[0].uids
    return f"/studies/{study}/series/{series}/instances/{sop}{below}"


@pytest.mark.parametrize("form", ["absolute", "relative to the host", "behind another name"])
def test_reference_is_ours_and_gives_the_members_bytes(form: str, holder: Holder, server: Serving) -> None:
    base = {"absolute": holder.url, "relative to the host": "/dicom-web", "behind another name": "http://pacs/x"}[form]
    referring(holder, base + own_uri(holder))
    for scope in ("", "/sites/csrom41200"):
        found = metadata(server, scope)[0]
        uri = found["7FE00010"]["BulkDataURI"]
        assert uri.startswith(f"{server.dicomweb(scope)}/studies/{UID}/series/")
        assert found["00400555"]["Value"][0]["00091010"]["BulkDataURI"] == uri
        assert "7fe00010" not in uri
        asked = len(holder.retrieves())
        for accept in (None, "*/*", 'multipart/related; type="application/octet-stream"'):
            seen = wire.get(uri, "", {"Accept": accept} if accept else {})
            assert (seen.status, seen.ended) == (200, True)
            assert [p.body for p in seen.parts] == [PAYLOAD]
        single = wire.get(uri, "", {"Accept": OCTETS})
        assert (single.status, single.ended, single.body) == (200, True, PAYLOAD)
        assert single.headers["content-type"] == OCTETS
        assert {r.path for r in holder.retrieves()[asked:]} == {own_uri(holder)}


def test_one_reference_has_one_url(holder: Holder, server: Serving) -> None:
    """So that caches work; and two references have two."""
    referring(holder, holder.url + own_uri(holder))
    first, again = (metadata(server)[0]["7FE00010"]["BulkDataURI"] for _ in range(2))
    assert first == again
    referring(holder, holder.url + own_uri(holder, "/bulk/00091010"))
    assert metadata(server)[0]["7FE00010"]["BulkDataURI"] != first


def test_forged_tokens_and_those_of_another_study_are_unknown(holder: Holder, server: Serving) -> None:
    referring(holder, holder.url + own_uri(holder))
    uri = metadata(server)[0]["7FE00010"]["BulkDataURI"]
    base, _, token = uri.rpartition("/")
    asked = len(holder.retrieves())
    flipped = ("B" if token[10] == "A" else "A").join((token[:10], token[11:]))
    for forged in (flipped, token[:-4], token[4:], "A" * len(token), "x", f"{token}AAAA", "..%2f..", "%00"):
        seen = wire.get(f"{base}/{forged}", "")
        assert (seen.status, seen.ended) == (404, True), forged
    # Of another study of the same member, and of another member.
    stolen = [uri.replace(UID, OTHER_UID), uri.replace("/dicom-web/", "/sites/cpsax18000/dicom-web/")]
    for url in stolen:
        assert wire.get(url, "").status == 404
    assert len(holder.retrieves()) == asked
    assert wire.get(uri, "").status == 200


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.9:{port}/steal",
        "http://127.0.0.9:{port}/dicom-web/studies/{other}/series/1.2/instances/1.3/bulk/1",
        "//127.0.0.9:{port}/steal",
        "file:///etc/passwd",
        "ftp://127.0.0.9/studies/{uid}/x",
        "http://[::bad/studies/{uid}/x",
        "/dicom-web/studies/{uid}/../../instances",
        "/dicom-web/studies/{uid}/%2e%2e/%2e%2e/instances",
        "/dicom-web/studies/{uid}/x\r\nHost: elsewhere",
        "/system",
        "",
    ],
)
def test_reference_to_elsewhere_is_dropped_and_said(uri: str, foreign: Peer, holder: Holder, server: Serving) -> None:
    referring(holder, uri.format(port=foreign._port, uid=UID, other=OTHER_UID))
    anew = {"Cache-Control": "no-cache"}
    answer = requests.get(f"{server.dicomweb()}/studies/{UID}/metadata", headers=anew, timeout=10)
    assert answer.status_code == 200
    assert "BulkDataURI" not in answer.text
    assert "127.0.0.9" not in answer.text
    assert "csrom41200 refers to bulk data that can't be reached through it" in answer.headers["Warning"]
    assert not foreign.requests


def test_reference_with_a_foreign_host_goes_to_the_member_itself(
    foreign: Peer, holder: Holder, server: Serving
) -> None:
    """A member behind a proxy may not know its own name: the resource counts, the host never."""
    referring(holder, foreign.dicomweb_url + own_uri(holder))
    uri = metadata(server)[0]["7FE00010"]["BulkDataURI"]
    asked = len(holder.retrieves())
    assert [p.body for p in wire.get(uri, "").parts] == [PAYLOAD]
    assert [r.path for r in holder.retrieves()[asked:]] == [own_uri(holder)]
    assert not foreign.requests


def test_member_that_redirects_bulk_data_is_not_followed(foreign: Peer, holder: Holder, server: Serving) -> None:
    referring(holder, holder.url + own_uri(holder))
    uri = metadata(server)[0]["7FE00010"]["BulkDataURI"]
    holder.other = giving(302, b"", "text/plain", Location=f"{foreign.dicomweb_url}/steal")
    try:
        seen = wire.get(uri, "")
    finally:
        holder.other = bulk
    assert (seen.status, seen.ended) == (502, True)
    assert "location" not in seen.headers
    assert not foreign.requests


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/javascript", "application/xhtml+xml"])
def test_what_a_browser_would_run_is_called_octets(kind: str, holder: Holder, server: Serving) -> None:
    """A member (or what was stored in it) must not run a script under our name."""
    referring(holder, holder.url + own_uri(holder))
    uri = metadata(server)[0]["7FE00010"]["BulkDataURI"]
    script = b"<script>alert(1)</script>"
    for deliver in (
        giving(200, script, kind),
        giving(200, multipart([script], "b", part_type=kind), content_type("b", kind)),
    ):
        holder.other = deliver
        try:
            seen = wire.get(uri, "", {"Accept": OCTETS})
            related = wire.get(uri, "")
        finally:
            holder.other = bulk
        for one in (seen, related):
            assert one.ended
            assert kind not in repr(one.headers)
            assert one.headers["x-content-type-options"] == "nosniff"
            if one.status == 200 and one.closed:
                assert {p.type for p in one.parts} == {OCTETS}
