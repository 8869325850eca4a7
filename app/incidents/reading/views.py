"""SQL for reading incidents and their alerts, for the HTTP API."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, SmallInteger, Text, extract, func, literal, or_, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Alert, Incident, Service, ServiceRate, Silence, Source
from app.base.values.times import MICROSECOND
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures.measures import SEVERITIES_OF, IncidentStatus, Priority
from app.incidents.reading.links import ALERTS_WITH_LINKS, ANNOTATIONS, Link, links_of

Row = TypeVar("Row")

incident, alert = Incident.__table__.c, Alert.__table__.c
SERVICE = func.coalesce(incident.service_stated, incident.service)
SEVERITY = func.coalesce(incident.severity_stated, incident.severity)
DETECTED_AT = func.coalesce(incident.detected_at_stated, incident.began_at)


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects incidents; None or empty matches all. The times are a half-open interval of detection times."""

    # Any of these.
    status: Collection[IncidentStatus] = ()
    service: Collection[str] = ()
    environment: Collection[str] = ()  # UNKNOWN_ENVIRONMENT: those without one
    severity: Collection[int] = ()
    priority: Collection[Priority] = ()
    source: Collection[str] = ()
    owner: Collection[str] = ()  # of the service; empty text: services without an owner
    detected_from: datetime | None = None
    detected_to: datetime | None = None
    labels: Sequence[tuple[str, str]] = ()  # all of these
    acknowledged: bool | None = None  # whether a person ever acknowledged them
    test: bool | None = None  # whether a person marked them as tests
    duration: "Duration | None" = None
    text: str | None = None  # in the title, whatever the case
    monitoring: bool | None = None  # whether they are failures of the monitoring


class Duration(NamedTuple):
    """Bounds of the time from detection to the end; of open incidents, until `now`."""

    at_least: timedelta | None
    at_most: timedelta | None
    now: datetime


class Rows(NamedTuple, Generic[Row]):
    """`cut`: there are more, which would have been too large together."""

    rows: Sequence[Row]
    cut: bool


class Sort(StrEnum):
    """The order of a list of incidents. Ties are newest first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    SEVERITY = "severity"  # the worst first
    DURATION = "duration"  # the longest first; open ones before all others, because theirs is not known yet


OPEN_LASTS = 2**62  # microseconds
Key = tuple[int, datetime, int]  # what is sorted by, begin, number


def key_of(row: Incident, sort: Sort) -> Key:
    """The place of an incident in a list."""
    match sort:
        case Sort.SEVERITY:
            return row.severity_stated or row.severity, row.began_at, row.number
        case Sort.DURATION if row.ended_at is not None:
            detected_at = row.detected_at_stated or row.began_at
            # Later than any end that the database can hold, so it is never below 0.
            return (row.ended_at - detected_at) // MICROSECOND + OPEN_LASTS // 2, row.began_at, row.number
        case Sort.DURATION:
            return OPEN_LASTS, row.began_at, row.number
        case _:
            return 0, row.began_at, row.number


async def incidents(
    session: AsyncSession,
    filters: Filters,
    *,
    sort: Sort = Sort.NEWEST,
    after: Key | None,
    limit: int,
    bytes_at_most: int,
) -> Rows[Incident]:
    """The incidents after that place, without merged ones."""
    query = (
        select(Incident)
        .where(incident.merged_into.is_(None), *conditions_of(filters))
        .order_by(*_ORDERS[sort])
        .limit(limit)
    )
    if after is not None:
        query = query.where(_is_after(after, sort))
    size = _size(incident.labels, incident.title, incident.key)
    fitting, cut = await _fitting(session, query.with_only_columns(size), bytes_at_most)
    return Rows((await session.exec(query.limit(fitting))).all(), cut)


_MICROSECONDS = (extract("epoch", incident.ended_at - DETECTED_AT) * 10**6).cast(BigInteger)
_LASTED = func.coalesce(_MICROSECONDS + literal(OPEN_LASTS // 2, BigInteger), literal(OPEN_LASTS, BigInteger))
_NEWEST = (incident.began_at.desc(), incident.number.desc())
_ORDERS: Mapping[Sort, Sequence[ColumnElement[Any]]] = {
    Sort.NEWEST: _NEWEST,
    Sort.OLDEST: (incident.began_at, incident.number),
    Sort.SEVERITY: (SEVERITY, *_NEWEST),
    Sort.DURATION: (_LASTED.desc(), *_NEWEST),
}


def _is_after(key: Key, sort: Sort) -> ColumnElement[bool]:
    value, began_at, number = key
    at, from_there = tuple_(incident.began_at, incident.number), tuple_(literal(began_at), literal(number))
    is_before: ColumnElement[bool] = at < from_there
    match sort:
        case Sort.NEWEST:
            return is_before
        case Sort.OLDEST:
            return at > from_there
        case Sort.SEVERITY:
            worse = literal(value, SmallInteger)
            return (worse < SEVERITY) | ((worse == SEVERITY) & is_before)
        case Sort.DURATION:
            longer = literal(value, BigInteger)
            return (longer > _LASTED) | ((longer == _LASTED) & is_before)


def _size(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    return sum((func.octet_length(column.cast(Text)) for column in columns), literal(0))


async def _fitting(session: AsyncSession, sizes: Select[Any], bytes_at_most: int) -> tuple[int, bool]:
    """How many of the rows fit, at least one, and whether any do not. Labels are far larger than anything else."""
    tx = await session.connection()
    totals = list(accumulate((await tx.execute(sizes)).scalars()))
    fitting = max(1, bisect_right(totals, bytes_at_most))
    return fitting, fitting < len(totals)


def conditions_of(filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions on `incident`, all of which must hold."""
    conditions: list[ColumnElement[bool]] = []
    if filters.status:
        conditions.append(or_(*(_OF_STATUS[status] for status in sorted(filters.status))))
    if filters.monitoring is not None:
        conditions.append(IS_MONITORING if filters.monitoring else ~IS_MONITORING)
    properties = (
        (SERVICE, filters.service),
        (func.coalesce(incident.environment, UNKNOWN_ENVIRONMENT), filters.environment),
        (SEVERITY, filters.severity),
        (SEVERITY, [severity for each in filters.priority for severity in SEVERITIES_OF[each]]),
    )
    conditions += [value.in_(sorted(wanted)) for value, wanted in properties if wanted]
    if filters.source:
        conditions.append(or_(*(_of_source(name) for name in sorted(filters.source))))
    if filters.owner:
        owned = func.coalesce(col(Service.owner), "").in_(sorted(filters.owner))
        conditions.append(SERVICE.in_(select(Service.name).where(owned)))
    conditions += _conditions_of_times_and_marks(filters)
    if filters.text:
        title = func.coalesce(incident.title_stated, incident.title)
        conditions.append(title.icontains(filters.text, autoescape=True))
    for name, value in filters.labels:
        has_label = (
            select(1)
            .where(_belongs_to_incident(), alert.labels.cast(JSONB).contains({name: value}))
            .correlate(Incident)
            .exists()
        )
        conditions.append(has_label)
    return conditions


def _conditions_of_times_and_marks(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.detected_from is not None:
        conditions.append(filters.detected_from <= DETECTED_AT)
    if filters.detected_to is not None:
        conditions.append(filters.detected_to > DETECTED_AT)
    if filters.acknowledged is not None:
        was = incident.acknowledged_at.is_not(None)
        conditions.append(was if filters.acknowledged else ~was)
    if filters.test is not None:
        conditions.append(~IS_COUNTED if filters.test else IS_COUNTED)
    if filters.duration is not None:
        lasted = func.coalesce(incident.ended_at, filters.duration.now) - DETECTED_AT
        conditions += [lasted >= filters.duration.at_least] if filters.duration.at_least is not None else []
        conditions += [lasted <= filters.duration.at_most] if filters.duration.at_most is not None else []
    return conditions


def _of_source(name: str) -> ColumnElement[bool]:
    """Declared incidents have no source, here as in every metric."""
    named = (col(Source.name) == name) & (col(Source.id) != MANUAL_SOURCE_ID)
    return select(Source.id).where(named).scalar_subquery() == incident.source_ids.any_()


IS_COUNTED: ColumnElement[bool] = incident.test_stated.is_not(True)  # not a test; apart from merged ones
IS_MONITORING: ColumnElement[bool] = incident.alert_class == AlertClass.MONITORING.value
_IS_OPEN = incident.ended_at.is_(None)
_OF_STATUS = {
    IncidentStatus.OPEN: _IS_OPEN & incident.acknowledged_at.is_(None),
    IncidentStatus.ACKNOWLEDGED: _IS_OPEN & incident.acknowledged_at.is_not(None),
    IncidentStatus.RESOLVED: incident.ended_at.is_not(None),
}


def _belongs_to_incident() -> ColumnElement[bool]:
    """Joins `alert` to its incident, using the index on key and start."""
    return (
        (alert.key_id == incident.key_id)
        & alert.started_at.between(incident.began_at, incident.last_start_at)
        & (alert.incident_id == incident.id)
        & (alert.source_id != MANUAL_SOURCE_ID)
    )


async def alerts(
    session: AsyncSession, incident_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int, bytes_at_most: int
) -> Rows[tuple[Alert, str]]:
    """The alerts of an incident, earliest first, each with the name of its source."""
    query = (
        select(Alert, Source.name)
        .join_from(Incident, Alert, _belongs_to_incident())
        .join(Source, col(Source.id) == alert.source_id)
        .where(incident.id == incident_id)
        .order_by(alert.started_at, alert.series)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(alert.started_at, alert.series) > tuple_(*map(literal, after)))
    size = _size(alert.labels, alert.annotations, alert.link)
    fitting, cut = await _fitting(session, query.with_only_columns(size), bytes_at_most)
    return Rows((await session.exec(query.limit(fitting))).all(), cut)


async def links(session: AsyncSession, row: Incident) -> list[Link]:
    """The links that its first alerts name."""
    named = [alert.annotations[name].as_string() for name in ANNOTATIONS]
    query = (
        select(alert.link, *named)
        .join_from(Incident, Alert, _belongs_to_incident())
        .where(incident.id == row.id)
        .order_by(alert.started_at, alert.series)
        .limit(ALERTS_WITH_LINKS)
    )
    rows = (await (await session.connection()).execute(query)).all()
    return links_of(
        (own, {name: text for name, text in zip(ANNOTATIONS, texts, strict=True) if text}) for own, *texts in rows
    )


async def silences(session: AsyncSession, row: Incident) -> Sequence[tuple[Silence, str]]:
    """The silences that suppressed alerts of the incident, earliest first, each with the name of its source."""
    query = (
        select(Silence, Source.name)
        .join(Source, col(Source.id) == col(Silence.source_id))
        .where(col(Silence.key_id) == row.key_id, col(Silence.last_seen_at) >= row.began_at)
        .order_by(col(Silence.first_seen_at), col(Silence.id))
        .limit(SILENCES_AT_MOST)
    )
    if row.ended_at is not None:
        query = query.where(col(Silence.first_seen_at) <= row.ended_at)
    return (await session.exec(query)).all()


SILENCES_AT_MOST = 20


async def held_alerts(session: AsyncSession, rows: Sequence[Incident]) -> Mapping[UUID, int]:
    """How many alerts by which people hold these incidents open; those without any are missing."""
    is_open = [row for row in rows if row.ended_at is None]
    if not is_open:
        return {}
    query = (
        select(alert.incident_id, func.count())
        .where(
            alert.key_id.in_([row.key_id for row in is_open]),
            alert.started_at >= min(row.began_at for row in is_open),
            alert.incident_id.in_([row.id for row in is_open]),
            alert.source_id == MANUAL_SOURCE_ID,
            alert.ended_at.is_(None),
        )
        .group_by(alert.incident_id)
    )
    return dict((await session.exec(query)).all())


async def source_names(session: AsyncSession) -> Mapping[int, str]:
    return dict((await session.exec(select(Source.id, Source.name))).all())


async def currencies(session: AsyncSession) -> Sequence[str]:
    """All currencies in which a service has a rate, sorted."""
    return (await session.exec(select(ServiceRate.currency).distinct().order_by(ServiceRate.currency))).all()


async def numbers(session: AsyncSession, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    if not ids:
        return {}
    return dict((await session.exec(select(Incident.id, Incident.number).where(incident.id.in_(ids)))).all())
