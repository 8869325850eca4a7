#!/bin/sh
# Run by the PostgreSQL image when it creates its cluster. The service owns its database and is no superuser.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=password="$DATABASE_PASSWORD" --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
CREATE ROLE aftermath LOGIN PASSWORD :'password';
CREATE DATABASE aftermath OWNER aftermath;
SQL
