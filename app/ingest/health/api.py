"""The feed over HTTP: whether what a source should tell arrives."""

from datetime import timedelta
from typing import Annotated

import httpx
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field, SecretStr, StringConstraints

from app.base.errors import Conflict, Invalid
from app.base.http.auth import Admin, Reader, Writer
from app.base.http.context import Now, Tx
from app.base.http.fields import At, Contract, Name, Words
from app.base.http.problems import problem_responses
from app.base.tokens import source_by_name
from app.incidents.grouping.signal import Verdict
from app.ingest.health import heartbeat, store
from app.ingest.health import judgment as health
from app.ingest.health.heartbeat import Heartbeat
from app.ingest.health.judgment import Counts, Lag, SourceStatus
from app.ingest.health.reconcile import Settings
from app.ingest.health.watch import tell
from app.ingest.service import ingest_of

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


class PeerModel(BaseModel):
    """What a peer said when it was asked last."""

    url: str
    polled_at: At
    answered_at: At | None
    error: str | None = Field(description="Why it did not answer the last time")
    version: str | None
    cluster: str | None = Field(description="`ready`, `settling`, or `disabled` for a peer alone")
    up_since: At | None
    alerts: int | None
    suppressed: int | None = Field(description="Alerts that are silenced or inhibited: there, but not told of")
    silences: int | None = Field(description="Silences that are active")


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
    peers: list[PeerModel] = Field(description="Those that are asked for their list; none unless it is reconciled")
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
        peers=[PeerModel.model_validate(peer, from_attributes=True) for peer in known.peers],
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
        await tell(tx, ingest_of(request).flusher, beat, heartbeat.forgotten(beat, now=now), now=now)
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


# — reconciling —


# An address is shown, so it has no place for what is secret: credentials are stated apart.
_PEER_ADDRESS = r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$"


def _askable(url: str) -> str:
    """Read as it will be when it is asked."""
    try:
        port = httpx.URL(url).port
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if port is not None and not 0 < port < 2**16:
        message = "there is no such port"
        raise ValueError(message)
    return url.rstrip("/")


PeerAddress = Annotated[str, StringConstraints(max_length=500, pattern=_PEER_ADDRESS), AfterValidator(_askable)]


def _sendable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        message = "must be printable ASCII"
        raise ValueError(message)
    return secret


class ReconcilerModel(BaseModel):
    peers: list[str]
    poll_seconds: int
    absences: int
    grace_seconds: int
    receiver: str | None
    username: str | None
    authenticated: bool = Field(description="Whether a secret is sent")


class ReconcilerSettings(Contract):
    peers: list[PeerAddress] = Field(
        min_length=1,
        max_length=10,
        description="Where each peer's API is, as in Prometheus' configuration of its Alertmanagers: all of them, "
        "because peers do not share alerts",
        examples=[["http://alertmanager-0:9093", "http://alertmanager-1:9093"]],
    )
    poll_seconds: int = Field(60, ge=5, le=3600, description="How often they are asked")
    absences: int = Field(
        3,
        ge=2,
        le=100,
        description="So many polls must have missed an alert since it was told of or listed; then it has ended there",
    )
    grace_seconds: int = Field(
        600,
        ge=0,
        le=86_400,
        description="A peer that has not run for so long does not know yet what fires, and an alert that has not fired "
        "for so long may yet be delivered. Longer than the group_interval",
    )
    receiver: Words | None = Field(
        "aftermath",
        max_length=500,
        description="The receiver in alertmanager.yml that delivers here: only its alerts are opened; null: all are",
    )
    username: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -9;-~]+$")] | None = Field(
        None, description="For basic auth, with `secret` as the password"
    )
    secret: Annotated[SecretStr, AfterValidator(_sendable)] | None = Field(
        None, max_length=2000, description="A password, or without `username` a bearer token; write-only"
    )


@router.put(
    "/{name}/reconciler",
    responses=problem_responses(404),
    summary="Reconcile a source with its Alertmanager",
)
async def put_reconciler(_: Admin, tx: Tx, name: Name, stated: ReconcilerSettings) -> ReconcilerModel:
    """Asks the Alertmanager itself what is firing: ends what has gone without a word, such as what was silenced, and
    opens what was never delivered. What is left out takes its usual value, whatever was stated before.
    """
    source = await source_by_name(tx, name)
    if source.kind != "alertmanager":
        message = f"only an Alertmanager can be asked; this source is of kind {source.kind!r}"
        raise Invalid(message)
    await store.put_reconciler(
        tx,
        store.Reconciler(
            source_id=source.id,
            source=source.name,
            peers=list(dict.fromkeys(stated.peers)),
            poll=timedelta(seconds=stated.poll_seconds),
            settings=Settings(
                absences=stated.absences,
                grace=timedelta(seconds=stated.grace_seconds),
                receiver=stated.receiver,
            ),
            username=stated.username,
            secret=stated.secret.get_secret_value() if stated.secret else None,
        ),
    )
    return _reconciler(await store.reconciler_of(tx, source))


@router.get("/{name}/reconciler", responses=problem_responses(404), summary="Show how a source is reconciled")
async def get_reconciler(_: Reader, tx: Tx, name: Name) -> ReconcilerModel:
    """Where its Alertmanagers are asked; what they said is in its health."""
    return _reconciler(await store.reconciler_of(tx, await source_by_name(tx, name)))


@router.delete(
    "/{name}/reconciler", status_code=204, responses=problem_responses(404), summary="Reconcile a source no longer"
)
async def delete_reconciler(_: Admin, tx: Tx, name: Name) -> None:
    """Its Alertmanagers are asked no more. What was found out stays."""
    await store.delete_reconciler(tx, await source_by_name(tx, name))


def _reconciler(one: store.Reconciler) -> ReconcilerModel:
    return ReconcilerModel(
        peers=list(one.peers),
        poll_seconds=int(one.poll.total_seconds()),
        absences=one.settings.absences,
        grace_seconds=int(one.settings.grace.total_seconds()),
        receiver=one.settings.receiver,
        username=one.username,
        authenticated=one.secret is not None,
    )
