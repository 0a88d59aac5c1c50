"""Databases filled with oppositions, before or while a server uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from imagora_demo import exams

from consent.book import Persons
from consent.traits import Traits, normalise, strict
from federation.identity import first_of, text_of
from federation.model import Attributes
from federation.names import alphabetic
from imagora.settings import load_settings
from registry import Role, migrate
from registry.database import Database
from registry.practitioners import PractitionerStore
from registry.store import RegistryStore

#: Who recorded the oppositions, and who asks. Home: a site that made none of the exams.
RPPS = "10001234567"
HOME = "bench-home"
CHARTER = "1"
_PATIENCE_S = 600.0
_NAMES = (list(exams.FAMILY_NAMES), list(exams.GIVEN_NAMES))

#: first, last, family names, given names, numbers that are to be no persons → what each opposition is drawn as. Of ten:
#: four studies, three patients, three persons. What varies is drawn from the number's digest, so that it is the same
#: each time.
_DRAWN = """
SELECT n,
       CASE WHEN n % 10 < 4 THEN 'study' WHEN n % 10 < 7 OR n = ANY($5::bigint[]) THEN 'patient' ELSE 'person' END
           AS kind,
       ($3::text[])[1 + a % cardinality($3::text[])]
           || CASE WHEN a % 4 = 0 THEN '' ELSE '-' || ($3::text[])[1 + b % cardinality($3::text[])] END
           || '^' || ($4::text[])[1 + c % cardinality($4::text[])] AS name,
       to_char(date '1930-01-01' + (d % 32872)::int, 'YYYYMMDD') AS birth_date,
       CASE WHEN c % 2 = 0 THEN 'F' ELSE 'M' END AS sex
FROM (SELECT n, ('x' || substr(digest, 1, 8))::bit(32)::bigint AS a,
             ('x' || substr(digest, 9, 8))::bit(32)::bigint AS b,
             ('x' || substr(digest, 17, 8))::bit(32)::bigint AS c,
             ('x' || substr(digest, 25, 8))::bit(32)::bigint AS d
      FROM (SELECT n, md5(n::text) AS digest FROM generate_series($1::bigint, $2::bigint) AS n) AS numbered) AS made
"""

#: Parameters of `_DRAWN`.
_PERSONS = f"SELECT n, name, birth_date, sex FROM ({_DRAWN}) AS drawn WHERE kind = 'person'"

#: Parameters of `_DRAWN`, EMETTEURs, who records them. Their sites were asked today what they bind: else every server
#: would be asking them all the while, and that is not what is measured.
_OPPOSITIONS = f"""
INSERT INTO opposition (id, kind, emetteur, ipp, name, birth_date, sex, declared_on, channel, recorded_by,
                        resolved_at)
OVERRIDING SYSTEM VALUE
SELECT n, kind,
       CASE WHEN kind = 'patient' THEN ($6::text[])[1 + n % cardinality($6::text[])] END,
       CASE WHEN kind = 'patient' THEN (10000000 + n)::text END,
       CASE WHEN kind = 'person' THEN name END,
       CASE WHEN kind = 'person' THEN birth_date END,
       CASE WHEN kind = 'person' THEN sex END,
       current_date, 'form', $7, now()
FROM ({_DRAWN}) AS drawn
"""

#: first, last, root of the UIDs
_STUDIES = """
INSERT INTO opposition_study (opposition, study_uid, given)
SELECT n, $3 || '.' || ('x' || substr(md5(n::text), 1, 15))::bit(60)::bigint || n, true
FROM generate_series($1::bigint, $2::bigint) AS n WHERE n % 10 < 4
"""


async def create(server_url: str, name: str, settings: Path) -> str:
    """A new database with every migration, the sites of a settings file, and one practitioner if `HOME` is among them
    → its URL."""
    async with Database(server_url, connections_max=1) as database:
        await database.execute(f"CREATE DATABASE {name}")
    url = server_url.replace("@/postgres?", f"@/{name}?")
    await migrate.migrate(url)
    given = load_settings(settings)
    async with Database(url, connections_max=1) as database:
        await RegistryStore(database, node=given.node.ae_title).seed(given.registry_sites(), given.registry_folders())
        if any(site.emetteur == HOME for site in given.sites):
            practitioners = PractitionerStore(database)
            await practitioners.add(rpps=RPPS, name="MARTIN^CLAIRE", site=HOME, role=Role.PRACTITIONER)
            await practitioners.sign(RPPS, CHARTER)
    return url


async def persons(url: str, count: int) -> dict[int, Traits]:
    """Whom `oppose` would draw for `count` oppositions, by the opposition's number."""
    async with Database(url, connections_max=1) as database, database.connection() as connection:
        rows = await connection.fetch(_PERSONS, 1, count, *_NAMES, [], timeout=_PATIENCE_S)
    return {row["n"]: strict(normalise(row["name"]), row["birth_date"], row["sex"]) for row in rows}


async def alike(url: str, count: int, exams_found: Iterable[Attributes]) -> list[int]:
    """Numbers of the persons drawn who are, or may be, a patient of these rows: their exams would rightly be hidden.

    Of hundreds of thousands one or two. All the others stay, with the names and birth dates that they share.
    """
    drawn = Persons()
    for number, traits in (await persons(url, count)).items():
        drawn.add(number, traits)
    patients = {
        strict(normalise(alphabetic(first_of(row, "00100010"))), text_of(row, "00100030"), text_of(row, "00100040"))
        for row in exams_found
    }
    return sorted({number for patient in patients for number, _ in drawn.like(patient)})


async def oppose(
    url: str,
    count: int,
    *,
    emetteurs: Sequence[str],
    spared: Collection[int] = (),
    more_studies: Sequence[str] = (),
    committed: Callable[[], object] = lambda: None,
) -> None:
    """Write `count` oppositions in one transaction, and one more of the studies that are named. Calls `committed`.

    The numbers in `spared` are patients, by an IPP that nobody has, where they would be persons.
    """
    drawn = (1, count, *_NAMES, list(spared))
    async with Database(url, connections_max=1) as database, database.transaction() as connection:
        await connection.execute(_OPPOSITIONS, *drawn, list(emetteurs), RPPS, timeout=_PATIENCE_S)
        await connection.execute(_STUDIES, 1, count, exams.ROOT, timeout=_PATIENCE_S)
        if more_studies:
            await connection.execute(
                "INSERT INTO opposition (id, kind, declared_on, channel, recorded_by) OVERRIDING SYSTEM VALUE "
                "VALUES ($1, 'study', current_date, 'form', $2)",
                count + 1,
                RPPS,
            )
            await connection.execute(
                "INSERT INTO opposition_study (opposition, study_uid, given) SELECT $1, uid, true "
                "FROM unnest($2::text[]) AS uid",
                count + 1,
                list(more_studies),
            )
    committed()
    async with Database(url, connections_max=1) as database, database.connection() as connection:
        await connection.execute("VACUUM ANALYZE opposition, opposition_study", timeout=_PATIENCE_S)
