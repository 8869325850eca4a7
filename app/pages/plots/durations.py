"""An axis of durations with a place for 0, which a logarithmic axis does not have."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from app.pages.plots.axes import DurationAxis, Floats, Tick, duration_axis
from app.pages.words import duration

LEAST_SECONDS = 1.0  # what is shorter counts as 0


class _WithZero(DurationAxis):
    def places(self, seconds: ArrayLike) -> Floats:
        every = np.asarray(seconds, np.float64)
        return DurationAxis.places(self, np.where(every < LEAST_SECONDS, self.low, every))


def with_zero(seconds: ArrayLike) -> tuple[DurationAxis, Sequence[Tick]]:
    """The axis and its ticks. If there are values below LEAST_SECONDS, they lie at its left end, below the tick `0 s`,
    apart from all others.
    """
    axis, every = duration_axis(seconds), np.asarray(seconds, np.float64)
    if not (every < LEAST_SECONDS).any():
        return axis, axis.ticks()
    wider = _WithZero(axis.low / (axis.high / axis.low) ** 0.12, axis.high)
    rest = [tick for tick in wider.ticks() if tick.x >= wider.x(axis.low)]
    return wider, [Tick(wider.x(0), duration(0)), *rest]
