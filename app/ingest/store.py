"""SQL for deliveries, heartbeats, quarantine, sources and the counts of ingest."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import Select

from app.base import db
from app.base.db import Executor
from app.base.errors import Conflict, NotFound
from app.base.schema import Quarantine, Source, StoredRequest
from app.base.tokens import SourceOfOtherKind
from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.signal import Verdict
from app.incidents.grouping.write import Change, Count
from app.incidents.measures.measures import INGEST_LAG_BOUNDS
from app.ingest.envelope import envelope_of
from app.ingest.sender import Reading, Rejected, Request


@dataclass(slots=True)
class Recorded:
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
    lags: list[float] = field(default_factory=list)  # seconds from event to arrival, of signals that changed something
    resolved_without_firing: int = 0  # alerts whose first signal was their end

    @property
    def outcome(self) -> str:
        if not self.reading.rejected:
            return "accepted"
        return "quarantined" if self.all_verdicts.keys() == {Verdict.QUARANTINED} else "partly_quarantined"

    @property
    def all_verdicts(self) -> dict[str, int]:
        return {**self.verdicts, **self.other_verdicts} if self.other_verdicts else self.verdicts


def record(deliveries: Sequence[Recorded]) -> tuple[list[Change], list[Count]]:
    """Changes for `grouping.write` to store in its statement: deliveries, their rejected parts, and counts of both."""
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
    ]
    changes = [Change("delivered", _ADD_DELIVERIES, {"deliveries": _json.encode(rows).decode()})]
    rejected = [quarantined for one in deliveries for quarantined in _rejected_rows(one)]
    if rejected:
        requests = [_request_row(one.id, one.request) for one in deliveries if one.request and one.reading.rejected]
        changes.append(Change("stored", _ADD_REQUESTS, {"requests": _json.encode(requests).decode()}))
        changes.append(Change("rejected", _ADD_QUARANTINE, {"rejected": _json.encode(rejected).decode()}))
    return changes, [(*what, value) for what, value in _counts(deliveries).items()]


def _request_row(delivery_id: UUID, request: Request) -> dict[str, object]:
    envelope = envelope_of(request)
    return {
        "delivery_id": delivery_id,
        "headers": envelope.headers,
        "query": envelope.query,
        "path": envelope.path,
        "body": request.body,
    }


def _rejected_rows(one: Recorded) -> Iterator[dict[str, object]]:
    for rejected in one.reading.rejected:
        yield {
            "source_id": one.source_id,
            "delivery_id": one.id,
            "received_at": one.received_at,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "part_start": rejected.part and rejected.part.start,
            "part_length": rejected.part and rejected.part.length,
            "raw": rejected.raw,
        }


async def record_beats(tx: Executor, beats: Sequence[Incoming]) -> None:
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


def _counts(deliveries: Sequence[Recorded]) -> Mapping[tuple[str, str, str], float]:
    counts: dict[tuple[str, str, str], float] = defaultdict(float)
    for one in deliveries:
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
        if one.resolved_without_firing:
            counts["resolved_without_firing", one.source, ""] += one.resolved_without_firing
        for lag in one.lags:
            counts["ingest_lag_bucket", one.source, _bound(lag)] += 1
            counts["ingest_lag_sum", one.source, ""] += lag
    return counts


def _bound(lag: float) -> str:
    return _BOUNDS[bisect_left(INGEST_LAG_BOUNDS, lag)]


_BOUNDS = (*(f"{bound:g}" for bound in INGEST_LAG_BOUNDS), "+Inf")


async def known_deliveries(tx: Executor, ids: Sequence[UUID]) -> frozenset[UUID]:
    """Those of the deliveries that are already stored."""
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

_ADD_REQUESTS = """
    INSERT INTO stored_request (delivery_id, headers, query, path, body)
    SELECT delivery_id, headers, query, path, decode(body, 'base64')
      FROM json_to_recordset(CAST(:requests AS json)) AS new (
           delivery_id uuid, headers jsonb, query jsonb, path jsonb, body text)"""

_ADD_QUARANTINE = """
    INSERT INTO quarantine (source_id, delivery_id, received_at, reason, detail, part_start, part_length, raw)
    SELECT source_id, delivery_id, received_at, reason, detail, part_start, part_length, decode(raw, 'base64')
      FROM json_to_recordset(CAST(:rejected AS json)) AS new (
           source_id integer, delivery_id uuid, received_at timestamptz, reason text, detail text,
           part_start integer, part_length integer, raw text)"""

_json = msgspec.json.Encoder()


# — quarantine —


class QuarantinedNotFound(NotFound):
    title = "Quarantined item not found"


class AlreadyReplayed(Conflict):
    title = "Item already replayed"


Quarantined = tuple[Quarantine, StoredRequest, Source]


async def quarantined(
    session: AsyncSession, *, waiting: bool, source_name: str | None, before: int | None, limit: int
) -> Sequence[Quarantined]:
    """Newest first. `waiting`: only those that have not been replayed."""
    query = _quarantined().order_by(col(Quarantine.id).desc()).limit(limit)
    if waiting:
        query = query.where(col(Quarantine.replayed_at).is_(None))
    if source_name is not None:
        query = query.where(Source.name == source_name)
    if before is not None:
        query = query.where(Quarantine.id < before)
    return (await session.exec(query)).all()


async def begin_replay(session: AsyncSession, quarantine_id: int) -> Quarantined:
    """The item, locked against a second replay. Raises QuarantinedNotFound or AlreadyReplayed."""
    query = _quarantined().where(Quarantine.id == quarantine_id).with_for_update(of=Quarantine)
    found = (await session.exec(query)).one_or_none()
    if found is None:
        message = f"there is no item {quarantine_id} in quarantine; GET /api/v1/quarantine lists them"
        raise QuarantinedNotFound(message)
    item = found[0]
    if item.replayed_at is not None:
        message = f"item {quarantine_id} was already replayed at {item.replayed_at.isoformat()}; no action is needed"
        raise AlreadyReplayed(message)
    return found


def end_replay(session: AsyncSession, item: Quarantine, rejected: Sequence[Rejected], *, now: datetime) -> None:
    """Keeps the parts rejected again: the first under the item's id with one more attempt, the others as new items."""
    if not rejected:
        item.replayed_at = now
        return
    item.attempts += 1
    for number, again in enumerate(rejected):
        row = item if number == 0 else _sibling_of(item)
        row.reason, row.detail, row.raw = again.reason, again.detail, again.raw
        row.part_start, row.part_length = again.part or (None, None)
        session.add(row)


def _sibling_of(item: Quarantine) -> Quarantine:
    return Quarantine(
        source_id=item.source_id,
        delivery_id=item.delivery_id,
        received_at=item.received_at,
        reason=item.reason,
        detail=item.detail,
        attempts=item.attempts,
    )


def _quarantined() -> Select[Quarantine, StoredRequest, Source]:
    return (
        select(Quarantine, StoredRequest, Source)
        .join(StoredRequest, col(StoredRequest.delivery_id) == Quarantine.delivery_id)
        .join(Source, col(Source.id) == Quarantine.source_id)
    )


# — sources —


async def ensure_sources(
    tx: AsyncConnection, wanted: Collection[tuple[str, str]], *, now: datetime
) -> Mapping[tuple[str, str], int]:
    """The ids of sources by name and kind; creates missing ones. A source that now has another kind keeps that kind."""
    rows = [{"name": name, "kind": kind, "created_at": now} for name, kind in sorted(wanted)]
    await tx.execute(insert(Source).values(rows).on_conflict_do_nothing())
    query = select(Source.name, Source.id).where(col(Source.name).in_([row["name"] for row in rows]))
    ids = dict((await tx.execute(query)).all())
    return {(name, kind): ids[name] for name, kind in wanted}


async def put_source(session: AsyncSession, source: Source) -> Source:
    """Creates or changes a source. Raises SourceOfOtherKind: the kind of a source never changes."""
    stored, _is_new = await db.upsert(session, source, key=("name",), keep=("kind", "created_at"))
    if stored.kind != source.kind:
        message = f"this source has kind {stored.kind!r}; use another name for a source of kind {source.kind!r}"
        raise SourceOfOtherKind(message)
    return stored
