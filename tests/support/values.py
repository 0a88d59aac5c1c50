"""Values that the tests of pure code share: a region of four sites, records, and Hypothesis' settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings

from federation.identity import Record, resolve
from federation.names import normalise
from registry import Directory, Folder, Quirks, Site

# The same examples in every run, so that a failure on another machine is a failure here.
settings.register_profile(
    "imagora", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("imagora")


def site(emetteur: str, number: int, **more: Any) -> Site:
    return Site(
        emetteur=emetteur,
        number=number,
        name=more.pop("name", f"Hôpital {emetteur}"),
        dicomweb=more.pop("dicomweb", f"http://127.0.0.1:1/{emetteur}"),
        **more,
    )


ROMORANTIN = site("csrom41200", 423, name="Romorantin (CH)", folder="MIRC historique", oid="1.2.250.1.999.423")
BLOIS = site("csblo41000", 410, name="Blois (CH Simone Veil)", folder="MIRC historique")
TOURS = site("CHUTours", 370, name="Tours (CHRU)", quirks=Quirks(names_ignore_case=True))
ORLEANS = site("ch-orleans_45", 450, name="Orléans (CHR)", quirks=Quirks(names_ignore_case=False))
SITES = (ROMORANTIN, BLOIS, TOURS, ORLEANS)
DIRECTORY = Directory(SITES, [Folder(name="MIRC historique"), Folder(name="MIRC Centres Imagerie")])


def record(
    patient_id: str,
    holder: Site,
    *,
    name: str = "",
    birth_date: str = "",
    sex: str = "",
    coded: Site | None = None,
    issuer: str = "",
    others: Sequence[tuple[str, str]] = (),
) -> Record:
    ipp, authority, origin = resolve(patient_id, holder, DIRECTORY, coded_origin=coded, issuer=issuer, others=others)
    return Record(
        holder=holder,
        raw_patient_id=patient_id,
        ipp=ipp,
        authority=authority,
        origin=origin,
        name=normalise(name),
        birth_date=birth_date,
        sex=sex,
        shown_name=name,
    )
