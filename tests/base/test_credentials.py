"""The cache of tokens and sources: its lifetime, with a test clock, and its use while the database is down."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, tokens
from app.base.errors import Unauthorized
from app.base.http import credentials as module
from app.base.http.credentials import FRESH_SECONDS, LOOKUP_SECONDS, Cache, Credentials
from app.base.tokens import Scope

NOW = datetime(2026, 8, 20, 12, tzinfo=UTC)
TRUST_SECONDS = 3600.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Database:
    """Values to look up, and how often that was done."""

    def __init__(self) -> None:
        self.value: str | None = "a value"
        self.error: Exception | None = None
        self.lookups = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def look_up(self) -> str | None:
        self.lookups += 1
        await self.answers.wait()
        if self.error:
            raise self.error
        return self.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def monitor() -> db.DatabaseMonitor:
    return db.DatabaseMonitor("")


@pytest.fixture
def cache(monitor: db.DatabaseMonitor, clock: Clock) -> Cache[str | None]:
    return Cache(monitor, trust_seconds=TRUST_SECONDS, fresh_seconds=FRESH_SECONDS, clock=clock)


# — one value —


async def test_a_fresh_value_is_not_looked_up_again(cache: Cache[str | None], database: Database, clock: Clock) -> None:
    for seconds, lookups in ((0, 1), (FRESH_SECONDS - 1, 1), (1, 2)):
        clock.seconds += seconds
        assert await cache.get("x", database.look_up) == "a value"
        assert database.lookups == lookups


async def test_a_forgotten_source_is_looked_up(cache: Cache[str | None], database: Database) -> None:
    await cache.get("x", database.look_up)
    database.value = "another"
    cache.forget("x")
    assert await cache.get("x", database.look_up) == "another"


async def test_requests_at_once_share_a_lookup(cache: Cache[str | None], database: Database) -> None:
    assert await asyncio.gather(*(cache.get("x", database.look_up) for _ in range(100))) == ["a value"] * 100
    assert database.lookups == 1


async def test_during_a_repeated_lookup_other_requests_use_the_cached_value(
    cache: Cache[str | None], database: Database, clock: Clock
) -> None:
    await cache.get("x", database.look_up)
    clock.seconds += FRESH_SECONDS
    database.value = "another"
    database.answers.clear()
    slow = asyncio.create_task(cache.get("x", database.look_up))
    await asyncio.sleep(0)
    assert await cache.get("x", database.look_up) == "a value"
    database.answers.set()
    assert await slow == "another"
    assert database.lookups == 2


async def test_a_request_that_is_canceled_does_not_cancel_the_lookup_of_others(
    cache: Cache[str | None], database: Database
) -> None:
    database.answers.clear()
    gone, waits = (asyncio.create_task(cache.get("x", database.look_up)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    database.answers.set()
    assert await asyncio.wait_for(waits, 10) == "a value"


# — the database is down —


@pytest.mark.parametrize("known_to_be_down", [True, False])
async def test_a_known_value_is_trusted_for_a_time(
    cache: Cache[str | None], database: Database, clock: Clock, monitor: db.DatabaseMonitor, known_to_be_down: bool
) -> None:
    await cache.get("x", database.look_up)
    database.error = ConnectionRefusedError()
    if known_to_be_down:
        monitor.mark_down()
    clock.seconds += TRUST_SECONDS - 1
    assert await cache.get("x", database.look_up) == "a value"
    assert database.lookups == (1 if known_to_be_down else 2)
    clock.seconds += FRESH_SECONDS + 1
    with pytest.raises(ConnectionError):
        await cache.get("x", database.look_up)


async def test_a_missing_value_is_not_trusted(
    cache: Cache[str | None], database: Database, clock: Clock, monitor: db.DatabaseMonitor
) -> None:
    database.value = None
    assert await cache.get("x", database.look_up) is None
    clock.seconds += FRESH_SECONDS
    monitor.mark_down()
    with pytest.raises(db.DatabaseDown):
        await cache.get("x", database.look_up)


async def test_a_database_that_hangs_counts_as_down(
    cache: Cache[str | None], database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKUP_SECONDS", LOOKUP_SECONDS / 100)
    await cache.get("x", database.look_up)
    clock.seconds += FRESH_SECONDS
    database.answers.clear()
    assert await cache.get("x", database.look_up) == "a value"
    with pytest.raises(TimeoutError):
        await cache.get("y", database.look_up)
    database.answers.set()


async def test_an_error_of_another_kind_is_not_hidden(
    cache: Cache[str | None], database: Database, clock: Clock
) -> None:
    await cache.get("x", database.look_up)
    clock.seconds += FRESH_SECONDS
    database.error = LookupError()
    with pytest.raises(LookupError):
        await cache.get("x", database.look_up)


# — tokens and sources —


@pytest.fixture
def credentials(engine: AsyncEngine, monitor: db.DatabaseMonitor, clock: Clock) -> Credentials:
    return Credentials(engine, monitor, admin_token="the admin's", trust_seconds=TRUST_SECONDS, clock=clock)


async def an_ingest_token(engine: AsyncEngine) -> str:
    async with db.session(engine) as session:
        return await tokens.create_token(
            session, "grafana", Scope.INGEST, now=NOW, source_name="grafana", kind="grafana"
        )


async def test_a_revoked_token_is_accepted_for_a_few_seconds_only(
    credentials: Credentials, engine: AsyncEngine, clock: Clock
) -> None:
    token = await an_ingest_token(engine)
    assert (await credentials.identify(token)).source == "grafana"
    async with db.session(engine) as session:
        await tokens.revoke_token(session, tokens.id_of(token) or "", now=NOW)
    assert (await credentials.identify(token)).source == "grafana"
    clock.seconds += FRESH_SECONDS
    for _ in range(2):  # looked up, and known
        with pytest.raises(Unauthorized):
            await credentials.identify(token)


async def test_the_secret_must_be_right(credentials: Credentials, engine: AsyncEngine) -> None:
    token = await an_ingest_token(engine)
    assert (await credentials.identify("the admin's")).scope is Scope.ADMIN
    assert (await credentials.identify(token)).scope is Scope.INGEST
    for wrong in (None, "", "the admin", token + "x", token[:-1], "aft_00000000_x", "aft_", "\udcff"):
        with pytest.raises(Unauthorized):
            await credentials.identify(wrong)


async def test_settings_of_a_source_are_used_a_few_seconds_later(
    credentials: Credentials, engine: AsyncEngine, clock: Clock
) -> None:
    bearer = await credentials.identify(await an_ingest_token(engine))
    assert (await credentials.source_of(bearer, "grafana", now=NOW)).hmac_secret is None
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE source SET hmac_secret = 'secret'"))
    assert (await credentials.source_of(bearer, "grafana", now=NOW)).hmac_secret is None
    clock.seconds += FRESH_SECONDS
    assert (await credentials.source_of(bearer, "grafana", now=NOW)).hmac_secret == "secret"


async def test_a_refresh_also_loads_unused_tokens(
    credentials: Credentials, engine: AsyncEngine, monitor: db.DatabaseMonitor, clock: Clock
) -> None:
    token = await an_ingest_token(engine)
    await credentials.refresh()
    monitor.mark_down()
    clock.seconds += FRESH_SECONDS
    bearer = await credentials.identify(token)
    assert (await credentials.source_of(bearer, "grafana", now=NOW)).name == "grafana"


async def test_guessed_tokens_do_not_fill_the_memory(
    credentials: Credentials, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GUESSES_AT_MOST", 10)
    token = await an_ingest_token(engine)
    await credentials.identify(token)
    for number in range(40):
        with pytest.raises(Unauthorized):
            await credentials.identify(f"aft_{number:08x}_guess")
    assert len(credentials._tokens) <= 12
    assert (await credentials.identify(token)).source == "grafana"
