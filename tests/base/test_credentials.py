"""The cache of tokens and sources: its lifetime, with a test clock, and its use while the database is down."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access import tokens
from app.base.access.tokens import Scope
from app.base.errors import Overloaded, Unauthorized
from app.base.http.access import credentials as module
from app.base.http.access.credentials import FRESH_SECONDS, LOOKUP_SECONDS, Cache, Credentials
from app.base.http.limits.clients import DELAYED_AT_MOST, FREE_FAILURES, LONGEST_DELAY_SECONDS, Failures

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


async def test_an_expired_value_is_looked_up(cache: Cache[str | None], database: Database) -> None:
    await cache.get("x", database.look_up)
    database.value = "another"
    cache.expire("x")
    assert await asyncio.gather(*(cache.get("x", database.look_up) for _ in range(3))) == ["another"] * 3
    assert database.lookups == 2


async def test_an_expired_value_is_used_while_the_database_is_down(
    cache: Cache[str | None], database: Database, monitor: db.DatabaseMonitor
) -> None:
    await cache.get("x", database.look_up)
    cache.expire("x")
    monitor.mark_down()
    assert await cache.get("x", database.look_up) == "a value"


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


async def test_a_token_may_consist_of_letters_and_digits(credentials: Credentials, engine: AsyncEngine) -> None:
    async def a_key() -> str:
        async with db.session(engine) as session:
            return await tokens.create_token(
                *(session, "pager", Scope.INGEST), now=NOW, source_name="pager", kind="pager", alphanumeric=True
            )

    token, other = await a_key(), await a_key()
    assert re.fullmatch(r"[0-9a-f]{8}[0-9a-z]{24}", token)
    assert tokens.id_of(token) == token[:8]
    assert (await credentials.identify(token)).source == "pager"
    for wrong in (token[:8] + other[8:], other[:8] + token[8:], f"aft_{token[:8]}_{'x' * 43}"):
        with pytest.raises(Unauthorized):
            await credentials.identify(wrong)


async def test_guessed_tokens_do_not_fill_the_memory(
    credentials: Credentials, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GUESSES_AT_MOST", 10)
    token = await an_ingest_token(engine)
    await credentials.identify(token)
    for number in range(40):
        with pytest.raises(Unauthorized):
            await credentials.identify(f"aft_{number:08x}_{'x' * 43}", (f"192.0.2.{number}", 1))
    assert len(credentials._tokens) <= 12
    assert (await credentials.identify(token)).source == "grafana"


@pytest.mark.parametrize(
    "guess",
    [
        "aft_0000\x0000_" + "x" * 43,
        "aft_" + "a" * 60_000 + "_x",
        "aft_0000000g_" + "x" * 43,
        "aft_00000000_" + "x" * 42 + "\n",
        "aft_00000000_" + "x" * 44,
        "aft_\udc00\udc00\udc00\udc00\udc00\udc00\udc00\udc00_" + "x" * 43,
        "aft_٠٠٠٠٠٠٠٠_" + "x" * 43,
        "AFT_00000000_" + "x" * 43,
        "00000000" + "x" * 23,
        "00000000" + "x" * 25,
        "00000000" + "X" * 24,
        "g0000000" + "x" * 24,
        "00000000" + "x" * 23 + "\n",
        "00000000" + "é" * 24,
    ],
)
async def test_what_cannot_be_a_token_is_neither_looked_up_nor_kept(
    credentials: Credentials, monitor: db.DatabaseMonitor, guess: str
) -> None:
    monitor.mark_down()  # a lookup would raise DatabaseDown
    with pytest.raises(Unauthorized):
        await credentials.identify(guess)
    assert len(credentials._tokens) == 0


async def test_wrong_tokens_slow_down_their_network_only(
    credentials: Credentials, engine: AsyncEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(credentials, "_failures", Failures(clock, sleep))
    monkeypatch.setattr(module, "LOOKUP_SECONDS", 60)  # a slow machine must not turn lookups into errors
    token = await an_ingest_token(engine)
    await credentials.identify(token, GUESSER)

    async def guess(number: int, client: Any = GUESSER) -> list[float]:
        """How long the response was delayed."""
        waited.clear()
        with pytest.raises(Unauthorized):
            await credentials.identify(f"aft_{number:08x}_{'x' * 43}", client)
        return [*waited]

    assert [await guess(number) for number in range(int(FREE_FAILURES))] == [[]] * int(FREE_FAILURES)
    await guess(100)
    assert await guess(101) == [1.0, 1.0]  # before the lookup and before the response
    for number in range(102, 110):
        await guess(number)
    assert await guess(110) == [LONGEST_DELAY_SECONDS] * 2
    assert await guess(111, ("2001:db8::ffff:1", 1)) == [LONGEST_DELAY_SECONDS] * 2  # the same network
    assert await guess(112, ("2001:db8:0:1::1", 1)) == []
    assert await guess(113, ("203.0.113.7", 1)) == []
    waited.clear()
    clock.seconds += FRESH_SECONDS + 1  # it is looked up again
    await credentials.identify(token, GUESSER)
    await credentials.identify("the admin's", GUESSER)
    assert waited == []
    clock.seconds += 60
    assert await guess(114) == []


async def test_only_so_many_wrong_tokens_wait(clock: Clock) -> None:
    release = asyncio.Event()

    async def sleep(_: float) -> None:
        await release.wait()

    failures = Failures(clock, sleep)
    for _ in range(100):
        failures.note(GUESSER)
    waiting = [asyncio.create_task(failures.delay(GUESSER)) for _ in range(DELAYED_AT_MOST + 1)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done
    assert isinstance(refused.exception(), Overloaded)
    release.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert failures._delayed == {}


def test_networks_with_wrong_tokens_do_not_fill_the_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.base.http.limits.clients.NETWORKS_AT_MOST", 10)
    failures = Failures(clock)
    for number in range(100):
        failures.note((f"2001:db8:0:{number:x}::1", 1))
    assert len(failures._counts) == 10


GUESSER = ("2001:db8::1", 40_000)
