"""SQL of the book of consent: what changed after one epoch, up to another. At the first reading (since < 0), without
what is over. Each query says what it takes and what it gives."""

from __future__ import annotations

#: since, until → id, emetteur, accession, ipp, name, birth_date, sex, ins, active, studies, whose (null for none)
#: studies: UIDs; whose: of each, the traits where it was found, or ''
OPPOSITIONS = """
SELECT o.id, o.emetteur, o.accession, o.ipp, o.name, o.birth_date, o.sex, o.ins, o.lifted_at IS NULL AS active,
       s.studies, s.whose
FROM opposition AS o
CROSS JOIN LATERAL (SELECT array_agg(study_uid ORDER BY study_uid) AS studies,
                           array_agg(traits ORDER BY study_uid) AS whose
                    FROM opposition_study WHERE opposition = o.id) AS s
WHERE o.changed > $1 AND o.changed <= $2 AND ($1 >= 0 OR o.lifted_at IS NULL)
"""

#: since, until → opposition, emetteur, ipp, traits, status
DECIDED = """
SELECT opposition, emetteur, ipp, traits, status FROM near_match
WHERE status <> 'pending' AND changed > $1 AND changed <= $2
"""

#: since, until → study_uid, emetteur, state: the last word on each
HOLDS = """
SELECT DISTINCT ON (study_uid, emetteur) study_uid, emetteur, state FROM exam_hold
WHERE changed > $1 AND changed <= $2 ORDER BY study_uid, emetteur, id DESC
"""

#: since, until → emetteur, state: the last word on each
HOLD_DEFAULTS = """
SELECT DISTINCT ON (emetteur) emetteur, state FROM hold_default
WHERE changed > $1 AND changed <= $2 ORDER BY emetteur, id DESC
"""

#: since, until → id, requester_id, ipp, emetteur, expires_at
EMERGENCIES = """
SELECT id, requester_id, ipp, emetteur, expires_at FROM emergency
WHERE changed > $1 AND changed <= $2 AND ($1 >= 0 OR expires_at > now())
"""
