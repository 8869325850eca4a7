"""Reads the recent availability of services and their remaining error budgets for the Prometheus endpoint; cached."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from sqlalchemy import ARRAY, Text, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base import schema
from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.incidents.impact.availability import Availability, Objective, availabilities, budget_left
from app.incidents.impact.columns import StretchColumns, impact_columns
from app.incidents.impact.store import impacting_within, in_service_since, planned_within
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import Columns
from app.metrics.prometheus.families import RATIO_WINDOWS, RATIOS_CACHED_FOR


@dataclass(frozen=True, slots=True)
class Ratios:
    availability: Mapping[tuple[str, str], float]  # by service and window; 1 is always available
    budget_left: Mapping[str, float]  # of services with an objective; below 0 the objective is missed
    in_service_since: Mapping[str, datetime]


async def read_ratios(tx: AsyncConnection, services: Sequence[str], *, now: datetime, weights: Weights) -> Ratios:
    """The ratios of these services. Reads only incidents with impact in the windows, by an index."""
    table = schema.Objective.__table__
    rows = await tx.execute(select(table).where(table.c.service == any_(literal(list(services), ARRAY(Text)))))
    objectives = [Objective.of(row) for row in rows.mappings()]
    periods = [each.period(now) for each in objectives]
    lately = Span(now - max(RATIO_WINDOWS.values()), now)
    since = Span(min((each.start for each in periods), default=now), now)
    impacting = await impacting_within(tx, lately, services)
    by_environment: dict[str | None, list[Objective]] = defaultdict(list)
    for each in objectives:
        by_environment[each.environment].append(each)
    impacting_longer = {
        environment: await impacting_within(
            tx, since, [each.service for each in those], environments=[environment] if environment else ()
        )
        for environment, those in by_environment.items()
    }
    reached = Span(min(lately.start, since.start), max((each.end for each in periods), default=now))
    planned = await planned_within(tx, services, reached)
    in_service = await in_service_since(tx, services)

    def found(
        read: tuple[Columns, StretchColumns], asked: Iterable[tuple[Sequence[str], Span]]
    ) -> Iterator[Sequence[Availability]]:
        columns, stretches = read
        impacts = impact_columns(columns, stretches, now=now, weights=weights)
        for names, period in asked:
            yield availabilities(columns, impacts, names, planned, period, since=in_service, now=now)

    def work() -> Ratios:
        windows = found(impacting, ((services, Span(now - length, now)) for length in RATIO_WINDOWS.values()))
        available = {
            (each.service, window): float(each.ratio_weighted)
            for window, of_window in zip(RATIO_WINDOWS, windows, strict=True)
            for each in of_window
            if each.ratio_weighted is not None
        }
        left: dict[str, Fraction | None] = {}
        for environment, read in impacting_longer.items():
            by_period: dict[Span, list[Objective]] = defaultdict(list)
            for each in by_environment[environment]:
                by_period[each.period(now)].append(each)
            burned = found(read, (([each.service for each in those], span) for span, those in by_period.items()))
            for those, of_period in zip(by_period.values(), burned, strict=True):
                for each, of_service in zip(those, of_period, strict=True):
                    maintenance = planned.get(each.service, ())
                    left[each.service] = budget_left(each, of_service, maintenance, now=now).left_ratio
        known = {name: float(ratio) for name, ratio in left.items() if ratio is not None}
        return Ratios(available, known, in_service)

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
