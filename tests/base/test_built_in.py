"""The role with which the service uses the built-in PostgreSQL, on a real one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from app.base import db
from app.base import postgres as embedded
from app.base.postgres import ROLE, SERVICE_ROLE, Address
from tests.processes import Service


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[embedded.BuiltIn]:
    async with await embedded.start(tmp_path / "data") as server:
        yield server


async def test_the_role_is_no_superuser_and_owns_everything_that_the_migrations_create(
    server: embedded.BuiltIn,
) -> None:
    await migrated(await db.prepare_built_in(server.address))
    async with connected(server.address.service_url(db.DATABASE)) as service:
        privileges = await service.fetchrow(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls "
            "FROM pg_roles WHERE rolname = current_user"
        )
        assert privileges is not None
        assert [*privileges.values()] == [False] * 5
        assert await owners(service) == {SERVICE_ROLE}
        assert await service.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'btree_gist'") == 1


BEYOND = [
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY source FROM '/etc/passwd'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT lo_import('/etc/passwd')",
    "ALTER SYSTEM SET log_statement = 'all'",
    "CREATE EXTENSION file_fdw",
    "CREATE ROLE another SUPERUSER",
    "CREATE DATABASE another",
    f"ALTER ROLE {SERVICE_ROLE} SUPERUSER",
    f"ALTER ROLE {ROLE} PASSWORD 'mine'",
    f"SET ROLE {ROLE}",
    "SELECT rolpassword FROM pg_authid",
]


async def test_the_role_cannot_leave_its_database(server: embedded.BuiltIn) -> None:
    await migrated(await db.prepare_built_in(server.address))
    async with connected(server.address.service_url(db.DATABASE)) as service:
        for statement in BEYOND:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(statement)


async def test_a_database_of_an_earlier_version_is_taken_over(server: embedded.BuiltIn) -> None:
    """There, everything belongs to the superuser, as after a rollback to that version."""
    await execute(server.url("postgres"), f"CREATE DATABASE {db.DATABASE}")
    admin_url = server.url(db.DATABASE)
    await migrated(admin_url)
    await execute(
        admin_url,
        'CREATE TABLE "of a Later version" (id integer GENERATED ALWAYS AS IDENTITY, other serial)',
        "CREATE SEQUENCE numbers",
        "CREATE TYPE color AS ENUM ('red')",
        "CREATE DOMAIN percentage AS integer",
        "CREATE VIEW colors AS SELECT 'red'::color",
        "CREATE FUNCTION one(integer) RETURNS integer LANGUAGE sql RETURN $1",
    )
    async with connected(admin_url) as admin:
        assert await owners(admin) == {ROLE}
    for _ in range(2):
        url = await db.prepare_built_in(server.address)
        async with connected(url) as service:
            assert await owners(service) == {SERVICE_ROLE}
    # Migrations still work in both directions.
    engine = db.connect(url, pool_size=1)
    async with engine.connect() as connection:
        await connection.run_sync(reversed_and_repeated)
        await connection.commit()
    await engine.dispose()


async def test_the_superuser_runs_nothing_that_the_role_has_created(server: embedded.BuiltIn) -> None:
    url = await db.prepare_built_in(server.address)
    await execute(
        url,
        "CREATE FUNCTION trap(text, text) RETURNS text LANGUAGE plpgsql AS "
        f"$$ BEGIN EXECUTE 'ALTER ROLE {SERVICE_ROLE} SUPERUSER'; RETURN $1; END $$",
        "CREATE FUNCTION format(text, text) RETURNS text LANGUAGE sql AS 'SELECT public.trap($1, $2)'",
        "CREATE OPERATOR public.|| (FUNCTION = trap, LEFTARG = text, RIGHTARG = text)",
    )
    await execute(server.url(db.DATABASE), "CREATE TABLE given (id integer)")
    await db.prepare_built_in(server.address)
    async with connected(url) as service:
        assert not await service.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert await owners(service) == {SERVICE_ROLE}


async def test_the_service_and_the_commands_connect_as_the_role(tmp_path: Path) -> None:
    service = Service(tmp_path, {})
    with service.serve():
        address = embedded.running(service.data_dir)
        assert address is not None
        assert await connected_roles(address) == {SERVICE_ROLE}
        assert service.command("token", "create", "prometheus", "--scope", "read").startswith("aft_")
    assert service.command("token", "create", "grafana", "--scope", "read").startswith("aft_")


def test_the_address_shows_no_password() -> None:
    address = Address(Path("/somewhere"), "secret")
    parsed = make_url(address.service_url("x"))
    assert parsed.username == SERVICE_ROLE
    assert parsed.password not in {"secret", None}
    assert str(parsed.password) not in repr(address)


# ------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:"))
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    async with connected(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def migrated(url: str) -> None:
    engine = db.connect(url, pool_size=1)
    await db.migrate(engine)
    await engine.dispose()


def reversed_and_repeated(connection: Connection) -> None:
    config = db.alembic_config(connection)
    command.downgrade(config, "0001")
    command.upgrade(config, "head")


async def owners(connection: "asyncpg.Connection[asyncpg.Record]") -> set[str]:
    """Of the database and of everything in its schema that belongs to no extension."""
    found = await connection.fetch("""
        SELECT pg_get_userbyid(owner) AS name
          FROM (
            SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS namespace, relowner AS owner FROM pg_class
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, pronamespace, proowner FROM pg_proc
            UNION ALL
            SELECT 'pg_type'::regclass, oid, typnamespace, typowner FROM pg_type
          ) AS object
         WHERE namespace = 'public'::regnamespace
           AND NOT EXISTS (
               SELECT FROM pg_depend WHERE classid = object.catalog AND objid = object.oid AND deptype = 'e')
           AND NOT EXISTS (
               SELECT
                 FROM pg_depend
                 JOIN pg_type AS element ON element.oid = pg_depend.refobjid
                WHERE classid = 'pg_type'::regclass
                  AND objid = object.oid
                  AND EXISTS (SELECT FROM pg_depend WHERE objid = element.oid AND deptype = 'e'))
        UNION
        SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
    """)
    return {row["name"] for row in found}


async def connected_roles(address: Address) -> set[str]:
    async with connected(address.url("postgres")) as admin:
        found = await admin.fetch(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = $1 AND usename IS NOT NULL", db.DATABASE
        )
    return {row["usename"] for row in found}
