"""Amounts of money from low to high, as lines from 0, each on the axis of its currency."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from app.pages.plots.axes import LinearAxis, linear_axis


class Amount(Protocol):
    @property
    def low(self) -> Decimal: ...
    @property
    def expected(self) -> Decimal: ...
    @property
    def high(self) -> Decimal: ...


@dataclass(frozen=True, slots=True)
class Range:
    """In percent of the width."""

    low: float
    expected: float
    high: float


Ranges = Mapping[str, Range]  # by currency


def ranges(costs: Sequence[Mapping[str, Amount]]) -> list[Ranges]:
    """The ranges of each cost. Lengths can be compared within a currency, not between currencies."""
    axes = _axes(pair for cost in costs for pair in cost.items())
    return [{currency: _range(amount, axes[currency]) for currency, amount in cost.items()} for cost in costs]


def _axes(amounts: Iterable[tuple[str, Amount]]) -> dict[str, LinearAxis]:
    highest: dict[str, float] = {}
    for currency, amount in amounts:
        highest[currency] = max(highest.get(currency, 0.0), float(amount.high))
    return {currency: linear_axis([high]) for currency, high in highest.items()}


def _range(amount: Amount, axis: LinearAxis) -> Range:
    return Range(axis.x(float(amount.low)), axis.x(float(amount.expected)), axis.x(float(amount.high)))
