"""What the pages of services need to know, each in a fixed number of statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.http.requests.fields import DEFAULT_PERIOD
from app.base.values.times import Span
from app.catalog.maintenance import store as maintenance
from app.catalog.objectives import store as objectives
from app.catalog.services import store as services
from app.incidents.impact.availability import Availability, Budget, BudgetLeft
from app.incidents.reading.listing import ListedIncident, listed
from app.incidents.reading.views import Filters as IncidentFilters
from app.metrics.api.query import bounds_in
from app.metrics.query import Filters, GroupBy, MetricsQuery
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.store import read_summary
from app.settings import Settings

SERVICES_ON_PAGE = 50
INCIDENTS_ON_PAGE = 25
MAINTENANCE_AT_MOST = 200

NO_MEASURES = frozenset[str]()


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service in the list. `numbers` is None if no incident of the period concerns it."""

    service: schema.Service
    has_rate: bool
    numbers: Numbers | None
    availability: Availability | None
    budget: BudgetLeft | None


@dataclass(frozen=True, slots=True)
class ServiceList:
    rows: Sequence[ServiceRow]
    has_more: bool


async def read_list(session: AsyncSession, *, after: str, now: datetime, settings: Settings) -> ServiceList:
    """Services with names greater than `after`, with their numbers of the last 30 days."""
    found = await services.list_services(session, after=after, limit=SERVICES_ON_PAGE + 1)
    shown = found[:SERVICES_ON_PAGE]
    period = Span(now - DEFAULT_PERIOD, now)
    bounds = bounds_in(settings)
    query = MetricsQuery(period, group_by=GroupBy.SERVICE, measures=NO_MEASURES, bounds=bounds)
    tx = await session.connection()
    _, groups = await read_summary(tx, query, now=now, weights=settings.impact)
    availabilities = await objectives.availabilities(tx, period, now=now, weights=settings.impact, bounds=bounds)
    budgets = await objectives.budgets_left(session, now=now, weights=settings.impact)
    numbers = {group.query.service: group for group in groups}
    available = {each.service: each for each in availabilities}
    left = {each.objective.service: each for each in budgets}
    rows = [
        ServiceRow(service, bool(rates), numbers.get(service.name), available.get(service.name), left.get(service.name))
        for service, rates in shown
    ]
    return ServiceList(rows, len(found) > SERVICES_ON_PAGE)


@dataclass(frozen=True, slots=True)
class OneService:
    """`maintenance` is what was planned for it or for all services, at most MAINTENANCE_AT_MOST."""

    service: schema.Service
    rates: Sequence[schema.ServiceRate]
    numbers: Numbers
    availability: Availability | None
    objective: schema.Objective | None
    budget: Budget | None
    maintenance: Sequence[schema.Maintenance]
    incidents: Sequence[ListedIncident]


async def read_service(session: AsyncSession, name: str, *, now: datetime, settings: Settings) -> OneService:
    """Raises ServiceNotFound."""
    service, rates = await services.find_service(session, name)
    period = Span(now - DEFAULT_PERIOD, now)
    bounds = bounds_in(settings)
    query = MetricsQuery(period, Filters(service=[name]), measures=NO_MEASURES, bounds=bounds)
    tx = await session.connection()
    numbers, _ = await read_summary(tx, query, now=now, weights=settings.impact)
    found = await objectives.availabilities(tx, period, [name], now=now, weights=settings.impact, bounds=bounds)
    objective = await session.get(schema.Objective, name)
    budget = None
    if objective is not None:
        budget = await objectives.budget(session, objective, now=now, weights=settings.impact)
    listing = await listed(
        session, IncidentFilters(service=[name]), limit=INCIDENTS_ON_PAGE, now=now, weights=settings.impact
    )
    return OneService(
        service,
        rates,
        numbers,
        found[0] if found else None,
        objective,
        budget,
        await maintenance.maintenance_of(session, name, limit=MAINTENANCE_AT_MOST),
        listing.rows,
    )
