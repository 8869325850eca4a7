"""Action items of a period: how long they take, and whether they are done in time."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.values.times import Span
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.definitions.shares import wilson_interval
from app.metrics.summary import survival
from app.metrics.summary.summaries import Summary

PRIORITIES = ("1", "2", "3", "none")


class ItemRow(Protocol):
    """A row: an action item."""

    @property
    def priority(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def due_at(self) -> datetime | None: ...
    @property
    def closed_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class InTime:
    """`k` of `n` with Wilson's 95 % interval; None if n is 0."""

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """The action items of one priority, or all of them."""

    items: int
    time_to_complete: Summary
    done_in_time: InTime


async def read_completion(
    tx: AsyncConnection, period: Span, services: Sequence[str] = (), *, now: datetime, horizon: float
) -> tuple[Completion, Mapping[str, Completion]]:
    """Completion of all action items created in the period, and by priority. One statement."""
    rows = (await tx.execute(_CREATED, {"since": period.start, "until": period.end, "service": list(services)})).all()
    by_priority: dict[str, list[ItemRow]] = defaultdict(list)
    for row in rows:
        by_priority[row.priority].append(row)
    observed = min(period.end, now) - period.start
    return completion(rows, now=now, observed=observed, horizon=horizon), {
        priority: completion(by_priority[priority], now=now, observed=observed, horizon=horizon)
        for priority in PRIORITIES
    }


def completion(rows: Iterable[ItemRow], *, now: datetime, observed: timedelta, horizon: float) -> Completion:
    """`observed` is how long the period was; `horizon` is that of the restricted mean, in seconds.

    The items of one review are created together and are not independent evidence, so they are clustered like incidents
    that begin together.
    """
    recorded: list[tuple[float, float]] = []  # how long it took, and when it was created
    pending: list[tuple[float, float]] = []
    dropped: list[tuple[float, float]] = []
    k = n = 0
    for row in rows:
        lasted = max(((row.closed_at or now) - row.created_at).total_seconds(), 0.0)
        item = lasted, row.created_at.timestamp()
        (recorded if row.state == "done" else dropped if row.state == "dropped" else pending).append(item)
        if row.due_at is not None and row.due_at < now and row.state != "dropped":
            n += 1
            k += row.state == "done" and row.closed_at is not None and row.closed_at <= row.due_at
    recorded.sort()
    waited = [item for item in (*pending, *dropped) if item[0] > 0]
    took = [lasted for lasted, _ in recorded]
    summary = Summary(
        n=len(took),
        typical=survival.typical(took),
        values=took if len(took) < SUMMARY_FROM else None,
        pending=len(pending),
        censored=len(dropped),
        invalid=0,
        excluded={},
        estimates=survival.estimates(
            took,
            [lasted for lasted, _ in waited],
            horizon,
            began=[created for _, created in (*recorded, *waited)],
            observed=observed,
        ),
        zeros=took.count(0.0),
    )
    return Completion(len(recorded) + len(pending) + len(dropped), summary, _in_time(k, n))


def _in_time(k: int, n: int) -> InTime:
    if not n:
        return InTime(0, 0, None, None, None)
    return InTime(k, n, k / n, *wilson_interval(k, n))


_CREATED = text("""
    SELECT coalesce(priority::text, 'none') AS priority, state, created_at, due_at, closed_at
      FROM action_item
     WHERE created_at >= :since
       AND created_at < :until
       AND (CAST(:service AS text[]) = '{}'
            OR EXISTS (SELECT
                         FROM incident
                        WHERE coalesce(incident.service_stated, incident.service) = ANY(CAST(:service AS text[]))
                          AND (incident.id = action_item.incident_id
                               OR incident.id IN (SELECT incident_id
                                                    FROM review_incident
                                                   WHERE review_incident.review_id = action_item.review_id))))
     ORDER BY created_at
""")
