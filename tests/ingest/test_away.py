"""PostgreSQL becomes unavailable and comes back: the responses meanwhile, and the stored data afterwards."""

import asyncio
import hashlib
import hmac
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import __version__
from app.base import db
from app.base.access import tokens as access
from app.base.access.tokens import Scope
from app.base.http.access.credentials import FRESH_SECONDS
from app.base.http.context import Context
from app.base.process.spool import SegmentName, SpooledDelivery, read
from app.main import serving
from app.settings import Settings
from tests.conftest import ADMIN_TOKEN, client_of
from tests.faults.postgres import Server, a_server
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert
from tests.oracle import assert_lawful
from tests.processes import REPOSITORY

NAMES = ("a", "b", "c", "d")
FIXTURES = REPOSITORY / "tests" / "fixtures" / "github"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
async def away(postgres: Server, tmp_path: Path) -> AsyncIterator["Place"]:
    """A server with an empty database, which a test may stop."""
    engine = db.connect(postgres.url)
    async with db.transaction(engine) as tx:
        await tx.execute(text("DROP SCHEMA public CASCADE"))
        await tx.execute(text("CREATE SCHEMA public"))
    await db.migrate(engine)
    await engine.dispose()
    async with AsyncExitStack() as stack:
        place = Place(postgres, tmp_path, stack)
        stack.push_async_callback(place.engine.dispose)
        try:
            yield place
        finally:
            await place.come_back()


class Place:
    """A PostgreSQL, a data directory, and the app on both."""

    def __init__(self, server: Server, data_dir: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.data_dir = data_dir
        self.stack = stack
        self.engine: AsyncEngine = db.connect(server.url)
        self.elapsed_seconds = 0.0  # added to real time, for the cache of tokens and sources
        self.context: Context

    @asynccontextmanager
    async def app(self, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        known = {"database_url": self.server.url, "data_dir": self.data_dir, "admin_token": ADMIN_TOKEN}
        all_settings = Settings.model_validate(known | settings)
        async with (
            serving(all_settings, clock=lambda: time.monotonic() + self.elapsed_seconds) as self.context,
            client_of(self.context, timeout=60) as client,
        ):
            yield client

    async def stop_database(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def come_back(self) -> None:
        if self.server.running is None or self.server.running.process.poll() is not None:
            await asyncio.to_thread(self.server.start)

    async def token(self, scope: Scope, source: str | None = None, kind: str = "alertmanager") -> dict[str, str]:
        """As a header."""
        async with db.session(self.engine) as session:
            made = await access.create_token(
                session, str(scope), scope, now=datetime.now(UTC), source_name=source, kind=kind
            )
        return {"Authorization": f"Bearer {made}"}

    async def all_(self, query: str) -> list[Any]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]

    def segments(self) -> list[Path]:
        return sorted((self.data_dir / "spool").glob("*.spool"))


async def until(is_so: Callable[[], Awaitable[object]], what: str, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not await is_so():
        assert time.monotonic() < deadline, f"waited {within} s in vain until {what}"
        await asyncio.sleep(0.05)


async def drained(client: httpx.AsyncClient) -> None:
    async def is_drained() -> bool:
        found = await scraped(client)
        return found["aftermath_database_up"] == 1 and found["aftermath_spool_records"] == 0

    await until(is_drained, "the spool is drained")


async def scraped(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {sample.name: sample.value for family in families for sample in family.samples}


async def deliver(client: httpx.AsyncClient, name: str, **how: Any) -> httpx.Response:
    return await client.post(WEBHOOK, json=a_delivery(an_alert(instance=name)), **how)


# — spooled and drained —


async def test_deliveries_during_an_outage_are_spooled_and_applied_in_order(away: Place) -> None:
    async with away.app() as client:
        before = await deliver(client, "before")
        await away.stop_database()
        began = datetime.now(UTC)
        answers = [await deliver(client, name) for name in NAMES]
        assert [answer.status_code for answer in answers] == [202] * 4
        assert [answer.json() | {"delivery_id": 0} for answer in answers] == [
            {"delivery_id": 0, "signals": 1, "spooled": True}
        ] * 4
        ended = datetime.now(UTC)
        await away.come_back()
        await drained(client)
        rows = await away.all_("SELECT id, received_at, verdicts FROM delivery ORDER BY received_at")
        assert [row[0] for row in rows] == [UUID(answer.json()["delivery_id"]) for answer in (before, *answers)]
        assert all(began <= received_at <= ended for _, received_at, _ in rows[1:])
        # In order of arrival each was new: the fourth joined three.
        assert [row[2] for row in rows] == [{"opened": 1}, *[{"joined": 1}] * 4]
        [incident] = (await client.get("/api/v1/incidents")).json()["items"]
        assert (incident["number"], incident["alerts"]) == ("INC-1", 5)
        await assert_lawful(away.engine)
        after = await deliver(client, "after")
        assert (after.status_code, after.json()["verdicts"]) == (200, {"joined": 1})


async def test_reports_of_deployments_are_kept_and_applied_once(away: Place) -> None:
    """A report that fails goes to quarantine and does not affect the others."""
    github = json.loads((FIXTURES / "success.json").read_text())["body"]
    event = {"X-GitHub-Event": "deployment_status"}
    async with away.app() as client:
        await client.post("/webhooks/deployments", json=a_report("7"))
        await client.post("/webhooks/github", json=github, headers=event)
        await away.stop_database()
        answers = [
            await client.post("/webhooks/deployments", json=a_report("7", outcome="failed", version="poison")),
            await client.post("/webhooks/deployments", json=a_report("8")),
            await client.post("/webhooks/github", json={"deployment": {}}, headers=event),
            await client.post("/webhooks/github", json=github, headers=event),
        ]
        assert [answer.status_code for answer in answers] == [202] * 4
        assert answers[0].json() == {"delivery_id": answers[0].json()["delivery_id"], "spooled": True}
        # It is not about a deployment, so nothing is lost.
        assert (await client.post("/webhooks/github", json={}, headers={"X-GitHub-Event": "ping"})).status_code == 503
    [segment] = away.segments()
    copy = shutil.copy(segment, away.data_dir / "copy")
    await away.come_back()
    async with db.transaction(away.engine) as tx:
        await tx.execute(text("ALTER TABLE deployment ADD CHECK (version IS DISTINCT FROM 'poison')"))
    for _ in range(2):  # as after a crash between the commit and the removal
        async with away.app() as client:
            await drained(client)
        verdicts = dict(await away.all_("SELECT id, verdicts FROM delivery"))
        assert [verdicts[UUID(answer.json()["delivery_id"])] for answer in answers] == [
            {"quarantined": 1},
            {"recorded": 1},
            {"quarantined": 1},
            {"repeated": 1},
        ]
        assert len(verdicts) == 6
        assert await away.all_("SELECT reason FROM quarantine ORDER BY reason") == [("cannot_apply",), ("no_state",)]
        applied = "SELECT reported_id, outcome FROM deployment WHERE reported_id IN ('7', '8') ORDER BY reported_id"
        assert await away.all_(applied) == [
            ("7", "succeeded"),
            ("8", "succeeded"),
        ]
        shutil.copy(copy, segment)


def a_report(id_: str, **fields: Any) -> dict[str, Any]:
    times = {"started_at": "2026-08-20T09:55:00Z", "finished_at": "2026-08-20T10:00:00Z"}
    return {"id": id_, "service": "checkout", "outcome": "succeeded", **times, **fields}


async def test_it_is_there_after_a_restart_too(away: Place) -> None:
    async with away.app() as client:
        await deliver(client, "before")
        await away.stop_database()
        answers = await asyncio.gather(*(deliver(client, str(number)) for number in range(50)))
        assert {answer.status_code for answer in answers} == {202}
    await away.come_back()
    async with away.app() as client:
        await drained(client)
        known = {row[0] for row in await away.all_("SELECT id FROM delivery")}
        assert known > {UUID(answer.json()["delivery_id"]) for answer in answers}
        assert len(known) == 51
        await assert_lawful(away.engine)


async def test_new_ones_go_to_the_database_while_old_ones_still_wait(away: Place) -> None:
    async with away.app(batch_alerts=1) as client:
        await deliver(client, "before")
        await away.stop_database()
        olds = 60
        answers = await asyncio.gather(*(deliver(client, str(number)) for number in range(olds)))
        assert {answer.status_code for answer in answers} == {202}
        await away.come_back()

        async def is_taken() -> bool:
            return (await deliver(client, "new")).status_code == 200

        await until(is_taken, "the database accepts deliveries")
        assert len(away.segments()) == 1
        [(there,)] = await away.all_("SELECT count(*) FROM alert")
        assert there < 2 + olds
        await drained(client)
        assert await away.all_("SELECT count(*) FROM alert") == [(2 + olds,)]


# — exactly once —


async def test_a_segment_read_twice_is_applied_once(away: Place) -> None:
    """As after a crash between the commit and the removal."""
    async with away.app() as client:
        await deliver(client, "before")
        await away.stop_database()
        for name in NAMES:
            await deliver(client, name)
    kept = {segment: segment.read_bytes() for segment in away.segments()}
    await away.come_back()
    state = "SELECT name, source, label, sum(value) FROM tally GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    async with away.app() as client:
        await drained(client)
        once = await away.all_(state)
    for segment, content in kept.items():
        segment.write_bytes(content)
    async with away.app() as client:
        assert len(away.segments()) == len(kept) > 0
        await drained(client)
        assert await away.all_(state) == once
    assert len(await away.all_("SELECT 1 FROM delivery")) == 5


async def test_a_delivery_committed_at_the_last_moment_is_not_applied_again(away: Place) -> None:
    """The connection broke at the commit, the delivery went to the spool, and the commit is only now done."""
    async with away.app() as client:
        await deliver(client, "before")
        await away.stop_database()
        await deliver(client, "a")
    [segment] = away.segments()
    name = SegmentName.of(segment.name)
    assert name is not None
    [spooled] = read(segment.read_bytes(), name)
    assert isinstance(spooled, SpooledDelivery)
    await away.come_back()
    async with db.transaction(away.engine) as tx:
        await tx.execute(
            text("INSERT INTO delivery (id, source_id, received_at, signals, verdicts) VALUES (:id, 1, :at, 1, '{}')"),
            {"id": spooled.id, "at": spooled.received_at},
        )
        app = await away.stack.enter_async_context(away.app())

        async def waits() -> bool:
            return bool(await away.all_("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"))

        await until(waits, "the drain waits for the commit")
    await drained(app)
    assert await away.all_("SELECT count(*) FROM quarantine") == [(0,)]
    assert await away.all_("SELECT count(*) FROM delivery") == [(2,)]
    assert await away.all_("SELECT sum(value) FROM tally WHERE name = 'deliveries'") == [(1,)]


# — damage —


async def test_a_damaged_record_goes_to_quarantine_once_and_the_rest_is_applied(away: Place) -> None:
    async with away.app() as client:
        await deliver(client, "before")
        await away.stop_database()
        for name in NAMES:
            await deliver(client, name)
    [segment] = away.segments()
    content = bytearray(segment.read_bytes())
    content[content.index(b'"instance":"b"') + 12] ^= 1
    content += content[:100]  # and the beginning of a fifth
    segment.write_bytes(content)
    copy = away.data_dir / "copy"
    shutil.copy(segment, copy)
    await away.come_back()
    for _ in range(2):
        async with away.app() as client:
            await drained(client)
            [item] = (await client.get("/api/v1/quarantine")).json()["items"]
            assert (item["source"], item["reason"]) == ("spool", "damaged_in_spool")
            damaged = (await client.get(f"/api/v1/quarantine/{item['id']}/raw")).content
            assert (damaged in content, b'"instance":"c"' in damaged) == (True, True)
            replayed = await client.post(f"/api/v1/quarantine/{item['id']}/replay")
            assert (replayed.status_code, "corrupted" in replayed.json()["detail"]) == (409, True)
        assert {row[0] for row in await away.all_("SELECT labels->>'instance' FROM alert")} == {"before", "a", "c", "d"}
        shutil.copy(copy, segment)


async def test_a_record_that_cannot_be_quarantined_stays_and_the_others_are_drained(away: Place) -> None:
    async with away.app() as client:
        await deliver(client, "before")
        await away.stop_database()
        for name in NAMES:
            await deliver(client, name)
        await away.come_back()
    async with db.transaction(away.engine) as tx:
        await tx.execute(text("ALTER TABLE alert ADD CONSTRAINT no CHECK (labels->>'instance' <> 'b')"))
        await tx.execute(text("ALTER TABLE quarantine ADD CONSTRAINT no CHECK (reason <> 'cannot_apply')"))
    async with away.app() as client:

        async def are_there() -> bool:
            return len(await away.all_("SELECT 1 FROM alert")) == 4

        await until(are_there, "the others are applied")
        await asyncio.sleep(1)
        assert len(away.segments()) == 1
    async with db.transaction(away.engine) as tx:
        await tx.execute(text("ALTER TABLE alert DROP CONSTRAINT no"))
    async with away.app() as client:
        await drained(client)
        assert len(await away.all_("SELECT 1 FROM alert")) == 5
        assert len(await away.all_("SELECT 1 FROM delivery")) == 5


# — refused —


@pytest.mark.parametrize(("max_bytes", "why"), [(0, "there is no spool"), (1000, "the spool is full")])
async def test_without_room_in_a_spool_deliveries_are_refused(away: Place, max_bytes: int, why: str) -> None:
    async with away.app(spool_max_bytes=max_bytes) as client:
        await deliver(client, "before")
        await away.stop_database()
        taken = 0
        while (answer := await deliver(client, str(taken))).status_code == 202:
            taken += 1
        assert (taken > 0) == (max_bytes > 0)
        assert (answer.status_code, answer.headers["Retry-After"], why in answer.text) == (503, "5", True)
        ready = await client.get("/readyz")
        # The remaining space may still suffice for a smaller one.
        assert ready.status_code == (200 if max_bytes else 503)
        if not max_bytes:
            assert why in ready.json()["detail"]
        await away.come_back()
        await drained(client)
        assert len(await away.all_("SELECT 1 FROM delivery")) == 1 + taken


async def test_readiness_and_metrics_report_the_outage(away: Place) -> None:
    async with away.app() as client:
        await deliver(client, "before")
        found = await scraped(client)
        assert "aftermath_incidents_open" in found
        assert "aftermath_spool_oldest_timestamp_seconds" not in found
        assert (await client.get("/readyz")).json() == {"status": "ok", "detail": None, "version": __version__}
        await away.stop_database()
        began = time.time()
        await deliver(client, "a")
        await deliver(client, "b")
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        found = await scraped(client)
        size = sum(segment.stat().st_size for segment in away.segments())
        assert (found["aftermath_database_up"], found["aftermath_spool_records"]) == (0, 2)
        assert (found["aftermath_spool_bytes"], found["aftermath_spool_max_bytes"]) == (size, 256 * 2**20)
        assert began - 1 < found["aftermath_spool_oldest_timestamp_seconds"] < time.time()
        # Values from the database are not exported from memory: they would look current.
        assert [name for name in found if name.startswith("aftermath_incidents")] == []
        assert (await client.get("/api/v1/incidents")).status_code == 503
        await away.come_back()
        await drained(client)
        assert (await client.get("/readyz")).json()["status"] == "ok"


# — authentication —


async def test_known_tokens_stay_valid_and_unknown_ones_are_not_refused_for_good(away: Place) -> None:
    """Also a token that has not been used yet."""
    unused = await away.token(Scope.INGEST, "eu")
    reader = await away.token(Scope.READ)
    revoked = await away.token(Scope.INGEST, "us")
    async with db.session(away.engine) as session:
        await access.revoke_token(session, revoked["Authorization"].split("_")[1], now=datetime.now(UTC))
    async with away.app() as client:
        await away.context.credentials.refresh()
        await away.stop_database()
        down_and_expired(away)
        assert (await deliver(client, "a", headers=unused)).status_code == 202
        assert (await client.post("/webhooks/grafana", json=a_delivery(), headers=unused)).status_code == 403
        assert (await deliver(client, "b", headers=revoked)).status_code == 401
        unknown = {"Authorization": f"Bearer aft_00000000_{'x' * 43}"}
        assert (await deliver(client, "c", headers=unknown)).status_code == 503
        wrong = {"Authorization": unused["Authorization"][:-43] + "x" * 43}
        assert (await deliver(client, "d", headers=wrong)).status_code == 401
        assert (await client.get("/metrics", headers=reader)).status_code == 200
        await away.come_back()
        await drained(client)
        assert await away.all_("SELECT name FROM delivery JOIN source ON source.id = source_id") == [("eu",)]


def down_and_expired(away: Place) -> None:
    """The database counts as down, and cached tokens and sources have expired."""
    away.context.monitor.mark_down()
    away.elapsed_seconds += FRESH_SECONDS + 1


async def test_trust_in_a_token_ends(away: Place) -> None:
    token = await away.token(Scope.INGEST, "eu")
    async with away.app(spool_trust_seconds=3600) as client:
        assert (await deliver(client, "before", headers=token)).status_code == 200
        await away.stop_database()
        away.context.monitor.mark_down()
        for seconds, status in ((3000, 202), (601, 503)):
            away.elapsed_seconds += seconds
            answer = await deliver(client, "a", headers=token)
            assert (answer.status_code, "Retry-After" in answer.headers) == (status, status == 503)


async def test_signatures_are_checked_while_it_is_away(away: Place) -> None:
    body = json.dumps(a_delivery(an_alert())).encode()
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    async with away.app() as client:
        await client.put("/api/v1/sources/grafana", json={"kind": "grafana", "hmac_secret": "secret"})
        signed = {"X-Grafana-Alerting-Signature": signature}
        assert (await client.post("/webhooks/grafana", content=body, headers=signed)).status_code == 200
        await away.stop_database()
        down_and_expired(away)
        assert (await client.post("/webhooks/grafana", content=body)).status_code == 401
        assert (await client.post("/webhooks/grafana", content=body, headers=signed)).status_code == 202
        await away.come_back()
        await drained(client)
        assert len(await away.all_("SELECT 1 FROM delivery")) == 2


# — slow, and hanging —


async def test_a_hanging_database_counts_as_down_and_no_delivery_is_lost(away: Place) -> None:
    """Its processes are stopped: connections stay open without responses."""
    async with away.app() as client:
        await deliver(client, "before")
        assert away.server.running is not None
        postmaster = psutil.Process(away.server.running.process.pid)
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            first = asyncio.create_task(deliver(client, "in the database"))
            await asyncio.sleep(0.2)
            behind = asyncio.create_task(deliver(client, "behind it"))
            assert (await asyncio.wait_for(behind, 15)).status_code == 202
            assert (await asyncio.wait_for(deliver(client, "later"), 5)).status_code == 202
            assert not first.done()
        finally:
            for process in stopped:
                process.send_signal(signal.SIGCONT)
        assert (await asyncio.wait_for(first, 40)).status_code in {200, 202}
        await drained(client)
        assert len(await away.all_("SELECT 1 FROM delivery")) == 4
        assert len(await away.all_("SELECT 1 FROM alert")) == 4


async def test_a_delivery_is_refused_if_the_oldest_has_waited_too_long(settings: Settings, engine: AsyncEngine) -> None:
    """The database is up, but another session holds a lock that the first batch needs."""
    async with (
        serving(settings.model_copy(update={"queue_seconds": 0.3})) as context,
        client_of(context) as client,
    ):
        await refuses_behind_a_slow_batch(client, engine)


async def refuses_behind_a_slow_batch(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(text("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"))
        first = asyncio.create_task(deliver(client, "a"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(deliver(client, "b"))
        await asyncio.sleep(0.4)
        answer = await deliver(client, "c")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "too long" in answer.json()["detail"]
    assert [(await first).status_code, (await second).status_code] == [200, 200]
    assert (await deliver(client, "c")).status_code == 200
