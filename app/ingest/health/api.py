"""HTTP API of source health (is a source delivering everything it should?) and of reconcilers."""

import asyncio
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field, SecretStr, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import source_by_name
from app.base.errors import Invalid
from app.base.http.access.auth import Admin, Reader, Writer
from app.base.http.context import Now, OutgoingDep, Session, SettingsDep
from app.base.http.requests.fields import AtShown, Input, Name, Secret, Words
from app.base.http.responses.problems import problem_responses
from app.base.outgoing import OutgoingClient, parse
from app.base.schema import Reconciler, Source
from app.base.values.facts import ReactionKind
from app.incidents.grouping.signal import Verdict
from app.ingest.health import heartbeat, judgment, store, wording
from app.ingest.health.heartbeat import BeatSeries
from app.ingest.health.judgment import SourceStatus
from app.ingest.health.reconcile import store as reconcilers
from app.ingest.health.watch import apply
from app.ingest.health.wording import Target
from app.ingest.service import ingest_of

HEARTBEATS_AT_MOST = 500

router = APIRouter(prefix="/api/v1/sources", tags=["sources"])


class HealthReason(BaseModel):
    reason: str = Field(description="Stable identifier", examples=["truncated"])
    status: SourceStatus = Field(description="The status of the source if this were its only problem")
    since: AtShown | None = Field(description="The last time at which all was well, if it is known")
    detail: str = Field(description="The observation")
    remedy: str = Field(description="The recommended action")


class LagModel(BaseModel):
    """Time from the start or end of an alert to its arrival, including grouping by the sender, without repeats."""

    signals: int
    mean_seconds: float | None
    median_at_most_seconds: float | None = Field(
        description="Upper bound of the median's histogram bucket. Null: no signals, or more than an hour"
    )
    p95_at_most_seconds: float | None


class SourceCounts(BaseModel):
    """Counts of what was received in a span of time that ends now."""

    seconds: float = Field(description="Exact length of the span; samples are taken every five minutes")
    deliveries: int
    deliveries_per_minute: float
    signals: int
    signals_per_minute: float
    repeated: int = Field(description="Signals without new information")
    verdicts: dict[Verdict, int]
    quarantined: dict[str, int] = Field(description="Items that could not be read or applied, by reason")
    quarantine_refused: int = Field(description="Items that did not fit into quarantine and were refused with 503")
    truncated_deliveries: int = Field(description="Deliveries from which the sender omitted alerts")
    truncated_alerts: int = Field(description="Number of omitted alerts")
    resolved_without_firing: int = Field(
        description="Alerts first reported as resolved. A few are normal, for example short alerts"
    )
    severities_unrecognized: dict[str, int] = Field(
        description="Signals whose severity is not known, by the word they use (in lower case; at most 20 words are "
        "counted separately). Add such a word to `severities` of the rule"
    )
    contradictions: dict[str, int] = Field(
        description="Signals that contradict what another sender of this source reported about the same alert, by the "
        "addresses of both"
    )
    contradicted_ends: int = Field(
        description="Ends of alerts that later reports contradicted: the alert was still reported as firing"
    )
    lag: LagModel


class OpenAlerts(BaseModel):
    count: int
    oldest_started_at: AtShown | None
    unrefreshed: int = Field(description="Alerts not resent for a day; their resolve may have been lost")


class HeartbeatModel(BaseModel):
    fingerprint: str
    labels: dict[str, str]
    rule: str = Field(description="The rule that defines it as a heartbeat")
    heartbeat_seconds: int | None = Field(description="Allowed silence according to the current rule")
    first_at: AtShown
    last_at: AtShown
    missing_since: AtShown | None = Field(description="Time by which the missing heartbeat was due; null: not missing")


class PeerModel(BaseModel):
    """The response of a peer to the last poll."""

    url: str
    polled_at: AtShown
    answered_at: AtShown | None
    error: str | None = Field(description="The reason why the last poll failed")
    version: str | None
    cluster: str | None = Field(description="`ready`, `settling`, or `disabled` if there is only one peer")
    up_since: AtShown | None
    alerts: int | None
    suppressed: int | None = Field(description="Silenced or inhibited alerts, which are listed but not sent")
    silences: int | None = Field(description="Active silences")


class LastReaction(BaseModel):
    kind: ReactionKind
    at: AtShown
    by: str | None = Field(description="Null: the source does not report it")


class ReactionsModel(BaseModel):
    """What it reported in the last 7 days about people in other tools, such as acknowledgements."""

    waiting: int = Field(description="How many have no incident yet, because no alert of theirs is known")
    last: LastReaction | None = Field(description="The latest by event time; null: none")


class HealthModel(BaseModel):
    source: str
    kind: str
    status: SourceStatus = Field(
        description="`healthy`; `degraded`: data is lost or questionable; `failing`: expected data is missing; "
        "`never_seen`: nothing received yet"
    )
    reasons: list[HealthReason] = Field(description="Worst first; empty if healthy. Based on the last day")
    last_delivery_at: AtShown | None
    open_alerts: OpenAlerts
    heartbeats: list[HeartbeatModel] = Field(description="Longest silence first; at most 500")
    heartbeats_left_out: int
    reactions: ReactionsModel
    peers: list[PeerModel] = Field(description="The polled Alertmanagers; empty unless the source is reconciled")
    quarantine_waiting: dict[str, int] = Field(description="Items waiting to be replayed, by reason")
    quarantine_bytes: int = Field(description="Size of everything in quarantine, replayed or not")
    quarantine_bytes_at_most: int = Field(
        description="When it is exceeded, deliveries that cannot be read completely are refused with 503"
    )
    last_hour: SourceCounts | None = Field(description="Null until the source has been observed for that long")
    last_day: SourceCounts | None
    since_created: SourceCounts


@router.get(
    "/{name}/health",
    responses=problem_responses(404),
    summary="Get the health of a source",
)
async def get_source_health(_: Reader, session: Session, now: Now, settings: SettingsDep, name: Name) -> HealthModel:
    """Reports whether the source is delivering everything it should, and if not, what to do. Silence does not count as
    healthy: without a heartbeat, a quiet source looks the same as a dead one.
    """
    source = await source_by_name(session, name)
    reading = await store.read(session, source, now=now, quarantine_quota=settings.quarantine_bytes)
    observed = reading.observed
    status, reasons = judgment.judge(observed)
    return HealthModel(
        source=source.name,
        kind=source.kind,
        status=status,
        reasons=[_reason(reason, source) for reason in reasons],
        last_delivery_at=observed.last_delivery_at,
        open_alerts=OpenAlerts(
            count=observed.open_alerts,
            oldest_started_at=reading.oldest_open_at,
            unrefreshed=observed.unrefreshed,
        ),
        heartbeats=[_heartbeat(beats) for beats in reading.heartbeats[:HEARTBEATS_AT_MOST]],
        heartbeats_left_out=max(0, len(reading.heartbeats) - HEARTBEATS_AT_MOST),
        reactions=_reactions(observed.reactions),
        peers=[PeerModel.model_validate(peer, from_attributes=True) for peer in reading.peers],
        quarantine_waiting=dict(observed.quarantined),
        quarantine_bytes=observed.quarantine_bytes,
        quarantine_bytes_at_most=observed.quarantine_quota,
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
    """Use this for a heartbeat that was removed for good, such as that of a Prometheus that was shut down. If it is
    missing, its alert ends now, which does not count as a recovery. If it arrives again, it is expected again.
    """
    source = await source_by_name(session, name)
    beats = await store.heartbeat_of(session, source, fingerprint)
    await apply(session, ingest_of(request).flusher, beats, heartbeat.forget(beats, now=now), now=now)


def _reason(reason: judgment.Reason, source: Source) -> HealthReason:
    path = f"/api/v1/sources/{quote(source.name, safe='')}"
    fingerprint = quote(str(reason.facts.get("fingerprint", "")), safe="")
    of_source = urlencode({"source": source.name})
    links = {
        Target.QUARANTINE: f"GET /api/v1/quarantine?{of_source}",
        Target.QUARANTINE_DELETE: f"DELETE /api/v1/quarantine?{of_source}",
        Target.RULES: "GET /api/v1/rules",
        Target.OPEN_INCIDENTS: f"GET /api/v1/incidents?{of_source}",
        Target.HEARTBEAT: f"DELETE {path}/heartbeats/{fingerprint}",
    }
    remedy = (links[part] if isinstance(part, Target) else part for part in wording.remedy(reason))
    return HealthReason(
        reason=reason.reason,
        status=reason.status,
        since=reason.since,
        detail=wording.observation(reason, lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC"),
        remedy="".join(remedy),
    )


def _reactions(found: judgment.Reactions) -> ReactionsModel:
    last = None
    if found.last_kind is not None and found.last_at is not None:
        last = LastReaction(kind=ReactionKind(found.last_kind), at=found.last_at, by=found.last_by)
    return ReactionsModel(waiting=found.waiting, last=last)


def _heartbeat(beats: BeatSeries) -> HeartbeatModel:
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


# Addresses are visible to readers, so they must not contain secrets: credentials have separate fields.
_PEER_ADDRESS = r"^https?://[^/?#]+(/[A-Za-z0-9._~%/-]*)?$"


def _usable(url: str) -> str:
    return parse(url).url.rstrip("/")


PeerAddress = Annotated[str, StringConstraints(max_length=500, pattern=_PEER_ADDRESS), AfterValidator(_usable)]


def _sendable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()):  # as in a header
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
    authenticated: bool = Field(description="Whether credentials are sent")


class ReconcilerSettings(Input):
    peers: list[PeerAddress] = Field(
        min_length=1,
        max_length=10,
        description="API addresses of all peers, as configured in Prometheus; peers do not share alerts",
        examples=[["http://alertmanager-0:9093", "http://alertmanager-1:9093"]],
    )
    poll_seconds: int = Field(60, ge=5, le=3600, description="Interval between polls")
    absences: int = Field(
        3,
        ge=2,
        le=100,
        description="Number of consecutive polls that must omit an alert before it is considered ended",
    )
    grace_seconds: int = Field(
        600,
        ge=0,
        le=86_400,
        description="Peers with a shorter uptime are ignored, and alerts younger than this are not opened. Must be "
        "longer than the group_interval",
    )
    receiver: Words | None = Field(
        "aftermath",
        min_length=1,
        max_length=500,
        description="Receiver in alertmanager.yml that sends to Aftermath; only its alerts are opened. Null: all",
    )
    username: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -9;-~]+$")] | None = Field(
        None, description="For basic auth, with `secret` as the password"
    )
    secret: Annotated[Secret, AfterValidator(_sendable)] | None = Field(
        None, max_length=2000, description="Password or, without `username`, bearer token; write-only"
    )


@router.put(
    "/{name}/reconciler",
    responses=problem_responses(404),
    summary="Reconcile a source with its Alertmanager",
)
async def put_reconciler(
    _: Admin, session: Session, outgoing: OutgoingDep, name: Name, body: ReconcilerSettings
) -> ReconcilerModel:
    """Polls the Alertmanager for firing alerts. Alerts that it no longer lists are ended, for example alerts resolved
    while silenced; alerts that were never delivered are opened. Omitted fields are reset to their defaults. An
    address that is not public must be permitted by the setting AFTERMATH_OUTBOUND_ALLOW.
    """
    await require_permitted(outgoing, body)
    return _reconciler(await reconcile(session, name, body))


async def require_permitted(outgoing: OutgoingClient, body: ReconcilerSettings) -> None:
    """Raises an error for a peer that the service may not call. Asks name servers, so call it before a transaction."""
    await asyncio.gather(*(outgoing.check(peer) for peer in body.peers))


async def reconcile(session: AsyncSession, name: str, body: ReconcilerSettings) -> Reconciler:
    """Raises SourceNotFound, and Invalid for a source of another kind."""
    source = await source_by_name(session, name)
    if source.kind != "alertmanager":
        message = f"only sources of kind 'alertmanager' can be reconciled; this source has kind {source.kind!r}"
        raise Invalid(message)
    reconciler = Reconciler(
        **body.model_dump(exclude={"peers", "secret"}),
        source_id=source.id,
        peers=list(dict.fromkeys(body.peers)),
        secret=None if body.secret is None else body.secret.get_secret_value(),
        counted_at=[],
    )
    await reconcilers.put(session, reconciler)
    return reconciler


@router.get("/{name}/reconciler", responses=problem_responses(404), summary="Get the reconciler of a source")
async def get_reconciler(_: Reader, session: Session, name: Name) -> ReconcilerModel:
    """Returns its settings. The responses of the peers are part of the health of the source."""
    source = await source_by_name(session, name)
    return _reconciler(await reconcilers.get(session, source))


@router.delete(
    "/{name}/reconciler", status_code=204, responses=problem_responses(404), summary="Stop reconciling a source"
)
async def delete_reconciler(_: Admin, session: Session, name: Name) -> None:
    """Stops polling its Alertmanagers. Alerts that polls have ended or opened do not change."""
    await reconcilers.remove(session, await source_by_name(session, name))


def _reconciler(row: Reconciler) -> ReconcilerModel:
    return ReconcilerModel(**row.model_dump(include=_SHOWN), authenticated=row.secret is not None)


_SHOWN = {"peers", "poll_seconds", "absences", "grace_seconds", "receiver", "username"}
