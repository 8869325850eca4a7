"""Shares of a number of cases, with their intervals.

Pure: no clock, no I/O, no settings.
"""

import math
from dataclasses import dataclass

from scipy import special  # not scipy.stats: importing it takes a fifth of the time of a start

from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE

_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Share:
    """`k` of `n`; with the bounds of the 95% interval by Wilson. Without a value if `n` is below SUMMARY_FROM."""

    k: int
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


def share(k: int, n: int) -> Share:
    if n < SUMMARY_FROM:
        return Share(k, n)
    return Share(k, n, k / n, *wilson_interval(k, n))


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """The interval of a share of k of n cases by Wilson (1927), without correction for continuity; n is at least 1."""
    deviations = float(special.ndtri(1 - _TAIL))
    center = k + deviations**2 / 2
    half = deviations * math.sqrt(k * (n - k) / n + deviations**2 / 4)
    low, high = ((center + side) / (n + deviations**2) for side in (-half, half))
    return (low if k else 0.0), (high if k < n else 1.0)


def exact_interval(k: int, n: int) -> tuple[float, float]:
    """The interval of a share of k of n cases by Clopper and Pearson (1934); n is at least 1."""
    low = float(special.betaincinv(k, n - k + 1, _TAIL)) if k else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - _TAIL)) if k < n else 1.0
    return low, high
