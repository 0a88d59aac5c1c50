-- What the last check of each member's PACS found. It is of the PACS at that address; another has habits of its own.
-- Nothing of a patient's stands here.
CREATE TABLE site_profile (
    emetteur    text PRIMARY KEY REFERENCES site (emetteur) ON UPDATE CASCADE ON DELETE CASCADE,
    dicomweb    text NOT NULL,
    usable      boolean NOT NULL,
    features    jsonb NOT NULL, -- name → true or false; what could not be told is left out
    latency_s   double precision CHECK (latency_s >= 0),
    bytes_per_s double precision CHECK (bytes_per_s >= 0),
    checked_at  timestamptz, -- null: it never answered
    tried_at    timestamptz NOT NULL
);
