"""What an hour of outage costs a service, from when on. A service without a rate has no cost, which is not 0."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

THE_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)  # `valid_from` of a rate that has always held


@dataclass(frozen=True, slots=True)
class Rate:
    """Per hour; 0 <= low <= expected <= high. It holds until the next rate of its service and currency begins."""

    service: str
    valid_from: datetime
    currency: str
    low: Decimal
    expected: Decimal
    high: Decimal


def rate_at(rates: Iterable[Rate], currency: str, at: datetime) -> Rate | None:
    """The one among `rates` of one service that holds at that moment."""
    begun = (rate for rate in rates if rate.currency == currency and rate.valid_from <= at)
    return max(begun, key=lambda rate: rate.valid_from, default=None)
