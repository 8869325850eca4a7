"""The database role of the public pages, which may read what is public and nothing else.

No one can log in with it: a transaction of the service becomes it with `SET LOCAL ROLE`. The built-in PostgreSQL always
has it. On another server it is created if the service may create roles; otherwise an administrator can create it, see
docs/operations.md.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base.db.engine import read_transaction, state_of
from app.base.schema.status_page import PUBLIC_COLUMNS

PUBLIC_ROLE = "aftermath_public"
HOW_TO_CREATE_IT = f"CREATE ROLE {PUBLIC_ROLE} NOLOGIN; GRANT {PUBLIC_ROLE} TO aftermath;"


async def prepare_public_role(connection: AsyncConnection) -> None:
    """Creates the role if that is permitted, and grants it exactly the public columns. Repeating it changes nothing.

    Privileges that it should not have are revoked. Call it after migrating.
    """
    await connection.execute(_CREATE)
    if not await _is_member(connection):
        return
    await connection.execute(_MAY_USE_THE_SCHEMA)
    for table, columns in PUBLIC_COLUMNS.items():
        name = table.__table__.name
        if (await connection.execute(text("SELECT to_regclass(:name)"), {"name": name})).scalar_one() is not None:
            await connection.execute(text(f"REVOKE ALL ON {name} FROM {PUBLIC_ROLE}"))
            await connection.execute(text(f"GRANT SELECT ({', '.join(columns)}) ON {name} TO {PUBLIC_ROLE}"))


async def _is_member(connection: AsyncConnection) -> bool:
    known = "SELECT coalesce((SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = :name), false)"
    return bool((await connection.execute(text(known), {"name": PUBLIC_ROLE})).scalar_one())


@asynccontextmanager
async def public_transaction(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncConnection, bool]]:
    """A transaction that only reads, and whether it is confined to the public columns.

    It is not if the role is missing, or lacks a privilege that the public pages need: then it has the privileges of the
    service.
    """
    async with read_transaction(engine) as tx:
        is_confined = (await tx.execute(_PREPARE, {"role": PUBLIC_ROLE, **_PUBLIC})).one().is_confined
        if is_confined:
            try:
                async with tx.begin_nested():
                    await tx.execute(text(f"SET LOCAL ROLE {PUBLIC_ROLE}"))
            except DBAPIError as error:
                if state_of(error) not in _NO_ROLE:
                    raise
                is_confined = False
        yield tx, is_confined


_NO_ROLE = {"22023", "42501", "42704"}  # it does not exist, or the service may not become it

_PUBLIC = {
    "tables": [table.__table__.name for table, columns in PUBLIC_COLUMNS.items() for _ in columns],
    "columns": [name for columns in PUBLIC_COLUMNS.values() for name in columns],
}

# `"$user"` in the search path would be another schema once the transaction has become the role.
_PREPARE = text("""
    SELECT set_config('search_path', CAST(place.schema AS text), true),
           coalesce(bool_and(
               has_schema_privilege(pg_roles.oid, place.schema, 'USAGE')
               AND has_column_privilege(pg_roles.oid, to_regclass(known.table_name), known.column_name, 'SELECT')
           ), false) AS is_confined
      FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[])) AS known (table_name, column_name)
     CROSS JOIN (SELECT CAST(relnamespace AS regnamespace) FROM pg_class WHERE oid = to_regclass('component'))
           AS place (schema)
      LEFT JOIN pg_roles ON rolname = :role
     GROUP BY place.schema
""")

_MAY_USE_THE_SCHEMA = text(f"""
    DO $$
    DECLARE
        place regnamespace := (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('component'));
    BEGIN
        IF NOT has_schema_privilege('{PUBLIC_ROLE}', place, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO {PUBLIC_ROLE}', place);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;
    END
    $$
""")  # noqa: S608  the name of the role is a constant

# Another database of the same server may be creating or granting it at this moment. Since PostgreSQL 16, who creates a
# role is a member of it that may not become it, until it has granted itself that.
_CREATE = text(f"""
    DO $$
    BEGIN
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{PUBLIC_ROLE}') THEN
                CREATE ROLE {PUBLIC_ROLE} NOLOGIN NOINHERIT;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
        END;
        BEGIN
            GRANT {PUBLIC_ROLE} TO CURRENT_USER;
        EXCEPTION
            WHEN insufficient_privilege OR undefined_object OR unique_violation OR internal_error THEN NULL;
        END;
    END
    $$
""")
