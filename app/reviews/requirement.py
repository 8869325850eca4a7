"""When an incident requires a review, and when that review is due.

Pure: no clock, no I/O, no settings.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from app.incidents.agreement import NO_AGREEMENT, Agreement
from app.incidents.measures.business_hours import BusinessHours, Hours, moment_after
from app.reviews.lifecycle import Reason

REVIEWED_SEVERITIES = frozenset({1, 2})  # where no target exists
BUDGET_SHARE = Fraction(1, 5)  # of the error budget, burned by one incident
RECURRENCES, RECURRENCE_WITHIN = 3, timedelta(days=30)
# Business days after the end; memories fade, so the worst come first.
DUE_AFTER_DAYS = {1: 1, 2: 2}
DUE_AFTER_DAYS_ELSE = 5

_ALL_DAY = (Hours(0, 24 * 60),)
WEEKDAYS = BusinessHours("Monday to Friday", "UTC", (_ALL_DAY,) * 5 + ((),) * 2)


@dataclass(frozen=True, slots=True)
class Ended:
    """An incident that has ended, as far as the rules depend on it."""

    severity: int
    budget_burned: Fraction = Fraction(0)  # share of the error budget of its service
    occurrences: int = 1  # incidents of its key in the time before its end, itself included
    recurrence_reviewed: bool = False  # one of them has a review already
    agreement: Agreement = NO_AGREEMENT


def reasons(incident: Ended) -> list[Reason]:
    """Why the incident requires a review; empty if it does not. A type that rules reviews out overrides all else."""
    agreed = incident.agreement
    if agreed.by_type is False:
        return []
    found = []
    if incident.severity in REVIEWED_SEVERITIES if agreed.by_target is None else agreed.by_target:
        found.append(Reason.SEVERITY)
    if incident.budget_burned >= BUDGET_SHARE:
        found.append(Reason.BUDGET)
    if incident.occurrences >= RECURRENCES and not incident.recurrence_reviewed:
        found.append(Reason.RECURRENCE)
    if agreed.by_type:
        found.append(Reason.TYPE)
    return found


def due_at(ended_at: datetime, severity: int, agreement: Agreement = NO_AGREEMENT) -> datetime:
    """As agreed, in business hours, else at the end of the business day that the severity gives it.

    Without a calendar the business hours are all of Monday to Friday: what ends on a Friday is not due on a Saturday.
    """
    hours = agreement.hours or WEEKDAYS
    if agreement.due_after is None:
        days = DUE_AFTER_DAYS.get(severity, DUE_AFTER_DAYS_ELSE)
        return end_of_business_day(ended_at, days, hours)
    return moment_after(hours, ended_at, agreement.due_after) or ended_at + agreement.due_after


def end_of_business_day(at: datetime, days: int, hours: BusinessHours) -> datetime:
    """When the last hours of the `days`-th business day after the local date of `at` end.

    Without any business day in the following year, the same number of calendar days.
    """
    zone = ZoneInfo(hours.zone)
    date = at.astimezone(zone).date()
    left = days
    for _ in range(366):
        date += timedelta(days=1)
        if hours.week[date.weekday()] and date not in hours.holidays:
            left -= 1
            if not left:
                minutes = hours.week[date.weekday()][-1].end
                midnight = datetime.combine(date, time(), zone)
                return (midnight + timedelta(minutes=minutes)).astimezone(at.tzinfo)
    return at + timedelta(days=days)
