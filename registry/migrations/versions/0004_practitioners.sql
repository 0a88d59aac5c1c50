CREATE TABLE practitioner (
    rpps       text PRIMARY KEY CHECK (rpps ~ '^[0-9]{11}$'),
    name       text NOT NULL,
    emetteur   text NOT NULL REFERENCES site (emetteur),
    role       text NOT NULL CHECK (role IN ('practitioner', 'correspondent', 'referent')),
    active     boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Who signed which version of the charter, and when. Signatures are kept when a later version is signed.
CREATE TABLE charter_signature (
    rpps      text NOT NULL REFERENCES practitioner (rpps),
    version   text NOT NULL CHECK (version <> ''),
    signed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rpps, version)
);

CREATE TRIGGER practitioner_stamp BEFORE UPDATE ON practitioner
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_update();
CREATE TRIGGER practitioner_added_or_removed AFTER INSERT OR DELETE ON practitioner
    FOR EACH ROW EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER practitioner_changed AFTER UPDATE ON practitioner
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER practitioner_emptied AFTER TRUNCATE ON practitioner
    FOR EACH STATEMENT EXECUTE FUNCTION bump_epoch();

CREATE TRIGGER signature_changed AFTER INSERT OR UPDATE OR DELETE ON charter_signature
    FOR EACH ROW EXECUTE FUNCTION bump_epoch();
CREATE TRIGGER signature_emptied AFTER TRUNCATE ON charter_signature
    FOR EACH STATEMENT EXECUTE FUNCTION bump_epoch();

-- Sessions of the portal. What the browser's cookie holds is not here, only its SHA-256: who reads this table can
-- take nobody's place.
CREATE TABLE session (
    token_hash bytea PRIMARY KEY,
    rpps       text NOT NULL REFERENCES practitioner (rpps),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX session_expiry ON session (expires_at);
