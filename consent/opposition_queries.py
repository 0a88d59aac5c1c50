"""SQL of oppositions and of the queue of near matches. Each query says what it takes and what it gives.

Who changes something locks the epoch first (`registry.queries.LOCK_EPOCH`): changes then stand in one line.
"""

from __future__ import annotations

_OPPOSITION = """
SELECT o.id, o.kind, o.emetteur, o.accession, o.ipp, o.name, o.birth_date, o.sex, o.ins, o.declared_on, o.channel,
       o.reason, o.recorded_by, o.recorded_at, o.lifted_by, o.lifted_at, o.lift_reason, o.resolved_at,
       p.name AS recorder, p.emetteur AS recorded_at_site,
       array(SELECT s.study_uid FROM opposition_study s WHERE s.opposition = o.id AND s.given ORDER BY 1) AS given,
       array(SELECT s.study_uid FROM opposition_study s WHERE s.opposition = o.id AND NOT s.given ORDER BY 1) AS found
FROM opposition o JOIN practitioner p ON p.rpps = o.recorded_by
"""

#: id → every column, the studies named and found, the recorder's name and home site.
OPPOSITION = _OPPOSITION + "WHERE o.id = $1"

#: emetteur or null, lifted ones too → as OPPOSITION, of all oppositions at a site and those that its people recorded.
OPPOSITIONS = (
    _OPPOSITION
    + """
WHERE ($1::text IS NULL OR coalesce(o.emetteur, p.emetteur) = $1) AND ($2 OR o.lifted_at IS NULL)
ORDER BY o.id
"""
)

#: kind[], emetteur[], number[] (IPP or accession number); birth_date[], sex[]; ins[]; study_uid[] → id, what it binds:
#: active oppositions that may bind the same as one of these.
ALIKE = """
SELECT o.id, o.kind, o.emetteur, o.accession, o.ipp, o.name, o.birth_date, o.sex, o.ins,
       array(SELECT s.study_uid FROM opposition_study s WHERE s.opposition = o.id AND s.given) AS given
FROM opposition o
WHERE o.lifted_at IS NULL AND (
    (o.kind, o.emetteur, coalesce(o.accession, o.ipp)) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
    OR (o.birth_date, o.sex) IN (SELECT * FROM unnest($4::text[], $5::text[]))
    OR o.ins IN (SELECT * FROM unnest($6::text[]))
    OR o.kind = 'study' AND o.id IN (
        SELECT s.opposition FROM opposition_study s WHERE s.given AND s.study_uid IN (SELECT * FROM unnest($7::text[]))
    )
)
ORDER BY o.id
"""

#: kind[], emetteur[], accession[], ipp[], name[], birth_date[], sex[], ins[], declared_on[], channel[], reason[];
#: recorded_by; whether the site has just said which studies they name → id, ascending in the order of the arrays.
ADD = """
INSERT INTO opposition (kind, emetteur, accession, ipp, name, birth_date, sex, ins, declared_on, channel, reason,
                        recorded_by, resolved_at)
SELECT u.kind, u.emetteur, u.accession, u.ipp, u.name, u.birth_date, u.sex, u.ins, u.declared_on, u.channel, u.reason,
       $12, CASE WHEN $13 THEN now() END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::date[], $10::text[], $11::text[])
     WITH ORDINALITY AS u (kind, emetteur, accession, ipp, name, birth_date, sex, ins, declared_on, channel, reason,
                           place)
ORDER BY u.place
RETURNING id
"""

#: opposition[], study_uid[], traits[], given. What is bound already stays as it is.
BIND = """
INSERT INTO opposition_study (opposition, study_uid, traits, given)
SELECT u.opposition, u.study_uid, u.traits, $4
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS u (opposition, study_uid, traits) ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""

#: opposition, study_uid[] → study_uid: those that it does not bind yet.
UNBOUND = """
SELECT u.study_uid FROM unnest($2::text[]) AS u (study_uid)
WHERE NOT EXISTS (SELECT 1 FROM opposition_study s WHERE s.opposition = $1 AND s.study_uid = u.study_uid)
"""

#: id, rpps, reason
LIFT = "UPDATE opposition SET lifted_at = now(), lifted_by = $2, lift_reason = $3 WHERE id = $1"

#: id → a row if it is there and not lifted
ACTIVE = "SELECT 1 FROM opposition WHERE id = $1 AND lifted_at IS NULL"

#: id
RESOLVED = "UPDATE opposition SET resolved_at = now() WHERE id = $1"

#: emetteur[] (sites that may be asked), id[] (to be left alone) → id, kind, emetteur, number: one opposition whose site
#: has not said for a day, or never, which studies it names; those that never were come first. Nobody else gets it until
#: this transaction ends: an advisory lock, since a lock on the row would make who lifts it wait for the site's answer.
TAKE_UNRESOLVED = """
WITH due AS MATERIALIZED (
    (SELECT id, kind, emetteur, coalesce(accession, ipp) AS number FROM opposition
     WHERE kind IN ('accession', 'patient') AND lifted_at IS NULL AND resolved_at IS NULL
       AND emetteur = ANY($1::text[]) AND NOT id = ANY($2::bigint[])
     ORDER BY resolved_at NULLS FIRST, id LIMIT 16)
    UNION ALL
    (SELECT id, kind, emetteur, coalesce(accession, ipp) AS number FROM opposition
     WHERE kind IN ('accession', 'patient') AND lifted_at IS NULL AND resolved_at < now() - interval '1 day'
       AND emetteur = ANY($1::text[]) AND NOT id = ANY($2::bigint[])
     ORDER BY resolved_at NULLS FIRST, id LIMIT 16)
)
SELECT * FROM due WHERE pg_try_advisory_xact_lock(hashtextextended('imagora opposition', id)) LIMIT 1
"""

#: id → a row if its site is still to be asked: another process may have done it just before.
UNRESOLVED = """
SELECT 1 FROM opposition
WHERE id = $1 AND lifted_at IS NULL AND (resolved_at IS NULL OR resolved_at < now() - interval '1 day')
"""

#: opposition[], emetteur[], ipp[], traits[], name[], birth_date[], sex[], difference[], study_uid[]. What is in the
#: queue, or was decided, stays. Sorted, so that two processes that note the same lock in one order.
NOTE_NEAR_MATCHES = """
INSERT INTO near_match (opposition, emetteur, ipp, traits, name, birth_date, sex, difference, study_uid)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[])
ORDER BY 1, 2, 3, 4
ON CONFLICT (opposition, emetteur, ipp, traits) DO NOTHING
"""

_NEAR_MATCH = """
SELECT n.id, n.opposition, n.emetteur, n.ipp, n.name, n.birth_date, n.sex, n.difference, n.study_uid, n.found_at,
       n.status, n.decided_by, n.decided_at, o.name AS recorded_name, o.birth_date AS recorded_birth_date,
       o.sex AS recorded_sex, o.ins AS recorded_ins, o.lifted_at
FROM near_match n JOIN opposition o ON o.id = n.opposition
"""

#: id → a near match with the person who was recorded
NEAR_MATCH = _NEAR_MATCH + "WHERE n.id = $1"

#: emetteur or null, decided ones and those of lifted oppositions too → as NEAR_MATCH
NEAR_MATCHES = (
    _NEAR_MATCH
    + """
WHERE ($1::text IS NULL OR n.emetteur = $1) AND ($2 OR n.status = 'pending' AND o.lifted_at IS NULL)
ORDER BY n.id
"""
)

#: id, status, rpps
DECIDE = "UPDATE near_match SET status = $2, decided_by = $3, decided_at = now() WHERE id = $1"
