"""The cost of responders' time, reported separately from the cost of downtime.

Pure: no clock, no I/O, no settings. Work lasts from the acknowledgement to the end of the incident, the only known
times; the number of responders and their pay are configured. Overlapping incidents are separate work, so their times
add up. Amounts are exact, as in `intervals`.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from app.base.values.severity import SeverityName, severity_name
from app.base.values.times import MICROSECOND, Span
from app.incidents.impact.intervals import NOTHING, Amount, Cost
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts

_HOUR_SECONDS = 3600


class Pay(Protocol):
    """The hourly cost of one responder, and the number of responders per incident of each severity."""

    @property
    def currency(self) -> str: ...
    @property
    def low(self) -> Decimal: ...
    @property
    def expected(self) -> Decimal: ...
    @property
    def high(self) -> Decimal: ...
    @property
    def responders(self) -> Mapping[SeverityName, Decimal]: ...


def worked(facts: Facts, *, now: datetime) -> Span | None:
    """From the acknowledgement, or a later detection, to the end; None if not acknowledged before the end."""
    if facts.acknowledged_at is None or facts.merged:
        return None
    span = Span(max(facts.acknowledged_at, measures.detected_at(facts)), facts.ended_at or now)
    return span if span.start < span.end else None


def priced(seconds: Mapping[SeverityName, Decimal], pay: Pay) -> Cost:
    """The cost of the seconds worked on incidents of each severity; empty if there was no work."""
    amount = NOTHING
    for severity, worked_seconds in seconds.items():
        hours = Fraction(worked_seconds) * Fraction(pay.responders[severity]) / _HOUR_SECONDS
        amount = amount.plus(Amount(*(hours * Fraction(each) for each in (pay.low, pay.expected, pay.high))))
    return {pay.currency: amount} if seconds else {}


def of_incident(facts: Facts, pay: Pay, *, now: datetime) -> Cost:
    span = worked(facts, now=now)
    if span is None:
        return {}
    seconds = Decimal((span.end - span.start) // MICROSECOND).scaleb(-6)
    return priced({severity_name(measures.severity(facts)): seconds}, pay)
