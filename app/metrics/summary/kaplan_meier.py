"""The Kaplan-Meier estimate and its band: scipy's results, in about a third of scipy's time.

scipy turns every duration into a Python object and repeats sorts that are shared here; a page of numbers needs two
dozen of these curves. Tests compare every result with scipy's. Pure.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from app.base.values.arrays import Floats, Ints


class Survival(NamedTuple):
    """One entry per distinct duration, ascending: the share for which the event took longer or not, how many lasted at
    least that long, and for how many of these the event happened then.
    """

    seconds: Floats
    waiting: Floats
    passed: Floats  # 1 - waiting
    at_risk: Ints
    happened: Ints


def survival(recorded: Floats, censored: Floats) -> Survival:
    """As `scipy.stats.ecdf`. Needs at least one duration."""
    times = np.concatenate((recorded, censored))
    order = np.argsort(times)
    times, died = times[order], order < len(recorded)
    first = np.flatnonzero(np.append(True, times[1:] != times[:-1]))
    at_risk, happened = len(times) - first, np.add.reduceat(died, first, dtype=np.int64)
    waiting: Floats
    passed: Floats
    if len(censored):
        waiting = np.cumprod((at_risk - happened) / at_risk, dtype=np.float64)
        passed = 1 - waiting
    else:
        passed = np.cumsum(happened).astype(np.float64) / len(times)
        waiting = 1 - passed
    return Survival(times[first], waiting, passed, at_risk, happened)


def band(found: Survival, confidence: float) -> tuple[Floats, Floats]:
    """The pointwise interval by the exponential Greenwood formula; NaN where the share is 0 or 1."""
    share, happened, at_risk = found.waiting, found.happened, found.at_risk
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = 1 / np.log(share) ** 2 * np.cumsum(happened / (at_risk * (at_risk - happened)))
        middle = np.log(-np.log(share))
        reach = special.ndtri(0.5 + confidence / 2) * np.sqrt(variance)
        low, high = np.exp(-np.exp(middle + reach)), np.exp(-np.exp(middle - reach))
    return np.clip(low, 0, 1), np.clip(high, 0, 1)
