"""What the façade has, as one table: routes, media types and query parameters. Routing, negotiation and the
capabilities description are all made from it (PS3.18 §10.1.1, table 10.4.1-1, table H-1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from dicomweb import negotiate, wado_uri
from dicomweb.wire.media import EXPLICIT, Offer
from federation.model import Level


class Kind(Enum):
    """Transactions that are answered in the same way."""

    SEARCH = auto()
    INSTANCES = auto()
    METADATA = auto()
    RENDERED = auto()
    THUMBNAIL = auto()
    FRAMES = auto()
    BULKDATA = auto()
    URI = auto()  # WADO-URI
    STORE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One transaction on one resource. `path` is below `dicom-web`; `name` is that of the transaction."""

    path: str
    kind: Kind
    level: Level
    name: str
    method: str = "GET"

    @property
    def media_types(self) -> list[str]:
        """As a client may ask for them, the default first."""
        found = []
        for offer in _OFFERS[self.kind]:
            if self.kind is Kind.INSTANCES and self.level is not Level.INSTANCE and not offer.multipart:
                continue  # several instances are no single body
            found.append(str(offer))
            if offer.default_syntax:
                found += [f"{offer}; transfer-syntax={syntax}" for syntax in (EXPLICIT, "*")]
        return found

    @property
    def parameters(self) -> Sequence[Parameter]:
        if self.kind is Kind.SEARCH:
            keys = [key for level, names in MATCHING_KEYS.items() if _contains(level, self.level) for key in names]
            if self.level is not Level.STUDY:
                keys.remove("ModalitiesInStudy")  # a member computes it, for studies only
            return [_ACCEPT, *_SEARCH, *(Parameter(name=key, title=TITLES.get(key, "")) for key in keys)]
        if self.kind is Kind.URI:
            return _URI
        return [_ACCEPT, *(_RENDER if self.kind in (Kind.RENDERED, Kind.THUMBNAIL) else ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter. `options` are all its values, () = any of its type. `title` says what else is to know."""

    name: str
    type: str = "xsd:string"
    options: tuple[str, ...] = ()
    repeating: bool = False
    required: bool = False
    title: str = ""


#: Attributes to match that the standard asks for (PS3.18 table 10.6.1-5) and some that people ask for. A search below
#: a study, or for what studies hold, also takes the keys of the levels above.
MATCHING_KEYS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ModalitiesInStudy",
        "ReferringPhysicianName",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "StudyDescription",
    ),
    Level.SERIES: ("Modality", "SeriesInstanceUID", "SeriesNumber"),
    Level.INSTANCE: ("SOPClassUID", "SOPInstanceUID", "InstanceNumber"),
}
TITLES = {
    "StudyTime": "A range together with a range of StudyDate of the same form is one range (PS3.4 C.2.2.2.5.4)",
}
_ACCEPT = Parameter(name="accept")
_SEARCH = (
    Parameter(name="charset", options=("utf-8",)),
    Parameter(name="limit", type="xsd:nonNegativeInteger"),
    Parameter(name="offset", type="xsd:nonNegativeInteger"),
    Parameter(name="includefield", repeating=True),
    Parameter(name="fuzzymatching", type="xsd:boolean", options=("true", "false")),
    Parameter(name="own_site", options=("include", "exclude")),
)
_RENDER = tuple(Parameter(name=name) for name in sorted(negotiate.RENDER_PARAMETERS))
_URI_OPTIONS = {"requestType": ("WADO",), "charset": ("utf-8",)}
_URI = tuple(
    Parameter(name=name, options=_URI_OPTIONS.get(name, ()), required=name in wado_uri.REQUIRED)
    for name in wado_uri.PARAMETERS
)
_OFFERS: dict[Kind, Sequence[Offer]] = {
    Kind.SEARCH: negotiate.ATTRIBUTES,
    Kind.METADATA: negotiate.ATTRIBUTES,
    Kind.INSTANCES: negotiate.INSTANCES,
    Kind.FRAMES: negotiate.FRAMES,
    Kind.BULKDATA: negotiate.BULKDATA,
    Kind.RENDERED: negotiate.RENDERED,
    Kind.THUMBNAIL: negotiate.RENDERED,
    Kind.URI: wado_uri.OFFERS,
    Kind.STORE: negotiate.STORED,
}
_LEVELS = tuple(Level)
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_FRAMES = f"{_INSTANCE}/frames/{{frames}}"


def _contains(outer: Level, inner: Level) -> bool:
    return _LEVELS.index(outer) <= _LEVELS.index(inner)


def _resources() -> list[Resource]:
    found = [
        Resource(path=path, kind=Kind.SEARCH, level=level, name=name)
        for path, level, name in (
            ("/studies", Level.STUDY, "SearchForStudies"),
            ("/series", Level.SERIES, "SearchForSeries"),
            ("/instances", Level.INSTANCE, "SearchForInstances"),
            (f"{_STUDY}/series", Level.SERIES, "SearchForStudySeries"),
            (f"{_STUDY}/instances", Level.INSTANCE, "SearchForStudyInstances"),
            (f"{_SERIES}/instances", Level.INSTANCE, "SearchForStudySeriesInstances"),
        )
    ]
    for path, level in ((_STUDY, Level.STUDY), (_SERIES, Level.SERIES), (_INSTANCE, Level.INSTANCE)):
        name = level.capitalize()
        found += [
            Resource(path=path, kind=Kind.INSTANCES, level=level, name=f"Retrieve{name}"),
            Resource(path=f"{path}/metadata", kind=Kind.METADATA, level=level, name=f"Retrieve{name}Metadata"),
            Resource(path=f"{path}/rendered", kind=Kind.RENDERED, level=level, name=f"RetrieveRendered{name}"),
            Resource(path=f"{path}/thumbnail", kind=Kind.THUMBNAIL, level=level, name=f"Retrieve{name}Thumbnail"),
        ]
    found += [
        Resource(path=path, kind=Kind.STORE, level=Level.STUDY, name=name, method="POST")
        for path, name in (("/studies", "StoreInstances"), (_STUDY, "StoreStudyInstances"))
    ]
    found += [
        Resource(path=path, kind=kind, level=Level.INSTANCE, name=name)
        for path, kind, name in (
            (_FRAMES, Kind.FRAMES, "RetrieveFrames"),
            (f"{_FRAMES}/rendered", Kind.RENDERED, "RetrieveRenderedFrames"),
            (f"{_FRAMES}/thumbnail", Kind.THUMBNAIL, "RetrieveFramesThumbnail"),
            (f"{_INSTANCE}/bulkdata/{{token}}", Kind.BULKDATA, "RetrieveBulkdata"),
        )
    ]
    return found


RESOURCES: tuple[Resource, ...] = tuple(_resources())
#: Its path is beside `dicom-web`, not below it.
WADO_URI = Resource(path="/wado", kind=Kind.URI, level=Level.INSTANCE, name="RetrieveInstanceByURI")
