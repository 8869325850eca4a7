"""Gauges that another area reads from the database; `main` passes the function that does; cached."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.metrics.prometheus.families import RATIOS_CACHED_FOR

Gauges = Mapping[str, Mapping[tuple[str, ...], float]]  # by name without `aftermath_`, and the values of its labels
# Given the services that are exported separately, and the time.
ReadGauges = Callable[[AsyncConnection, Sequence[str], datetime], Awaitable[Gauges]]


@dataclass(slots=True)
class RecentGauges:
    """The gauges this process last read, cached for `RATIOS_CACHED_FOR`.

    They are read as of a multiple of `RATIOS_CACHED_FOR`, so that all processes export the same values.
    """

    read: ReadGauges
    found: Gauges = field(default_factory=dict)
    services: Sequence[str] = ()
    at: datetime | None = None

    async def of(self, tx: AsyncConnection, services: Sequence[str], *, now: datetime) -> Gauges:
        as_of = now - (now - datetime.min.replace(tzinfo=UTC)) % RATIOS_CACHED_FOR
        if self.at != as_of or self.services != services:
            self.found = await self.read(tx, services, as_of)
            self.services, self.at = services, as_of
        return self.found
