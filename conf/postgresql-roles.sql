-- Roles for a PostgreSQL server of one's own: one that owns the tables and migrates, one for the application, which can
-- add traces but not change or remove any. Run it as a superuser, in Imagora's database, after each `imagora migrate`:
--
--     CREATE ROLE imagora_owner LOGIN;  CREATE ROLE imagora LOGIN;      -- once, each with a password
--     CREATE DATABASE imagora OWNER imagora_owner;                      -- once
--     IMAGORA_DATABASE__URL=postgresql://imagora_owner@db.example/imagora imagora migrate --config imagora.toml
--     psql --dbname imagora --file conf/postgresql-roles.sql
--     IMAGORA_DATABASE__URL=postgresql://imagora@db.example/imagora imagora serve --config imagora.toml
--
-- It may be run any number of times.

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO imagora;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO imagora;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO imagora;
REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM imagora;

-- Traces and their signed heads: added and read, through the table as a whole only.
REVOKE UPDATE, DELETE ON trace, trace_head FROM imagora;
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'trace'::regclass LOOP
        EXECUTE format('REVOKE ALL ON %s FROM imagora', month);
    END LOOP;
END $$;

-- Retention: whole months older than traces.retention_months, never one that ended less than six months ago, and only
-- once its heads are signed. Without this grant nothing is dropped, and the server's log says so.
GRANT EXECUTE ON FUNCTION drop_trace_month(timestamptz) TO imagora;
