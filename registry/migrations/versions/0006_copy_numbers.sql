-- By what else an opposition binds a copy: that must hold while the holder that tells it is down. Empty: not known.
ALTER TABLE study_copy ADD COLUMN accession text NOT NULL DEFAULT '', ADD COLUMN ins text[] NOT NULL DEFAULT '{}';
