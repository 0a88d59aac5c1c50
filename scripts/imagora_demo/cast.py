"""The demonstration's federation: its sites, its people, and which site holds which exam of whom.

The cases that a federation must get right are here on purpose:

- `ELOISE` is known at three sites, under three IPPs; her chest CT stands at Tours.
- IPP 4547 is `MARIE` at Romorantin and somebody else, `JEAN_BAPTISTE`, at Orléans.
- `SHARED_MR` stands at two sites under two IPPs, same person and same UID; Tours has one series more.
- `COPIED_RADIOGRAPH` was made at Romorantin and copied to Tours through Imagora: there its PatientID is
  `4547@csrom41200`.
- `MICHELE` bears nearly `MARIE`'s name and was born on the same day.
- Blois is a member whose server does not answer.
- `ODILE` refuses to share one of her two exams at Orléans, `OPPOSED_EXAM`.
- `MARTIN` refuses to share anything anywhere; `NEARLY_MARTIN`, at Orléans, may be he.
- `LUCIE` could not be informed yet that `WITHHELD_EXAM`, at Tours, is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pydicom.dataset import Dataset
from pydicom.uid import UID

from imagora_demo import documents, pictures
from imagora_demo.exams import StudyHeader, uid

LATIN, UNICODE = "ISO_IR 100", "ISO_IR 192"
HISTORIQUE, CENTRES = "MIRC historique", "MIRC Centres Imagerie"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSite:
    """One member of the demonstration. `charset` is what its modalities write."""

    emetteur: str
    number: int
    name: str
    folder: str
    charset: str = UNICODE
    up: bool = True


ROMORANTIN = DemoSite(emetteur="csrom41200", number=423, name="Romorantin (CH)", folder=HISTORIQUE, charset=LATIN)
ORLEANS = DemoSite(emetteur="csorl45000", number=213, name="Orléans (CHR)", folder=HISTORIQUE)
TOURS = DemoSite(emetteur="cstrs37000", number=401, name="Tours (CHRU)", folder=HISTORIQUE)
IMAGERIE_37 = DemoSite(
    emetteur="csima37542", number=1407, name="IMAGERIE 37 Imagerie en coupe", folder=CENTRES, charset=LATIN
)
BLOIS = DemoSite(emetteur="cschb41000", number=414, name="Blois (CH)", folder=HISTORIQUE, up=False)
SITES = (ROMORANTIN, ORLEANS, TOURS, IMAGERIE_37, BLOIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A fictitious patient. `charset` overrides the site's where it cannot write the name."""

    name: str
    born: str
    sex: str
    charset: str | tuple[str, ...] | None = None


MARIE = Person(name="DUPONT-LÉVY^Marie", born="19600512", sex="F")
MICHELE = Person(name="DUPONT^Michèle", born="19600512", sex="F")
ELOISE = Person(name="LEFÈVRE^Éloïse", born="19710308", sex="F")
JEAN_BAPTISTE = Person(name="MOREAU^Jean-Baptiste", born="19481130", sex="M")
KATHLEEN = Person(name="O'NEIL^Kathleen", born="19660921", sex="F")
FRANCOIS = Person(name="BÉRANGER^François-Xavier", born="19550214", sex="M")
COME = Person(name="D'HÉRICOURT^Côme", born="20140603", sex="M")
THI_MAI = Person(name="NGUYỄN^Thị Mai", born="19830117", sex="F", charset=UNICODE)
TARO = Person(name="YAMADA^Taro=山田^太郎=やまだ^たろう", born="19790407", sex="M", charset=("", "ISO 2022 IR 87"))
ANNE_SOPHIE = Person(name="DE LA TOUR^Anne-Sophie", born="19901212", sex="F")
JURGEN = Person(name="MÜLLER^Jürgen", born="19420805", sex="M")
JOSE = Person(name="GARCÍA-MUÑOZ^José", born="19690626", sex="M")
YANN = Person(name="LE GOFF^Yann", born="19870319", sex="M")
ZOE = Person(name="BENSAÏD^Zoé", born="20010930", sex="F")
HELENE = Person(name="GUÉRIN^Hélène", born="", sex="F")  # birth date unknown where she was examined
ODILE = Person(name="CHARPENTIER^Odile", born="19580417", sex="F")
MARTIN = Person(name="VASSEUR^Martin", born="19640229", sex="M")
NEARLY_MARTIN = Person(name="VASEUR^Martin", born="19640229", sex="M")
LUCIE = Person(name="CARON^Lucie", born="19921021", sex="F")

#: Makes an exam's instances from its header.
Maker = Callable[[StudyHeader], Iterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One study as one site holds it. Exams of one `key` are the same study."""

    key: str
    site: DemoSite
    person: Person
    ipp: str
    day: str
    time: str
    accession: str
    description: str
    institution: str
    make: Maker
    origin: DemoSite | None = None  # set in a copy: the site that made the study

    @property
    def study_uid(self) -> UID:
        return uid("demo", self.key)

    @property
    def patient_id(self) -> str:
        return self.ipp if self.origin is None else f"{self.ipp}@{self.origin.emetteur}"

    def instances(self) -> Iterator[bytes]:
        """Yield the exam's Part-10 bytes."""
        charset = self.person.charset or self.site.charset
        header = StudyHeader(
            study_uid=self.study_uid,
            name=self.person.name,
            patient_id=self.patient_id,
            birth_date=self.person.born,
            sex=self.person.sex,
            study_date=self.day,
            study_time=self.time,
            accession=self.accession,
            study_id=self.accession[-6:],
            description=self.description,
            institution=self.institution,
            charset=charset if isinstance(charset, str) else list(charset),
            more=None if self.origin is None else partial(_name_origin, self.ipp, self.origin),
        )
        yield from self.make(header)


def _name_origin(ipp: str, origin: DemoSite, dataset: Dataset) -> None:
    """What Imagora writes into an exam that it delivers, and a copy therefore bears."""
    dataset.IssuerOfPatientID = "IMAGORA"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = ipp, origin.emetteur, "TEXT"
    dataset.OtherPatientIDsSequence = [other]
    place = Dataset()
    place.CodeValue, place.CodingSchemeDesignator = str(origin.number), "99IMAGORA"
    place.CodeMeaning = origin.name
    dataset.InstitutionCodeSequence = [place]


def _ct_with_report(header: StudyHeader) -> Iterator[bytes]:
    yield from pictures.chest_ct(header)
    yield from documents.dose_sheet(
        header,
        [
            "Scanner thoracique injecté",
            "Acquisition   1",
            "Tension   120 kV",
            "IDSV (16 cm)   7,4 mGy",
            "PDL   268 mGy.cm",
            "Dose efficace estimée   3,8 mSv",
        ],
    )
    yield from documents.report(
        header,
        [
            (
                "Indication",
                "Toux persistante depuis trois mois, ancienne fumeuse. Recherche de lésion parenchymateuse.",
            ),
            ("Technique", "Acquisition hélicoïdale du thorax après injection. Coupes de 1,5 mm."),
            (
                "Résultats",
                "Nodule plein du lobe supérieur droit, de 9 mm, à contours réguliers. Pas d'adénopathie médiastinale. "
                "Pas d'épanchement. Étage abdominal supérieur sans particularité.",
            ),
            ("Conclusion", "Nodule pulmonaire de 9 mm du lobe supérieur droit. Contrôle à trois mois recommandé."),
        ],
    )


def _radiograph_with_letter(header: StudyHeader) -> Iterator[bytes]:
    yield from pictures.chest_radiograph(header)
    yield from documents.letter(
        header,
        [
            "Cher confrère,",
            "",
            "Je vous remercie de m'avoir adressé votre patient pour une radiographie du thorax.",
            "Transparence pulmonaire normale. Pas de foyer constitué, pas d'épanchement pleural.",
            "Silhouette cardiaque de taille normale. Cadre osseux sans anomalie décelable.",
            "",
            "Conclusion : radiographie du thorax sans particularité.",
            "",
            "Bien confraternellement,",
            "Docteur Hélène FONTAINE",
        ],
    )


def _ultrasound_with_report(header: StudyHeader) -> Iterator[bytes]:
    yield from pictures.abdomen_ultrasound(header)
    yield from documents.report(
        header,
        [
            ("Indication", "Douleurs de l'hypochondre droit."),
            ("Résultats", "Foie homogène, de taille normale. Vésicule alithiasique. Rein droit sans dilatation."),
            ("Conclusion", "Échographie abdominale sans anomalie."),
        ],
    )


_SHORT_CT = partial(pictures.chest_ct, n=16, slice_mm=20.0)
_CR = partial(pictures.chest_radiograph, modality="CR")


def _brain_mr(*series: int) -> Maker:
    return partial(pictures.brain_mr, n=18, series=series or (1, 2, 3))


SHARED_MR = "irm partagée"
COPIED_RADIOGRAPH = "thorax copié"
BIG_CT = "scanner thoracique"
OPPOSED_EXAM = "examen opposé"
WITHHELD_EXAM = "examen retenu"

_THORAX = "Radiographie du thorax face"


def _exam(
    site: DemoSite,
    person: Person,
    ipp: str,
    when: str,
    description: str,
    make: Maker,
    *,
    key: str | None = None,
    origin: DemoSite | None = None,
    made_at: DemoSite | None = None,
) -> Exam:
    day, time = when.split()
    maker = made_at or origin or site
    return Exam(
        key=key or f"{site.emetteur} {ipp} {when}",
        site=site,
        person=person,
        ipp=ipp,
        day=day,
        time=time,
        accession=f"{maker.number}{day[2:]}{time[:4]}",
        description=description,
        institution=maker.name,
        make=make,
        origin=origin,
    )


EXAMS: tuple[Exam, ...] = (
    _exam(ROMORANTIN, MARIE, "4547", "20131102 094500", _THORAX, _CR, key=COPIED_RADIOGRAPH),
    _exam(TOURS, MARIE, "4547", "20131102 094500", _THORAX, _CR, key=COPIED_RADIOGRAPH, origin=ROMORANTIN),
    _exam(ROMORANTIN, MARIE, "4547", "20250318 101200", "Échographie abdominale", _ultrasound_with_report),
    _exam(ORLEANS, MICHELE, "668012", "20200214 110500", _THORAX, pictures.chest_radiograph),
    _exam(ORLEANS, JEAN_BAPTISTE, "4547", "20220906 143000", _THORAX, _radiograph_with_letter),
    _exam(ORLEANS, JEAN_BAPTISTE, "4547", "20260112 084000", "Scanner abdomino-pelvien", _SHORT_CT),
    _exam(ROMORANTIN, ELOISE, "20311", "20190527 161500", _THORAX, _CR),
    _exam(ORLEANS, ELOISE, "1187342", "20210430 110000", "Échographie abdominale", pictures.abdomen_ultrasound),
    _exam(TOURS, ELOISE, "803455", "20261006 092000", "Scanner thoracique", _ct_with_report, key=BIG_CT),
    _exam(ORLEANS, FRANCOIS, "990127", "20240625 153000", "IRM cérébrale", _brain_mr(1, 2), key=SHARED_MR),
    _exam(TOURS, FRANCOIS, "812444", "20240625 153000", "IRM cérébrale", _brain_mr(), key=SHARED_MR, made_at=ORLEANS),
    _exam(IMAGERIE_37, FRANCOIS, "C37-5512", "20260903 100000", "IRM cérébrale de contrôle", _brain_mr()),
    _exam(ORLEANS, KATHLEEN, "774120", "20230215 090500", "Mammographie bilatérale", pictures.mammography),
    _exam(IMAGERIE_37, ANNE_SOPHIE, "C37-8801", "20250711 142500", "Mammographie bilatérale", pictures.mammography),
    _exam(ROMORANTIN, COME, "20990", "20240118 174000", _THORAX, _CR),
    _exam(TOURS, THI_MAI, "811902", "20230509 083000", _THORAX, pictures.chest_radiograph),
    _exam(TOURS, TARO, "815777", "20260417 112000", _THORAX, pictures.chest_radiograph),
    _exam(ROMORANTIN, JURGEN, "18002", "20170822 150000", _THORAX, _radiograph_with_letter),
    _exam(IMAGERIE_37, JOSE, "C37-9034", "20261102 133000", "Scanner thoracique de suivi", _SHORT_CT),
    _exam(ROMORANTIN, YANN, "21455", "20260922 190500", _THORAX, pictures.chest_radiograph),
    _exam(ORLEANS, ZOE, "1204410", "20260603 101500", "Échographie abdominale", _ultrasound_with_report),
    _exam(ORLEANS, HELENE, "1010226", "20150210 093000", _THORAX, _CR),
    _exam(ORLEANS, ODILE, "1098731", "20230307 141500", _THORAX, pictures.chest_radiograph),
    _exam(ORLEANS, ODILE, "1098731", "20260219 103000", _THORAX, pictures.chest_radiograph, key=OPPOSED_EXAM),
    _exam(TOURS, MARTIN, "816240", "20220511 085000", _THORAX, pictures.chest_radiograph),
    _exam(TOURS, MARTIN, "816240", "20260130 162000", _THORAX, _radiograph_with_letter),
    _exam(ORLEANS, NEARLY_MARTIN, "1131906", "20241008 111000", _THORAX, _CR),
    _exam(TOURS, LUCIE, "817015", "20260807 203000", _THORAX, pictures.chest_radiograph, key=WITHHELD_EXAM),
)


def held_by(site: DemoSite) -> tuple[Exam, ...]:
    """What a site holds."""
    return tuple(exam for exam in EXAMS if exam.site is site)


def exam_of(key: str) -> Exam:
    """The exam of this key, as the first site that holds it has it."""
    return next(exam for exam in EXAMS if exam.key == key)


def exams_of(person: Person) -> tuple[Exam, ...]:
    """Every exam of a person, at all sites."""
    return tuple(exam for exam in EXAMS if exam.person is person)
