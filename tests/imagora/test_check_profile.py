"""Each habit of a member is found by a check: scripted ones are poor in one way, and the profile says in which."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from imagora_demo import exams
from support.checking import anything
from support.peer import Connection, Peer, Request
from support.picky import Picky, Row, instance

from dicomweb.client import ClientOptions
from dicomweb.probe import QUESTIONS_MAX, ProbedMember
from imagora.checkup import Checkup, examine
from registry import Site
from registry.profiles import Feature

SEEDS = ("one", "two", "three", "four")
NAMES = ("DUPONT-LÉVY^Marie", "MARTIN^Jean", "KELLER^Tom", "NOEL^ZOE")
FILES = {seed: exams.light_study(seed, name=name)[0] for seed, name in zip(SEEDS, NAMES, strict=True)}


def rows() -> list[Row]:
    made = []
    for number, (seed, name) in enumerate(zip(SEEDS, NAMES, strict=True)):
        study = exams.uid(seed, "study")
        series = exams.uid(study, "series", 1)
        row = instance(study, series, exams.uid(series, "instance", 1), name=name)
        row["00080020"] = {"vr": "DA", "Value": [f"2024010{9 - number}"]}
        made.append(row)
    return made


def related(content_type: str, body: bytes) -> tuple[str, bytes, str]:
    part = b"--x\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + body + b"\r\n--x--"
    return f'type="{content_type}"', part, f'multipart/related; type="{content_type}"; boundary=x'


def forms() -> dict[str, tuple[str, bytes, str]]:
    """What a PACS gives that is well. The first study of the list is the one that is tried."""
    wanted, body, content_type = related("application/dicom", FILES["one"])
    return {
        r"/instances/[0-9.]+$": (wanted, body, content_type),
        r"/frames/1$": related("application/octet-stream", b"pixels"),
        r"/bulk/1$": related("application/octet-stream", b"a document"),
        r"/rendered$": ("image/jpeg", b"a picture", "image/jpeg"),
        r"/thumbnail$": ("image/jpeg", b"small", "image/jpeg"),
    }


def well(**poor: Any) -> Picky:
    held = rows()
    uri = f"http://anywhere/dicom-web/studies/{held[0]['0020000D']['Value'][0]}/bulk/1"
    metadata = [{**held[0], "00420011": {"vr": "OB", "BulkDataURI": uri}}]
    return Picky(**{"rows": held, "metadata": metadata, "forms": forms(), **poor})


def examined(behave: Callable[[Request, Connection], Any]) -> tuple[Checkup, Peer]:
    async def run(peer: Peer) -> Checkup:
        site = Site(emetteur="one", number=1, name="One", dicomweb=peer.dicomweb_url)
        member = ProbedMember(site, options=ClientOptions(idle_s=2.0, connections=1))
        try:
            return await examine(member, 2.0, anything)
        finally:
            await member.aclose()

    with Peer(behave) as peer:
        return asyncio.run(run(peer)), peer


#: What the scripted member lacks at its best.
LACKING = {Feature.SINGLE_PART, Feature.NAMES_WITHOUT_ACCENTS}
ALL = {feature: feature not in LACKING for feature in Feature}


def test_a_member_that_is_well_has_every_feature() -> None:
    checkup, peer = examined(well())
    assert checkup.features == ALL, [f for f in checkup.findings if f.result != "ok"]
    assert checkup.usable
    profile = checkup.profile
    assert profile.latency_s is not None
    assert profile.latency_s > 0
    assert profile.bytes_per_s is not None
    assert profile.bytes_per_s > 0
    assert {request.method for request in peer.requests} == {"GET", "HEAD", "OPTIONS"}  # nothing is stored
    assert len(peer.requests) < 60


def without(form: str) -> dict[str, Any]:
    return {"forms": {path: answer for path, answer in forms().items() if form not in path}}


POOR: dict[str, tuple[dict[str, Any], set[Feature]]] = {
    "ignores limit": ({"limit": False}, {Feature.LIMIT}),
    "ignores offset": ({"offset": False}, {Feature.OFFSET}),
    "tells cases apart": ({"any_case": False}, {Feature.NAMES_IN_ANY_CASE}),
    "knows no ?": ({"question": False}, {Feature.WILDCARD_QUESTION}),
    "knows no lists": ({"lists": ()}, {Feature.UID_LIST_COMMA, Feature.UID_LIST_BACKSLASH}),
    "knows lists with backslashes only": ({"lists": ("\\",)}, {Feature.UID_LIST_COMMA}),
    "knows lists with commas only": ({"lists": (",",)}, {Feature.UID_LIST_BACKSLASH}),
    "ignores includefield": ({"includefield": False}, {Feature.INCLUDEFIELD}),
    "searches within studies only": ({"across": False}, {Feature.SERIES_SEARCH, Feature.INSTANCE_SEARCH}),
    "sends empty lists": ({"no_match": 200}, {Feature.NO_MATCH_204}),
    "takes application/json only": ({"json": ("application/json",)}, {Feature.DICOM_JSON}),
    "writes in Latin-1": ({"charset": "latin-1"}, {Feature.UTF_8}),
    "gives no frames": (without("frames"), {Feature.FRAMES}),
    "gives no bulk data": (without("bulk"), {Feature.BULK_DATA}),
    "gives no rendered pictures": (without("rendered"), {Feature.RENDERED}),
    "refuses rendered pictures": ({**without("rendered"), "unknown": 406}, {Feature.RENDERED}),
    "has no thumbnails yet": ({**without("thumbnail"), "unknown": 501}, {Feature.THUMBNAIL}),
    "knows no HEAD": ({"methods": ("OPTIONS",)}, {Feature.HEAD}),
    "knows no OPTIONS": ({"methods": ("HEAD",)}, {Feature.OPTIONS}),
}


@pytest.mark.parametrize("kind", POOR)
def test_what_a_member_lacks_is_found_and_nothing_else(kind: str) -> None:
    options, lacking = POOR[kind]
    checkup, peer = examined(well(**options))
    assert {f for f, has in checkup.features.items() if not has} == lacking | LACKING
    assert checkup.features.keys() >= ALL.keys() - {Feature.OFFSET, Feature.STEADY_ORDER}
    assert len(peer.requests) <= QUESTIONS_MAX


def test_a_member_that_does_not_decode_is_known_for_it() -> None:
    checkup, _ = examined(well(decodes=False))
    assert checkup.features[Feature.PERCENT_DECODING] is False
    assert checkup.features[Feature.NAMES_IN_ANY_CASE]
    assert checkup.features[Feature.UID_LIST_COMMA]


def test_a_member_without_accents_in_its_index_and_one_that_minds_them() -> None:
    plain = {"É": "E", "È": "E"}

    class Folding(Picky):
        def _matches(self, row: Row, tag: str, wanted: str) -> bool:
            if tag != "00100010":
                return super()._matches(row, tag, wanted)
            name = row[tag]["Value"][0]["Alphabetic"]
            folded = {**row, tag: {"vr": "PN", "Value": [{"Alphabetic": "".join(plain.get(c, c) for c in name)}]}}
            return super()._matches(folded, tag, "".join(plain.get(c, c) for c in wanted))

    held = well()
    folding = Folding(rows=held.rows, metadata=held.metadata, forms=held.forms)
    assert examined(folding)[0].features[Feature.NAMES_WITHOUT_ACCENTS] is True


def test_a_member_that_gives_files_as_they_are_stored_only() -> None:
    async def behave(request: Request, connection: Connection) -> None:
        if "transfer-syntax=1.2.840.10008.1.2.1" in request.headers.get("accept", ""):
            await connection.answer(406, b"", "text/plain")
        else:
            await well()(request, connection)

    features = examined(behave)[0].features
    assert (features[Feature.EXPLICIT], features[Feature.AS_STORED]) == (False, True)


def test_a_member_that_converts_every_file() -> None:
    async def behave(request: Request, connection: Connection) -> None:
        if 'type="application/dicom"; transfer-syntax=*' in request.headers.get("accept", ""):
            await connection.answer(406, b"", "text/plain")
        else:
            await well()(request, connection)

    features = examined(behave)[0].features
    assert (features[Feature.EXPLICIT], features[Feature.AS_STORED]) == (True, False)


def test_silence_tells_nothing_of_what_a_member_lacks() -> None:
    async def behave(request: Request, connection: Connection) -> None:
        if request.path.endswith(("/rendered", "/thumbnail")):
            connection.abort()
        else:
            await well()(request, connection)

    features = examined(behave)[0].features
    assert not {Feature.RENDERED, Feature.THUMBNAIL} & features.keys()
    assert features[Feature.FRAMES]


def test_a_member_that_answers_everything_with_everything_is_not_asked_without_end() -> None:
    """The worst for a check: every filter ignored, every answer found wanting."""
    many = [instance(f"1.2.{n}", f"1.2.{n}.1", f"1.2.{n}.1.1", name=f"FAMILY{n}^É") for n in range(40)]

    async def behave(request: Request, connection: Connection) -> None:
        await connection.answer(200, orjson.dumps(many), "application/dicom+json")

    checkup, peer = examined(behave)
    assert len(peer.requests) <= QUESTIONS_MAX
    assert checkup.answered


def test_no_profile_holds_anything_of_a_patients() -> None:
    checkup, _ = examined(well())
    text = repr(checkup.profile) + repr(checkup.findings)
    words = ["DUPONT", "Marie", "KELLER", "4547", *(exams.uid(seed, "study") for seed in SEEDS)]
    assert not [word for word in words if word.casefold() in text.casefold()]
