"""The registry's SQL. Each query says what it takes and what it gives."""

from __future__ import annotations

#: → value: the epoch, raised by every change of the registry or of consent.
EPOCH = "SELECT value FROM epoch"

#: → value, and at which of its values the registry, and consent, changed last.
EPOCHS = "SELECT value, registry, consent FROM epoch"

#: → value. First in every transaction that changes the registry: changes stand in one line, none waits for another
#: crosswise, and epochs become visible in the order of their numbers.
LOCK_EPOCH = "SELECT value FROM epoch FOR UPDATE"

#: → name, ae_title; in the order in which they were registered.
FOLDERS = "SELECT name, ae_title FROM folder ORDER BY position"

#: → every column of a site; in registry order.
SITES = """
SELECT emetteur, number, name, folder, availability, status, dicomweb, aet, host, port, oid, deadline_s, quirks
FROM site ORDER BY position
"""

#: rpps or null for all → rpps, name, emetteur, role, active, versions[], signed_at[]; in the order of names.
PRACTITIONERS = """
SELECT p.rpps, p.name, p.emetteur, p.role, p.active,
       coalesce(array_agg(s.version) FILTER (WHERE s.version IS NOT NULL), '{}') AS versions,
       coalesce(array_agg(s.signed_at) FILTER (WHERE s.version IS NOT NULL), '{}') AS signed_at
FROM practitioner p LEFT JOIN charter_signature s USING (rpps)
WHERE $1::text IS NULL OR p.rpps = $1
GROUP BY p.rpps ORDER BY p.name, p.rpps
"""

#: emetteur (any case) → emetteur (in the registry's case)
EMETTEUR_OF = "SELECT emetteur FROM site WHERE lower(emetteur) = lower($1)"

#: rpps, name, emetteur (in the registry's case), role
PUT_PRACTITIONER = """
INSERT INTO practitioner (rpps, name, emetteur, role) VALUES ($1, $2, $3, $4)
ON CONFLICT (rpps) DO UPDATE SET name = excluded.name, emetteur = excluded.emetteur, role = excluded.role
"""

#: rpps, version → signed_at
SIGN_CHARTER = "INSERT INTO charter_signature (rpps, version) VALUES ($1, $2) RETURNING signed_at"

#: rpps, active
SET_ACTIVE = "UPDATE practitioner SET active = $2 WHERE rpps = $1"

#: name, ae_title
ADD_FOLDER = "INSERT INTO folder (name, ae_title) VALUES ($1, $2)"

#: name, ae_title
UPDATE_FOLDER = "UPDATE folder SET ae_title = $2 WHERE name = $1"

#: emetteur, number, name, folder, availability, status, dicomweb, aet, host, port, oid, deadline_s, quirks
ADD_SITE = """
INSERT INTO site (emetteur, number, name, folder, availability, status, dicomweb, aet, host, port, oid, deadline_s,
                  quirks)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""

#: emetteur (in the registry's case), then the columns as in ADD_SITE
UPDATE_SITE = """
UPDATE site SET number = $2, name = $3, folder = $4, availability = $5, status = $6, dicomweb = $7, aet = $8,
                host = $9, port = $10, oid = $11, deadline_s = $12, quirks = $13
WHERE emetteur = $1
"""

#: emetteur (any case), status → a row if there is such a site
SET_STATUS = "UPDATE site SET status = $2 WHERE lower(emetteur) = lower($1) RETURNING emetteur"

#: emetteur (any case), quirks → a row if there is such a site
SAVE_QUIRKS = "UPDATE site SET quirks = $2 WHERE lower(emetteur) = lower($1) RETURNING emetteur"

#: → hashed, ipp, emetteur
LONG_PATIENT_IDS = "SELECT hashed, ipp, emetteur FROM long_patient_id"

#: hashed, ipp, emetteur. The hash decides: the same three again change nothing.
REMEMBER_LONG_PATIENT_ID = """
INSERT INTO long_patient_id (hashed, ipp, emetteur) VALUES ($1, $2, $3) ON CONFLICT (hashed) DO NOTHING
"""

#: → study_uid, emetteur, patient_id, person, series, seen_at, ipp, authority, origin, accession, ins
STUDY_COPIES = """
SELECT study_uid, emetteur, patient_id, person, series, seen_at, ipp, authority, origin, accession, ins
FROM study_copy
"""

#: study_uid[], emetteur[], patient_id[], person[], series[] (UIDs joined by commas), seen_at[], ipp[], authority[],
#: origin[], accession[], ins[] (joined by commas); no key twice. Sorted, so that two processes that remember the same
#: studies at once lock their rows in one order. An older sight changes nothing.
REMEMBER_COPIES = """
INSERT INTO study_copy (study_uid, emetteur, patient_id, person, series, seen_at, ipp, authority, origin, accession,
                        ins)
SELECT u.study_uid, u.emetteur, u.patient_id, u.person, string_to_array(u.series, ','), u.seen_at, u.ipp, u.authority,
       u.origin, u.accession, string_to_array(u.ins, ',')
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[])
     AS u (study_uid, emetteur, patient_id, person, series, seen_at, ipp, authority, origin, accession, ins)
ORDER BY 1, 2, 3
ON CONFLICT (study_uid, emetteur, patient_id) DO UPDATE
SET person = excluded.person, series = excluded.series, seen_at = excluded.seen_at, ipp = excluded.ipp,
    authority = excluded.authority, origin = excluded.origin, accession = excluded.accession, ins = excluded.ins
WHERE study_copy.seen_at < excluded.seen_at
"""

#: name, value. Only the first of all processes sets it.
ADD_SECRET = "INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"  # noqa: S105

#: name → value
SECRET = "SELECT value FROM secret WHERE name = $1"  # noqa: S105

#: server, emetteur[], state[], failures_in_a_row[], since[], last_success[], last_failure_at[] (seconds ago, null for
#: never), last_failure[]. Ages, not moments: the database's clock is the one that all processes share.
RECORD_HEALTH = """
INSERT INTO site_health (emetteur, server, state, failures_in_a_row, since, last_success_at, last_failure_at,
                         last_failure, updated_at)
SELECT h.emetteur, $1, h.state, h.failures, now() - make_interval(secs => h.since),
       now() - make_interval(secs => h.success), now() - make_interval(secs => h.failure), h.why, now()
FROM unnest($2::text[], $3::text[], $4::int[], $5::float8[], $6::float8[], $7::float8[], $8::text[])
     AS h (emetteur, state, failures, since, success, failure, why)
ORDER BY 1
ON CONFLICT (emetteur, server) DO UPDATE
SET state = excluded.state, failures_in_a_row = excluded.failures_in_a_row, since = excluded.since,
    last_success_at = excluded.last_success_at, last_failure_at = excluded.last_failure_at,
    last_failure = excluded.last_failure, updated_at = excluded.updated_at
"""

#: server
FORGET_HEALTH = "DELETE FROM site_health WHERE server = $1"

#: days. What processes left behind that did not end in order.
SWEEP_HEALTH = "DELETE FROM site_health WHERE updated_at < now() - make_interval(days => $1)"

#: seconds → emetteur, server, state, failures_in_a_row, since, last_success_at, last_failure_at, last_failure,
#: updated_at: of each site what the process knows that had news of it last, among those heard of within the seconds.
HEALTH = """
SELECT DISTINCT ON (emetteur) emetteur, server, state, failures_in_a_row, since, last_success_at, last_failure_at,
       last_failure, updated_at
FROM site_health
WHERE updated_at > now() - make_interval(secs => $1)
ORDER BY emetteur, greatest(last_success_at, last_failure_at) DESC NULLS LAST, updated_at DESC
"""

#: hashed[] → as `LONG_PATIENT_IDS`, of these
SOME_LONG_PATIENT_IDS = f"{LONG_PATIENT_IDS} WHERE hashed = ANY($1::text[])"

#: study_uid[] → as `STUDY_COPIES`, of these
SOME_STUDY_COPIES = f"{STUDY_COPIES} WHERE study_uid = ANY($1::text[])"

#: channel, message[]: each goes to all who listen
NOTIFY = "SELECT pg_notify($1, message) FROM unnest($2::text[]) AS m (message)"
