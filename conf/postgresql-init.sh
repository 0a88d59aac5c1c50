#!/bin/sh
# What the container of PostgreSQL runs once, when its data are made: the two roles of postgresql-roles.sql.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname imagora \
    --set owner="$IMAGORA_OWNER_PASSWORD" --set application="$IMAGORA_DB_PASSWORD" << 'SQL'
CREATE ROLE imagora_owner LOGIN PASSWORD :'owner';
CREATE ROLE imagora LOGIN PASSWORD :'application';
ALTER DATABASE imagora OWNER TO imagora_owner;
SQL
