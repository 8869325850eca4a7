"""SQL for deliveries, heartbeats, sources and the counts of ingest."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.access.tokens import SourceOfOtherKind, source_by_name
from app.base.db import Transaction
from app.base.errors import Conflict
from app.base.schema import Source, SourceSample, Token
from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.decide import series_of
from app.incidents.grouping.law.episode import REFIRE
from app.incidents.grouping.signal import Verdict
from app.incidents.grouping.write import Count, StatementPart
from app.incidents.measures.measures import INGEST_LAG_BOUNDS
from app.ingest.sender import KnownAlert, Reading, Request


@dataclass(slots=True)
class DeliveryRecord:
    """One delivery and the verdicts on its signals, ready to be stored."""

    id: UUID
    source_id: int
    source: str
    received_at: datetime
    reading: Reading
    request: Request | None
    verdicts: dict[str, int] = field(default_factory=dict)  # of signals and rejected parts
    other_verdicts: Mapping[str, int] | None = None  # of other facts
    deployments: Sequence[str] = ()
    changes: Sequence[str] = ()
    action_items: Sequence[str] = ()
    lags: list[float] = field(default_factory=list)  # seconds from event to arrival, of signals that changed something
    resolved_without_firing: int = 0  # alerts whose first signal was their end
    words: dict[tuple[str, str], int] = field(default_factory=dict)  # how often, by tally and label
    contradicted_ends: int = 0  # ends reported by the source that this delivery has voided
    spooled: bool = False  # already acknowledged
    refusal: Exception | None = None  # why its rejected parts were not kept
    refused: int = 0  # their number

    def count_word(self, tally: str, label: str) -> None:
        self.words[tally, label] = self.words.get((tally, label), 0) + 1

    @property
    def outcome(self) -> str:
        if not self.reading.rejected:
            return "accepted"
        return "quarantined" if self.all_verdicts.keys() == {Verdict.QUARANTINED} else "partly_quarantined"

    @property
    def all_verdicts(self) -> dict[str, int]:
        return {**self.verdicts, **self.other_verdicts} if self.other_verdicts else self.verdicts

    @property
    def is_kept(self) -> bool:
        """Whether anything of it is stored."""
        return not self.refused or bool(self.all_verdicts)

    def refuse(self, why: Exception) -> None:
        """Takes its rejected parts out, which will not be stored."""
        self.refusal = why
        self.refused = self.verdicts.pop(Verdict.QUARANTINED)
        self.reading = msgspec.structs.replace(self.reading, rejected=())


def record(deliveries: Sequence[DeliveryRecord]) -> tuple[list[StatementPart], list[Count]]:
    """Changes for `grouping.write` to store in its statement: deliveries and counts."""
    rows = [
        {
            "id": one.id,
            "source_id": one.source_id,
            "received_at": one.received_at,
            "signals": sum(one.verdicts.values()),
            "truncated": one.reading.truncated,
            "verdicts": one.all_verdicts,
        }
        for one in deliveries
        if one.is_kept
    ]
    changes = [StatementPart("delivered", _ADD_DELIVERIES, {"deliveries": _json.encode(rows).decode()})]
    return changes, [(*what, value) for what, value in _counts(deliveries).items()]


async def record_beats(tx: Transaction, beats: Sequence[Incoming]) -> None:
    """Stores the latest arrival of each heartbeat, and when a missing one returned."""
    by_series: dict[tuple[int, str], list[Incoming]] = defaultdict(list)
    for beat in beats:
        by_series[beat.source_id, beat.signal.fingerprint].append(beat)
    rows = [
        {
            "source_id": source_id,
            "fingerprint": fingerprint,
            "rule": those[-1].decision.rule,
            "labels": those[-1].signal.labels,
            "first_at": min(one.received_at for one in those),
            "last_at": max(one.received_at for one in those),
        }
        for (source_id, fingerprint), those in sorted(by_series.items())
    ]
    await tx.execute(_ADD_BEATS, {"rows": msgspec.json.encode(rows).decode()})


# If a beat was already on its way when it was declared missing, `returned_at` equals `missing_since`.
_ADD_BEATS = text("""
    INSERT INTO heartbeat (source_id, fingerprint, rule, labels, first_at, last_at)
    SELECT source_id, fingerprint, rule, labels, first_at, last_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (
           source_id integer, fingerprint text, rule text, labels jsonb, first_at timestamptz, last_at timestamptz)
        ON CONFLICT (source_id, fingerprint)
        DO UPDATE SET rule = excluded.rule,
                      labels = excluded.labels,
                      first_at = least(heartbeat.first_at, excluded.first_at),
                      last_at = greatest(heartbeat.last_at, excluded.last_at),
                      returned_at = CASE WHEN heartbeat.missing_since IS NOT NULL
                                          AND excluded.last_at > heartbeat.last_at
                                         THEN least(heartbeat.returned_at,
                                                    greatest(heartbeat.missing_since, excluded.first_at))
                                         ELSE heartbeat.returned_at END
""")


def _counts(deliveries: Sequence[DeliveryRecord]) -> Mapping[tuple[str, str, str], float]:
    counts: dict[tuple[str, str, str], float] = defaultdict(float)
    for one in deliveries:
        counts["quarantine_refused", one.source, ""] += one.refused
        if not one.is_kept:
            continue
        counts["deliveries", one.source, one.outcome] += 1
        latest = ("last_delivery", one.source, "")
        counts[latest] = max(counts[latest], one.received_at.timestamp())
        for verdict, number in one.verdicts.items():
            counts["signals", one.source, verdict] += number
        for rejected in one.reading.rejected:
            counts["quarantined", one.source, rejected.reason] += 1
        if truncated := one.reading.truncated:
            counts["truncated_alerts", one.source, ""] += truncated
            counts["truncated_deliveries", one.source, ""] += 1
        counts["resolved_without_firing", one.source, ""] += one.resolved_without_firing
        counts["contradicted_ends", one.source, ""] += one.contradicted_ends
        for (tally, label), number in one.words.items():
            counts[tally, one.source, label] += number
        for lag in one.lags:
            counts["ingest_lag_bucket", one.source, _bound(lag)] += 1
            counts["ingest_lag_sum", one.source, ""] += lag
    return {place: number for place, number in counts.items() if number}


def _bound(lag: float) -> str:
    return _BOUNDS[bisect_left(INGEST_LAG_BOUNDS, lag)]


_BOUNDS = (*(f"{bound:g}" for bound in INGEST_LAG_BOUNDS), "+Inf")


async def counted_labels(tx: Transaction, tally: str, source: str) -> set[str]:
    """The labels under which this tally of the source has been counted."""
    return {row[0] for row in await tx.execute(_COUNTED_LABELS, {"tally": tally, "source": source})}


_COUNTED_LABELS = text("""
    SELECT DISTINCT label
      FROM tally
     WHERE name = :tally
       AND source = :source
""")


async def known_deliveries(tx: Transaction, ids: Sequence[UUID]) -> frozenset[UUID]:
    """The deliveries that are already stored, by id."""
    return frozenset(row[0] for row in await tx.execute(_KNOWN_DELIVERIES, {"ids": ids}))


_KNOWN_DELIVERIES = text("""
    SELECT id
      FROM delivery
     WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_ADD_DELIVERIES = """
    INSERT INTO delivery (id, source_id, received_at, signals, truncated, verdicts)
    SELECT id, source_id, received_at, signals, truncated, verdicts
      FROM json_to_recordset(CAST(:deliveries AS json)) AS new (
           id uuid, source_id integer, received_at timestamptz, signals integer, truncated integer, verdicts json)"""

_json = msgspec.json.Encoder()


# — alerts —


async def newest_alert(tx: AsyncConnection, source_id: int, fingerprint: str) -> KnownAlert | None:
    """The newest alert of a series."""
    found = (await tx.execute(_NEWEST_ALERT, {"series": series_of(source_id, fingerprint)})).one_or_none()
    return None if found is None else KnownAlert(*found)


_NEWEST_ALERT = text("""
    SELECT alert.started_at, alert.ended_at, alert.severity, alert.labels, alert.annotations, incident.acknowledged_at
      FROM alert
      JOIN incident ON incident.id = alert.incident_id
     WHERE alert.series = :series
     ORDER BY alert.started_at DESC
     LIMIT 1
""")


# — sources —


async def recoveries_of_sources(tx: AsyncConnection) -> Mapping[int, frozenset[str]]:
    """`Source.recoveries` by id, of the sources that have any."""
    found = await tx.execute(select(Source.id, Source.recoveries).where(func.cardinality(Source.recoveries) > 0))
    return {id_: frozenset(recoveries) for id_, recoveries in found}


async def ensure_sources(
    tx: AsyncConnection, wanted: Collection[tuple[str, str]], *, now: datetime
) -> Mapping[tuple[str, str], int]:
    """The ids of sources by name and kind; creates missing ones. A source that now has another kind keeps that kind."""
    rows = [{"name": name, "kind": kind, "created_at": now} for name, kind in sorted(wanted)]
    await tx.execute(insert(Source).values(rows).on_conflict_do_nothing())
    query = select(Source.name, Source.id).where(col(Source.name).in_([row["name"] for row in rows]))
    ids = dict((await tx.execute(query)).all())
    return {(name, kind): ids[name] for name, kind in wanted}


async def refire_of_sources(tx: AsyncConnection) -> Mapping[int, timedelta]:
    """The sources for which `refire_seconds` is not the default."""
    default = int(REFIRE.total_seconds())
    query = select(Source.id, Source.refire_seconds).where(col(Source.refire_seconds) != default)
    return {id_: timedelta(seconds=seconds) for id_, seconds in await tx.execute(query)}


async def correlation_label_of_sources(tx: AsyncConnection) -> Mapping[int, str]:
    """The sources that have a `correlation_label`."""
    query = select(Source.id, Source.correlation_label).where(col(Source.correlation_label).is_not(None))
    return dict((await tx.execute(query)).all())


async def put_source(session: AsyncSession, source: Source) -> Source:
    """Creates or changes a source. Raises SourceOfOtherKind: the kind of a source never changes."""
    stored, _is_new = await db.upsert(session, source, key=("name",), keep=("kind", "created_at"))
    if stored.kind != source.kind:
        message = f"this source has kind {stored.kind!r}; use another name for a source of kind {source.kind!r}"
        raise SourceOfOtherKind(message)
    return stored


class SourceInUse(Conflict):
    title = "The source is in use"


async def delete_source(session: AsyncSession, name: str, *, now: datetime) -> None:
    """With its revoked and expired tokens. Raises SourceNotFound or SourceInUse.

    No process accepts its tokens any more, so no delivery can arrive between the check and the commit. The source of
    the admin token is named like its kind, and always accepts deliveries.
    """
    found = await source_by_name(session, name)
    if found.name == found.kind:
        message = f"it is the source of what the admin token delivers as {found.kind}, and cannot be deleted"
        raise SourceInUse(message)
    tx = await session.connection()
    given = {"id": found.id, "name": name, "settled": now - SETTLED}
    users = (await tx.execute(_USERS, given)).scalars().all()
    if users:
        message = f"it has {', '.join(users)}; {_INSTEAD}"
        raise SourceInUse(message)
    await session.exec(delete(Token).where(col(Token.source_id) == found.id))
    await session.exec(delete(SourceSample).where(col(SourceSample.source_id) == found.id))
    await session.delete(found)


SETTLED = timedelta(minutes=1)  # after the end of a token; processes accept it for a few seconds longer
_INSTEAD = (
    "only a source without them, such as a misspelled one, can be deleted. To stop deliveries of another one, revoke "
    "its tokens with DELETE /api/v1/tokens/{name}; what it has reported stays"
)

# Every delivery that was accepted is counted, even if its alerts are gone.
_USERS = text("""
    SELECT kind
      FROM (VALUES
               ('tokens that were valid within the last minute',
                EXISTS (SELECT 1
                          FROM token
                         WHERE source_id = :id
                           AND coalesce(least(revoked_at, expires_at), 'infinity') > :settled)),
               ('deliveries', EXISTS (SELECT 1 FROM tally WHERE source = :name)),
               ('items in quarantine', EXISTS (SELECT 1 FROM quarantine WHERE source_id = :id)),
               ('a reconciler', EXISTS (SELECT 1 FROM reconciler WHERE source_id = :id)),
               ('silences', EXISTS (SELECT 1 FROM silence WHERE source_id = :id)),
               ('heartbeats', EXISTS (SELECT 1 FROM heartbeat WHERE source_id = :id)),
               ('reactions', EXISTS (SELECT 1 FROM reaction WHERE source_id = :id)),
               ('deployments', EXISTS (SELECT 1 FROM deployment_report WHERE source_id = :id)),
               ('changes', EXISTS (SELECT 1 FROM change WHERE source = :name))
           ) AS use (kind, exists)
     WHERE exists
""")
