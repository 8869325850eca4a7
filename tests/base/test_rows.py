"""Rows as objects: the upsert that CRUD slices share, and sessions on a connection."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from app.base import db, schema

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def a_service(at: datetime = NOON, **columns: object) -> schema.Service:
    return schema.Service.model_validate({"name": "x", "links": [], "first_seen_at": at, "updated_at": at} | columns)


async def test_an_upsert_inserts_then_replaces_all_columns_except_kept_ones(engine: AsyncEngine) -> None:
    links = [{"title": "Wiki", "url": "https://example.org"}]
    async with db.session(engine) as session:
        first, first_is_new = await db.upsert(session, a_service(owner="us", links=links), keep=("first_seen_at",))
        assert (first_is_new, first.owner, first.links) == (True, "us", links)
        later = NOON + timedelta(hours=1)
        second, second_is_new = await db.upsert(session, a_service(later), keep=("first_seen_at",))
        # One object represents the row and has the stored values.
        assert (second_is_new, second is first) == (False, True)
    async with db.session(engine) as session:
        [stored] = await session.exec(select(schema.Service))
    assert stored.model_dump() == a_service(owner=None, updated_at=later).model_dump()


async def test_an_upsert_by_a_unique_name_leaves_the_identity_to_the_database(engine: AsyncEngine) -> None:
    def a_source(kind: str, stale_seconds: int | None = None) -> schema.Source:
        return schema.Source(name="prod", kind=kind, stale_seconds=stale_seconds, created_at=NOON)

    async with db.session(engine) as session:
        first, first_is_new = await db.upsert(session, a_source("grafana", 600), key=("name",), keep=("kind",))
        id_ = first.id
        second, second_is_new = await db.upsert(session, a_source("generic"), key=("name",), keep=("kind",))
    assert (id_ > 0, first_is_new, second_is_new) == (True, True, False)
    assert (second.id, second.kind, second.stale_seconds) == (id_, "grafana", None)


async def test_numbers_keep_their_scale_and_times_are_utc(engine: AsyncEngine) -> None:
    berlin = datetime.fromisoformat("2026-07-01T14:00:00+02:00")
    async with db.session(engine) as session:
        await db.upsert(session, a_service(), keep=("first_seen_at",))
        low, expected, high = Decimal(0), Decimal("1.50"), Decimal("9E2")
        rate = schema.ServiceRate(service="x", currency="EUR", valid_from=berlin, low=low, expected=expected, high=high)
        await db.upsert(session, rate, keep=())
    async with db.session(engine) as session:
        [stored] = await session.exec(select(schema.ServiceRate))
    assert (str(stored.low), str(stored.expected), str(stored.high)) == ("0", "1.50", "900")
    assert (stored.valid_from.isoformat(), stored.valid_from) == ("2026-07-01T12:00:00+00:00", NOON)


async def test_a_session_within_a_connection_is_part_of_its_transaction(engine: AsyncEngine) -> None:
    count = text("SELECT count(*) FROM service")
    async with engine.connect() as tx:
        async with db.session_within(tx) as session:
            session.add(a_service())
        async with tx.begin_nested(), db.session_within(tx) as session:
            session.add(a_service(name="y"))
        assert (await tx.execute(count)).scalar_one() == 2
        await tx.rollback()
        assert (await tx.execute(count)).scalar_one() == 0
