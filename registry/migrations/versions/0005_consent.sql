-- `value` is the epoch of everything; the others say at which of its values their part changed last, so that a process
-- reads again only what changed.
ALTER TABLE epoch ADD COLUMN registry bigint NOT NULL DEFAULT 1, ADD COLUMN consent bigint NOT NULL DEFAULT 0;
UPDATE epoch SET registry = value;

CREATE OR REPLACE FUNCTION bump_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bumped bigint;
BEGIN
    UPDATE epoch SET value = value + 1, registry = value + 1 RETURNING value INTO bumped;
    PERFORM pg_notify('imagora_epoch', bumped::text);
    RETURN NULL;
END $$;

-- Before each statement on a table of consent. It locks the epoch, so changes become visible in the order of their
-- epochs: who has read all up to one epoch finds all that came later by `changed`.
CREATE FUNCTION bump_consent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bumped bigint;
BEGIN
    UPDATE epoch SET value = value + 1, consent = value + 1 RETURNING value INTO bumped;
    PERFORM pg_notify('imagora_epoch', bumped::text);
    RETURN NULL;
END $$;

CREATE FUNCTION stamp_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := (SELECT value FROM epoch);
    RETURN NEW;
END $$;

-- A patient's refusal. It binds studies (by UID: table opposition_study), the studies of an accession number at a site,
-- the exams of an IPP at a site, or a person everywhere, by strict traits, by INS, or both. Never deleted: lifted.
CREATE TABLE opposition (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('study', 'accession', 'patient', 'person')),
    emetteur    text REFERENCES site (emetteur),
    accession   text,
    ipp         text,
    name        text, -- as recorded: FAMILY^GIVEN
    birth_date  text CHECK (birth_date ~ '^[0-9]{8}$'),
    sex         text CHECK (sex IN ('M', 'F', 'O')),
    ins         text CHECK (ins ~ '^[0-9][0-9AB]{14}$'),
    declared_on date NOT NULL, -- when the patient said so
    channel     text NOT NULL CHECK (channel IN ('letter', 'form', 'oral')),
    reason      text NOT NULL DEFAULT '',
    recorded_by text NOT NULL REFERENCES practitioner (rpps),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    lifted_by   text REFERENCES practitioner (rpps),
    lifted_at   timestamptz,
    lift_reason text NOT NULL DEFAULT '',
    -- When the site last said which studies the accession number or the IPP names; null: not yet.
    resolved_at timestamptz,
    changed     bigint NOT NULL DEFAULT 0,
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL)),
    CHECK (CASE kind
        WHEN 'study' THEN num_nonnulls(emetteur, accession, ipp, name, birth_date, sex, ins) = 0
        WHEN 'accession' THEN emetteur IS NOT NULL AND accession <> '' AND num_nonnulls(ipp, name, birth_date, sex, ins) = 0
        WHEN 'patient' THEN emetteur IS NOT NULL AND ipp <> '' AND num_nonnulls(accession, name, birth_date, sex, ins) = 0
        ELSE num_nonnulls(emetteur, accession, ipp) = 0 AND num_nonnulls(name, birth_date, sex) IN (0, 3)
             AND (name IS NOT NULL OR ins IS NOT NULL)
    END)
);
CREATE INDEX opposition_changed ON opposition (changed);
CREATE INDEX opposition_unresolved ON opposition (resolved_at NULLS FIRST, id)
    WHERE kind IN ('accession', 'patient') AND lifted_at IS NULL;

CREATE TABLE opposition_study (
    opposition bigint NOT NULL REFERENCES opposition (id),
    study_uid  text NOT NULL CHECK (study_uid ~ '^[0-9.]{1,64}$'),
    given      boolean NOT NULL, -- named when it was recorded; else found at the site
    -- Of what was found: whose it is there (normalised: name|birth date|sex), '' if that is not known. Another person's
    -- exam under the same UID elsewhere is not bound.
    traits     text NOT NULL DEFAULT '',
    added_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (opposition, study_uid)
);

-- Somebody who may be the person of an opposition: withheld until the site's correspondent decides.
CREATE TABLE near_match (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opposition bigint NOT NULL REFERENCES opposition (id),
    emetteur   text NOT NULL, -- whose patient
    ipp        text NOT NULL,
    traits     text NOT NULL, -- normalised: name|birth date|sex, as they were compared
    name       text NOT NULL, -- as the site spells it
    birth_date text NOT NULL,
    sex        text NOT NULL,
    difference text NOT NULL, -- what keeps the two from being alike
    study_uid  text NOT NULL, -- one of his exams
    found_at   timestamptz NOT NULL DEFAULT now(),
    status     text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'confirmed', 'dismissed')),
    decided_by text REFERENCES practitioner (rpps),
    decided_at timestamptz,
    changed    bigint NOT NULL DEFAULT 0,
    UNIQUE (opposition, emetteur, ipp, traits),
    CHECK ((status = 'pending') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_at IS NULL))
);
CREATE INDEX near_match_changed ON near_match (changed) WHERE status <> 'pending';
CREATE INDEX near_match_pending ON near_match (emetteur, id) WHERE status = 'pending';

-- Exams whose patient could not be informed yet ('withheld'), or could ('released'). The last word on a study counts.
CREATE TABLE exam_hold (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_uid text NOT NULL CHECK (study_uid ~ '^[0-9.]{1,64}$'),
    emetteur  text NOT NULL REFERENCES site (emetteur),
    state     text NOT NULL CHECK (state IN ('withheld', 'released')),
    reason    text NOT NULL DEFAULT '',
    set_by    text NOT NULL REFERENCES practitioner (rpps),
    set_at    timestamptz NOT NULL DEFAULT now(),
    changed   bigint NOT NULL DEFAULT 0
);
CREATE INDEX exam_hold_changed ON exam_hold (changed);
CREATE INDEX exam_hold_study ON exam_hold (study_uid, emetteur, id DESC);

-- What holds for a site's exams of which nobody said anything. The last word counts; without one they are shared.
CREATE TABLE hold_default (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    emetteur text NOT NULL REFERENCES site (emetteur),
    state    text NOT NULL CHECK (state IN ('withheld', 'released')),
    set_by   text NOT NULL REFERENCES practitioner (rpps),
    set_at   timestamptz NOT NULL DEFAULT now(),
    changed  bigint NOT NULL DEFAULT 0
);
CREATE INDEX hold_default_changed ON hold_default (changed);

-- A declared vital emergency: one requester, one patient, until it expires.
CREATE TABLE emergency (
    id             text PRIMARY KEY,
    requester_id   text NOT NULL,
    requester_name text NOT NULL,
    ipp            text NOT NULL,
    emetteur       text NOT NULL REFERENCES site (emetteur),
    reason         text NOT NULL CHECK (reason <> ''),
    started_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    stopped_at     timestamptz, -- when its end was traced
    changed        bigint NOT NULL DEFAULT 0
);
CREATE INDEX emergency_changed ON emergency (changed);
CREATE INDEX emergency_running ON emergency (expires_at) WHERE stopped_at IS NULL;

-- A new study of an opposition changes the opposition: it is read as a whole.
CREATE FUNCTION touch_opposition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE opposition SET changed = 0 WHERE id IN (SELECT opposition FROM added);
    RETURN NULL;
END $$;
CREATE TRIGGER opposition_study_added AFTER INSERT ON opposition_study
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION touch_opposition();

-- What was recorded stays as it was recorded: an opposition can be lifted once, and resolved; nothing else of it changes.
CREATE FUNCTION guard_opposition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.lifted_at IS NOT NULL AND (NEW.lifted_at, NEW.lifted_by, NEW.lift_reason)
            IS DISTINCT FROM (OLD.lifted_at, OLD.lifted_by, OLD.lift_reason)
       OR (NEW.id, NEW.kind, NEW.emetteur, NEW.accession, NEW.ipp, NEW.name, NEW.birth_date, NEW.sex, NEW.ins,
           NEW.declared_on, NEW.channel, NEW.reason, NEW.recorded_by, NEW.recorded_at)
          IS DISTINCT FROM
          (OLD.id, OLD.kind, OLD.emetteur, OLD.accession, OLD.ipp, OLD.name, OLD.birth_date, OLD.sex, OLD.ins,
           OLD.declared_on, OLD.channel, OLD.reason, OLD.recorded_by, OLD.recorded_at) THEN
        RAISE EXCEPTION 'an opposition is lifted, never changed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER opposition_guard BEFORE UPDATE ON opposition FOR EACH ROW EXECUTE FUNCTION guard_opposition();

CREATE TRIGGER opposition_kept BEFORE DELETE OR TRUNCATE ON opposition
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER opposition_study_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON opposition_study
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER near_match_kept BEFORE DELETE OR TRUNCATE ON near_match
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER exam_hold_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON exam_hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER hold_default_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON hold_default
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER emergency_kept BEFORE DELETE OR TRUNCATE ON emergency
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER opposition_epoch BEFORE INSERT OR UPDATE ON opposition
    FOR EACH STATEMENT EXECUTE FUNCTION bump_consent();
CREATE TRIGGER opposition_stamp BEFORE INSERT OR UPDATE ON opposition
    FOR EACH ROW EXECUTE FUNCTION stamp_changed();
-- A near match that was only found changes nothing: it is withheld before it is in the queue.
CREATE TRIGGER near_match_epoch BEFORE UPDATE ON near_match
    FOR EACH STATEMENT EXECUTE FUNCTION bump_consent();
CREATE TRIGGER near_match_stamp BEFORE UPDATE ON near_match
    FOR EACH ROW EXECUTE FUNCTION stamp_changed();
CREATE TRIGGER exam_hold_epoch BEFORE INSERT ON exam_hold
    FOR EACH STATEMENT EXECUTE FUNCTION bump_consent();
CREATE TRIGGER exam_hold_stamp BEFORE INSERT ON exam_hold
    FOR EACH ROW EXECUTE FUNCTION stamp_changed();
CREATE TRIGGER hold_default_epoch BEFORE INSERT ON hold_default
    FOR EACH STATEMENT EXECUTE FUNCTION bump_consent();
CREATE TRIGGER hold_default_stamp BEFORE INSERT ON hold_default
    FOR EACH ROW EXECUTE FUNCTION stamp_changed();
CREATE TRIGGER emergency_epoch BEFORE INSERT OR UPDATE ON emergency
    FOR EACH STATEMENT EXECUTE FUNCTION bump_consent();
CREATE TRIGGER emergency_stamp BEFORE INSERT OR UPDATE ON emergency
    FOR EACH ROW EXECUTE FUNCTION stamp_changed();

-- Whose patient a copy is and who made it, as its own data said when it was seen: that must not change while another
-- holder is down. Null: not known, seen by an earlier version.
ALTER TABLE study_copy ADD COLUMN ipp text, ADD COLUMN authority text, ADD COLUMN origin text;
