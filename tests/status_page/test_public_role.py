"""The database role of the public pages on servers that are not the built-in one."""

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.base import db
from app.base.db.public_role import prepare_public_role
from app.base.schema import PUBLIC_COLUMNS
from app.settings import Settings
from app.status_page.published import StatusPage
from tests.status_page.builders import at


async def test_a_service_that_may_create_roles_and_has_a_schema_of_its_own_is_confined(database_url: str) -> None:
    """Since PostgreSQL 16, such a service is made a member of the roles that it creates, but may not become them."""
    name = f"creator_{uuid4().hex[:8]}"
    tables = [table.__table__.name for table in PUBLIC_COLUMNS]
    owner = db.connect(database_url, pool_size=1)
    address = make_url(database_url).set(username=name, password="x").render_as_string(hide_password=False)
    creator = db.connect(address, pool_size=1)
    try:
        async with owner.begin() as tx:
            await tx.execute(text(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'x'"))
            version = (await tx.execute(text("SHOW server_version_num"))).scalar_one()
            how = "ADMIN TRUE, INHERIT FALSE, SET FALSE" if int(version) >= 160_000 else "ADMIN OPTION"
            await tx.execute(text(f"GRANT {db.PUBLIC_ROLE} TO {name} WITH {how}"))
            await tx.execute(text(f"CREATE SCHEMA AUTHORIZATION {name}"))  # the first in its search path
            for table in tables:
                await tx.execute(text(f"REVOKE ALL ON {table} FROM {db.PUBLIC_ROLE}"))
                await tx.execute(text(f"ALTER TABLE {table} SET SCHEMA {name}"))
                await tx.execute(text(f"ALTER TABLE {name}.{table} OWNER TO {name}"))
        page = StatusPage.of(Settings(), creator)
        async with db.public_transaction(creator) as (_, is_confined):
            assert not is_confined
        await page.refresh(at("12:00"))  # it works nevertheless
        for _ in range(2):
            async with creator.begin() as tx:
                await prepare_public_role(tx)
        async with db.public_transaction(creator) as (tx, is_confined):
            assert is_confined
            await tx.execute(text("SELECT name FROM component"))
            with pytest.raises(DBAPIError, match="permission denied"):
                await tx.execute(text("SELECT services FROM component"))
        await page.refresh(at("12:01"))
    finally:
        await creator.dispose()
        async with owner.begin() as tx:
            await tx.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
            await tx.execute(text(f"DROP OWNED BY {name} CASCADE"))
            await tx.execute(text(f"DROP ROLE {name}"))
        await owner.dispose()


async def test_a_role_that_lacks_a_column_is_not_used(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As after an upgrade that could not grant a new public column."""
    engine = db.connect(database_url, pool_size=1)
    try:
        async with engine.begin() as tx:
            await tx.execute(text(f"REVOKE SELECT (since) ON component FROM {db.PUBLIC_ROLE}"))
        page = StatusPage.of(Settings(), engine)
        await page.refresh(at("12:00"))
        assert page.find("/status") is not None
        [warning] = [each.message for each in caplog.records if db.PUBLIC_ROLE in each.message]
        assert "Restart the service" in warning
    finally:
        await engine.dispose()
