"""The registry's SQL. Each query says what it takes and what it gives."""

from __future__ import annotations

#: → value: the epoch, raised by every change of a site or folder.
EPOCH = "SELECT value FROM epoch"

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

#: → study_uid, emetteur, patient_id, person, series, seen_at
STUDY_COPIES = "SELECT study_uid, emetteur, patient_id, person, series, seen_at FROM study_copy"

#: study_uid[], emetteur[], patient_id[], person[], series[] (UIDs joined by commas), seen_at[]; no key twice. Sorted,
#: so that two processes that remember the same studies at once lock their rows in one order. An older sight changes
#: nothing.
REMEMBER_COPIES = """
INSERT INTO study_copy (study_uid, emetteur, patient_id, person, series, seen_at)
SELECT u.study_uid, u.emetteur, u.patient_id, u.person, string_to_array(u.series, ','), u.seen_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
     AS u (study_uid, emetteur, patient_id, person, series, seen_at)
ORDER BY 1, 2, 3
ON CONFLICT (study_uid, emetteur, patient_id) DO UPDATE
SET person = excluded.person, series = excluded.series, seen_at = excluded.seen_at
WHERE study_copy.seen_at < excluded.seen_at
"""

#: name, value. Only the first of all processes sets it.
ADD_SECRET = "INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"  # noqa: S105

#: name → value
SECRET = "SELECT value FROM secret WHERE name = $1"  # noqa: S105
