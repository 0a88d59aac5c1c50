CREATE TABLE folder (
    name       text PRIMARY KEY,
    ae_title   text,
    position   integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX folder_ae_title ON folder (lower(ae_title));

CREATE TABLE site (
    emetteur     text PRIMARY KEY CHECK (length(emetteur) BETWEEN 1 AND 16),
    number       integer NOT NULL,
    name         text NOT NULL,
    folder       text REFERENCES folder (name) ON UPDATE CASCADE,
    availability text NOT NULL DEFAULT '',
    status       text NOT NULL CHECK (status IN ('member', 'suspended', 'unreferenced')),
    dicomweb     text,
    aet          text,
    host         text,
    port         integer CHECK (port BETWEEN 1 AND 65535),
    oid          text,
    deadline_s   double precision CHECK (deadline_s > 0),
    quirks       jsonb NOT NULL DEFAULT '{}',
    -- Registry order: it decides ties between holders, so it never changes.
    position     integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    -- At commit, so that one import may exchange the numbers of two sites.
    CONSTRAINT site_number UNIQUE (number) DEFERRABLE INITIALLY DEFERRED
);
CREATE UNIQUE INDEX site_emetteur ON site (lower(emetteur));

-- One row. Who changes the registry locks it first, so epochs become visible in the order of their numbers.
CREATE TABLE epoch (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    value bigint NOT NULL
);
INSERT INTO epoch (value) VALUES (1);

CREATE FUNCTION bump_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bumped bigint;
BEGIN
    UPDATE epoch SET value = value + 1 RETURNING value INTO bumped;
    PERFORM pg_notify('imagora_epoch', bumped::text);
    RETURN NULL;
END $$;

CREATE FUNCTION stamp_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER site_stamp BEFORE UPDATE ON site
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_update();
CREATE TRIGGER site_added_or_removed AFTER INSERT OR DELETE ON site
    FOR EACH ROW EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER site_changed AFTER UPDATE ON site
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER site_emptied AFTER TRUNCATE ON site
    FOR EACH STATEMENT EXECUTE FUNCTION bump_epoch();

CREATE TRIGGER folder_stamp BEFORE UPDATE ON folder
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_update();
CREATE TRIGGER folder_added_or_removed AFTER INSERT OR DELETE ON folder
    FOR EACH ROW EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER folder_changed AFTER UPDATE ON folder
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER folder_emptied AFTER TRUNCATE ON folder
    FOR EACH STATEMENT EXECUTE FUNCTION bump_epoch();

CREATE TABLE trace (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    detail         jsonb NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER trace_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trace
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- PatientID takes 64 characters (PS3.5 §6.2, LO). A qualified id that would be longer is shown hashed.
CREATE TABLE long_patient_id (
    hashed   text PRIMARY KEY,
    ipp      text NOT NULL,
    emetteur text NOT NULL
);

-- Studies known to be held at more than one site, one row for each holder and patient id found there. Rows of one
-- study with one `person` are one person's.
CREATE TABLE study_copy (
    study_uid  text NOT NULL,
    emetteur   text NOT NULL,
    patient_id text NOT NULL,
    person     text NOT NULL,
    series     text[] NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (study_uid, emetteur, patient_id)
);

-- Keys that all processes share. Made once, at first use.
CREATE TABLE secret (
    name       text PRIMARY KEY,
    value      bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
