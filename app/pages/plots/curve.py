"""The recovery curve: the share that has recovered within each time, with a band, as paths.

Paths are for a nested SVG with a `viewBox` of WIDTH units by as many units as it is pixels high, stretched to the width
of the plot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.pages.plots.axes import DurationAxis, Tick
from app.pages.plots.durations import with_zero

WIDTH = 1000


class Step(Protocol):
    """Within `seconds` it had happened for `share`, 0 to 1."""

    @property
    def seconds(self) -> float: ...
    @property
    def share(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Curve:
    """The line starts at 0 and rises at each step; line and band end at the longest time observed."""

    axis: DurationAxis
    ticks: Sequence[Tick]
    height: int  # pixels
    line: str
    band: str


def curve(steps: Sequence[Step], observed: float, *, height: int) -> Curve:
    """`steps` ascend and are at least one; `observed` is the longest time that anything was observed, in seconds."""
    axis, ticks = with_zero([*(step.seconds for step in steps), observed])
    places = [_across(axis, step.seconds) for step in steps]
    until = _across(axis, max(observed, steps[-1].seconds))
    rises = "".join(f"H{x}V{_up(step.share, height)}" for x, step in zip(places, steps, strict=True))
    ends = [*places[1:], until]
    above = "".join(
        f"L{x} {round(_up(step.high, height))}H{end}" for x, end, step in zip(places, ends, steps, strict=True)
    )
    below = "".join(
        f"L{end} {round(_up(step.low, height))}H{x}"
        for x, end, step in reversed(list(zip(places, ends, steps, strict=True)))
    )
    line = f"M{_across(axis, 0)} {height}{rises}H{until}"
    return Curve(axis, ticks, height, line, f"M{above[1:]}{below}Z")


def _across(axis: DurationAxis, seconds: float) -> int:
    return round(axis.x(seconds) * WIDTH / 100)


def _up(share: float, height: int) -> float:
    return round(height - min(max(share, 0), 1) * height, 1)
