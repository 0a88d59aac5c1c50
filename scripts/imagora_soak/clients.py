"""Clients: what they ask, and what no answer may be, whatever the members do."""

from __future__ import annotations

import asyncio
import io
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from imagora_demo import exams
from pydicom import dcmread

from imagora_soak.faults import multipart
from imagora_soak.held import OPPOSED, PIXEL_BYTES, SHARED, Study

_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_FRAME = 'multipart/related; type="application/octet-stream"'
#: What a server may answer when members fail. Never 500: that is a fault of its own.
_SEARCHED = frozenset({200, 204, 503})
_RETRIEVED = frozenset({200, 206, 404, 406, 502, 503, 504})
_STORED = frozenset({200, 202, 409, 503})
_TEMPLATE_UID = str(exams.uid("soak", "template"))
#: In seconds: longer than any deadline of the server.
PATIENCE_S = 150.0


class Wrong(Exception):
    """An answer that must not be."""


@dataclass
class Told:
    """What became of all requests. `wrong` are those that must not be."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stored: int = 0

    def count(self, what: str, outcome: str) -> None:
        self.outcomes[what, outcome] += 1


class Client:
    """One of them: asks one thing after another."""

    def __init__(self, base: str, token: str, studies: Mapping[str, Study], told: Told, seed: int) -> None:
        self._base = f"{base}/dicom-web"
        self._root = base
        self._headers = {"Authorization": f"Bearer {token}"}
        self._studies = studies
        self._known = [uid for uid in studies if uid != OPPOSED]
        self._told = told
        self._dice = random.Random(seed)
        self._seed = seed
        self._sent = 0
        self._template: bytes = exams.light_study(seed="template", study_uid=_TEMPLATE_UID, patient_id="STOW")[0]
        self._asked: dict[str, tuple[int, Callable[[], Awaitable[str]]]] = {
            "search": (20, self._search),
            "search a study": (8, self._search_study),
            "study": (14, self._study),
            "series": (4, self._series),
            "instance": (8, self._instance),
            "metadata": (10, self._metadata),
            "frames": (5, self._frames),
            "rendered": (4, self._rendered),
            "store": (6, self._store),
            "store, cut": (3, self._store_cut),
            "store, garbage": (2, self._store_garbage),
            "left": (12, self._left),
            "opposed": (4, self._opposed),
            "unknown": (2, self._unknown),
        }

    async def work(self, until: float) -> None:
        """Ask until then, on the loop's clock."""
        connector = aiohttp.TCPConnector(limit=4)
        async with aiohttp.ClientSession(
            headers=self._headers, connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)
        ) as self._session:
            names, weights = list(self._asked), [weight for weight, _ in self._asked.values()]
            while asyncio.get_running_loop().time() < until:
                what = self._dice.choices(names, weights)[0]
                try:
                    outcome = await self._asked[what][1]()
                except aiohttp.ClientPayloadError:
                    outcome = "broken off"  # the framing says so: a chunk that does not come, a length not reached
                except Wrong as wrong:
                    outcome = "wrong"
                    self._told.wrong.append(f"{what}: {wrong}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    outcome = "no answer"
                    self._told.wrong.append(f"{what}: no answer ({type(error).__name__})")
                self._told.count(what, outcome)
                await asyncio.sleep(self._dice.random() * 0.05)

    # Searches ---------------------------------------------------------------------------------------------------------

    async def _search(self) -> str:
        asked = self._dice.choice(
            [
                "PatientName=SOAK*&limit=20",
                "PatientID=101",
                "StudyDate=20200101-&limit=5&offset=2",
                "PatientName=soak402&fuzzymatching=true",
                "ModalitiesInStudy=CT&includefield=all",
                "PatientBirthDate=19400101",
            ]
        )
        level = self._dice.choice(["studies", "studies", "studies", "series", "instances"])
        return await self._rows(f"{self._base}/{level}?{asked}", {"Accept": "application/dicom+json"})

    async def _search_study(self) -> str:
        study = self._any()
        return await self._rows(f"{self._base}/studies?StudyInstanceUID={study.uid}", {}, none=False)

    async def _rows(self, url: str, headers: dict[str, str], *, none: bool = True) -> str:
        async with self._session.get(url, headers=headers) as answer:
            body = await answer.read()
            _allowed(answer, _SEARCHED)
            found: list[dict[str, Any]] = orjson.loads(body) if answer.status == 200 else []
            missing = _missing(answer)
        if not found and not none and not missing and answer.status != 503:
            raise Wrong("a study that is there is told not to be")
        for row in found:
            uid, patient = _value(row, "0020000D"), _value(row, "00100020")
            if uid == OPPOSED:
                raise Wrong("an opposed study is shown")
            if uid in self._studies and patient not in self._studies[uid].patients:
                raise Wrong("a row bears another patient's id")
        return f"{answer.status}{', some missing' if missing and answer.status == 200 else ''}"

    # Retrieves --------------------------------------------------------------------------------------------------------

    async def _study(self) -> str:
        study = self._any()
        return await self._instances(f"{self._base}/studies/{study.uid}", study, set(study.pixels))

    async def _series(self) -> str:
        study = self._any()
        series = self._dice.choice([*study.series.values()])
        wanted = {sop for sop, of in study.series.items() if of == series}
        return await self._instances(f"{self._base}/studies/{study.uid}/series/{series}", study, wanted)

    async def _instance(self) -> str:
        study, url, sop = self._one()
        return await self._instances(url, study, {sop})

    async def _instances(self, url: str, study: Study, wanted: set[str]) -> str:
        async with self._session.get(url, headers={"Accept": _DICOM}) as answer:
            body = await answer.read()
            self._retrieved(answer)
            if answer.status not in (200, 206):
                return str(answer.status)
            parts = _parts(body, answer.headers["Content-Type"])
        seen = set()
        for part in parts:
            ds = dcmread(io.BytesIO(part), stop_before_pixels=True)
            sop = str(ds.SOPInstanceUID)
            seen.add(sop)
            if str(ds.PatientID) not in study.patients:
                raise Wrong("an instance bears another patient's id")
            if part[-PIXEL_BYTES:] != study.pixels.get(sop):
                raise Wrong("an instance's pixels are not its own")
        if answer.status == 200 and seen != wanted:
            raise Wrong(f"{len(seen)} of {len(wanted)} instances, as if they were all")
        return str(answer.status)

    async def _metadata(self) -> str:
        study = self._any()
        xml = self._dice.random() < 0.2
        accept = 'multipart/related; type="application/dicom+xml"' if xml else "application/dicom+json"
        async with self._session.get(
            f"{self._base}/studies/{study.uid}/metadata", headers={"Accept": accept}
        ) as answer:
            body = await answer.read()
            self._retrieved(answer)
            if answer.status not in (200, 206):
                return str(answer.status)
            if xml:
                count = len(_parts(body, answer.headers["Content-Type"]))
            else:
                found = orjson.loads(body)
                count = len(found)
                if not {_value(row, "00100020") for row in found} <= study.patients:
                    raise Wrong("metadata bear another patient's id")
        if answer.status == 200 and count != len(study.pixels):
            raise Wrong(f"metadata of {count} of {len(study.pixels)} instances, as if they were all")
        return str(answer.status)

    async def _frames(self) -> str:
        study, url, sop = self._one()
        async with self._session.get(f"{url}/frames/1", headers={"Accept": _FRAME}) as answer:
            body = await answer.read()
            self._retrieved(answer)
            if answer.status == 200 and _parts(body, answer.headers["Content-Type"]) != [study.pixels[sop]]:
                raise Wrong("a frame is not its instance's")
            return str(answer.status)

    async def _rendered(self) -> str:
        _, url, _ = self._one()
        async with self._session.get(f"{url}/rendered", headers={"Accept": "image/png"}) as answer:
            body = await answer.read()
            self._retrieved(answer)
            if answer.status == 200 and not body.startswith(b"\x89PNG"):
                raise Wrong("a picture that is none")
            return str(answer.status)

    def _retrieved(self, answer: aiohttp.ClientResponse) -> None:
        _allowed(answer, _RETRIEVED)
        if answer.status == 404 and not _missing(answer):
            raise Wrong("what is there is told not to be, and no source to be missing")

    async def _opposed(self) -> str:
        where = self._dice.choice([f"{OPPOSED}", f"{OPPOSED}/metadata", f"{OPPOSED}/series"])
        async with self._session.get(f"{self._base}/studies/{where}") as answer:
            body = await answer.read()
            if answer.status not in (404, 503, 204) and not (answer.status == 200 and body == b"[]"):
                raise Wrong(f"an opposed study is answered with {answer.status}")
            return str(answer.status)

    async def _unknown(self) -> str:
        async with self._session.get(f"{self._base}/studies/1.2.3.4.5.{self._dice.randrange(10**6)}") as answer:
            await answer.read()
            _allowed(answer, frozenset({404, 503}))
            return str(answer.status)

    # Leaving ----------------------------------------------------------------------------------------------------------

    async def _left(self) -> str:
        """Ask, and go away: before an answer, or in the middle of it."""
        study, url, _ = self._one()
        url = self._dice.choice(
            [f"{self._base}/studies/{study.uid}", f"{self._base}/studies?PatientName=SOAK*", f"{url}/rendered", url]
        )
        patience = self._dice.random() ** 2
        try:
            async with asyncio.timeout(patience), self._session.get(url, headers={"Accept": "*/*"}) as answer:
                async for chunk in answer.content.iter_chunked(1000):
                    if len(chunk) and self._dice.random() < 0.5:
                        answer.close()
                        return "in the middle"
        except TimeoutError:
            return "before it was whole"
        return "too late"

    # Stores -----------------------------------------------------------------------------------------------------------

    def _fresh(self) -> bytes:
        """An instance that nobody has: its UID is as long as the template's."""
        sop = str(dcmread(io.BytesIO(self._template), stop_before_pixels=True).SOPInstanceUID)
        self._sent += 1
        end = f"{self._seed:03}{self._sent:06}"
        return self._template.replace(sop.encode(), (sop[: -len(end)] + end).encode())

    async def _store(self) -> str:
        parts = [self._fresh() for _ in range(self._dice.randrange(1, 4))]
        async with self._session.post(f"{self._base}/studies", data=multipart(parts), headers=_related()) as answer:
            body = await answer.read()
            _allowed(answer, _STORED)
            done = len(orjson.loads(body).get("00081199", {}).get("Value", [])) if answer.status in (200, 202) else 0
        self._told.stored += done
        if answer.status == 200 and done != len(parts):
            raise Wrong("all is told to be stored, and not told which")
        return str(answer.status)

    async def _store_cut(self) -> str:
        body = multipart([self._fresh(), self._fresh()])

        async def sending() -> AsyncIterator[bytes]:
            yield body[: self._dice.randrange(len(body) - 4)]
            await asyncio.sleep(self._dice.random() * 0.2)
            if self._dice.random() < 0.5:
                raise _Leaving

        try:
            async with self._session.post(f"{self._base}/studies", data=sending(), headers=_related()) as answer:
                await answer.read()
                _allowed(answer, frozenset({400, 503}))
                return str(answer.status)
        except (_Leaving, aiohttp.ClientConnectionError):
            return "left"

    async def _store_garbage(self) -> str:
        body = bytearray(multipart([self._fresh()]))
        for _ in range(self._dice.randrange(1, 20)):
            body[self._dice.randrange(len(body))] = self._dice.randrange(256)
        async with self._session.post(f"{self._base}/studies", data=bytes(body), headers=_related()) as answer:
            await answer.read()
            _allowed(answer, _STORED | {400})
            return str(answer.status)

    # ------------------------------------------------------------------------------------------------------------------

    def _any(self) -> Study:
        # Every fifth time the one that two members hold.
        uid = SHARED if self._dice.random() < 0.2 else self._dice.choice(self._known)
        return self._studies[uid]

    def _one(self) -> tuple[Study, str, str]:
        study = self._any()
        sop = self._dice.choice([*study.pixels])
        return study, f"{self._base}/studies/{study.uid}/series/{study.series[sop]}/instances/{sop}", sop


class _Leaving(Exception):
    """A client that goes away while it sends."""


def _related() -> dict[str, str]:
    return {"Content-Type": 'multipart/related; type="application/dicom"; boundary=soak-7d1f'}


def _allowed(answer: aiohttp.ClientResponse, statuses: frozenset[int]) -> None:
    if answer.status not in statuses:
        raise Wrong(f"status {answer.status}")


def _missing(answer: aiohttp.ClientResponse) -> bool:
    return any("did not answer" in warning for warning in answer.headers.getall("Warning", ()))


def _value(row: dict[str, Any], tag: str) -> Any:
    return (row.get(tag, {}).get("Value") or [""])[0]


def _parts(body: bytes, content_type: str) -> list[bytes]:
    """Read here without the code under test. Raises `Wrong` for what is not whole."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        raise Wrong(f"not multipart: {content_type}")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    if pieces[-1].strip() != b"--":
        raise Wrong("a body that looks whole, and has no end")
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]
