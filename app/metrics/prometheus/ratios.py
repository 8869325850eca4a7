"""Reads the recent availability of services and their remaining error budgets for the Prometheus endpoint; cached."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ARRAY, Text, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base import schema
from app.base.threads import off_loop
from app.base.times import Span
from app.incidents.impact.availability import Availability, Objective, availabilities, left_ratio
from app.incidents.impact.store import (
    harming_within,
    planned_within,
)
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import Columns, harms
from app.metrics.prometheus.families import RATIO_WINDOWS, RATIOS_CACHED_FOR


@dataclass(frozen=True, slots=True)
class Ratios:
    availability: Mapping[tuple[str, str], float]  # by service and window; 1 is always available
    budget_left: Mapping[str, float]  # of services with an objective; below 0 the objective is missed


async def read_ratios(tx: AsyncConnection, services: Sequence[str], *, now: datetime, weights: Weights) -> Ratios:
    """The ratios of these services. Reads only incidents with impact in the windows, by an index."""
    table = schema.Objective.__table__
    rows = await tx.execute(select(table).where(table.c.service == any_(literal(list(services), ARRAY(Text)))))
    objectives = [Objective.of(row) for row in rows.mappings()]
    periods = [each.period(now) for each in objectives]
    lately = Span(now - max(RATIO_WINDOWS.values()), now)
    since = Span(min((each.begins for each in periods), default=now), now)
    harming = await harming_within(tx, lately, services)
    harming_longer = await harming_within(tx, since, [each.service for each in objectives])
    reached = Span(min(lately.begins, since.begins), max((each.ends for each in periods), default=now))
    planned = await planned_within(tx, services, reached)

    def found(columns: Columns, asked: Iterable[tuple[Sequence[str], Span]]) -> Iterator[Sequence[Availability]]:
        harmed = harms(columns, now=now, weights=weights)
        for names, period in asked:
            yield availabilities(columns, harmed, names, planned, period, now=now)

    def work() -> Ratios:
        windows = found(harming, ((services, Span(now - length, now)) for length in RATIO_WINDOWS.values()))
        available = {
            (each.service, window): float(each.ratio_weighted)
            for window, of_window in zip(RATIO_WINDOWS, windows, strict=True)
            for each in of_window
            if each.ratio_weighted is not None
        }
        together = [(period, [each for each in objectives if each.period(now) == period]) for period in set(periods)]
        burned = found(harming_longer, (([each.service for each in those], period) for period, those in together))
        left = {
            each.service: left_ratio(each, of_service, planned.get(each.service, ()), now=now)
            for (_, those), of_period in zip(together, burned, strict=True)
            for each, of_service in zip(those, of_period, strict=True)
        }
        return Ratios(available, {name: float(ratio) for name, ratio in left.items() if ratio is not None})

    return await off_loop(work)


@dataclass(slots=True)
class RecentRatios:
    """The ratios this process last computed, cached for `RATIOS_CACHED_FOR`.

    Windows end at a multiple of `RATIOS_CACHED_FOR`, so that all processes export the same values.
    """

    found: Ratios | None = None
    services: Sequence[str] = ()
    at: datetime | None = None

    async def of(self, tx: AsyncConnection, services: Sequence[str], *, now: datetime, weights: Weights) -> Ratios:
        as_of = now - (now - datetime.min.replace(tzinfo=UTC)) % RATIOS_CACHED_FOR
        if self.found is None or self.at != as_of or self.services != services:
            self.found = await read_ratios(tx, services, now=as_of, weights=weights)
            self.services, self.at = services, as_of
        return self.found
