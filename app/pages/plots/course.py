"""The course of an incident on one time axis: its moments, the path of its tasks, its measures, and when its alerts
fired. Positions only: x in percent of the width, y in pixels from the top.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from app.pages.plots.axes import TimeAxis

LANES_AT_MOST = 16
ALERTS_AT_MOST = 400
DEPLOYMENTS_AT_MOST = 30  # the last
ROWS_OF_LABELS = 3
LANE_BAR = 9  # pixels
STEP, PATH_AT_MOST = 24, 216  # pixels: of one level, and of all of them
MARKS_WITH_NUMBERS = 24  # more marks are smaller and have no numbers

_MARGIN = 0.02  # of the axis, at both ends
_REACH = 0.4  # how much longer the axis may become to show the deployment, or a task
_PAD = 22  # above and below the path: room for half a mark and its number
_LABEL_ROW, _BAR_ROW, _LANE_ROW = 14, 22, 34
_BELOW = 22  # the ticks of the axis
_CHARACTER, _NARROW_CHARACTER = 0.8, 2.4  # percent of the width that a character needs at 800 and 280 pixels
_NARROWEST = 0.25  # percent; a shorter bar would not be seen

Effect = Literal["positive", "negative", "none", "unknown"]
Extent = Literal["recorded", "running", "censored"]
Placing = Literal["after", "inside", "before", "end"]


# — what happened —


@dataclass(frozen=True, slots=True)
class Moment:
    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Point:
    """The path has this level from `at` on."""

    at: datetime
    level: int


@dataclass(frozen=True, slots=True)
class Task:
    """`level` is that of the path after the task."""

    number: int
    at: datetime
    effect: Effect
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Measure:
    """`running` until now; `censored` if the incident ended without it. `length` is the duration in words."""

    name: str
    start: datetime
    end: datetime
    extent: Extent
    length: str


@dataclass(frozen=True, slots=True)
class Firing:
    start: datetime
    end: datetime | None
    severity: int


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    detail: str
    firings: Sequence[Firing]


@dataclass(frozen=True, slots=True)
class History:
    """`began_at` and `ended_at` enclose the incident, and `ended_at` is now while it is open. `recovered_at` is None if
    it is open, or ended without a recovery. `deployed`: the deployment that is taken for the cause. `path` and `tasks`
    are those of REST, in order.
    """

    began_at: datetime
    ended_at: datetime
    recovered_at: datetime | None
    moments: Sequence[Moment]
    deployed: Moment | None = None
    path: Sequence[Point] = ()
    tasks: Sequence[Task] = ()
    measures: Sequence[Measure] = ()
    deployments: Sequence[Moment] = ()  # those beyond the axis are left out
    series: Sequence[Series] = ()


# — where it is drawn —


@dataclass(frozen=True, slots=True)
class PlacedMoment:
    """`row` is that of its label, None if there is no room for one; `y` is the label's baseline. `narrow` is where the
    label is on a phone, with `narrow_y`; only the first and the last have one.
    """

    x: float
    y: int
    row: int | None
    anchor: str
    moment: Moment
    narrow: "LabelPlace | None" = None
    narrow_y: int = 0


@dataclass(frozen=True, slots=True)
class PlacedTask:
    x: float
    y: float
    task: Task


@dataclass(frozen=True, slots=True)
class Path:
    """`line` and `area` are SVG paths in a view box that is 1,000 wide and `height` high, and begins at `top`.

    Heights count levels, from a start that keeps the path above its floor. `drop` is where the incident recovered:
    from there a mark leads down to the floor, which is not part of the path.
    """

    top: int
    height: int
    floor: float
    line: str
    area: str
    marks: Sequence[PlacedTask]
    small: bool
    end_x: float
    end_y: float
    drop: tuple[float, float] | None  # x, and the y from which it begins


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    y: int
    placing: Placing
    measure: Measure

    @property
    def end(self) -> float:
        return round(self.x + self.width, 3)


class LabelPlace(NamedTuple):
    x: float
    anchor: str


@dataclass(frozen=True, slots=True)
class Lane:
    """`severe` (severities 1 and 2), `mild` and `firing` (until now) are SVG paths of bars, in a view box that is 1,000
    wide and LANE_BAR high and begins 16 below `y`. `narrow` is where the label is on a phone.
    """

    y: int
    label: LabelPlace
    narrow: LabelPlace
    severe: str
    mild: str
    firing: str
    series: Series


@dataclass(frozen=True, slots=True)
class PlacedDeployment:
    """The label is left out (`labeled`) where it would touch the one before; `wide`: on a phone."""

    x: float
    anchor: str
    labeled: bool
    wide: bool
    moment: Moment


@dataclass(frozen=True, slots=True)
class Course:
    """`deployed_before` is how long before the left end the deployment was, if it is not on the axis."""

    axis: TimeAxis
    height: int
    axis_y: int
    moments: Sequence[PlacedMoment]
    path: Path | None
    bars: Sequence[Bar]
    deployments: Sequence[PlacedDeployment]
    deployments_y: int
    lanes: Sequence[Lane]
    deployed_before: timedelta | None


def course(history: History, zone: ZoneInfo) -> Course:
    axis, deployed = _axis(history, zone)
    shown = [history.deployed] if history.deployed and deployed is None else []
    moments = _placed_moments(sorted([*shown, *history.moments], key=lambda moment: moment.at), axis)
    top = max([_baseline(0), *(y for moment in moments for y in (moment.y, moment.narrow_y))])
    top += 12 if history.tasks else 7  # tasks have their number above them
    path = _path(history, axis, top) if history.tasks else None
    below = top + path.height + 18 if path else top + 8
    bars = [_bar(measure, axis, below + index * _BAR_ROW) for index, measure in enumerate(history.measures)]
    below += len(bars) * _BAR_ROW + 10
    deployments, deployments_y = _placed_deployments(history, axis), below
    below += _LANE_ROW if deployments else 0
    lanes = _lanes(history, axis, below)
    axis_y = below + len(lanes) * _LANE_ROW + 4
    return Course(axis, axis_y + _BELOW, axis_y, moments, path, bars, deployments, deployments_y, lanes, deployed)


def _axis(history: History, zone: ZoneInfo) -> tuple[TimeAxis, timedelta | None]:
    """The axis, and how long before it the deployment was if it is not on it."""
    inside = [moment.at for moment in history.moments]
    since = min([history.began_at, *inside])
    until = max([history.ended_at, *inside, since + timedelta(seconds=10)])
    reach = (until - since) * _REACH
    tasks = [at for task in history.tasks if since - reach <= (at := task.at) <= until + reach]
    since, until = min([since, *tasks]), max([until, *tasks])
    missing = None
    if history.deployed is not None:
        before = since - history.deployed.at
        if before <= reach:
            since = min(since, history.deployed.at)
        else:
            missing = before
    margin = (until - since) * _MARGIN
    return TimeAxis(since - margin, until + margin, zone), missing


def _placed_moments(moments: Sequence[Moment], axis: TimeAxis) -> list[PlacedMoment]:
    """Each label in the first row in which it touches no other."""
    clock = 7 if len({moment.at.astimezone(axis.zone).date() for moment in moments}) <= 1 else 14  # characters
    taken: list[list[tuple[float, float]]] = [[] for _ in range(ROWS_OF_LABELS)]
    placed = []
    for moment in moments:
        x = axis.x(moment.at)
        width = (len(moment.name) + clock) * _CHARACTER
        anchor = "start" if x < max(6, width / 2) else "end" if x > min(90, 100 - width / 2) else "middle"
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        row = next(
            (
                number
                for number, others in enumerate(taken)
                if all(left > end or left + width < start for start, end in others)
            ),
            None,
        )
        if row is not None:
            taken[row].append((left, left + width))
        placed.append(PlacedMoment(x, _baseline(row or 0), row, anchor, moment))
    return _placed_on_a_phone(placed, clock)


def _baseline(row: int) -> int:
    return 11 + row * _LABEL_ROW


def _placed_on_a_phone(moments: list[PlacedMoment], clock: int) -> list[PlacedMoment]:
    """With labels for the first and the last, the last in the second row if both do not fit into one."""
    free_from = 0.0
    for index in sorted({0, len(moments) - 1} if moments else ()):
        each = moments[index]
        width = (len(each.moment.name) + clock) * _NARROW_CHARACTER
        place = LabelPlace(each.x, "end") if each.x > max(50, width) else _label_place(each.x, width)
        left = place.x - width if place.anchor == "end" else place.x
        moments[index] = replace(each, narrow=place, narrow_y=_baseline(0 if left >= free_from else 1))
        free_from = left + width
    return moments


def _path(history: History, axis: TimeAxis, top: int) -> Path:
    levels = [point.level for point in history.path] or [0]
    shift = 1 - min([0, *levels])  # so that the lowest level is one step above the floor
    highest = shift + max([0, *levels])
    step = min(STEP, PATH_AT_MOST / highest)
    height = round(highest * step) + 2 * _PAD
    floor = float(height - _PAD)

    def y(level: int) -> float:
        return round(floor - (level + shift) * step, 2)

    first, *rest = history.path
    x0 = axis.x(first.at) * 10
    steps = (f"H{axis.x(point.at) * 10:.1f}V{y(point.level)}" for point in rest)
    line = "".join([f"M{x0:.1f} {y(first.level)}", *steps])
    last = history.path[-1]
    return Path(
        top=top,
        height=height,
        floor=floor,
        line=line,
        area=f"{line}V{floor}H{x0:.1f}Z",
        marks=[PlacedTask(axis.x(task.at), y(task.level), task) for task in history.tasks],
        small=len(history.tasks) > MARKS_WITH_NUMBERS,
        end_x=axis.x(last.at),
        end_y=y(last.level),
        drop=None if history.recovered_at is None else (axis.x(history.recovered_at), y(_level(history))),
    )


def _level(history: History) -> int:
    """The level of the path when the incident recovered."""
    assert history.recovered_at is not None
    reached = [point.level for point in history.path if point.at <= history.recovered_at]
    return reached[-1] if reached else history.path[0].level


def _bar(measure: Measure, axis: TimeAxis, y: int) -> Bar:
    x, width = _extent(axis, measure.start, measure.end)
    characters = len(measure.name) + len(measure.length) + 1 + (10 if measure.extent == "censored" else 0)
    narrow = characters * _NARROW_CHARACTER
    placing: Placing = "end"
    if x + width + narrow <= 98:
        placing = "after"
    elif width >= characters * _CHARACTER and x + narrow <= 98:
        placing = "inside"
    elif x - narrow >= 1:
        placing = "before"
    return Bar(x, width, y, placing, measure)


def _extent(axis: TimeAxis, start: datetime, end: datetime) -> tuple[float, float]:
    x = axis.x(start)
    width = round(max(axis.x(end) - x, _NARROWEST), 3)
    return min(x, round(100 - width, 3)), width


def _placed_deployments(history: History, axis: TimeAxis) -> list[PlacedDeployment]:
    inside = [each for each in history.deployments if axis.since <= each.at <= axis.until][-DEPLOYMENTS_AT_MOST:]
    labeled, narrow = (_labeled(inside, axis, character) for character in (_CHARACTER, _NARROW_CHARACTER))
    return [
        PlacedDeployment(axis.x(each.at), _side(axis.x(each.at)), index in labeled, index not in narrow, each)
        for index, each in enumerate(inside)
    ]


def _side(x: float) -> str:
    return "end" if x > 80 else "start"


def _labeled(moments: Sequence[Moment], axis: TimeAxis, character: float) -> set[int]:
    """Which of them have a label that touches no other and no mark, if a character is that wide."""
    found, free_from = set(), 0.0
    marks = [axis.x(moment.at) for moment in moments]
    for index, (moment, x) in enumerate(zip(moments, marks, strict=True)):
        width = (len(moment.name) + 3) * character
        left = x - width if _side(x) == "end" else x
        others = marks[:index] + marks[index + 1 :]
        if left >= free_from and left + width <= 100 and not any(left < other < left + width for other in others):
            found.add(index)
            free_from = left + width
    return found


def _lanes(history: History, axis: TimeAxis, top: int) -> list[Lane]:
    lanes = []
    for index, series in enumerate(history.series[:LANES_AT_MOST]):
        extents = [(each, *_extent(axis, each.start, each.end or history.ended_at)) for each in series.firings]
        x = min(left for _, left, _ in extents)
        characters = len(series.name) + len(series.detail) + 1
        label, narrow = (_label_place(x, characters * each) for each in (_CHARACTER, _NARROW_CHARACTER))
        bars = {"severe": "", "mild": "", "firing": ""}
        for each, left, width in extents:
            kind = "firing" if each.end is None else "severe" if each.severity <= 2 else "mild"
            bars[kind] += f"M{left * 10:.1f} 0h{width * 10:.1f}v{LANE_BAR}h-{width * 10:.1f}z"
        lanes.append(Lane(top + index * _LANE_ROW, label, narrow, **bars, series=series))
    return lanes


def _label_place(x: float, width: float) -> LabelPlace:
    """Above the first bar if it fits there, else at the end that is nearer."""
    if x + width <= 99:
        return LabelPlace(x, "start")
    return LabelPlace(100.0, "end") if x > 50 else LabelPlace(0.0, "start")
