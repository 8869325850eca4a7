"""How durations, times and shares are written for customers, and text without invisible characters. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

# Controls that are illegal in XML or change what a reader sees, such as Unicode's bidirectional controls.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """Without controls, which a feed could not carry and a reader could not see."""
    return _CONTROLS.sub("", text)


def lasting(duration: timedelta) -> str:
    """Two units at most: `less than a minute`, `34 minutes`, `1 hour 18 minutes`, `2 days 3 hours`."""
    minutes = round(duration.total_seconds() / 60)
    if minutes < 1:
        return "less than a minute"
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(_counted(*part) for part in parts[first : first + 2] if part[0])


def _counted(number: int, unit: str) -> str:
    return f"{number}\u00a0{unit}{'' if number == 1 else 's'}"


def percent(share: Fraction) -> str:
    """`99.86 %`, rounded down, so that only what was never down is `100 %`."""
    hundredths = int(share * 10_000)
    whole, rest = divmod(hundredths, 100)
    return f"{whole}\u202f%" if share == 1 else f"{whole}.{rest:02d}\u202f%"


def at(moment: datetime, *, zone: bool = True) -> str:
    """`28 Nov 2026, 14:05 UTC`: a page may be read, printed or cached on any day."""
    local = moment.astimezone(UTC)
    return f"{on(local)}, {clock(local)}" if zone else f"{on(local)}, {local:%H:%M}"


def between(start: datetime, end: datetime) -> str:
    """`28 Nov 2026, 14:05 to 14:40 UTC`"""
    same_day = start.astimezone(UTC).date() == end.astimezone(UTC).date()
    return f"{at(start, zone=False)} to {clock(end)}" if same_day else f"{at(start)} to {at(end)}"


def clock(moment: datetime) -> str:
    """`14:05 UTC`"""
    return f"{moment.astimezone(UTC):%H:%M}\u00a0UTC"


def on(day: date) -> str:
    """`28 Nov 2026`"""
    return f"{day.day}\u00a0{day:%b}\u00a0{day.year}"
