"""SQL of the traces. Each query says what it takes and what it gives."""

from __future__ import annotations

#: sequence[], previous[], hash[], then one array for each column of a record; writer, recorded_at. holders: EMETTEURs
#: joined by commas (an EMETTEUR has none): arrays of arrays are matrices.
INSERT = """
INSERT INTO trace (writer, recorded_at, sequence, previous, hash, at, kind, outcome, requester_id, requester_name,
                   request_id, scope, query, study_uid, patient_id, origin, holders, detail)
SELECT $17, $18, u.sequence, u.previous, u.hash, u.at, u.kind, u.outcome, u.requester_id, u.requester_name,
       u.request_id, u.scope, u.query, u.study_uid, u.patient_id, u.origin, string_to_array(u.holders, ','),
       u.detail::json
FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
     AS u (sequence, previous, hash, at, kind, outcome, requester_id, requester_name, request_id, scope, query,
           study_uid, patient_id, origin, holders, detail)
"""

#: The same for a single row, which is the common case and costs a third less so: each a value in place of an array,
#: holders alone an array of texts.
INSERT_ONE = """
INSERT INTO trace (sequence, previous, hash, at, kind, outcome, requester_id, requester_name, request_id, scope, query,
                   study_uid, patient_id, origin, holders, detail, writer, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text[], $16::text::json, $17, $18)
"""

#: moment → true if there was no partition for it
MAKE_MONTH = "SELECT make_trace_month($1)"

#: months. Makes the partitions of this month and of so many after it.
MAKE_MONTHS_AHEAD = """
SELECT count(*) FILTER (WHERE make_trace_month(now() + ahead * interval '1 month'))
FROM generate_series(0, $1::int) AS ahead
"""

#: months → begins: first moment (UTC) of each partition that ended more than so many months ago, oldest first
OLD_MONTHS = """
SELECT begins
FROM pg_inherits AS part
JOIN pg_class AS month ON month.oid = part.inhrelid
CROSS JOIN LATERAL (SELECT make_timestamptz(substring(month.relname FROM '^trace_(\\d{4})_\\d{2}$')::int,
                                            substring(month.relname FROM '^trace_\\d{4}_(\\d{2})$')::int,
                                            1, 0, 0, 0, 'UTC') AS begins) AS named
WHERE part.inhparent = 'trace'::regclass
  AND date_trunc('month', begins + interval '32 days', 'UTC') <= now() - make_interval(months => $1)
ORDER BY begins
"""

#: begins (a moment in the month) → writer, sequence, hash: the last row of each chain in that month
LAST_OF_MONTH = """
SELECT DISTINCT ON (writer) writer, sequence, hash
FROM trace
WHERE recorded_at >= $1 AND recorded_at < date_trunc('month', $1::timestamptz + interval '32 days', 'UTC')
ORDER BY writer, sequence DESC
"""

#: moment in the month → true if there was such a partition
DROP_MONTH = "SELECT drop_trace_month($1)"

#: writer[], sequence[], kind[], hash[], signed_at[], key[], signature[]. What was signed once is not signed again.
ADD_HEADS = """
INSERT INTO trace_head (writer, sequence, kind, hash, signed_at, key, signature)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::text[], $7::bytea[])
ON CONFLICT (writer, sequence, kind) DO NOTHING
"""

#: since, seconds → writer, sequence, hash, recorded_at: the last row of each chain written since then, where no head of
#: it was signed though it is older than the seconds: its writer is gone. One look into the index for each chain.
ABANDONED = """
WITH RECURSIVE run AS (
    (SELECT writer FROM trace WHERE recorded_at >= $1 ORDER BY writer LIMIT 1)
    UNION ALL
    SELECT (SELECT next.writer FROM trace AS next WHERE next.recorded_at >= $1 AND next.writer > run.writer
            ORDER BY next.writer LIMIT 1)
    FROM run WHERE run.writer IS NOT NULL
)
SELECT last.writer, last.sequence, last.hash, last.recorded_at
FROM run CROSS JOIN LATERAL (
    SELECT writer, sequence, hash, recorded_at FROM trace
    WHERE writer = run.writer AND recorded_at >= $1 ORDER BY sequence DESC LIMIT 1
) AS last
WHERE last.recorded_at < now() - make_interval(secs => $2)
  AND NOT EXISTS (SELECT FROM trace_head AS head
                  WHERE head.writer = last.writer AND head.sequence >= last.sequence AND head.kind = 'head')
"""

#: → writer: of each chain that has rows or heads
WRITERS = "SELECT DISTINCT writer FROM trace UNION SELECT DISTINCT writer FROM trace_head ORDER BY writer"

#: writer → writer, sequence, kind, hash, signed_at, key, signature
HEADS_OF = """
SELECT writer, sequence, kind, hash, signed_at, key, signature FROM trace_head WHERE writer = $1 ORDER BY sequence
"""

_COLUMNS = """
    writer, sequence, recorded_at, previous, hash, at, kind, outcome, requester_id, requester_name, request_id, scope,
    query, study_uid, patient_id, origin, holders, detail::text AS detail
"""

#: writer → every column; in the order of the chain
ROWS_OF = f"SELECT {_COLUMNS} FROM trace WHERE writer = $1 ORDER BY sequence"  # noqa: S608

#: patient: as shown, or a bare IPP in LIKE's form with @% behind it. Transfers name further patients in their detail.
#: Of emergencies, an origin is also told those that were declared for another site's patient, if an exam of its own was
#: seen by them.
#: origin, patient, patient pattern, requester, since, emergencies only; null = any → every column, oldest first
SELECTED = f"""
SELECT {_COLUMNS}
FROM trace
WHERE ($1::text IS NULL OR origin = $1
       OR ($6 AND kind LIKE 'emergency-%' AND detail ->> 'emergency' IN (
              SELECT seen.detail ->> 'emergency' FROM trace AS seen
              WHERE seen.origin = $1 AND seen.detail -> 'emergency' IS NOT NULL)))
  AND ($2::text IS NULL OR patient_id = $2 OR patient_id LIKE $3
       OR $2 = ANY (string_to_array(detail ->> 'also', ' ')))
  AND ($4::text IS NULL OR requester_id = $4)
  AND ($5::timestamptz IS NULL OR (at >= $5 AND recorded_at >= $5 - interval '1 day'))
  AND (NOT $6::boolean OR kind LIKE 'emergency-%' OR detail -> 'emergency' IS NOT NULL)
ORDER BY recorded_at, writer, sequence
"""  # noqa: S608
