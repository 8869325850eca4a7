"""Vectorized impact of many incidents, with exactly the results of `intervals.impact_intervals`.

Pure. Times are whole microseconds, impacts integers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from app.base.values.arrays import in_order
from app.base.values.severity import SEVERITIES
from app.incidents.impact.stretches import OPEN_END, RECORD_BYTES, Stretch, packed
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import NEVER, Columns, Ints, else_, microseconds

_RECORD = np.dtype([("start", ">i8"), ("end", ">i8"), ("severity", ">i2")])
_LARGEST_SCALE = 2**31


class StretchColumns(NamedTuple):
    """The stretches of many incidents: those of each incident in order and together. An open one ends at OPEN_END."""

    incident: Ints  # index into the columns
    start: Ints
    end: Ints
    severity: Ints

    @classmethod
    def of(cls, every: Iterable[Sequence[Stretch]]) -> "StretchColumns":
        return cls.read([packed(each) for each in every])

    @classmethod
    def read(cls, every: Sequence[bytes]) -> "StretchColumns":
        """`every` has the packed stretches of each incident."""
        lengths = np.fromiter(map(len, every), np.int64, len(every))
        return cls.joined(np.arange(len(every)), lengths, b"".join(every))

    @classmethod
    def joined(cls, incident: Ints, lengths: Ints, records: bytes) -> "StretchColumns":
        """`records` has the packed stretches of one incident after the other, `lengths` how many bytes each has."""
        read = np.frombuffer(records, _RECORD)
        return cls(
            np.repeat(incident, lengths // RECORD_BYTES),
            *(read[name].astype(np.int64) for name in ("start", "end", "severity")),
        )

    def where(self, holds: Any) -> "StretchColumns":
        return StretchColumns(*(column[holds] for column in self))

    def plus(self, others: "StretchColumns") -> "StretchColumns":
        """With the stretches of other incidents."""
        return StretchColumns(*(np.concatenate(pair) for pair in zip(self, others, strict=True)))


@dataclass(frozen=True, slots=True)
class ImpactColumns:
    """Times with constant impact, as in `intervals.ImpactInterval`; those of each incident in order and together."""

    incident: Ints  # index into the columns
    service: Ints  # codes of the columns
    start: Ints
    end: Ints
    impact: Ints
    scale: int  # the impact of a complete outage

    def where(self, holds: Any) -> "ImpactColumns":
        return ImpactColumns(
            self.incident[holds],
            self.service[holds],
            self.start[holds],
            self.end[holds],
            self.impact[holds],
            self.scale,
        )


def impact_columns(columns: Columns, stretches: StretchColumns, *, now: datetime, weights: Weights) -> ImpactColumns:
    """`intervals.impact_intervals` of each incident; each must have a stretch."""
    end = np.where(stretches.end == OPEN_END, microseconds(now), stretches.end)
    known = StretchColumns(stretches.incident, np.minimum(stretches.start, end), end, stretches.severity)
    filled = _before(columns, known).plus(_between(columns, known))
    found = known.plus(filled)
    start = np.maximum(found.start, columns.impact_started_at_stated[found.incident])  # NEVER is before every time
    found = StretchColumns(found.incident, start, found.end, found.severity).where(start < found.end)
    empty = _without_impact(columns, known, found.incident)
    found = found.plus(empty)
    if len(filled.incident) or len(empty.incident):
        found = found.where(in_order(found.incident, found.start))
    scale, impact = _impacts(columns, found, weights)
    return ImpactColumns(found.incident, columns.service.codes[found.incident], found.start, found.end, impact, scale)


def _before(columns: Columns, known: StretchColumns) -> StretchColumns:
    """The time from a stated start until the first stretch."""
    incident = known.incident
    since = else_(columns.impact_started_at_stated, columns.detected_at_stated)[incident]
    is_first = np.append(True, incident[1:] != incident[:-1])[: len(incident)]
    holds = is_first & (since != NEVER) & (since < known.start)
    return StretchColumns(incident, since, known.start, known.severity).where(holds)


def _between(columns: Columns, known: StretchColumns) -> StretchColumns:
    """The gaps of incidents that harmed throughout."""
    incident, start, end = known.incident[1:], known.end[:-1], known.start[1:]
    holds = (incident == known.incident[:-1]) & (start < end) & columns.harmed_throughout[incident]
    return StretchColumns(incident, start, end, columns.severity[incident]).where(holds)


def _without_impact(columns: Columns, known: StretchColumns, impacting: Ints) -> StretchColumns:
    """An empty interval at the end of each incident without impact."""
    has_impact = np.zeros(len(columns), np.bool_)
    has_impact[impacting] = True
    incident = known.incident
    is_last = np.append(incident[1:] != incident[:-1], True)[: len(incident)]
    holds = is_last & ~has_impact[incident]
    return StretchColumns(incident, known.end, known.end, columns.severity[incident]).where(holds)


def _impacts(columns: Columns, found: StretchColumns, weights: Weights) -> tuple[int, Ints]:
    by_severity = [Fraction(weights[name]) for name in SEVERITIES]
    shares = [
        share if stated is None else Fraction(stated)
        for stated in columns.impact_stated.values
        for share in by_severity
    ]
    scale = math.lcm(*(share.denominator for share in shares))
    whole = [int(share * scale) for share in shares]
    # Stated impacts may have many digits; use the slower Python integers then.
    table = np.array(whole, np.int64 if scale < _LARGEST_SCALE else object)
    if not len(found.incident):
        return scale, np.zeros(0, table.dtype)
    incident = found.incident
    severity = np.where(columns.has_severity_stated[incident], columns.severity[incident], found.severity)
    place = columns.impact_stated.codes[incident] * len(SEVERITIES) + severity - 1
    return scale, np.where(columns.monitoring[incident], 0, table[place])
