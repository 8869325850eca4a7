"""How numbers, durations, money and times are written on pages. Pure."""

import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

NARROW = "\u202f"  # narrow no-break space: between a number and its unit
SPACE = "\u00a0"  # no-break space: between two numbers with units
LONGEST_TITLE = 300  # characters of a title that are shown

MINUTE, HOUR, DAY = 60, 3600, 86_400


def duration(seconds: float) -> str:
    """Two units at most: `42 s`, `7 m 30 s`, `34 m`, `1 h 18 m`, `2 d 3 h`, `40 d`."""
    if seconds < 0:
        return "\u2212" + duration(-seconds)
    whole = round(seconds)
    if whole < MINUTE:
        return _units((whole, "s"), keep_zero=True)
    if whole < 10 * MINUTE:
        minutes, rest = divmod(whole, MINUTE)
        return _units((minutes, "m"), (rest, "s"))
    minutes = round(seconds / MINUTE)
    if minutes < 60:
        return _units((minutes, "m"))
    if minutes < 48 * 60:
        hours, rest = divmod(minutes, 60)
        return _units((hours, "h"), (rest, "m"))
    hours = round(seconds / HOUR)
    days, rest = divmod(hours, 24)
    return _units((days, "d"), (rest, "h")) if days < 10 else _units((round(seconds / DAY), "d"))


def _units(*parts: tuple[int, str], keep_zero: bool = False) -> str:
    first, *rest = parts
    shown = [first, *(part for part in rest if part[0] or keep_zero)]
    return SPACE.join(f"{number:,}{NARROW}{unit}" for number, unit in shown)


def money(amount: Decimal) -> str:
    """Without the currency: `66,952`; two decimals below 100."""
    digits = 0 if abs(amount) >= 100 else 2
    return f"{amount:,.{digits}f}".replace("-", "\u2212")


def share(ratio: float, decimals: int | None = None) -> str:
    """A ratio of 0 to 1 in percent: `98.75 %`, `99.953 %`. Never rounded up to 100 % or down to 0 %. Columns of shares
    that are compared have the same number of decimals.
    """
    percent = ratio * 100
    digits = decimals or (3 if 99.9 <= percent < 100 else 2 if percent > 90 or 0 < percent < 1 else 1)
    shown = f"{percent:.{digits}f}"
    if percent < 100 <= float(shown):
        shown = f"{100 - 10**-digits:.{digits}f}"
    if percent > 0 and float(shown) == 0:
        return f"< {10**-digits:.{digits}f}{NARROW}%"
    shown = shown.rstrip("0").rstrip(".") if "." in shown and percent in (0, 100) else shown
    return f"{shown}{NARROW}%"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,}{SPACE}{one if count == 1 else many or one + 's'}"


TimeForm = Literal["short", "clock", "seconds", "full", "day", "input"]


def shown(moment: datetime, zone: ZoneInfo, now: datetime, form: TimeForm = "short") -> str:
    """A time in the zone of the reader. `short` depends on how long ago it was: `19:08`, `yesterday 23:05`,
    `25 Nov 17:17`, `25 Nov 2025`; `full` has everything; `input` is the value of a `datetime-local` field.
    """
    local, today = moment.astimezone(zone), now.astimezone(zone)
    if form == "short":
        return _short(local, today)
    if form == "clock" and local.date() == today.date():
        return f"{local:%H:%M}"
    if form == "day" and local.year != today.year:
        return f"{local:%-d %b %Y}"
    return local.strftime(_FORMS[form]) + (f" {offset(local)}" if form == "full" else "")


_FORMS: dict[TimeForm, str] = {
    "clock": "%-d %b %H:%M",
    "seconds": "%-d %b %Y %H:%M:%S",
    "full": "%A %-d %B %Y %H:%M:%S",
    "day": "%-d %b",
    "input": "%Y-%m-%dT%H:%M",
}


def _short(local: datetime, today: datetime) -> str:
    if local.date() == today.date():
        return f"{local:%H:%M}"
    if today.date() - local.date() == timedelta(days=1):
        return f"yesterday{SPACE}{local:%H:%M}"
    return f"{local:%-d %b %H:%M}" if local.year == today.year else f"{local:%-d %b %Y}"


def offset(local: datetime) -> str:
    """`UTC+1`, `UTC\u22123:30`, `UTC`."""
    distance = local.utcoffset() or timedelta()
    if not distance:
        return "UTC"
    hours, minutes = divmod(abs(int(distance.total_seconds())) // 60, 60)
    sign = "+" if distance > timedelta() else "\u2212"
    return f"UTC{sign}{hours}" + (f":{minutes:02d}" if minutes else "")


def zone_words(zone: ZoneInfo, now: datetime) -> str:
    """`Europe/Berlin (UTC+1)`; UTC is just `UTC`."""
    name = zone.key.replace("_", " ")
    return "UTC" if name == "UTC" else f"{name} ({offset(now.astimezone(zone))})"


def cut(text: str, longest: int = LONGEST_TITLE) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


# Controls that change what a reader sees: C0 and C1 without tab and line feed, and Unicode's bidirectional controls.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text with its invisible controls written out, so that `exe.png` cannot be `gnp.exe` in disguise."""
    return _CONTROLS.sub(lambda found: f"\u27e8U+{ord(found[0]):04X}\u27e9", text)
