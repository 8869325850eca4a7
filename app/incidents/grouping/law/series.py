"""Assigns the signals of a series to alerts, and computes the end of each alert. Pure."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from app.base.values.times import is_in_bounds
from app.incidents.grouping.batch import LAST_SEEN_PRECISION, AlertRow, Batch, Incoming, KnownSeries
from app.incidents.grouping.law.episode import (
    INFERRED,
    Ending,
    Episode,
    ReportedEnd,
    earlier,
    ending_of,
    endings_of,
    with_end,
    with_firing,
)
from app.incidents.grouping.signal import (
    EndReason,
    Status,
    Verdict,
    correlation_id,
    pending,
    with_correlation,
)

# Looked up once: access to an enum member costs as much as a small function call.
_FIRING = Status.FIRING
_JOINED, _REPEATED, _RESOLVED = Verdict.JOINED, Verdict.REPEATED, Verdict.RESOLVED


def apply_signals(
    batch: Batch, series: UUID, known: KnownSeries, incoming: Sequence[Incoming], indices: Sequence[int]
) -> None:
    """Finds or creates the alert of every signal of one series, and adds new ones to `known`.

    Signals with a start are applied first, because the others are assigned to the alerts that these create, in order of
    report time.
    """
    rows, unnamed = known.alerts, list[int]()
    for index in indices:
        one = incoming[index]
        signal = one.signal
        if signal.started_at is None:
            unnamed.append(index)
        elif signal.end_reason in INFERRED:
            _infer_end(batch, _row_at(rows, signal.started_at), one, index)
        else:
            row = _row_of(batch, rows, series, signal.started_at, one, index)
            if signal.status is not _FIRING:
                _end(batch, row, one, index)
    refire = incoming[indices[0]].refire
    compute_ends(known, refire=refire)
    if len(unnamed) > 1:
        unnamed.sort(key=lambda index: incoming[index].received_at)
    for index in unnamed:
        one = incoming[index]
        if one.signal.status is not _FIRING:
            _take_unmatched_resolve(batch, series, known, one, index)
        else:
            _row_of(batch, rows, series, _start_of_unnamed(rows, one), one, index)
        compute_ends(known, refire=refire)


def compute_ends(known: KnownSeries, *, refire: timedelta) -> None:
    """Updates the end of every alert of a series, as given by `endings_of`."""
    rows, unmatched = known.alerts, known.unmatched
    if len(rows) == 1 and not unmatched:
        [row] = rows
        _give_end(row, ending_of(row.episode, refire=refire))
        return
    for row, ending in zip(rows, endings_of([row.episode for row in rows], unmatched, refire=refire), strict=True):
        _give_end(row, ending)


def _give_end(row: AlertRow, ending: Ending) -> None:
    row.end = ending.end
    row.end_reported_at = ending.reported_at
    row.sender_ended = ending.by_sender
    row.covered = ending.covered


def _start_of_unnamed(rows: Sequence[AlertRow], one: Incoming) -> datetime:
    """The start of the alert that a firing without a start reports: of the last one while that is going on; otherwise
    of a new one, which begins after the last one has ended.
    """
    last = rows[-1] if rows else None
    if last is not None and _is_going_on(last, one.received_at):
        return last.started_at
    happened_at = one.signal.happened_at
    if happened_at is None or (last is not None and last.end is not None and happened_at <= last.end.at):
        return one.received_at
    return happened_at


def _is_going_on(row: AlertRow, at: datetime) -> bool:
    """Whether the sender still considers it firing: a repeat after a manual or inferred end creates no new alert, but
    one after it has expired does.
    """
    expires_at = row.episode.expires_at
    if expires_at is not None and at > expires_at + LAST_SEEN_PRECISION:
        return False
    if row.end is None or row.end.reason in INFERRED:
        return True
    return row.episode.manual_at is not None and not row.sender_ended


def _end(batch: Batch, row: AlertRow, one: Incoming, index: int) -> None:
    before = row.episode
    after = row.episode = with_end(before, one.signal, one.reported_at)
    if after is before or batch.verdicts[index] is _JOINED:  # nothing new, or the first signal of the alert
        return
    row.caused.append(index)
    if _differ(before.real, after.real) or _differ(before.guessed, after.guessed):
        batch.verdicts[index] = _RESOLVED


def _differ(before: ReportedEnd | None, after: ReportedEnd | None) -> bool:
    """Whether they are different ends, not only different reports of one."""
    if before is None or after is None:
        return before is not after
    return (before.at, before.reason) != (after.at, after.reason)


def _infer_end(batch: Batch, row: AlertRow | None, one: Incoming, index: int) -> None:
    """An inferred end never creates an alert. One before the latest report that the alert fires will never hold."""
    if row is None:
        return
    batch.shown[index] = row
    row.episode = with_end(row.episode, one.signal, one.reported_at)
    row.caused.append(index)


def _row_of(
    batch: Batch, rows: list[AlertRow], series: UUID, started_at: datetime, one: Incoming, index: int
) -> AlertRow:
    """Finds or creates the alert with this start, and records that the signal reported it, and whether it fires."""
    row = _row_at(rows, started_at)
    signal, decision, reported_at = one.signal, one.decision, one.reported_at
    fires = signal.status is _FIRING
    if row is None:
        row = AlertRow(
            series=series,
            started_at=started_at,
            source_id=one.source_id,
            key_id=decision.key_id,
            incident_id=None,
            window=decision.window,
            max_span=decision.max_span,
            severity=decision.severity,
            labels=signal.labels,
            incoming=one,
            caused=[index],
            last_seen_at=one.received_at,
            episode=Episode(
                started_at,
                reported_at if fires else None,
                listed_since=signal.listed_since,
                expires_at=signal.expires_at,
            ),
        )
        if (length := pending(signal.annotations)) and is_in_bounds(started_at - length):
            row.impact_started_at_reported = started_at - length
        batch.rows.append(row)
        insort(rows, row, key=_start)
        batch.verdicts[index] = _JOINED  # until it is assigned to an incident
    else:
        batch.verdicts.setdefault(index, _REPEATED)
        if fires:
            row.episode = with_firing(row.episode, reported_at, signal.listed_since, signal.expires_at)
            if row.end is not None:
                row.fired = (*row.fired, index)
        # The worst severity reported for a start counts, whatever the order.
        row.severity = min(row.severity, decision.severity)
        if row.last_seen_at is None or row.last_seen_at < one.received_at:
            row.last_seen_at = one.received_at
    if signal.correlation:
        correlation, known = correlation_id(signal.correlation), row.correlations
        if known is None or correlation not in known:
            row.correlations = with_correlation(known, correlation)
    batch.shown[index] = row
    return row


def _row_at(rows: list[AlertRow], started_at: datetime) -> AlertRow | None:
    """The alert with this start; `rows` are the alerts of one series in order of start."""
    index = bisect_left(rows, started_at, key=_start)
    return rows[index] if index < len(rows) and rows[index].started_at == started_at else None


def _start(row: AlertRow) -> datetime:
    return row.started_at


def _take_unmatched_resolve(batch: Batch, series: UUID, known: KnownSeries, one: Incoming, index: int) -> None:
    signal = one.signal
    assert signal.ended_at is not None, "a resolve has an end"
    end = ReportedEnd(signal.ended_at, signal.end_reason or EndReason.RECOVERED, one.reported_at)
    target = max((row for row in known.alerts if row.started_at <= end.at), key=_start, default=None)
    if target is None:
        batch.verdicts[index] = Verdict.IGNORED  # there is no alert to end yet; it is kept for later
    else:
        batch.shown[index] = target
        batch.verdicts[index] = _REPEATED
    place = next((place for place, other in enumerate(known.unmatched) if other.at == end.at), None)
    if place is None:
        known.unmatched.append(end)
    else:
        before = known.unmatched[place]
        end = earlier(before, end)
        if end == before:
            return
        known.unmatched[place] = end
    batch.unmatched_resolves[series, end.at] = end
    if target is not None:
        target.caused.append(index)
        if place is None:
            batch.verdicts[index] = _RESOLVED
