"""Vectorized facts, measures and harm of many incidents: one column per fact, computed in a few passes.

Pure: no clock, no I/O, no settings. `measures.py` defines the measures for one incident; this module computes the same
for hundreds of thousands, about a hundred times faster. A property test checks that both agree on every incident.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from app.base.severity import SEVERITIES
from app.base.times import EPOCH, MICROSECOND
from app.incidents.grouping.signal import RECOVERIES, AlertClass, EndReason
from app.incidents.measures import measures
from app.incidents.measures.measures import (
    ACKNOWLEDGED_EARLY,
    DETECTED_EARLY,
    ENDED_BEFORE_DETECTED,
    IDENTIFICATION_NOT_STATED,
    IDENTIFIED_EARLY,
    IMPACT_NOT_STATED,
    MITIGATED_EARLY,
    MITIGATION_NOT_STATED,
    MONITORING,
    NOT_A_RECOVERY,
    NOT_ACKNOWLEDGED,
    NOT_ACKNOWLEDGED_YET,
    NOT_IDENTIFIED_YET,
    NOT_MITIGATED_YET,
    NOT_RECOVERED_YET,
    RECOVERED_BEFORE_IDENTIFIED,
    RECOVERED_EARLY,
    Facts,
    Measured,
    MeasureStatus,
    Weights,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

NEVER = int(np.iinfo(np.int64).min)  # stands for an unknown time
END_REASONS = tuple(EndReason)
_SECOND = 1e6
_LARGEST_SCALE = 2**31


def microseconds(at: datetime | None) -> int:
    """Microseconds since 1970; NEVER for None."""
    return NEVER if at is None else (at - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


class Coded(NamedTuple):
    """A column with few distinct values; `codes` are indices into `values`."""

    codes: Ints
    values: Sequence[Any]


def coded(column: Iterable[Hashable]) -> Coded:
    every = list(column)
    known = {value: place for place, value in enumerate(dict.fromkeys(every))}
    return Coded(np.fromiter(map(known.__getitem__, every), np.int64, len(every)), list(known))


TIMES = tuple(name for name, type_ in get_type_hints(Facts).items() if type_ in {datetime, datetime | None})


@dataclass(frozen=True, slots=True)
class Columns:
    """The facts of incidents, excluding merged ones. Times are microseconds since 1970, or NEVER."""

    number: Ints
    service: Coded  # as stated, else derived
    severity: Ints  # the same
    monitoring: Booleans
    end_reason: Ints  # index in END_REASONS, -1 for none
    impact_stated: Coded  # Decimal or None
    began_at: Ints
    ended_at: Ints
    detected_at_stated: Ints
    impact_started_at: Ints
    acknowledged_at: Ints
    identified_at: Ints
    mitigated_at: Ints

    @classmethod
    def of(cls, numbers: Iterable[int], facts: Iterable[Facts]) -> "Columns":
        every = list(facts)
        times = {name: np.array([microseconds(getattr(each, name)) for each in every], np.int64) for name in TIMES}
        return cls(
            number=np.array(list(numbers), np.int64),
            service=coded(measures.service(each) for each in every),
            severity=np.array([measures.severity(each) for each in every], np.int64),
            monitoring=np.array([each.alert_class is AlertClass.MONITORING for each in every], np.bool_),
            end_reason=np.array(
                [-1 if each.end_reason is None else END_REASONS.index(each.end_reason) for each in every], np.int64
            ),
            impact_stated=coded(each.impact_stated for each in every),
            **times,
        )

    def __len__(self) -> int:
        return len(self.number)

    def detected_at(self) -> Ints:
        return _else(self.detected_at_stated, self.began_at)

    def began(self) -> Ints:
        """The impact start if known, else detection."""
        return _else(self.impact_started_at, self.detected_at())


def _else(stated: Ints, derived: Ints) -> Ints:
    return np.where(stated == NEVER, derived, stated)


# — measures —


class MeasuredMany(NamedTuple):
    """One measure of each incident. `outcome` is an index in OUTCOMES, for status and reason.

    Missing values in `seconds` and `waited` (`censored_seconds` in `Measured`) are NaN.
    """

    seconds: Floats
    waited: Floats
    outcome: Ints
    since: Ints  # the start of both durations


OUTCOMES: tuple[Measured, ...] = (
    Measured(None, MeasureStatus.RECORDED),
    NOT_ACKNOWLEDGED,
    NOT_ACKNOWLEDGED_YET,
    NOT_MITIGATED_YET,
    NOT_IDENTIFIED_YET,
    NOT_RECOVERED_YET,
    MONITORING,
    IMPACT_NOT_STATED,
    MITIGATION_NOT_STATED,
    IDENTIFICATION_NOT_STATED,
    DETECTED_EARLY,
    ACKNOWLEDGED_EARLY,
    ENDED_BEFORE_DETECTED,
    MITIGATED_EARLY,
    RECOVERED_EARLY,
    IDENTIFIED_EARLY,
    RECOVERED_BEFORE_IDENTIFIED,
    *(NOT_A_RECOVERY[reason] for reason in END_REASONS),
)
_PLACES = {each: place for place, each in enumerate(OUTCOMES)}
_FIRST_REASON = len(OUTCOMES) - len(END_REASONS)
_IS_RECOVERY = np.array([reason in RECOVERIES for reason in END_REASONS] + [True])  # the last one is for -1, no reason
_IS_PENDING = np.array([each.status is MeasureStatus.PENDING for each in OUTCOMES])


_Unless = Sequence[tuple[Booleans, Measured | Ints]]


def measured(columns: Columns, *, include_non_recoveries: bool = False, now: datetime) -> dict[str, MeasuredMany]:
    """`measures.measures` of each incident, with `now`."""
    detected, began, ended = columns.detected_at(), columns.began(), columns.ended_at
    impact, acknowledged, identified = columns.impact_started_at, columns.acknowledged_at, columns.identified_at
    is_open = ended == NEVER
    no_recovery = ~is_open & ~_IS_RECOVERY[columns.end_reason] & (not include_non_recoveries)
    not_recovered: _Unless = [(is_open, NOT_RECOVERED_YET), (no_recovery, _FIRST_REASON + columns.end_reason)]
    not_identified: _Unless = [
        ((identified == NEVER) & is_open, NOT_IDENTIFIED_YET),
        (identified == NEVER, IDENTIFICATION_NOT_STATED),
    ]
    detect = impact, _elapsed(impact, detected, DETECTED_EARLY, [(impact == NEVER, IMPACT_NOT_STATED)])
    found = {
        "time_to_detect": detect,
        "time_to_acknowledge": (
            detected,
            _elapsed(
                detected,
                acknowledged,
                ACKNOWLEDGED_EARLY,
                [
                    ((acknowledged == NEVER) & is_open, NOT_ACKNOWLEDGED_YET),
                    ((acknowledged == NEVER) & (ended < detected), ENDED_BEFORE_DETECTED),
                    (acknowledged == NEVER, NOT_ACKNOWLEDGED),
                ],
            ),
        ),
        "time_to_mitigate": (
            began,
            _elapsed(
                began,
                columns.mitigated_at,
                MITIGATED_EARLY,
                [
                    ((columns.mitigated_at == NEVER) & is_open, NOT_MITIGATED_YET),
                    (columns.mitigated_at == NEVER, MITIGATION_NOT_STATED),
                ],
            ),
        ),
        "time_to_recover": (began, _elapsed(began, ended, RECOVERED_EARLY, not_recovered)),
        "response": (detected, _elapsed(detected, identified, IDENTIFIED_EARLY, not_identified)),
        "remediation": (
            identified,
            _elapsed(identified, ended, RECOVERED_BEFORE_IDENTIFIED, [*not_identified, *not_recovered]),
        ),
    }
    left_out = columns.monitoring & (not include_non_recoveries)
    every = {
        name: _with_waits(_left_out(each, left_out), since, ended, microseconds(now))
        for name, (since, each) in found.items()
    }
    return every | {"detection": every["time_to_detect"]}


def _elapsed(start: Ints, end: Ints, negative: Measured, unless: _Unless) -> tuple[Floats, Ints]:
    """The seconds and the outcome: the first condition in `unless` that holds, else recorded or negative."""
    seconds = (end - start) / _SECOND
    outcome = np.select(
        [*(when for when, _ in unless), seconds < 0],
        [*(_PLACES[each] if isinstance(each, Measured) else each for _, each in unless), _PLACES[negative]],
        0,
    )
    return np.where(outcome == 0, seconds, np.nan), outcome


def _left_out(each: tuple[Floats, Ints], left_out: Booleans) -> tuple[Floats, Ints]:
    seconds, outcome = each
    return np.where(left_out, np.nan, seconds), np.where(left_out, _PLACES[MONITORING], outcome)


def _with_waits(each: tuple[Floats, Ints], since: Ints, ended: Ints, now: int) -> MeasuredMany:
    seconds, outcome = each
    waits = (ended == NEVER) & _IS_PENDING[outcome] & (since != NEVER) & (since <= now)
    ended_unseen = outcome == _PLACES[NOT_ACKNOWLEDGED]
    waited = np.select([waits, ended_unseen], [(now - since) / _SECOND, (ended - since) / _SECOND], np.nan)
    return MeasuredMany(seconds, waited, outcome, since)


# — harm —


@dataclass(frozen=True, slots=True)
class Harms:
    """`intervals.harm` of each incident. Impacts are integers; `scale` stands for the whole service."""

    service: Ints  # codes of the columns
    begins: Ints
    ends: Ints
    impact: Ints
    scale: int


def harms(columns: Columns, *, now: datetime, weights: Weights) -> Harms:
    ends = _else(columns.ended_at, np.full(len(columns), microseconds(now)))
    scale, impact = _impacts(columns, weights)
    return Harms(columns.service.codes, np.minimum(columns.began(), ends), ends, impact, scale)


def _impacts(columns: Columns, weights: Weights) -> tuple[int, Ints]:
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
    place = columns.impact_stated.codes * len(SEVERITIES) + columns.severity - 1
    impact = np.where(columns.monitoring, 0, table[place]) if shares else np.zeros(0, np.int64)
    return scale, impact
