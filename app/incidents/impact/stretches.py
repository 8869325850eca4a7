"""The stretches of an incident: when its alerts fired, and the worst severity among them at each time.

Pure: no clock, no I/O, no settings. Stretches depend on the alerts alone. What people state about an incident is
applied when its impact is computed (`impact_intervals`), so a correction needs no alert, even after the retention
period.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from app.base.values.severity import SEVERITIES
from app.base.values.times import EPOCH, MICROSECOND


class Stretch(NamedTuple):
    """`[start, end)` at one severity; open without an end."""

    start: datetime
    end: datetime | None
    severity: int


def stretches(alerts: Iterable[Stretch]) -> list[Stretch]:
    """The worst severity at each time at which at least one alert fires, in order and disjoint; nothing between alerts.

    If no alert lasts from the first start on, an empty stretch at that time keeps it and its worst severity.
    """
    changes: dict[datetime, list[int]] = defaultdict(lambda: [0] * len(SEVERITIES))
    severity_at_start: dict[datetime, int] = {}
    for start, end, severity in alerts:
        changes[start][severity - 1] += 1
        changes[_NEVER if end is None else end][severity - 1] -= 1
        severity_at_start[start] = min(severity, severity_at_start.get(start, severity))
    found: list[Stretch] = []
    firing = [0] * len(SEVERITIES)
    for at, following in pairwise(sorted(changes)):
        firing = [count + change for count, change in zip(firing, changes[at], strict=True)]
        worst = next((number for number, count in enumerate(firing, start=1) if count), None)
        if worst is None:
            continue
        end = None if following == _NEVER else following
        if found and (found[-1].end, found[-1].severity) == (at, worst):
            found[-1] = Stretch(found[-1].start, end, worst)
        else:
            found.append(Stretch(at, end, worst))
    first = min(severity_at_start, default=None)
    if first is not None and (not found or first < found[0].start):
        found.insert(0, Stretch(first, first, severity_at_start[first]))
    return found


_NEVER = datetime.max.replace(tzinfo=UTC)

# — as bytes —

# Eighteen bytes for a stretch: two times in microseconds since 1970, and the severity. All stretches of a hundred
# thousand incidents are then a single string, which numpy reads as columns.
_RECORD = struct.Struct(">qqh")
RECORD_BYTES = _RECORD.size
OPEN_END = 2**63 - 1


def packed(known: Sequence[Stretch]) -> bytes:
    return b"".join(
        _RECORD.pack(
            (start - EPOCH) // MICROSECOND, OPEN_END if end is None else (end - EPOCH) // MICROSECOND, severity
        )
        for start, end, severity in known
    )


def unpacked(stored: bytes) -> list[Stretch]:
    return [
        Stretch(EPOCH + start * MICROSECOND, None if end == OPEN_END else EPOCH + end * MICROSECOND, severity)
        for start, end, severity in _RECORD.iter_unpack(stored)
    ]
