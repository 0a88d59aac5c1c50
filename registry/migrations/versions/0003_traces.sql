ALTER TABLE trace RENAME TO trace_unchained;
ALTER TABLE trace_unchained RENAME CONSTRAINT trace_pkey TO trace_unchained_pkey;

-- Each run of a writer is a chain: its rows are numbered from 1, and `hash` covers a whole row, its number and the hash
-- of the row before. Partitioned by the moment of writing, which never goes back within a chain, so that dropping old
-- months takes the beginning of a chain and nothing else.
CREATE TABLE trace (
    writer         text NOT NULL,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    recorded_at    timestamptz NOT NULL,
    previous       bytea NOT NULL CHECK (octet_length(previous) = 32),
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    at             timestamptz NOT NULL,
    kind           text NOT NULL,
    outcome        text NOT NULL,
    requester_id   text NOT NULL,
    requester_name text NOT NULL,
    request_id     text NOT NULL,
    scope          text NOT NULL,
    query          text NOT NULL,
    study_uid      text NOT NULL,
    patient_id     text NOT NULL,
    origin         text NOT NULL,
    holders        text[] NOT NULL,
    -- Kept as it was written, unlike jsonb: the hash covers the text.
    detail         json NOT NULL,
    PRIMARY KEY (writer, sequence, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX trace_patient ON trace (patient_id text_pattern_ops, recorded_at) WHERE patient_id <> '';
CREATE INDEX trace_requester ON trace (requester_id, recorded_at);
CREATE INDEX trace_origin ON trace (origin, recorded_at) WHERE origin <> '';

CREATE TRIGGER trace_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trace
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was signed. kind 'head': the chain of `writer` reached `sequence` with `hash`. kind 'dropped': retention
-- dropped its rows up to and including that one.
CREATE TABLE trace_head (
    writer    text NOT NULL,
    sequence  bigint NOT NULL CHECK (sequence > 0),
    kind      text NOT NULL CHECK (kind IN ('head', 'dropped')),
    hash      bytea NOT NULL CHECK (octet_length(hash) = 32),
    signed_at timestamptz NOT NULL,
    key       text NOT NULL,
    signature bytea NOT NULL,
    PRIMARY KEY (writer, sequence, kind)
);
CREATE TRIGGER trace_head_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trace_head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partition of the month (UTC) that holds the moment; true if there was none. With the rights of the tables'
-- owner, because the application has none to change tables. Attaching lets others go on reading and writing.
CREATE FUNCTION make_trace_month(moment timestamptz) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    begins timestamptz := date_trunc('month', moment, 'UTC');
    ends   timestamptz := date_trunc('month', begins + interval '32 days', 'UTC');
    month  text := 'trace_' || to_char(begins AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    IF to_regclass(month) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('imagora trace months'));
    IF to_regclass(month) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE trace INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', month);
    -- Triggers of the whole table do not see commands on one of its parts.
    EXECUTE format('CREATE TRIGGER trace_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', month);
    EXECUTE format('ALTER TABLE trace ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', month, begins, ends);
    RETURN true;
END $$;

-- Drops the partition of the month (UTC) that holds the moment; true if there was one. Refuses a month that ended less
-- than six months ago, and one of which the last row of each chain has no signed head of kind 'dropped'. Dropping needs
-- the whole table for an instant: who cannot have it within a second gives up, rather than hold up those who write.
CREATE FUNCTION drop_trace_month(moment timestamptz) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET lock_timeout = '1s' AS $$
DECLARE
    begins  timestamptz := date_trunc('month', moment, 'UTC');
    ends    timestamptz := date_trunc('month', begins + interval '32 days', 'UTC');
    month   text := 'trace_' || to_char(begins AT TIME ZONE 'UTC', 'YYYY_MM');
    unheard boolean;
BEGIN
    IF to_regclass(month) IS NULL THEN
        RETURN false;
    END IF;
    IF ends > now() - interval '6 months' THEN
        RAISE EXCEPTION 'traces of % are too young to be dropped', month USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM (SELECT DISTINCT ON (writer) writer, sequence, hash FROM %I '
                   'ORDER BY writer, sequence DESC) AS last WHERE NOT EXISTS (SELECT FROM trace_head AS head '
                   'WHERE head.writer = last.writer AND head.sequence = last.sequence AND head.hash = last.hash '
                   'AND head.kind = ''dropped''))', month) INTO unheard;
    IF unheard THEN
        RAISE EXCEPTION 'traces of % have no signed head', month USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('DROP TABLE %I', month);
    RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION drop_trace_month(timestamptz) FROM PUBLIC;

-- Functions with an owner's rights name their tables by themselves, whatever the caller's search path is.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_trace_month SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION drop_trace_month SET search_path = %I, pg_temp', current_schema());
END $$;

-- What was traced before becomes one chain. `piece` and this loop write what consent/chain.py calls the canonical form.
CREATE FUNCTION pg_temp.piece(value text) RETURNS bytea LANGUAGE sql AS $$
    SELECT int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8')
$$;
CREATE FUNCTION pg_temp.micros(moment timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT (extract(epoch FROM moment) * 1000000)::bigint::text
$$;
DO $$
DECLARE
    old  trace_unchained;
    n    bigint := 0;
    last bytea := decode(repeat('00', 32), 'hex');
    form bytea;
    this bytea;
BEGIN
    PERFORM make_trace_month(month) FROM (SELECT DISTINCT date_trunc('month', at, 'UTC') AS month
                                          FROM trace_unchained) AS months;
    FOR old IN SELECT * FROM trace_unchained ORDER BY at, id LOOP
        n := n + 1;
        form := pg_temp.piece('imagora-trace-1') || pg_temp.piece('before-chains') || pg_temp.piece(n::text)
             || pg_temp.piece(pg_temp.micros(old.at)) || int4send(32) || last || pg_temp.piece(pg_temp.micros(old.at))
             || pg_temp.piece(old.kind) || pg_temp.piece(old.outcome) || pg_temp.piece(old.requester_id)
             || pg_temp.piece(old.requester_name) || pg_temp.piece(old.request_id) || pg_temp.piece(old.scope)
             || pg_temp.piece(old.query) || pg_temp.piece(old.study_uid) || pg_temp.piece(old.patient_id)
             || pg_temp.piece(old.origin) || pg_temp.piece(old.detail::text)
             || pg_temp.piece(cardinality(old.holders)::text)
             || coalesce((SELECT string_agg(pg_temp.piece(holder), ''::bytea ORDER BY place)
                          FROM unnest(old.holders) WITH ORDINALITY AS u (holder, place)), ''::bytea);
        this := sha256(form);
        INSERT INTO trace VALUES ('before-chains', n, old.at, last, this, old.at, old.kind, old.outcome,
            old.requester_id, old.requester_name, old.request_id, old.scope, old.query, old.study_uid, old.patient_id,
            old.origin, old.holders, old.detail::text::json);
        last := this;
    END LOOP;
    PERFORM make_trace_month(now() + months * interval '1 month') FROM generate_series(0, 2) AS months;
END $$;
DROP TABLE trace_unchained;
DROP FUNCTION pg_temp.piece(text);
DROP FUNCTION pg_temp.micros(timestamptz);
