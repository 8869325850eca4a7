"""Shares of a number of cases, with their intervals.

Pure: no clock, no I/O, no settings.
"""

from dataclasses import dataclass

from scipy import stats

from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE


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
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Share(k, n, k / n, float(interval.low), float(interval.high))
