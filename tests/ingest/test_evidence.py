"""What later evidence does to an end: deliveries with their own times of receipt, live, spooled, replayed or imported;
and what it means for the incident, its measures and settling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import ensure_source
from app.incidents.grouping.law.episode import fired_after_end, minute
from app.incidents.grouping.signal import EndReason, Signal, Status
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Reading
from app.metrics.prometheus.settle import settle
from app.settings import DEFAULT_IMPACT
from tests.incidents.grouping.test_store import forget
from tests.ingest.health.test_health import a_flusher, alerts, deliver, incidents
from tests.ingest.test_webhook import an_alert
from tests.oracle import Ended, Fact, assert_lawful, ended_by_law

DAY = datetime(2026, 8, 20, tzinfo=UTC)


def at(number: float) -> datetime:
    return DAY + timedelta(minutes=number)


# — every way in which a fact arrives —


@dataclass(frozen=True, slots=True)
class Arriving:
    """A fact and how it arrives. `reported` is when it was first received; an imported one arrives much later."""

    start: int | None
    end: int | None
    reported: int
    how: str
    guessed: bool = False
    reason: EndReason = EndReason.RECOVERED

    def delivery(self, source_id: int) -> Delivery:
        signal = Signal(
            fingerprint="f",
            status=Status.FIRING if self.end is None else Status.RESOLVED,
            started_at=None if self.start is None else at(self.start),
            ended_at=None if self.end is None else at(self.end),
            labels={"service": "checkout"},
            end_reason=None if self.end is None else self.reason,
            flags=("ends_unknown",) if self.guessed else (),
        )
        received_at = at(5000) if self.how == "imported" else at(self.reported) + timedelta(seconds=self.reported % 60)
        reading, imported = Reading((signal,)), self.how == "imported"
        return Delivery(
            source_id, "alertmanager", received_at, reading, was_spooled=self.how == "spooled", imported=imported
        )

    def fact(self) -> Fact:
        happened = self.start if self.end is None else self.end
        assert happened is not None
        return Fact(
            None if self.start is None else at(self.start),
            at(happened) if self.how == "imported" else at(self.reported),
            None if self.end is None else at(self.end),
            self.reason,
            self.guessed,
        )


how = st.sampled_from(["live", "spooled", "replayed", "imported"])
starts, ends, reports = st.sampled_from([0, 10, 30]), st.integers(-2, 45), st.integers(0, 90)
arriving = st.one_of(
    st.builds(Arriving, starts, st.none(), reports, how),
    st.builds(Arriving, starts, ends, reports, how, st.booleans()),
    st.builds(Arriving, st.none(), ends, reports, how),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Facts, and the batches in which they arrive."""

    facts: Sequence[Arriving]
    batches: Sequence[Sequence[Arriving]]
    refire_seconds: int


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    facts = draw(st.lists(arriving, min_size=1, max_size=8))
    again = [one for one in facts if one.how == "spooled"]  # the process died before it removed the segment
    waiting = draw(st.permutations([*facts, *again]))
    batches = []
    while waiting:
        size = draw(st.integers(1, len(waiting)))
        batches.append(waiting[:size])
        waiting = waiting[size:]
    return Arrival(facts, batches, draw(st.sampled_from([60, 300, 900])))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
async def test_facts_decide_by_when_they_were_first_received(engine: AsyncEngine, arrival: Arrival) -> None:
    await forget(engine)
    flusher, connection = a_flusher(engine), db.RawConnection(engine)
    async with db.session(engine) as session:
        source_id = (await ensure_source(session, "alertmanager", "alertmanager", now=DAY)).id
    await _apply(flusher, connection, [Arriving(0, None, 0, "live").delivery(source_id)])  # loads the settings
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE source SET refire_seconds = :seconds"), {"seconds": arrival.refire_seconds})
    spooled = {id(one): one.delivery(source_id) for one in arrival.facts}
    for batch in arrival.batches:
        deliveries = [spooled[id(one)] if one.how == "spooled" else one.delivery(source_id) for one in batch]
        for one, delivery in zip(batch, deliveries, strict=True):
            if one.how == "replayed":
                async with db.transaction(engine) as tx:
                    await flusher.apply(tx, delivery)
        together = [each for one, each in zip(batch, deliveries, strict=True) if one.how != "replayed"]
        await _apply(flusher, connection, list({each.id: each for each in together}.values()))
    await connection.close()
    every = [Fact(at(0), at(0)), *(one.fact() for one in arrival.facts)]
    assert await _stored(engine) == ended_by_law(every, timedelta(seconds=arrival.refire_seconds))
    await assert_lawful(engine)


async def _apply(flusher: Flusher, connection: db.RawConnection, deliveries: Sequence[Delivery]) -> None:
    for outcome in await flusher.flush(connection, deliveries):
        assert not isinstance(outcome, Exception), outcome


async def _stored(engine: AsyncEngine) -> dict[datetime, Ended]:
    async with engine.connect() as connection:
        return {
            row.started_at: Ended(
                row.ended_at,
                EndReason(row.end_reason) if row.end_reason else None,
                fired_after_end(row.fired_at, row.end_reported_at),
            )
            for row in await connection.execute(text("SELECT * FROM alert"))
        }


# — cases —

FIRING, RESOLVED = an_alert(), an_alert(ended="2026-08-20T10:20:00Z")


def clock(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-08-20T{text}:00+00:00")


async def settled(engine: AsyncEngine, now: datetime) -> int:
    async with db.transaction(engine) as tx:
        return await settle(tx, now=now, allowed_lateness=timedelta(0), weights=DEFAULT_IMPACT)


async def corrections(engine: AsyncEngine) -> float:
    async with engine.connect() as connection:
        query = "SELECT coalesce(sum(value), 0) FROM tally WHERE name = 'history_corrections'"
        return float((await connection.execute(text(query))).scalar_one())


@pytest.fixture
def flusher(engine: AsyncEngine) -> Flusher:
    return a_flusher(engine)


async def test_an_alert_that_expired_and_still_fires_has_not_recovered(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("10:21"), RESOLVED)
    assert await deliver(engine, flusher, clock("10:25"), FIRING) == {"repeated": 1}
    [doubtful] = await incidents(client)
    assert (doubtful["status"], doubtful["firing_after_resolve"]) == ("resolved", True)
    # A day without another report; the next one would have come after four hours.
    assert await settled(engine, clock("10:24") + timedelta(days=1)) == 0
    assert await deliver(engine, flusher, clock("14:25"), FIRING) == {"reopened": 1}
    [again] = await incidents(client)
    shown = ("number", "status", "resolved_at", "reopened", "firing_after_resolve", "settled")
    assert [again[name] for name in shown] == ["INC-1", "open", None, 0, False, False]
    assert again["measures"]["time_to_recover"]["status"] == "pending"
    await deliver(engine, flusher, clock("15:01"), an_alert(ended="2026-08-20T15:00:00Z"))
    [over] = await incidents(client)
    assert over["measures"]["time_to_recover"] == {"seconds": 5 * 3600, "status": "recorded", "reason": None}
    assert await settled(engine, clock("15:10")) == 1
    assert await corrections(engine) == 0


async def test_a_doubtful_end_that_nothing_contradicts_for_a_day_settles(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("10:21"), RESOLVED)
    await deliver(engine, flusher, clock("10:25"), FIRING)
    assert await settled(engine, clock("10:24") + timedelta(days=1)) == 0
    assert await settled(engine, clock("10:25") + timedelta(days=1)) == 1
    [incident] = await incidents(client)
    assert (incident["settled"], incident["resolved_at"]) == (True, "2026-08-20T10:20:00Z")


async def test_an_end_reported_again_is_no_longer_doubtful(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    """A slow peer reports the alert, and then its end too."""
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("10:21"), RESOLVED)
    await deliver(engine, flusher, clock("10:25"), FIRING)
    assert await deliver(engine, flusher, clock("10:26"), RESOLVED) == {"repeated": 1}
    [incident] = await incidents(client)
    assert (incident["status"], incident["firing_after_resolve"]) == ("resolved", False)
    assert await settled(engine, clock("11:00")) == 1


async def test_a_settled_incident_that_is_open_again_counts_as_a_correction(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("10:21"), RESOLVED)
    assert await settled(engine, clock("12:00")) == 1
    assert await deliver(engine, flusher, clock("14:01"), FIRING) == {"late": 1}
    [again] = await incidents(client)
    assert (again["status"], again["resolved_at"], again["settled"]) == ("open", None, False)
    assert again["measures"]["time_to_recover"]["status"] == "pending"
    assert await corrections(engine) == 1
    await deliver(engine, flusher, clock("15:01"), an_alert(ended="2026-08-20T15:00:00Z"))
    [over] = await incidents(client)
    assert over["measures"]["time_to_recover"]["seconds"] == 5 * 3600
    assert await settled(engine, clock("23:00")) == 0  # counted once


async def test_two_tenants_that_send_as_one_source_are_shown_in_its_health(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    """The resolve of one closes the alert of the other, which goes on."""
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("10:21"), RESOLVED)
    await deliver(engine, flusher, clock("10:25"), FIRING)
    health = (await client.get("/api/v1/sources/alertmanager/health")).json()
    assert (health["since_created"]["contradicted_ends"], health["reasons"]) == (0, [])
    await deliver(engine, flusher, clock("10:41"), FIRING, an_alert(instance="b"))
    await deliver(engine, flusher, clock("11:41"), FIRING)
    health = (await client.get("/api/v1/sources/alertmanager/health")).json()
    assert health["since_created"]["contradicted_ends"] == 1
    assert "contradicting_reports" in {reason["reason"] for reason in health["reasons"]}


async def test_a_guessed_end_and_one_that_names_no_start_can_be_void_too(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    del client
    unknown = an_alert(ended="2099-01-01T00:00:00Z", instance="b")  # replaced by the time of receipt
    await deliver(engine, flusher, clock("10:21"), unknown)
    await deliver(engine, flusher, clock("10:40"), an_alert(instance="b"))
    assert [ended_at for _, ended_at, _ in await alerts(engine)] == [None]


async def test_a_lost_resolve_is_censored_at_the_last_report(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await deliver(engine, flusher, clock("10:01"), FIRING)
    await deliver(engine, flusher, clock("12:01"), FIRING)
    tomorrow = an_alert("2026-08-21T15:00:00Z")
    await deliver(engine, flusher, clock("15:01") + timedelta(days=1), tomorrow)
    first, _ = await incidents(client)
    assert (first["resolved_at"], first["end_reason"]) == ("2026-08-20T12:01:00Z", "superseded")
    recover = first["measures"]["time_to_recover"]
    assert recover == {"seconds": None, "status": "not_applicable", "reason": "ended by superseded"}
    period = {"from": "2026-08-20T00:00:00Z", "to": "2026-08-21T00:00:00Z"}
    summary = (await client.get("/api/v1/metrics/summary", params=period)).json()
    found = summary["total"]["measures"]["time_to_recover"]
    assert (found["n"], found["censored"], found["excluded"]) == (0, 1, {})


async def test_a_resolve_before_its_start_is_invalid_until_another_end_is_reported(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    before = an_alert(ended="2026-08-20T09:59:00Z")
    assert await deliver(engine, flusher, clock("10:01"), before) == {"opened": 1}
    [incident] = await incidents(client)
    assert (incident["resolved_at"], incident["end_reason"]) == ("2026-08-20T10:00:00Z", "ends_before_start")
    statuses = {name: each["status"] for name, each in incident["measures"].items()}
    assert (statuses["time_to_recover"], statuses["time_to_acknowledge"]) == ("invalid", "invalid")
    assert await deliver(engine, flusher, clock("10:22"), RESOLVED) == {"resolved": 1}
    [incident] = await incidents(client)
    assert incident["measures"]["time_to_recover"] == {"seconds": 1200, "status": "recorded", "reason": None}


async def test_the_worst_severity_reported_for_a_start_counts(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    """The rule ignores the label that makes Alertmanager report two alerts."""
    rule: dict[str, Any] = {"position": 1, "matchers": [], "ignored_labels": ["severity"]}
    assert (await client.put("/api/v1/rules/all", json=rule)).status_code == 201
    for severity in ("warning", "critical", "warning"):
        await deliver(engine, flusher, clock("10:01"), an_alert(severity=severity))
    [incident] = await incidents(client)
    assert (incident["severity"], incident["alerts"]) == ("sev1", 1)


async def test_a_repeat_writes_at_most_once_a_minute(engine: AsyncEngine, flusher: Flusher) -> None:
    async def version() -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT xmin, fired_at FROM alert"))).one()

    await deliver(engine, flusher, clock("10:01"), FIRING)
    first = await version()
    await deliver(engine, flusher, clock("10:01") + timedelta(seconds=59), FIRING)
    assert await version() == first
    await deliver(engine, flusher, clock("10:02") + timedelta(seconds=1), FIRING)
    assert (await version()).fired_at == clock("10:02") == minute(clock("10:02") + timedelta(seconds=1))


@pytest.mark.parametrize(("seconds", "status"), [(59, 422), (60, 200), (86_400, 200), (86_401, 422)])
async def test_refire_seconds_is_a_minute_to_a_day(client: httpx.AsyncClient, seconds: int, status: int) -> None:
    body = {"kind": "alertmanager", "refire_seconds": seconds}
    answer = await client.put("/api/v1/sources/alertmanager", json=body)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["refire_seconds"] == seconds
