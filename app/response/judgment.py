"""Whether many incidents met their targets: the same as `targets.judge`, computed by column.

Pure: no clock, no I/O, no settings. A property test checks that both agree on every incident.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np

from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import EndReason
from app.incidents.measures.business_hours import BusinessHours, clock, seconds
from app.incidents.measures.vectorized import END_REASONS, NEVER, Booleans, Columns, Floats, Ints, microseconds
from app.response.targets import Agreements, Judged, Target, TargetOutcome

OUTCOMES = tuple(TargetOutcome)
_PLACES = {outcome: place for place, outcome in enumerate(OUTCOMES)}
_SECOND = 1e6
_IS_RECOVERY = np.array([reason in RECOVERIES for reason in END_REASONS] + [True])  # the last one is for no reason
_SUPERSEDED, _BEFORE_START = map(END_REASONS.index, (EndReason.SUPERSEDED, EndReason.ENDS_BEFORE_START))


def judge_many(
    columns: Columns,
    agreements: Agreements,
    updates: Mapping[int, Sequence[datetime]],
    calendars: Mapping[str, BusinessHours],
    *,
    now: datetime,
    parts_at_most: int | None = None,
) -> Mapping[Judged, Ints]:
    """For each target the outcome of each incident, as an index in OUTCOMES.

    `updates` has the times of updates to stakeholders, by number of the incident; `calendars` those that the targets
    name. Raises TooManyHours.
    """
    detected, ended, acknowledged = columns.detected_at(), columns.ended_at, columns.acknowledged_at
    targets, chosen = _in_force(columns, agreements)
    measured = _Clocks(targets, chosen, calendars, parts_at_most)
    is_open = ended == NEVER
    until = np.where(is_open, microseconds(now), ended)
    waited = np.where(is_open, np.maximum(until, detected), until)
    cannot_be_judged = columns.monitoring | (~is_open & (columns.end_reason == _BEFORE_START))
    ends_early = ~is_open & (ended < detected)

    def outcome(what: Judged, *when: tuple[Booleans, TargetOutcome], default: TargetOutcome) -> Ints:
        limits = _limits(targets, chosen, what)
        cases = [(np.isnan(limits), TargetOutcome.NOT_AGREED), (cannot_be_judged, TargetOutcome.CANNOT_TELL), *when]
        return np.select([each for each, _ in cases], [_PLACES[found] for _, found in cases], _PLACES[default])

    known = acknowledged != NEVER
    at = np.where(known, acknowledged, waited)
    late = measured.between(detected, np.maximum(at, detected)) > _limits(targets, chosen, Judged.ACKNOWLEDGE)
    long = measured.between(detected, np.maximum(waited, detected)) > _limits(targets, chosen, Judged.RESOLVE)
    gap = _longest_gaps(columns, detected, until, updates, measured) > _limits(targets, chosen, Judged.UPDATE)
    recovered = _IS_RECOVERY[columns.end_reason]
    return {
        Judged.ACKNOWLEDGE: outcome(
            Judged.ACKNOWLEDGE,
            (at < detected, TargetOutcome.CANNOT_TELL),
            (late, TargetOutcome.MISSED),
            (known, TargetOutcome.MET),
            (is_open, TargetOutcome.PENDING),
            default=TargetOutcome.CANNOT_TELL,
        ),
        Judged.UPDATE: outcome(
            Judged.UPDATE,
            (ends_early, TargetOutcome.CANNOT_TELL),
            (gap, TargetOutcome.MISSED),
            (is_open, TargetOutcome.PENDING),
            default=TargetOutcome.MET,
        ),
        Judged.RESOLVE: outcome(
            Judged.RESOLVE,
            (ends_early, TargetOutcome.CANNOT_TELL),
            (is_open & ~long, TargetOutcome.PENDING),
            (is_open, TargetOutcome.MISSED),
            (recovered & ~long, TargetOutcome.MET),
            (recovered | ((columns.end_reason == _SUPERSEDED) & long), TargetOutcome.MISSED),
            default=TargetOutcome.CANNOT_TELL,
        ),
    }


def _in_force(columns: Columns, agreements: Agreements) -> tuple[Sequence[Target], Ints]:
    """All targets, and for each incident the index of its own; -1 without any."""
    detected = columns.detected_at()
    targets: list[Target] = []
    chosen = np.full(len(columns), -1, np.int64)
    pairs = columns.service.codes * 10 + columns.severity
    for pair in np.unique(pairs).tolist():
        rows = np.flatnonzero(pairs == pair)
        name, severity = columns.service.values[pair // 10], pair % 10
        for service in ("", name):  # those of the service replace those of all
            candidates = agreements.by_time(service, severity)
            if not candidates:
                continue
            since = np.array([microseconds(each.valid_from) for each in candidates], np.int64)
            place = np.searchsorted(since, detected[rows], "right") - 1
            chosen[rows] = np.where(place >= 0, place + len(targets), chosen[rows])
            targets += candidates
    return targets, chosen


def _limits(targets: Sequence[Target], chosen: Ints, what: Judged) -> Floats:
    """In seconds; NaN where nothing is agreed on."""
    stated = (getattr(each, f"{what}_seconds") for each in targets)
    limits = np.array([*(np.nan if each is None else each for each in stated), np.nan], np.float64)
    return limits[chosen]


class _Clocks:
    """The clock of each incident's target."""

    def __init__(
        self,
        targets: Sequence[Target],
        chosen: Ints,
        calendars: Mapping[str, BusinessHours],
        parts_at_most: int | None,
    ) -> None:
        names = [None, *sorted({each.calendar for each in targets if each.calendar is not None})]
        self._hours = [None if name is None else calendars[name] for name in names]
        self._of = np.array([*(names.index(each.calendar) for each in targets), 0], np.int64)[chosen]
        self._parts_at_most = parts_at_most

    def between(self, begin: Ints, end: Ints, incident: Ints | None = None) -> Floats:
        """Seconds of each span, which belongs to the incident with this index; None: one of each."""
        found: Floats = (end - begin) / _SECOND
        of = self._of if incident is None else self._of[incident]
        for place, hours in enumerate(self._hours):
            rows = np.flatnonzero(of == place)
            if hours is not None and rows.size:
                known = clock(hours, np.concatenate([begin[rows], end[rows]]), parts_at_most=self._parts_at_most)
                found[rows] = seconds(known, begin[rows], end[rows])
        return found


def _longest_gaps(
    columns: Columns, detected: Ints, until: Ints, updates: Mapping[int, Sequence[datetime]], measured: _Clocks
) -> Floats:
    longest = np.where(until >= detected, measured.between(detected, np.maximum(until, detected)), 0.0)
    spans: list[tuple[int, int, int]] = []
    for place in np.flatnonzero(np.isin(columns.number, [*updates])).tolist():
        begin, end = int(detected[place]), int(until[place])
        inside = sorted(at for each in updates[int(columns.number[place])] if begin < (at := microseconds(each)) < end)
        if inside:
            longest[place] = 0.0
            spans += [(place, *gap) for gap in pairwise([begin, *inside, end])]
    if spans:
        incident, begins, ends = (np.array(each, np.int64) for each in zip(*spans, strict=True))
        np.maximum.at(longest, incident, measured.between(begins, ends, incident))
    return longest
