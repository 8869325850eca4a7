"""The service's database in the built-in PostgreSQL, and the role that owns it.

The role is not a superuser: an attacker who can run SQL as the service can read and change its data, but cannot run
programs, read files, or change the server.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.db.engine import connect
from app.base.db.public_role import PUBLIC_ROLE
from app.base.postgres import SERVICE_ROLE, Address

DATABASE = "aftermath"


async def prepare_built_in(server: Address) -> str:
    """Creates the role and the database if they are missing. Returns the URL with which the service connects.

    In a data directory of an earlier version, everything belongs to the superuser; the role becomes its owner.
    """
    admin = connect(server.url("postgres"), pool_size=1)
    try:
        async with admin.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await _create(connection, server.service_password)
    finally:
        await admin.dispose()
    admin = connect(server.url(DATABASE), pool_size=1, statement_seconds=None)
    try:
        async with admin.begin() as tx:
            # A function or operator that the role has created must not run as superuser.
            await tx.execute(text("SET LOCAL search_path TO pg_catalog"))
            await tx.execute(_TAKE_OVER)
    finally:
        await admin.dispose()
    return server.service_url(DATABASE)


async def _create(connection: AsyncConnection, password: str) -> None:
    known = await connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": SERVICE_ROLE})
    verb = "CREATE" if known.first() is None else "ALTER"
    assert password.isalnum()  # a role's password cannot be a parameter
    await connection.execute(
        text(
            f"{verb} ROLE {SERVICE_ROLE} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
            f"PASSWORD '{password}'"
        )
    )
    known = await connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": PUBLIC_ROLE})
    verb = "CREATE" if known.first() is None else "ALTER"
    await connection.execute(
        text(
            f"{verb} ROLE {PUBLIC_ROLE} WITH NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION "
            "NOBYPASSRLS"
        )
    )
    await connection.execute(text(f"GRANT {PUBLIC_ROLE} TO {SERVICE_ROLE}"))
    known = await connection.execute(
        text("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :name"), {"name": DATABASE}
    )
    owner = known.scalar_one_or_none()
    if owner is None:
        await connection.execute(text(f"CREATE DATABASE {DATABASE} OWNER {SERVICE_ROLE}"))
    elif owner != SERVICE_ROLE:
        await connection.execute(text(f"ALTER DATABASE {DATABASE} OWNER TO {SERVICE_ROLE}"))


# Not REASSIGN OWNED, which refuses because the superuser also owns the system catalogs. Objects of extensions stay as
# they are; sequences and indexes change their owner together with their table.
_TAKE_OVER = text("""
    DO $$
    DECLARE
        command text;
    BEGIN
        FOR command IN
            WITH object AS (
                SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS namespace, relowner AS owner,
                       'TABLE ' || oid::regclass::text AS name
                  FROM pg_class
                 WHERE relkind IN ('r', 'p', 'v', 'm')
                UNION ALL
                SELECT 'pg_class'::regclass, sequence.oid, sequence.relnamespace, sequence.relowner,
                       'SEQUENCE ' || sequence.oid::regclass::text
                  FROM pg_class AS sequence
                 WHERE sequence.relkind = 'S'
                   AND NOT EXISTS (
                       SELECT
                         FROM pg_depend
                        WHERE classid = 'pg_class'::regclass
                          AND objid = sequence.oid
                          AND deptype IN ('a', 'i'))
                UNION ALL
                SELECT 'pg_proc'::regclass, oid, pronamespace, proowner, 'ROUTINE ' || oid::regprocedure::text
                  FROM pg_proc
                UNION ALL
                SELECT 'pg_type'::regclass, oid, typnamespace, typowner, 'TYPE ' || oid::regtype::text
                  FROM pg_type
                 WHERE typtype IN ('e', 'd')
            )
            SELECT format('ALTER %s OWNER TO aftermath_service', name)
              FROM object
             WHERE namespace = 'public'::regnamespace
               AND owner <> 'aftermath_service'::regrole
               AND NOT EXISTS (
                   SELECT
                     FROM pg_depend
                    WHERE classid = object.catalog
                      AND objid = object.oid
                      AND deptype = 'e')
        LOOP
            EXECUTE command;
        END LOOP;
    END
    $$
""")
