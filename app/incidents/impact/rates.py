"""The hourly cost of an outage by service and date. Without a rate, the cost is unknown, not 0."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

THE_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)  # `valid_from` of a rate without a start


@dataclass(frozen=True, slots=True)
class Rate:
    """Per hour; 0 <= low <= expected <= high. Valid until the next rate of the same service and currency starts."""

    service: str
    valid_from: datetime
    currency: str
    low: Decimal
    expected: Decimal
    high: Decimal


def rate_at(rates: Iterable[Rate], currency: str, at: datetime) -> Rate | None:
    """The rate that is valid at that time; `rates` must be those of one service."""
    begun = (rate for rate in rates if rate.currency == currency and rate.valid_from <= at)
    return max(begun, key=lambda rate: rate.valid_from, default=None)
