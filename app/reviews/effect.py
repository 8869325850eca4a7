"""Whether an action item helped: incidents before it was done, compared with those after.

Pure: no clock, no I/O, no settings. Given the total number of incidents, the number after is binomial; its exact
(Clopper-Pearson) interval gives that of the ratio of the two rates. The incidents that gave rise to the action item
must be left out: it was created because they happened, so fewer would follow even without it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.base.values.times import Span
from app.incidents.definitions.shares import exact_interval

WINDOW_AT_MOST = timedelta(days=180)


class EffectVerdict(StrEnum):
    FEWER = "fewer"
    MORE = "more"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class RateRatio:
    """The rate after divided by the rate before, with its 95 % interval; None: no finite value."""

    before: int
    after: int
    ratio: float | None
    low: float
    high: float | None
    verdict: EffectVerdict


def windows(done_at: datetime, *, now: datetime) -> tuple[Span, Span]:
    """Two equally long periods before and after it was done, up to 180 days each."""
    length = min(WINDOW_AT_MOST, max(now - done_at, timedelta()))
    return Span(done_at - length, done_at), Span(done_at, done_at + length)


def rate_ratio(before: int, after: int) -> RateRatio:
    """The ratio of two counts in periods of equal length."""
    total = before + after
    if not total:
        return RateRatio(0, 0, None, 0.0, None, EffectVerdict.CANNOT_TELL)
    low, high = map(_odds, exact_interval(after, total))
    verdict = EffectVerdict.CANNOT_TELL
    if high is not None and high < 1:
        verdict = EffectVerdict.FEWER
    elif low is None or low > 1:
        verdict = EffectVerdict.MORE
    return RateRatio(before, after, after / before if before else None, low or 0.0, high, verdict)


def _odds(share: float) -> float | None:
    return share / (1 - share) if share < 1 else None
