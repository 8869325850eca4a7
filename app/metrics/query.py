"""The query type shared by all metrics: which incidents, in which period, and how they are grouped and measured.

Pure. `api/query.py` builds it from a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.base.values.times import Span
from app.incidents.impact.maintenance import UNBOUNDED, Bounds
from app.incidents.measures.business_hours import BusinessHours

GroupKey = str | int | None

HORIZON = 48 * 3600.0  # seconds, the default of the restricted mean


class GroupBy(StrEnum):
    """The property that the incidents of a group share."""

    # Each value is the name of a field of `Filters`.
    SERVICE = "service"
    ENVIRONMENT = "environment"
    SEVERITY = "severity"
    SOURCE = "source"
    OWNER = "owner"
    HOUR_OF_WEEK = "hour_of_week"


@dataclass(frozen=True, slots=True)
class Filters:
    """An incident must match one value of every filter that has any."""

    service: Sequence[str] = ()
    severity: Sequence[int] = ()
    source: Sequence[str] = ()
    owner: Sequence[str] = ()  # of the service; empty: services without an owner
    hour_of_week: Sequence[int] = ()  # of detection, in UTC: 0 to 167, from Monday 00:00
    environment: Sequence[str] = ()  # UNKNOWN_ENVIRONMENT: incidents without one

    @property
    def may_split_a_service(self) -> bool:
        """Whether the filters may match some incidents of a service but not others that share its cost."""
        return any((self.environment, self.severity, self.source, self.hour_of_week))


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """Selects the incidents that were detected in the period or had impact in it, and match the filters."""

    period: Span
    filters: Filters = Filters()
    group_by: GroupBy | None = None
    include_non_recoveries: bool = False
    measures: frozenset[str] | None = None  # names; None: all
    bounds: Bounds = UNBOUNDED
    calendar: BusinessHours | None = None  # if given, durations are measured in its hours too

    @property
    def key(self) -> GroupKey:
        """The group this query is narrowed to; None without `group_by`."""
        values: Sequence[GroupKey] = getattr(self.filters, self.group_by.value) if self.group_by else ()
        return values[0] if len(values) == 1 else None

    @property
    def service(self) -> str:
        """The only service of the filters; empty if there is none or there are several."""
        return self.filters.service[0] if len(self.filters.service) == 1 else ""

    def narrowed(self, key: GroupKey, period: Span) -> "MetricsQuery":
        """The same query for one group in another period."""
        filters = self.filters
        if self.group_by is not None:
            filters = replace(filters, **{self.group_by.value: (key,)})  # type: ignore[arg-type]  # a key of that group
        return replace(self, filters=filters, period=period)
