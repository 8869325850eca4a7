"""The burn-down of an error budget: geometry. The x of dots and labels is in percent; the curve is in a nested viewBox
of 1000 units in width, whose height is in pixels.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from app.pages.plots.axes import Tick, TimeAxis

HEIGHT = 150  # pixels from the whole budget to the bottom
TOP = 12  # pixels above it
DEEPEST = -10.0  # share of the budget; what is overspent by more is drawn at the bottom
CELLS = 600  # points of the curve at most
ROWS_AT_MOST = 31

# What was burned up to each moment, in seconds; between them it grows evenly.
Course = Sequence[tuple[datetime, float]]


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line of the plot."""

    y: float
    ratio: float


@dataclass(frozen=True, slots=True)
class BurnDown:
    """`curve` and `below` (the area between the curve and an empty budget, where it is overspent) are paths.

    `rows` are the values of the plot, as a table: the share that was left at these moments.
    """

    curve: str
    below: str
    end_x: float
    end_y: float
    pace_end_x: float
    pace_end_y: float
    levels: tuple[Level, ...]
    ticks: tuple[Tick, ...]
    rows: tuple[tuple[datetime, float], ...]
    is_cut: bool  # more is overspent than is drawn

    @property
    def bottom(self) -> float:
        return TOP + HEIGHT


def left_at(course: Course, budget: float, moment: datetime) -> float:
    """The share of the budget that is left at this moment; negative if it is overspent."""
    after = bisect_right(course, moment, key=lambda point: point[0])
    if after == 0:
        return 1.0
    at, burned = course[after - 1]
    if after < len(course):
        next_at, more = course[after]
        burned += (more - burned) * ((moment - at) / (next_at - at))
    return 1 - burned / budget


def burn_down(
    course: Course, budget: float, *, since: datetime, until: datetime, now: datetime, zone: ZoneInfo
) -> BurnDown:
    """`budget` is in seconds and above 0. It starts at `since` and lasts to `until`; the curve ends at `now`, if that
    is earlier.
    """
    axis = TimeAxis(since, until, zone)
    end = min(now, until)
    points = _points(course, budget, since, end)
    last = points[-1][1]
    lowest = min(0.0, max(DEEPEST, last))

    def y(ratio: float) -> float:
        return round(TOP + HEIGHT * (1 - max(ratio, lowest)) / (1 - lowest), 2)

    def x(moment: datetime) -> float:
        return axis.x(moment)

    curve = _path((x(at) * 10, y(ratio)) for at, ratio in points)
    shown = [1.0, *([0.5] if lowest > -1 else []), 0.0, *([lowest] if lowest < -0.2 else [])]
    levels = [Level(y(ratio), ratio) for ratio in shown]
    return BurnDown(
        curve=curve,
        below=_below(points, x, y) if last < 0 else "",
        end_x=x(end),
        end_y=y(last),
        pace_end_x=x(until),
        pace_end_y=y(0.0),
        levels=tuple(levels),
        ticks=tuple(axis.ticks()),
        rows=tuple((moment, left_at(course, budget, moment)) for moment in _round_moments(since, end, zone)),
        is_cut=last < DEEPEST,
    )


def _points(course: Course, budget: float, since: datetime, end: datetime) -> list[tuple[datetime, float]]:
    """The curve, from the whole budget to what is left at the end."""
    if len(course) > CELLS:
        step = (end - since) / CELLS
        moments = [since + step * index for index in range(CELLS)]
    else:
        moments = [since, *(at for at, _ in course if since < at < end)]
    return [(at, left_at(course, budget, at)) for at in (*moments, end)]


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _below(
    points: Sequence[tuple[datetime, float]], x: Callable[[datetime], float], y: Callable[[float], float]
) -> str:
    """From where the budget is used up, along the curve, and back along the empty budget; the last point is below."""
    first = next(index for index, (_, ratio) in enumerate(points) if ratio < 0)
    at, ratio = points[first]
    before, more = points[first - 1]
    crossed = before + (at - before) * (more / (more - ratio))
    zero = y(0.0)
    corners = [(crossed, zero), *((at, y(ratio)) for at, ratio in points[first:]), (points[-1][0], zero)]
    return _path((x(at) * 10, height) for at, height in corners) + "Z"


_STEPS = tuple(timedelta(hours=hours) for hours in (1, 2, 6, 12, 24, 48, 7 * 24, 14 * 24))


def _round_moments(since: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    """Round local times in the period, at most ROWS_AT_MOST, and its end."""
    step = next(step for step in _STEPS if (end - since) / step <= ROWS_AT_MOST - 2)
    local = since.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    moments = []
    while (at := local.replace(tzinfo=zone).astimezone(UTC)) < end:
        if at > since:
            moments.append(at)
        local += step
    return [*moments, end]
