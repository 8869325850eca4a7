"""The feed over HTTP: whether what a source should tell arrives."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.access import source_by_name
from app.errors import Conflict
from app.feed import health, heartbeat, store
from app.feed.health import Counts, Lag, SourceStatus
from app.feed.heartbeat import Heartbeat
from app.feed.watch import tell
from app.incidents.signal import Verdict
from app.web import At, Name, Now, Reader, Tx, Writer, problem_responses
from app.webhooks.door import intake_of

router = APIRouter(prefix="/api/v1/sources", tags=["sources"])


class HealthReason(BaseModel):
    reason: str = Field(description="A stable word", examples=["truncated"])
    status: SourceStatus = Field(description="What it makes of the source")
    detail: str = Field(description="What was seen")
    remedy: str = Field(description="What to do about it")


class LagModel(BaseModel):
    """From the start or end of an alert to its arrival, of signals that told news; the sender's grouping is in it."""

    signals: int
    mean_seconds: float | None
    median_at_most_seconds: float | None = Field(
        description="The bound of the histogram under which half are; null: there are none, or it is beyond an hour"
    )
    p95_at_most_seconds: float | None


class FeedCounts(BaseModel):
    """What came in a stretch of time that ends now."""

    seconds: float = Field(description="How long the stretch really is: samples are taken every five minutes")
    deliveries: int
    deliveries_per_minute: float
    signals: int
    signals_per_minute: float
    repeated: int = Field(description="Signals that told again what was known")
    verdicts: dict[Verdict, int]
    quarantined: dict[str, int] = Field(description="What could not be read or applied, by reason")
    truncated_deliveries: int = Field(description="Deliveries whose sender says that it left alerts out")
    truncated_alerts: int = Field(description="How many it says it left out")
    resolved_without_firing: int = Field(
        description="Alerts that were first told of by their resolve; some are normal, for short alerts"
    )
    lag: LagModel


class OpenAlerts(BaseModel):
    count: int
    oldest_started_at: At | None
    unrefreshed: int = Field(description="Of these, the ones not told of for a day: their resolve may have been lost")


class HeartbeatModel(BaseModel):
    fingerprint: str
    labels: dict[str, str]
    rule: str = Field(description="The rule that takes it for a heartbeat")
    heartbeat_seconds: int | None = Field(description="How long it may be silent, as the rule says now")
    first_at: At
    last_at: At
    missing_since: At | None = Field(description="When the beat was due that has not come; null: it is there")


class HealthModel(BaseModel):
    source: str
    kind: str
    status: SourceStatus = Field(
        description="`healthy`; `degraded`: something is lost or doubtful; `failing`: it does not tell what it should; "
        "`unheard`: nothing has ever come"
    )
    reasons: list[HealthReason] = Field(description="Worst first; empty if healthy. Judged by the last day")
    last_delivery_at: At | None
    open_alerts: OpenAlerts
    heartbeats: list[HeartbeatModel] = Field(description="The one that has been silent longest first")
    quarantine_waiting: dict[str, int] = Field(description="What waits to be replayed, by reason")
    last_hour: FeedCounts | None = Field(description="Null: there are no samples that old yet")
    last_day: FeedCounts | None
    since_created: FeedCounts


@router.get(
    "/{name}/health",
    responses=problem_responses(404),
    summary="Tell how a source is doing",
)
async def source_health(_: Reader, tx: Tx, now: Now, name: Name) -> HealthModel:
    """Whether what the source should tell arrives, and what to do if not. No silence is taken for health: without a
    heartbeat nobody can tell a quiet source from a dead one.
    """
    source = await source_by_name(tx, name)
    known = await store.known(tx, source, now=now)
    status, reasons = health.judge(known.seen)
    stretches = {
        length: _counts(health.counts(known.now, then, seconds=seconds))
        for length, (seconds, then) in known.samples.items()
    }
    return HealthModel(
        source=source.name,
        kind=source.kind,
        status=status,
        reasons=[
            HealthReason(reason=one.reason, status=one.status, detail=one.detail, remedy=one.remedy) for one in reasons
        ],
        last_delivery_at=known.seen.last_delivery_at,
        open_alerts=OpenAlerts(
            count=known.seen.open_alerts,
            oldest_started_at=known.oldest_open_at,
            unrefreshed=known.seen.unrefreshed,
        ),
        heartbeats=[_heartbeat(beat) for beat in known.heartbeats],
        quarantine_waiting=dict(known.seen.waiting),
        last_hour=stretches.get(store.HOUR),
        last_day=stretches.get(store.DAY),
        since_created=_counts(health.counts(known.now, {}, seconds=(now - source.created_at).total_seconds())),
    )


@router.delete(
    "/{name}/heartbeats/{fingerprint}",
    status_code=204,
    responses=problem_responses(404, 409),
    summary="Wait no longer for a heartbeat",
)
async def forget_heartbeat(request: Request, _: Writer, tx: Tx, now: Now, name: Name, fingerprint: Name) -> None:
    """For one that is gone for good: a Prometheus that was taken down. If it is missing, that ends now, which is no
    recovery. Should it come again, it is waited for again.
    """
    beat = await store.heartbeat_of(tx, await source_by_name(tx, name), fingerprint)
    try:
        await tell(tx, intake_of(request), beat, heartbeat.forgotten(beat, now=now), now=now)
    except store.Changed:
        message = "it has just come, or has just been declared missing; look at it and decide again"
        raise HeartbeatChanged(message) from None


class HeartbeatChanged(Conflict):
    title = "The heartbeat has changed meanwhile"


def _heartbeat(beat: Heartbeat) -> HeartbeatModel:
    return HeartbeatModel(
        fingerprint=beat.fingerprint,
        labels=dict(beat.labels),
        rule=beat.rule,
        heartbeat_seconds=None if beat.timeout is None else int(beat.timeout.total_seconds()),
        first_at=beat.first_at,
        last_at=beat.last_at,
        missing_since=None if beat.returned_at else beat.missing_since,
    )


def _counts(counted: Counts) -> FeedCounts:
    minutes = max(counted.seconds, 1.0) / 60
    return FeedCounts(
        seconds=counted.seconds,
        deliveries=counted.deliveries,
        deliveries_per_minute=counted.deliveries / minutes,
        signals=counted.signals,
        signals_per_minute=counted.signals / minutes,
        repeated=counted.verdicts.get(Verdict.REPEATED, 0),
        verdicts={Verdict(verdict): number for verdict, number in counted.verdicts.items()},
        quarantined=dict(counted.quarantined),
        truncated_deliveries=counted.truncated_deliveries,
        truncated_alerts=counted.truncated_alerts,
        resolved_without_firing=counted.resolved_without_firing,
        lag=_lag(counted.lag),
    )


def _lag(lag: Lag) -> LagModel:
    return LagModel(
        signals=lag.signals,
        mean_seconds=lag.mean_seconds,
        median_at_most_seconds=lag.median_at_most_seconds,
        p95_at_most_seconds=lag.p95_at_most_seconds,
    )
