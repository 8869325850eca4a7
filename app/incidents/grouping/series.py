"""Assigns the signals of a series to alerts, and computes the end of each alert. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from app.incidents.grouping.batch import AlertRow, Batch, Incoming, KnownSeries
from app.incidents.grouping.signal import (
    INFERRED,
    End,
    EndReason,
    Episode,
    Signal,
    Status,
    Verdict,
    effective_end,
    ends_of,
    inherited_ends,
    latest,
    pending,
)

# Looked up once: access to an enum member costs as much as a small function call.
_FIRING = Status.FIRING
_JOINED, _REPEATED = Verdict.JOINED, Verdict.REPEATED


def apply_signals(
    batch: Batch, series: UUID, known: KnownSeries, incoming: Sequence[Incoming], indices: Iterable[int]
) -> None:
    """Finds or creates the alert of every signal of one series, and adds new ones to `known`.

    Signals with a start are applied first, because the others are assigned to the alerts that these create.
    """
    rows, unnamed = known.alerts, list[int]()
    for index in indices:
        one = incoming[index]
        signal = one.signal
        if signal.started_at is None:
            unnamed.append(index)
        elif signal.end_reason in INFERRED:
            _infer_end(batch, _row_at(rows, signal.started_at), signal, index)
        else:
            row = _row_of(batch, rows, series, signal.started_at, one, index)
            if signal.status is _FIRING:
                _see_again(row, one.received_at, index)
            elif _believe(row, _end_of(signal)):
                row.caused.append(index)
                batch.verdicts.setdefault(index, Verdict.RESOLVED)
            batch.verdicts.setdefault(index, _REPEATED)
    compute_ends(known)
    for index in unnamed:
        one = incoming[index]
        if one.signal.status is Status.RESOLVED:
            _take_unmatched_resolve(batch, series, known, _end_of(one.signal), index)
        elif rows and _is_going_on(rows[-1]):
            row = _row_of(batch, rows, series, rows[-1].started_at, one, index)
            _see_again(row, one.received_at, index)
            batch.verdicts.setdefault(index, Verdict.REPEATED)
        else:
            _row_of(batch, rows, series, one.received_at, one, index)
            batch.verdicts.setdefault(index, Verdict.REPEATED)
        compute_ends(known)


def compute_ends(known: KnownSeries) -> None:
    """Updates the end of every alert of a series, as given by `ends_of`."""
    rows, unmatched = known.alerts, known.unmatched
    if len(rows) == 1 and not unmatched:
        [row] = rows
        by_sender = effective_end(row.named_end)
        end = effective_end(row.named_end, row.manual_end_at) if row.manual_end_at else by_sender
        _give_end(row, row.named_end, by_sender, end)
        return
    episodes = [Episode(row.started_at, row.named_end, row.manual_end_at) for row in rows]
    ends = by_senders = ends_of(episodes, unmatched)
    if any(row.manual_end_at for row in rows):
        by_senders = ends_of([replace(episode, manual_end_at=None) for episode in episodes], unmatched)
    for row, real_end, by_sender, end in zip(rows, inherited_ends(episodes), by_senders, ends, strict=True):
        _give_end(row, real_end, by_sender, end)


def _give_end(row: AlertRow, real_end: End | None, by_sender: End | None, end: End | None) -> None:
    """`by_sender` is the end without any manual resolve."""
    row.real_end = real_end
    # Resolved manually and now by its sender: the end stays, but the incident may no longer be `still_firing`.
    confirmed = row.manual_end_at is not None and not row.sender_ended and by_sender is not None
    row.sender_ended = by_sender is not None
    if end != row.end or confirmed:
        if row.incoming is None and row.before is None:
            row.before = (row.end,)
        row.end = end


def _is_going_on(row: AlertRow) -> bool:
    """Whether the sender still considers it firing: a repeat after a manual or inferred end creates no new alert."""
    if row.end is None or row.end.reason in INFERRED:
        return True
    return row.manual_end_at is not None and not row.sender_ended


def _believe(row: AlertRow, end: End) -> bool:
    """Adopts the end if it takes precedence over the reported one; returns whether it did."""
    if end == row.named_end or end != latest(row.named_end, end):
        return False
    row.named_end = end
    return True


def _infer_end(batch: Batch, row: AlertRow | None, signal: Signal, index: int) -> None:
    """An inferred end applies only if the alert was not reported since; it never creates an alert."""
    if row is None or row.last_seen_at is None:
        return
    end = _end_of(signal)
    if max(row.last_seen_at, row.started_at) <= end.at and _believe(row, end):
        row.caused.append(index)
        batch.shown[index] = row
        batch.verdicts[index] = Verdict.RESOLVED


def _see_again(row: AlertRow, at: datetime, index: int) -> None:
    """Drops an inferred end if the alert is reported again after it."""
    known = row.named_end
    if known is not None and known.reason in INFERRED and at > known.at:
        row.named_end = None
        row.caused.append(index)


def _row_of(
    batch: Batch, rows: list[AlertRow], series: UUID, started_at: datetime, one: Incoming, index: int
) -> AlertRow:
    """Finds or creates the alert with this start, and records that the signal reported it."""
    row = _row_at(rows, started_at)
    if row is None:
        decision = one.decision
        row = AlertRow(
            series=series,
            started_at=started_at,
            source_id=one.source_id,
            key_id=decision.key_id,
            incident_id=None,
            window=decision.window,
            max_span=decision.max_span,
            severity=decision.severity,
            labels=one.signal.labels,
            incoming=one,
            caused=[index],
        )
        if length := pending(one.signal.annotations):
            row.impact_started_at_reported = started_at - length
        batch.rows.append(row)
        insort(rows, row, key=_start)
        batch.verdicts[index] = _JOINED  # until it is assigned to an incident
    else:
        row.seen_again = True
    if row.last_seen_at is None or row.last_seen_at < one.received_at:
        row.last_seen_at = one.received_at
    batch.shown[index] = row
    return row


def _row_at(rows: list[AlertRow], started_at: datetime) -> AlertRow | None:
    """The alert with this start; `rows` are the alerts of one series in order of start."""
    index = bisect_left(rows, started_at, key=_start)
    return rows[index] if index < len(rows) and rows[index].started_at == started_at else None


def _start(row: AlertRow) -> datetime:
    return row.started_at


# Flags of ends that were replaced by the time of receipt.
_GUESSED = frozenset({"ends_unknown", "ends_clamped"})


def _end_of(signal: Signal) -> End:
    assert signal.ended_at is not None, "a resolve has an end"
    guessed = signal.end_reason in INFERRED or not _GUESSED.isdisjoint(signal.flags)
    return End(signal.ended_at, signal.end_reason or EndReason.RECOVERED, guessed)


def _take_unmatched_resolve(batch: Batch, series: UUID, known: KnownSeries, end: End, index: int) -> None:
    target = max((row for row in known.alerts if row.started_at <= end.at), key=_start, default=None)
    if target is None:
        batch.verdicts[index] = Verdict.IGNORED  # there is no alert to end yet; it is kept for later
    else:
        batch.shown[index] = target
        batch.verdicts[index] = Verdict.REPEATED
    if not any(other.at == end.at for other in known.unmatched):
        known.unmatched.append(end)
        batch.unmatched_resolves.append((series, end))
        if target is not None:
            target.caused.append(index)
            batch.verdicts[index] = Verdict.RESOLVED
