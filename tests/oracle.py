"""Compares the incidents in a database with those derived from its alerts by pure code, and the alerts of a series with
those derived from all facts at once, by the sentences of the law and without the code that applies it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import End, fired_after_end
from app.incidents.grouping.signal import EndReason

Span = tuple[UUID, datetime, datetime | None]


# — the ends of a series —


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about a series. Without an end it fires; without a start it is a resolve that names none."""

    start: datetime | None
    reported: datetime
    end: datetime | None = None
    reason: EndReason = EndReason.RECOVERED
    guessed: bool = False
    listed_since: datetime | None = None
    expires: datetime | None = None

    @property
    def at(self) -> datetime:
        """Its report time."""
        return self.reported.replace(second=0, microsecond=0)


class Ended(NamedTuple):
    """When and why an alert ended, and its latest report that it fires if that is later than all of its end."""

    at: datetime | None = None
    reason: EndReason | None = None
    fired_after: datetime | None = None


_INFERRED = {EndReason.TIMEOUT, EndReason.RECONCILED, EndReason.EXPIRED}
_RANK = list(EndReason)


def ended_by_law(facts: Iterable[Fact], refire: timedelta) -> dict[datetime, Ended]:
    """The alerts of a series by start. Quadratic: every question is put to all facts."""
    every = list(facts)
    starts = sorted({fact.start for fact in every if fact.start is not None and fact.reason not in _INFERRED})
    return {start: _ended(every, starts, start, refire) for start in starts}


def _ended(every: Sequence[Fact], starts: Sequence[datetime], start: datetime, refire: timedelta) -> Ended:
    fired = max((fact.at for fact in every if fact.start == start and fact.end is None), default=None)
    candidates = [
        candidate
        for candidate in _candidates(every, starts, start, refire)
        if not _is_void(every, start, candidate.reported, refire)
    ]
    reports = [candidate.reported for candidate in candidates]
    found = None
    if candidates:
        best = min(candidate.kind for candidate in candidates)
        ends = [candidate.end for candidate in candidates if candidate.kind == best]
        found = max(ends, key=_last) if best == _REAL else min(ends, key=_first)
    else:
        found = _without_report(every, start, fired, min((other for other in starts if other > start), default=None))
    for fact in every:
        if fact.start == start and fact.reason is EndReason.MANUAL and fact.end is not None:
            reports.append(fact.at)
            if found is None or fact.end < found[0]:
                found = (fact.end, EndReason.MANUAL)
    if found is None:
        return Ended()
    return Ended(*found, fired if fired is not None and reports and fired > max(reports) else None)


class _Candidate(NamedTuple):
    """An end that may be believed: the lowest kind first."""

    kind: int
    end: tuple[datetime, EndReason]
    reported: datetime


_REAL, _GUESSED, _UNMATCHED, _BEFORE_START = range(4)


def _candidates(
    every: Sequence[Fact], starts: Sequence[datetime], start: datetime, refire: timedelta
) -> Iterator[_Candidate]:
    for other in starts:
        ends, reported = _named(every, other, guessed=False)
        proper = [end for end in ends if end[1] is not EndReason.ENDS_BEFORE_START]
        if other == start and ends and not proper:
            yield _Candidate(_BEFORE_START, ends[0], max(reported))
        elif proper and other <= start:
            end = max(proper, key=_last)
            covers = end[0] > start and not _is_void(every, other, max(reported), refire)
            if other == start or covers:
                yield _Candidate(_REAL, end, max(reported))
    guesses, reported = _named(every, start, guessed=True)
    if guesses:
        yield _Candidate(_GUESSED, min(guesses, key=_first), max(reported))
    for fact in every:
        if fact.start is None and fact.end is not None and [s for s in starts if s <= fact.end][-1:] == [start]:
            again = [other.at for other in every if other.start is None and other.end == fact.end]
            yield _Candidate(_UNMATCHED, (fact.end, fact.reason), max(again))


def _named(
    every: Sequence[Fact], start: datetime, *, guessed: bool
) -> tuple[list[tuple[datetime, EndReason]], list[datetime]]:
    """The ends of one kind that name this start, and when they were reported."""
    ends, reported = [], []
    for fact in every:
        if fact.start != start or fact.end is None or fact.reason in {*_INFERRED, EndReason.MANUAL}:
            continue
        before = fact.end < start
        if guessed == (fact.guessed and not before):
            ends.append((start, EndReason.ENDS_BEFORE_START) if before else (fact.end, fact.reason))
            reported.append(fact.at)
    return ends, reported


def _is_void(every: Sequence[Fact], start: datetime, reported: datetime, refire: timedelta) -> bool:
    firing = [fact for fact in every if fact.start == start and fact.end is None]
    return any(
        fact.at - reported >= refire or (fact.listed_since is not None and fact.listed_since > reported)
        for fact in firing
    )


def _without_report(
    every: Sequence[Fact], start: datetime, fired: datetime | None, following: datetime | None
) -> tuple[datetime, EndReason] | None:
    inferred = [
        (max(fact.end, start), fact.reason)
        for fact in every
        if fact.start == start and fact.end is not None and fact.reason in _INFERRED
    ]
    if inferred:
        at, reason = max(inferred, key=_last)
        is_refreshed = reason is EndReason.EXPIRED and (expires := _expires(every, start, fired)) and expires > at
        if (fired is None or fired <= at) and not is_refreshed and (following is None or at <= following):
            return at, reason
    if following is None:
        return None
    return min(max(fired or start, start), following), EndReason.SUPERSEDED


def _expires(every: Sequence[Fact], start: datetime, fired: datetime | None) -> datetime | None:
    """When it expires according to the latest report that it fires, and of several to the earliest."""
    latest = [fact for fact in every if fact.start == start and fact.end is None and fact.at == fired]
    return min((fact.expires for fact in latest if fact.expires is not None), default=None)


def _last(end: tuple[datetime, EndReason]) -> tuple[datetime, int]:
    return end[0], -_RANK.index(end[1])


def _first(end: tuple[datetime, EndReason]) -> tuple[datetime, int]:
    return end[0], _RANK.index(end[1])


# — the incidents of a database —


async def assert_lawful(engine: AsyncEngine) -> None:
    """The stored incidents equal those that the pure grouping code derives from the stored alerts."""
    stored, lawful = await states_in(engine), await states_by_law(engine)
    # By key, so that a failure shows only the wrong incidents.
    assert {key: stored.get(key) for key in stored.keys() | lawful.keys() if stored.get(key) != lawful.get(key)} == {}
    await assert_consistent(engine)


async def states_by_law(engine: AsyncEngine) -> dict[UUID, list[lifecycle.IncidentState]]:
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    async with engine.connect() as connection:
        for row in await connection.execute(_ALERTS):
            by_key[row.key_id].append(
                lifecycle.Alert(
                    row.series,
                    row.started_at,
                    End(row.ended_at, EndReason(row.end_reason)) if row.ended_at else None,
                    timedelta(seconds=row.window_seconds),
                    timedelta(seconds=row.max_span_seconds),
                    row.severity,
                    row.source_id == MANUAL_SOURCE_ID,
                    row.impact_started_at_reported,
                    fired_after_end(row.fired_at, row.end_reported_at),
                )
            )
    return {
        key: [lifecycle.incident_state(group) for group in lifecycle.incidents_of(alerts)]
        for key, alerts in by_key.items()
    }


_ALERTS = text("""
    SELECT series, started_at, ended_at, end_reason, window_seconds, max_span_seconds, severity, source_id,
           impact_started_at_reported, key_id, fired_at, end_reported_at
      FROM alert
""")


async def states_in(engine: AsyncEngine) -> dict[UUID, list[lifecycle.IncidentState]]:
    stored: dict[UUID, list[lifecycle.IncidentState]] = defaultdict(list)
    async with engine.connect() as connection:
        for row in await connection.execute(_INCIDENTS):
            stored[row.key_id].append(
                lifecycle.IncidentState(
                    began_at=row.began_at,
                    last_start_at=row.last_start_at,
                    stretch_began_at=row.stretch_began_at,
                    first_ended_at=row.first_ended_at,
                    last_end=End(row.last_end_at, EndReason(row.end_reason)) if row.last_end_at else None,
                    reach_at=row.reach_at,
                    reopened=row.reopened,
                    alerts=row.alerts,
                    open_alerts=row.open_alerts,
                    severity=row.severity,
                    impact_started_at_reported=row.impact_started_at_reported,
                    fired_after_end_at=row.fired_after_end_at,
                )
            )
    return dict(stored)


async def spans_in(engine: AsyncEngine) -> list[Span]:
    return await _spans(engine, _INCIDENTS)


async def spans_by_range_agg(engine: AsyncEngine, window: timedelta) -> list[Span]:
    """The grouping in one line of SQL; all alerts must have this window."""
    return await _spans(engine, _RANGE_AGG, window=window)


async def _spans(engine: AsyncEngine, query: Any, **parameters: object) -> list[Span]:
    async with engine.connect() as connection:
        return [(row.key_id, row.began_at, row.ended_at) for row in await connection.execute(query, parameters)]


_INCIDENTS = text("""
    SELECT * FROM incident WHERE merged_into IS NULL ORDER BY key_id, began_at
""")

_RANGE_AGG = text("""
    SELECT key_id, lower(component) AS began_at, upper(component) - :window AS ended_at
      FROM (SELECT key_id, unnest(range_agg(tstzrange(started_at, ended_at + :window, '[]'))) AS component
              FROM alert
             GROUP BY key_id) AS components
     ORDER BY key_id, began_at
""")


async def assert_consistent(engine: AsyncEngine) -> None:
    """Each alert belongs to the one live incident that covers its time; merged incidents lead to a live one."""
    async with engine.connect() as connection:
        assert (await connection.execute(_STRAYS)).scalar_one() == 0
        assert (await connection.execute(_LOST)).scalar_one() == 0


_STRAYS = text("""
    SELECT count(*)
      FROM alert
      LEFT JOIN incident
        ON incident.id = alert.incident_id
       AND incident.key_id = alert.key_id
       AND incident.merged_into IS NULL
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
     WHERE incident.id IS NULL
""")

_LOST = text("""
    SELECT count(*)
      FROM incident AS loser
      LEFT JOIN incident AS winner ON winner.id = loser.merged_into AND winner.merged_into IS NULL
     WHERE loser.merged_into IS NOT NULL
       AND winner.id IS NULL
""")
