"""Axes: where a value lies, in percent of a plot's width, and the ticks beneath it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.pages import words

Floats = NDArray[np.float64]

INSET = 1.2  # percent left free at both ends, so that marks at the ends are drawn whole
TICKS_AT_MOST = 7  # with a label

MINUTE, HOUR, DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Tick:
    """`wide` labels do not fit on a phone."""

    x: float
    label: str
    minor: bool = False  # a short line without its label
    wide: bool = False

    @property
    def anchor(self) -> str:
        """Keeps the label inside the plot: a value of SVG's `text-anchor`."""
        return "start" if self.x < 6 else "end" if self.x > 94 else "middle"


def _within(part: float) -> float:
    """Percent of the width for a part (0 to 1) of the axis."""
    return round(INSET + (100 - 2 * INSET) * min(max(part, 0), 1), 3)


def _labeled(places: Sequence[tuple[float, str]]) -> list[Tick]:
    """At most TICKS_AT_MOST of them with a label, evenly chosen; of these, every second is `wide`."""
    step = max(1, math.ceil(len(places) / TICKS_AT_MOST))
    return [
        Tick(x, label, minor=bool(index % step), wide=index // step % 2 == 1) for index, (x, label) in enumerate(places)
    ]


# — durations —

_LADDER = (
    *(1, 5, 15),
    *(MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE),
    *(HOUR, 2 * HOUR, 6 * HOUR, 12 * HOUR),
    *(DAY, 3 * DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY),
)


@dataclass(frozen=True, slots=True)
class DurationAxis:
    """Logarithmic: equal factors are equally long. Both ends are in seconds."""

    low: float
    high: float

    def x(self, seconds: float) -> float:
        """Percent of the width. A value beyond an end is put at that end."""
        return float(self.places(seconds))

    def places(self, seconds: ArrayLike) -> Floats:
        """`x` of many at once."""
        inside = np.clip(np.asarray(seconds, np.float64), self.low, self.high)
        part = np.log(inside / self.low) / math.log(self.high / self.low)
        places: Floats = np.round(INSET + (100 - 2 * INSET) * np.clip(part, 0, 1), 3)
        return places

    def ticks(self) -> list[Tick]:
        return _labeled([(self.x(at), words.duration(at)) for at in _LADDER if self.low <= at <= self.high])


def duration_axis(seconds: ArrayLike) -> DurationAxis:
    """From the last round duration that is not above the least value to the first that is not below the greatest."""
    every = np.asarray(seconds, np.float64)
    shown = every[every >= 1]
    least, greatest = (float(shown.min()), float(shown.max())) if len(shown) else (MINUTE, HOUR)
    low = max(at for at in _LADDER if at <= least)
    high = min((at for at in _LADDER if at >= greatest), default=greatest)
    return DurationAxis(low, high if high >= low * 4 else low * 10)


# — ratios —

_RATIOS = {
    1 / 8: "⅛",
    1 / 4: "¼",
    1 / 2: "half",
    2 / 3: "⅔",
    1: "same",
    1.5: "1½ ×",
    2: "double",
    4: "4 ×",
    8: "8 ×",
}


@dataclass(frozen=True, slots=True)
class RatioAxis:
    """Logarithmic around 1: half and double are equally far from the middle. Reaches from 1 / `reach` to `reach`."""

    reach: float

    def x(self, ratio: float) -> float:
        """Percent of the width. A ratio beyond an end, also 0, is put at that end."""
        inside = min(max(ratio, 1 / self.reach), self.reach)
        return _within(0.5 + math.log(inside) / math.log(self.reach) / 2)

    def ticks(self) -> list[Tick]:
        places = {self.x(at): label for at, label in _RATIOS.items() if 1 / self.reach <= at <= self.reach}
        narrow = {"same", "half", "double", *(_RATIOS[at] for at in (1 / self.reach, self.reach))}
        return [Tick(x, label, wide=label not in narrow) for x, label in places.items()]


def ratio_axis(ratios: Sequence[float]) -> RatioAxis:
    """Holds all the ratios that are between ⅛ and 8."""
    furthest = max((abs(math.log(ratio)) for ratio in ratios if ratio > 0), default=0)
    return RatioAxis(next((reach for reach in (2.0, 4.0, 8.0) if math.log(reach) >= furthest), 8.0))


# — amounts —


@dataclass(frozen=True, slots=True)
class LinearAxis:
    """From 0 to `high`, in whatever unit the values have."""

    high: float

    def x(self, value: float) -> float:
        """Percent of the width. A value beyond an end is put at that end."""
        return _within(value / self.high if self.high else 0)

    def ticks(self, label: Callable[[float], str]) -> list[Tick]:
        """Four to seven round values, written by `label`."""
        step = _round_step(self.high / 5)
        values = [step * index for index in range(int(self.high / step + 1e-9) + 1)] if step else [0.0]
        return _labeled([(self.x(value), label(value)) for value in values])


def linear_axis(values: Sequence[float]) -> LinearAxis:
    """Up to the first round value that is not below the greatest."""
    greatest = max(values, default=0)
    step = _round_step(greatest / 5)
    return LinearAxis(math.ceil(greatest / step - 1e-9) * step if step else 1)


def _round_step(least: float) -> float:
    """The first of 1, 2, 5, 10, 20, … or 0.5, 0.2, … that is not below; 0 for 0."""
    if least <= 0:
        return 0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


# — times —

_STEPS = (
    *(1, 5, 15, 30),
    *(MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE),
    *(HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR),
    *(DAY, 2 * DAY, 7 * DAY, 14 * DAY),
)
_MONTHS = (1, 3, 6, 12, 60, 120)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Linear from `since` to the later `until`; its ticks are at round times in `zone`."""

    since: datetime
    until: datetime
    zone: ZoneInfo

    def x(self, moment: datetime) -> float:
        """Percent of the width. A moment beyond an end is put at that end."""
        whole = (self.until - self.since).total_seconds()
        return _within((moment - self.since).total_seconds() / whole if whole else 0)

    def ticks(self) -> list[Tick]:
        """`14:30`, from a day `25 Nov`, from a month `Nov`, in January `2026`."""
        span = (self.until - self.since).total_seconds()
        step = next((step for step in _STEPS if span / step <= TICKS_AT_MOST), None)
        local = self.since.astimezone(self.zone).replace(tzinfo=None)
        moments = _months(local, span / DAY / 30.4) if step is None else _steps(local, step)
        ticks: dict[datetime, str] = {}
        for moment in moments:
            # Through UTC, because a time that clocks skip is shown as the one that they show instead.
            at = moment.replace(tzinfo=self.zone).astimezone(UTC)
            if at > self.until:
                break
            if at >= self.since:
                ticks[at] = _label(at.astimezone(self.zone), step)
        return [Tick(self.x(at), label, wide=index % 2 == 1) for index, (at, label) in enumerate(ticks.items())]


def _steps(start: datetime, step: int) -> Iterator[datetime]:
    """Local times without end, counted from midnight; steps of a week or two begin on a Monday."""
    first = start.replace(hour=0, minute=0, second=0, microsecond=0)
    if step >= 7 * DAY:
        first -= timedelta(days=first.weekday())
    before = int((start - first).total_seconds() // step)
    return (first + timedelta(seconds=step * index) for index in count(before))


def _months(start: datetime, months: float) -> Iterator[datetime]:
    step = next((step for step in _MONTHS if months / step <= TICKS_AT_MOST), _MONTHS[-1])
    first = start.year * 12 + (start.month - 1) // step * step
    return (datetime(month // 12, month % 12 + 1, 1) for month in count(first, step) if month < 9999 * 12)  # noqa: DTZ001


def _label(local: datetime, step: int | None) -> str:
    if step is None:
        return f"{local:%Y}" if local.month == 1 else f"{local:%b}"
    if step >= DAY:
        return f"{local:%-d %b}"
    return f"{local:%H:%M}" if step >= MINUTE else f"{local:%H:%M:%S}"
