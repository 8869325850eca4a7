"""Source health over HTTP: is a source delivering everything it should? And the reconcilers of sources."""

from typing import Annotated

import httpx
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field, SecretStr, StringConstraints

from app.base.errors import Invalid
from app.base.http.auth import Admin, Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, Name, Words
from app.base.http.problems import problem_responses
from app.base.schema import Reconciler
from app.base.tokens import source_by_name
from app.incidents.grouping.signal import Verdict
from app.ingest.health import heartbeat, judgment, store
from app.ingest.health.heartbeat import Beats
from app.ingest.health.judgment import SourceStatus
from app.ingest.health.reconcile import store as reconcilers
from app.ingest.health.watch import apply
from app.ingest.service import ingest_of

router = APIRouter(prefix="/api/v1/sources", tags=["sources"])


class HealthReason(BaseModel):
    reason: str = Field(description="A stable word", examples=["truncated"])
    status: SourceStatus = Field(description="The status that this problem alone gives the source")
    detail: str = Field(description="What was observed")
    remedy: str = Field(description="What to do about it")


class LagModel(BaseModel):
    """Time from the start or end of an alert to its arrival, grouping by the sender included. Repeats do not count."""

    signals: int
    mean_seconds: float | None
    median_at_most_seconds: float | None = Field(
        description="Upper bound of the histogram bucket that holds the median. Null: no signals, or beyond an hour"
    )
    p95_at_most_seconds: float | None


class SourceCounts(BaseModel):
    """What was received within a span of time that ends now."""

    seconds: float = Field(description="The exact length of the span: samples are taken every five minutes")
    deliveries: int
    deliveries_per_minute: float
    signals: int
    signals_per_minute: float
    repeated: int = Field(description="Signals that repeated what was known")
    verdicts: dict[Verdict, int]
    quarantined: dict[str, int] = Field(description="Items that could not be read or applied, by reason")
    truncated_deliveries: int = Field(description="Deliveries whose sender states that it left alerts out")
    truncated_alerts: int = Field(description="How many alerts it left out")
    resolved_without_firing: int = Field(
        description="Alerts whose first report was their resolve. A few are normal: short alerts"
    )
    lag: LagModel


class OpenAlerts(BaseModel):
    count: int
    oldest_started_at: At | None
    unrefreshed: int = Field(description="Those not resent for a day: their resolve may have been lost")


class HeartbeatModel(BaseModel):
    fingerprint: str
    labels: dict[str, str]
    rule: str = Field(description="The rule that makes it a heartbeat")
    heartbeat_seconds: int | None = Field(description="How long it may be silent, by the present rule")
    first_at: At
    last_at: At
    missing_since: At | None = Field(description="When the missing beat was due. Null: it is not missing")


class PeerModel(BaseModel):
    """What a peer answered when it was last polled."""

    url: str
    polled_at: At
    answered_at: At | None
    error: str | None = Field(description="Why it did not answer the last poll")
    version: str | None
    cluster: str | None = Field(description="`ready`, `settling`, or `disabled` for a single peer")
    up_since: At | None
    alerts: int | None
    suppressed: int | None = Field(description="Alerts that are silenced or inhibited: listed, but not sent")
    silences: int | None = Field(description="Active silences")


class HealthModel(BaseModel):
    source: str
    kind: str
    status: SourceStatus = Field(
        description="`healthy`; `degraded`: something is lost or doubtful; `failing`: expected data is missing; "
        "`never_seen`: nothing received yet"
    )
    reasons: list[HealthReason] = Field(description="Worst first; empty if healthy. Judged by the last day")
    last_delivery_at: At | None
    open_alerts: OpenAlerts
    heartbeats: list[HeartbeatModel] = Field(description="The longest silent first")
    peers: list[PeerModel] = Field(description="The Alertmanagers that are polled; none unless it is reconciled")
    quarantine_waiting: dict[str, int] = Field(description="Items that wait to be replayed, by reason")
    last_hour: SourceCounts | None = Field(description="Null until there are samples that old")
    last_day: SourceCounts | None
    since_created: SourceCounts


@router.get(
    "/{name}/health",
    responses=problem_responses(404),
    summary="Get the health of a source",
)
async def source_health(_: Reader, session: Session, now: Now, name: Name) -> HealthModel:
    """Whether the source is delivering everything it should, and if not, what to do. Silence does not count as health:
    without a heartbeat a quiet source looks the same as a dead one.
    """
    source = await source_by_name(session, name)
    reading = await store.read(session, source, now=now)
    observed = reading.observed
    status, reasons = judgment.judge(observed)
    return HealthModel(
        source=source.name,
        kind=source.kind,
        status=status,
        reasons=[HealthReason.model_validate(reason, from_attributes=True) for reason in reasons],
        last_delivery_at=observed.last_delivery_at,
        open_alerts=OpenAlerts(
            count=observed.open_alerts,
            oldest_started_at=reading.oldest_open_at,
            unrefreshed=observed.unrefreshed,
        ),
        heartbeats=[_heartbeat(beats) for beats in reading.heartbeats],
        peers=[PeerModel.model_validate(peer, from_attributes=True) for peer in reading.peers],
        quarantine_waiting=dict(observed.quarantined),
        last_hour=_counts(reading.last_hour),
        last_day=_counts(reading.last_day),
        since_created=SourceCounts.model_validate(reading.since_created, from_attributes=True),
    )


@router.delete(
    "/{name}/heartbeats/{fingerprint}",
    status_code=204,
    responses=problem_responses(404, 409),
    summary="Stop expecting a heartbeat",
)
async def forget_heartbeat(
    request: Request, _: Writer, session: Session, now: Now, name: Name, fingerprint: Name
) -> None:
    """For a heartbeat that is gone for good, such as that of a Prometheus that was shut down. If it is missing, its
    alert ends now, which is no recovery. If it arrives again, it is expected again.
    """
    source = await source_by_name(session, name)
    beats = await store.heartbeat_of(session, source, fingerprint)
    await apply(session, ingest_of(request).flusher, beats, heartbeat.forget(beats, now=now), now=now)


def _heartbeat(beats: Beats) -> HeartbeatModel:
    return HeartbeatModel(
        fingerprint=beats.fingerprint,
        labels=dict(beats.labels),
        rule=beats.rule,
        heartbeat_seconds=None if beats.timeout is None else int(beats.timeout.total_seconds()),
        first_at=beats.first_at,
        last_at=beats.last_at,
        missing_since=None if beats.returned_at else beats.missing_since,
    )


def _counts(counted: judgment.Counts | None) -> SourceCounts | None:
    return None if counted is None else SourceCounts.model_validate(counted, from_attributes=True)


# — reconciling —


# An address is shown to readers, so it must not hold secrets: credentials have fields of their own.
_PEER_ADDRESS = r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$"


def _usable(url: str) -> str:
    """Parsed as the client will parse it."""
    try:
        port = httpx.URL(url).port
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if port is not None and not 0 < port < 2**16:
        message = "there is no such port"
        raise ValueError(message)
    return url.rstrip("/")


PeerAddress = Annotated[str, StringConstraints(max_length=500, pattern=_PEER_ADDRESS), AfterValidator(_usable)]


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
        description="Addresses of the API of each peer, as in the configuration of Prometheus. List all of them: peers "
        "do not share alerts",
        examples=[["http://alertmanager-0:9093", "http://alertmanager-1:9093"]],
    )
    poll_seconds: int = Field(60, ge=5, le=3600, description="Interval between polls")
    absences: int = Field(
        3,
        ge=2,
        le=100,
        description="Consecutive polls that must omit an alert before it is considered ended",
    )
    grace_seconds: int = Field(
        600,
        ge=0,
        le=86_400,
        description="Ignore peers with a shorter uptime, and do not open alerts younger than this. Longer than the "
        "group_interval",
    )
    receiver: Words | None = Field(
        "aftermath",
        max_length=500,
        description="The receiver in alertmanager.yml that sends to Aftermath. Only its alerts are opened; null: all "
        "alerts",
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
async def put_reconciler(_: Admin, session: Session, name: Name, stated: ReconcilerSettings) -> ReconcilerModel:
    """Polls the Alertmanager for the alerts that are firing. Alerts that it no longer lists are ended, for example
    those that were resolved while silenced; alerts that were never delivered are opened. A field that is left out takes
    its default, whatever its value was before.
    """
    source = await source_by_name(session, name)
    if source.kind != "alertmanager":
        message = f"only sources of kind 'alertmanager' can be reconciled; this one is of kind {source.kind!r}"
        raise Invalid(message)
    reconciler = Reconciler(
        **stated.model_dump(exclude={"peers", "secret"}),
        source_id=source.id,
        peers=list(dict.fromkeys(stated.peers)),
        secret=stated.secret.get_secret_value() if stated.secret else None,
        counted_at=[],
    )
    await reconcilers.put(session, reconciler)
    return _reconciler(reconciler)


@router.get("/{name}/reconciler", responses=problem_responses(404), summary="Get the reconciler of a source")
async def get_reconciler(_: Reader, session: Session, name: Name) -> ReconcilerModel:
    """Its settings. What the peers answered is in the health of the source."""
    source = await source_by_name(session, name)
    return _reconciler(await reconcilers.get(session, source))


@router.delete(
    "/{name}/reconciler", status_code=204, responses=problem_responses(404), summary="Stop reconciling a source"
)
async def delete_reconciler(_: Admin, session: Session, name: Name) -> None:
    """Its Alertmanagers are polled no longer. Alerts that were ended or opened by polls stay as they are."""
    await reconcilers.remove(session, await source_by_name(session, name))


def _reconciler(row: Reconciler) -> ReconcilerModel:
    return ReconcilerModel(**row.model_dump(include=_SHOWN), authenticated=row.secret is not None)


_SHOWN = {"peers", "poll_seconds", "absences", "grace_seconds", "receiver", "username"}
