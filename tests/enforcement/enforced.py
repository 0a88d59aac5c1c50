"""A region for tests of enforcement: four members, two servers that behave as one, three professionals; exams with
their copies; and everything by which a client could tell that an exam is there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer, start_all, stop_all
from pydicom.dataset import Dataset
from retrieve.retrieve_member import Held, Holder, content_type, multipart, read
from support.consenting import Ledger, People
from support.peer import Connection, Request
from support.serving import Serving, serving, settings_for

from dicomweb.links import LinkKey
from registry.database import Database
from registry.store import RegistryStore

#: The origin of the exams; a holder that files copies as its own patients'; one that keeps them as they came through
#: us; one that files them as its own and tells in its rows who made them.
ORIGIN, FILES, KEEPS, CODES = "csrom41200", "cschb41000", "cpsax18000", "cimtours"
HOLDERS = (ORIGIN, FILES, KEEPS, CODES)
NOT_A_MEMBER = "csblo41000"
FOLDERS = {"MIRC historique": [ORIGIN, FILES], "MIRC Centres Imagerie": [KEEPS, CODES]}
EVERYWHERE = ("", "/folders/mirc-historique", "/folders/mirc-centres-imagerie", *(f"/sites/{e}" for e in HOLDERS))

#: Professionals: one of no member, one of the exams' origin, one of a holder of copies.
OUTSIDER, AT_ORIGIN, AT_HOLDER = "10001234567", "10001234568", "10001234569"
HOMES = {OUTSIDER: NOT_A_MEMBER, AT_ORIGIN: ORIGIN, AT_HOLDER: FILES}

INS_OID = "1.2.250.1.213.1.4.8"
JPEG = b"\xff\xd8\xff\xe0" + bytes(1000)
RANGE = {"Accept": "application/octet-stream", "Range": "bytes=2-5"}
DICOM = {"Accept": 'multipart/related; type="application/dicom"'}


# Exams ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One study and its copies: the same UIDs at every holder, numbers of their own."""

    seed: str
    name: str = "ENFORCE^MARIE"
    birth_date: str = "19600512"
    sex: str = "F"
    ins: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return str(exams.uid(self.seed, "study"))

    @property
    def ipp(self) -> str:
        return f"P{self.seed}"

    @property
    def patient(self) -> tuple[str, str]:
        return (self.ipp, ORIGIN)

    @property
    def person(self) -> tuple[str, str, str]:
        return (self.name, self.birth_date, self.sex)

    @property
    def accession(self) -> str:
        return f"A{self.seed}"

    def at(self, emetteur: str) -> list[bytes]:
        """What a holder has of it."""
        through_us = emetteur in (KEEPS, CODES)
        own = {ORIGIN: self.ipp, KEEPS: f"{self.ipp}@{ORIGIN}"}
        numbers = {"patient_id": own.get(emetteur, f"{emetteur[:3]}{self.seed}")}
        numbers["accession"] = self.accession if emetteur in own else f"{emetteur[:3]}{self.accession}"[:16]

        def finish(dataset: Dataset, *_: int) -> None:
            others = [_other_id(self.ins, "INS", INS_OID)] if self.ins and emetteur != FILES else []
            if through_us:
                code = Dataset()
                code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "401", "99IMAGORA", "Romorantin"
                dataset.InstitutionCodeSequence = [code]
                others.append(_other_id(self.ipp, ORIGIN))
            if others:
                dataset.OtherPatientIDsSequence = others

        return exams.light_study(
            seed=self.seed,
            name=self.name,
            birth_date=self.birth_date,
            sex=self.sex,
            finish=finish,
            **{"n_instances": 2, **numbers, **self.more},
        )


def _other_id(number: str, issuer: str, oid: str = "") -> Dataset:
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID = number, issuer, "TEXT"
    if oid:
        qualifiers = Dataset()
        qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = oid, "ISO"
        item.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    return item


async def _pictures(request: Request, connection: Connection, held: list[Held]) -> None:
    """What lies below an instance at the scripted holder, which has thumbnails too."""
    if request.path.endswith(("/rendered", "/thumbnail")):
        await connection.answer(200, JPEG, "image/jpeg")
    else:
        octets = "application/octet-stream"
        await connection.answer(
            200, multipart([held[0].dataset.PixelData], "b", part_type=octets), content_type("b", octets)
        )


# Answers --------------------------------------------------------------------------------------------------------------

#: Status, headers, body: but for dates, random numbers and times.
Seen = tuple[int, tuple[tuple[str, str], ...], bytes]
_LATER = ("date", "x-request-id")


def seen(answer: requests.Response, *uids: str) -> Seen:
    """All that a client can tell an answer by. `uids` that he gave himself are blotted out."""
    headers = sorted((k.lower(), v) for k, v in answer.raw.headers.items() if k.lower() not in _LATER)
    plain = [(k, re.sub(r";\d+(,|$)", r";ms\1", v) if k == "imagora-sources" else v) for k, v in headers]
    body = answer.content
    for uid in uids:
        body = body.replace(uid.encode(), b"UID")
        plain = [(k, v.replace(uid, "UID")) for k, v in plain]
    return answer.status_code, tuple(plain), body


def rows(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.status_code in (200, 204), (answer.status_code, answer.text)
    found: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
    return found


def uids(answer: requests.Response) -> list[str]:
    return [row["0020000D"]["Value"][0] for row in rows(answer)]


# What can be asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """One request below a DICOMweb root, or another service's."""

    scope: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    service: str = "/dicom-web"

    def __str__(self) -> str:
        return f"{self.scope}/…{self.service.removeprefix('/dicom-web')}{self.path} {self.headers.get('Accept', '')}"


def of(study_uid: str) -> tuple[str, str]:
    """→ the paths of a light study's series and of its first instance."""
    series = exams.uid(study_uid, "series", 1)
    path = f"/studies/{study_uid}/series/{series}"
    return path, f"{path}/instances/{exams.uid(series, 'instance', 1)}"


def finding(exam: Exam) -> list[str]:
    """Query strings that find an exam: by each of its numbers at each holder, by name, by birth date."""
    family, _, given = exam.name.partition("^")
    own = [read(exam.at(e)[0]) for e in HOLDERS]
    queries = [f"PatientID={d.PatientID}" for d in own] + [f"PatientID={own[1].PatientID}@{FILES}"]
    queries += [f"AccessionNumber={n}" for n in dict.fromkeys(str(d.AccessionNumber) for d in own)]
    queries += [f"StudyInstanceUID={exam.uid}", f"PatientName={family}^{given}", f"PatientName={family[:-2]}*"]
    queries += [f"PatientName={family}&PatientBirthDate={exam.birth_date}", f"PatientName={family}&limit=1&offset=0"]
    return queries


def searches(exam: Exam) -> list[Ask]:
    """Everything that a search could tell of an exam: all queries in the widest scope, some in all scopes."""
    series, instance = of(exam.uid)
    levels = ("studies", "series", "instances")
    asked = [Ask("", f"/{level}?{query}") for level in levels for query in finding(exam)]
    family = exam.name.partition("^")[0]
    for scope in EVERYWHERE:
        asked += [
            Ask(scope, f"/studies?PatientName={family}"),
            Ask(scope, f"/studies?PatientID={exam.ipp}"),
            Ask(scope, f"/series?PatientID={exam.ipp}@{ORIGIN}&Modality=CT"),
            Ask(scope, f"/instances?StudyInstanceUID={exam.uid}"),
            Ask(scope, f"/studies/{exam.uid}/series"),
            Ask(scope, f"/studies/{exam.uid}/instances"),
            Ask(scope, f"{series}/instances"),
            Ask(scope, f"/series?SeriesInstanceUID={series.rpartition('/')[2]}"),
            Ask(scope, f"/instances?SOPInstanceUID={instance.rpartition('/')[2]}"),
        ]
    return asked


def retrieves(study_uid: str, key: LinkKey, scopes: Sequence[str] = EVERYWHERE) -> list[Ask]:
    """The eight forms at their levels, and WADO-URI. Bulk data by the server's own tokens, of each holder in scope, and
    a range of it."""
    series, instance = of(study_uid)
    study = f"/studies/{study_uid}"
    uids = zip(("studyUID", "seriesUID", "objectUID"), instance.split("/")[2::2], strict=True)
    uri = "?requestType=WADO&" + "&".join(f"{name}={uid}" for name, uid in uids)
    asked = []
    for scope in scopes:
        holder = scope.removeprefix("/sites/") if scope.startswith("/sites/") else None
        holders = [holder] if holder else {"": HOLDERS, **_BY_FOLDER}[scope]
        asked += [Ask(scope, path, DICOM) for path in (study, series, instance)]
        asked.append(Ask(scope, instance, {"Accept": "application/dicom"}))
        asked += [Ask(scope, f"{path}/metadata") for path in (study, series, instance)]
        asked += [Ask(scope, f"{instance}{below}") for below in ("/frames/1", "/frames/1/rendered", "/rendered")]
        asked += [Ask(scope, f"{path}/thumbnail") for path in (study, series, instance, f"{instance}/frames/1")]
        asked += [Ask(scope, f"{path}/rendered") for path in (study, series)]
        asked += [Ask(scope, f"{uri}{more}", service="/wado") for more in ("", "&contentType=application/dicom")]
        for emetteur in holders:
            token = key.seal(emetteur, study_uid, f"{instance}/bulk/7fe00010")
            asked.append(Ask(scope, f"{instance}/bulkdata/{token}"))
            asked.append(Ask(scope, f"{instance}/bulkdata/{token}", RANGE))
    return asked


_BY_FOLDER = {f"/folders/{name.lower().replace(' ', '-')}": tuple(emetteurs) for name, emetteurs in FOLDERS.items()}


# The region -----------------------------------------------------------------------------------------------------------


@dataclass
class Region:
    """`servers` are two, over one database. What is asked, is asked of the second unless said otherwise: consent is
    written by neither."""

    servers: tuple[Serving, Serving]
    orthancs: Mapping[str, OrthancServer]
    holder: Holder  # CODES
    ledger: Ledger
    people: People
    key: LinkKey
    database: str

    def __post_init__(self) -> None:
        self._tokens = {rpps: self.people.bearer(rpps) for rpps in HOMES}
        self._pool = ThreadPoolExecutor(8)

    def upload(self, exam: Exam, *holders: str) -> None:
        for emetteur in holders or HOLDERS:
            if emetteur == CODES:
                self.holder.held += [Held(data, read(data)) for data in exam.at(emetteur)]
            else:
                self.orthancs[emetteur].upload(exam.at(emetteur))

    def get(self, ask: Ask | str, *, requester: str = OUTSIDER, server: int = 1) -> requests.Response:
        """The answer, once what may be shown is confirmed: a machine that is busy may be late to ask its database."""
        ask = Ask("", ask) if isinstance(ask, str) else ask
        limit = time.monotonic() + 20
        while True:
            answer = self.get_once(ask, requester=requester, server=server)
            if (
                answer.status_code != 503
                or b"now, so nothing is shown" not in answer.content
                or time.monotonic() > limit
            ):
                return answer

    def get_once(self, ask: Ask, *, requester: str = OUTSIDER, server: int = 1) -> requests.Response:
        url = f"{self.servers[server].url}{ask.scope}{ask.service}{ask.path}"
        return requests.get(url, headers={**self._tokens[requester], **ask.headers}, timeout=30)

    def get_all(
        self, asks: Sequence[Ask], *, requester: str = OUTSIDER, server: int = 1
    ) -> dict[str, requests.Response]:
        """Several at once. Answers by what was asked."""
        answers = self._pool.map(lambda ask: self.get(ask, requester=requester, server=server), asks)
        return {str(ask): answer for ask, answer in zip(asks, answers, strict=True)}

    def see_all(self, asks: Sequence[Ask], *, requester: str = OUTSIDER, server: int = 1) -> dict[str, Seen]:
        return {k: seen(a) for k, a in self.get_all(asks, requester=requester, server=server).items()}

    def tie_copies(self, exam: Exam) -> None:
        """A wide search at each server, after which copies are known for what they are."""
        for server in (0, 1):
            assert uids(self.get(f"/studies?StudyInstanceUID={exam.uid}", server=server)) == [exam.uid]


@contextmanager
def region(database: str, folder: Path, **options: Any) -> Iterator[Region]:
    """Members without exams and two servers. `options` as of `settings_for`."""
    names = [e for e in HOLDERS if e != CODES]
    orthancs = {name: OrthancServer(name=name) for name in names}
    people = People(folder)
    with ExitStack() as stack:
        stack.callback(stop_all, list(orthancs.values()))
        start_all(list(orthancs.values()))
        holder = stack.enter_context(Holder(other=_pictures))
        members = {**{name: o.dicomweb_url for name, o in orthancs.items()}, CODES: holder.url}
        outside = {"emetteur": NOT_A_MEMBER, "site": 499, "name": "Blois", "status": "unreferenced"}

        def start(number: int) -> Serving:
            settings = settings_for(
                {name: members[name] for name in HOLDERS},
                folder / f"server-{number}",
                folders=FOLDERS,
                extra_sites=[outside],
                auth=people.auth,
                # The breaker would spare a member that was down in a test before.
                search={"breaker_failures": 1000, **options.get("search", {})},
            )
            return stack.enter_context(serving(settings, database))

        servers = (start(1), start(2))
        people.register(database, HOMES)
        key = asyncio.run(_link_key(database))
        made = Region(servers, orthancs, holder, Ledger(database, AT_ORIGIN), people, key, database)
        yield made


async def _link_key(url: str) -> LinkKey:
    async with Database(url) as database:
        return LinkKey(await RegistryStore(database).secret("link_key"))


def until(true: Callable[[], object], within_s: float = 10.0) -> None:
    limit = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)
