"""Vectorized facts and measures of many incidents: one column per fact, computed in a few passes.

Pure: no clock, no I/O, no settings. `measures.py` defines the measures for one incident; this module computes the same
for hundreds of thousands, about a hundred times faster. A property test checks that both agree on every incident.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from app.base.values.times import EPOCH, MICROSECOND
from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures import measures
from app.incidents.measures.measures import (
    ACKNOWLEDGED_EARLY,
    DECLARED_EARLY,
    DETECTED_BY_DECLARATION,
    DETECTED_EARLY,
    END_UNKNOWN,
    ENDED_BEFORE_DETECTED,
    IDENTIFICATION_NOT_STATED,
    IDENTIFIED_EARLY,
    IMPACT_NOT_STATED,
    MITIGATED_EARLY,
    MITIGATION_NOT_STATED,
    MONITORING,
    NO_REVIEW,
    NOT_A_RECOVERY,
    NOT_ACKNOWLEDGED,
    NOT_ACKNOWLEDGED_YET,
    NOT_DECLARED,
    NOT_DECLARED_YET,
    NOT_IDENTIFIED_YET,
    NOT_MITIGATED_YET,
    NOT_PUBLISHED,
    NOT_PUBLISHED_YET,
    NOT_READY_YET,
    NOT_RECOVERED_YET,
    NOT_REVIEWED_YET,
    PUBLISHED_EARLY,
    READY_EARLY,
    RECOVERED_BEFORE_IDENTIFIED,
    RECOVERED_EARLY,
    REVIEWED_EARLY,
    Facts,
    Measured,
    MeasureStatus,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

NEVER = int(np.iinfo(np.int64).min)  # stands for an unknown time
END_REASONS = tuple(EndReason)
_SECOND = 1e6


def microseconds(at: datetime | None) -> int:
    """Microseconds since 1970; NEVER for None."""
    return NEVER if at is None else (at - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


class Categorical(NamedTuple):
    """A column with few distinct values; `codes` are indices into `values`."""

    codes: Ints
    values: Sequence[Any]


def coded(column: Iterable[Hashable]) -> Categorical:
    every = list(column)
    known = {value: place for place, value in enumerate(dict.fromkeys(every))}
    return Categorical(np.fromiter(map(known.__getitem__, every), np.int64, len(every)), list(known))


TIMES = tuple(name for name, type_ in get_type_hints(Facts).items() if type_ in {datetime, datetime | None})


@dataclass(frozen=True, slots=True)
class Columns:
    """The facts of incidents, excluding merged ones. Times are microseconds since 1970, or NEVER."""

    number: Ints
    service: Categorical  # as stated, else derived
    severity: Ints  # as stated, else the worst of its alerts
    has_severity_stated: Booleans
    monitoring: Booleans
    end_reason: Ints  # index in END_REASONS, -1 for none
    impact_stated: Categorical  # Decimal or None
    harmed_throughout: Booleans
    review_planned: Booleans
    began_at: Ints
    ended_at: Ints
    detected_at_stated: Ints
    impact_started_at: Ints
    acknowledged_at: Ints
    declared_at: Ints
    first_public_at: Ints
    identified_at: Ints
    mitigated_at: Ints
    reviewed_at: Ints
    ready_at: Ints
    impact_started_at_stated: Ints

    @classmethod
    def of(cls, numbers: Iterable[int], facts: Iterable[Facts]) -> "Columns":
        every = list(facts)
        times = {name: np.array([microseconds(getattr(each, name)) for each in every], np.int64) for name in TIMES}
        return cls(
            number=np.array(list(numbers), np.int64),
            service=coded(measures.service(each) for each in every),
            severity=np.array([measures.severity(each) for each in every], np.int64),
            has_severity_stated=np.array([each.severity_stated is not None for each in every], np.bool_),
            monitoring=np.array([each.alert_class is AlertClass.MONITORING for each in every], np.bool_),
            end_reason=np.array(
                [-1 if each.end_reason is None else END_REASONS.index(each.end_reason) for each in every], np.int64
            ),
            impact_stated=coded(each.impact_stated for each in every),
            harmed_throughout=np.array([bool(each.harmed_throughout_stated) for each in every], np.bool_),
            review_planned=np.array([each.review_planned for each in every], np.bool_),
            **times,
        )

    def __len__(self) -> int:
        return len(self.number)

    def detected_at(self) -> Ints:
        return else_(self.detected_at_stated, self.began_at)

    def began(self) -> Ints:
        """The impact start if known, else detection."""
        return else_(self.impact_started_at, self.detected_at())


def else_(stated: Ints, derived: Ints) -> Ints:
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

    def of(self, incidents: Ints) -> "MeasuredMany":
        return MeasuredMany(
            self.seconds[incidents], self.waited[incidents], self.outcome[incidents], self.since[incidents]
        )


OUTCOMES: tuple[Measured, ...] = (
    Measured(None, MeasureStatus.RECORDED),
    NOT_ACKNOWLEDGED,
    NOT_ACKNOWLEDGED_YET,
    NOT_DECLARED,
    NOT_DECLARED_YET,
    DETECTED_BY_DECLARATION,
    NOT_PUBLISHED,
    NOT_PUBLISHED_YET,
    NOT_MITIGATED_YET,
    NOT_IDENTIFIED_YET,
    NOT_RECOVERED_YET,
    NOT_REVIEWED_YET,
    NOT_READY_YET,
    MONITORING,
    NO_REVIEW,
    IMPACT_NOT_STATED,
    MITIGATION_NOT_STATED,
    IDENTIFICATION_NOT_STATED,
    DETECTED_EARLY,
    ACKNOWLEDGED_EARLY,
    DECLARED_EARLY,
    PUBLISHED_EARLY,
    ENDED_BEFORE_DETECTED,
    MITIGATED_EARLY,
    RECOVERED_EARLY,
    IDENTIFIED_EARLY,
    RECOVERED_BEFORE_IDENTIFIED,
    REVIEWED_EARLY,
    READY_EARLY,
    END_UNKNOWN,
    *(NOT_A_RECOVERY[reason] for reason in END_REASONS),
)
_PLACES = {each: place for place, each in enumerate(OUTCOMES)}
_FIRST_REASON = len(OUTCOMES) - len(END_REASONS)
_IS_RECOVERY = np.array([reason in RECOVERIES for reason in END_REASONS] + [True])  # the last one is for -1, no reason
_BEFORE_START = END_REASONS.index(EndReason.ENDS_BEFORE_START)
# Outcomes of incidents that ended without the event, after a time that is known.
CENSORED = [_PLACES[NOT_ACKNOWLEDGED], _PLACES[NOT_A_RECOVERY[EndReason.SUPERSEDED]]]
_IS_CENSORED = np.isin(np.arange(len(OUTCOMES)), CENSORED)
_IS_PENDING = np.array([each.status is MeasureStatus.PENDING for each in OUTCOMES])


_Unless = Sequence[tuple[Booleans, Measured | Ints]]


def measured(
    columns: Columns,
    *,
    include_non_recoveries: bool = False,
    now: datetime,
    names: Collection[str] | None = None,
) -> dict[str, MeasuredMany]:
    """`measures.measures` of each incident, with `now`; only those with these names (None: all)."""
    detected, began, ended = columns.detected_at(), columns.began(), columns.ended_at
    impact, acknowledged, identified = columns.impact_started_at, columns.acknowledged_at, columns.identified_at
    is_open = ended == NEVER
    end_unknown = ~is_open & (columns.end_reason == _BEFORE_START)
    no_recovery = ~is_open & ~_IS_RECOVERY[columns.end_reason] & (not include_non_recoveries)
    not_recovered: _Unless = [
        (is_open, NOT_RECOVERED_YET),
        (end_unknown, END_UNKNOWN),
        (no_recovery, _FIRST_REASON + columns.end_reason),
    ]
    not_identified: _Unless = [
        ((identified == NEVER) & is_open, NOT_IDENTIFIED_YET),
        (identified == NEVER, IDENTIFICATION_NOT_STATED),
    ]
    reviewed = columns.reviewed_at
    not_reviewed: _Unless = [
        ((reviewed == NEVER) & columns.review_planned, NOT_REVIEWED_YET),
        (reviewed == NEVER, NO_REVIEW),
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
                    ((acknowledged == NEVER) & end_unknown, END_UNKNOWN),
                    ((acknowledged == NEVER) & (ended < detected), ENDED_BEFORE_DETECTED),
                    (acknowledged == NEVER, NOT_ACKNOWLEDGED),
                ],
            ),
        ),
        "time_to_declare": (
            detected,
            _elapsed(
                detected,
                columns.declared_at,
                DECLARED_EARLY,
                [
                    ((columns.declared_at == NEVER) & is_open, NOT_DECLARED_YET),
                    (columns.declared_at == NEVER, NOT_DECLARED),
                    (columns.declared_at == detected, DETECTED_BY_DECLARATION),
                ],
            ),
        ),
        "time_to_public_update": (
            detected,
            _elapsed(
                detected,
                columns.first_public_at,
                PUBLISHED_EARLY,
                [
                    ((columns.first_public_at == NEVER) & is_open, NOT_PUBLISHED_YET),
                    (columns.first_public_at == NEVER, NOT_PUBLISHED),
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
        "analysis": (
            ended,
            _elapsed(
                ended,
                reviewed,
                REVIEWED_EARLY,
                [(is_open, NOT_RECOVERED_YET), (end_unknown, END_UNKNOWN), *not_reviewed],
            ),
        ),
        "readiness": (
            reviewed,
            _elapsed(
                reviewed,
                columns.ready_at,
                READY_EARLY,
                [
                    ((reviewed == NEVER) & is_open, NOT_RECOVERED_YET),
                    *not_reviewed,
                    (columns.ready_at == NEVER, NOT_READY_YET),
                ],
            ),
        ),
    }
    left_out = columns.monitoring & (not include_non_recoveries)
    wanted = {*found, "detection"} if names is None else {*names}
    every = {
        name: _with_waits(_left_out(each, left_out), since, ended, microseconds(now))
        for name, (since, each) in found.items()
        if name in wanted or (name == "time_to_detect" and "detection" in wanted)
    }
    every |= {"detection": every["time_to_detect"]} if "detection" in wanted else {}
    return {name: each for name, each in every.items() if name in wanted}


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
    waits = _IS_PENDING[outcome] & (since != NEVER) & (since <= now)
    ended_without = _IS_CENSORED[outcome] & (since != NEVER) & (since <= ended)
    waited = np.select([waits, ended_without], [(now - since) / _SECOND, (ended - since) / _SECOND], np.nan)
    return MeasuredMany(seconds, waited, outcome, since)
